"""`mudit cost`: before a study is run."""

from __future__ import annotations

from collections.abc import Sequence

from mudit.cli.parsing import parse_study, study_parser, take_recipe
from mudit.cli.texts import cost_text
from mudit.recipes import cost_lines
from mudit.tuning import study_cost


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = study_parser(
        "cost",
        "What a study would cost: the search as a share of one target training, by Eq. (1) of the "
        "paper (parameters × batch × steps) and by FLOPs counted on the models.",
    )
    recipe, options = take_recipe(argv)
    if recipe is None:
        print(cost_text(study_cost(parse_study(parser, options))))
        return 0
    config = parse_study(parser, options, recipe.study)
    print(cost_text(recipe.cost(config)))
    if config == recipe.study:
        print("\n".join(cost_lines(recipe)))
    return 0

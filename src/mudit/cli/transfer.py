"""`mudit transfer`: the main job."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mudit.cli.parsing import parse_study, study_parser, take_recipe, without_secrets
from mudit.cli.progress import Terminal
from mudit.cli.texts import preview_text, transfer_line
from mudit.tuning import preview, transfer


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = study_parser(
        "transfer",
        "Tune base HPs on a small proxy, train the big target with the best, sample it, and write "
        "a report (Algorithm 4). With no options: scikit-learn's digits, five learning rates. The "
        "same command again resumes. With --dry-run: print config, plan and cost, and stop.",
    )
    # Not one of the parser's, so that --print_config holds a study and nothing else.
    options = [option for option in argv if option != "--dry-run"]
    dry = len(options) < len(argv)
    recipe, options = take_recipe(options)
    config = parse_study(parser, options, None if recipe is None else recipe.study)
    if dry:
        print(preview_text(preview(config) if recipe is None else recipe.preview(config)))
        return 0
    if recipe is not None:
        recipe.require_data(config)
    command = shlex.join(["mudit", "transfer", *without_secrets(argv)])
    with Terminal() as terminal:
        result = transfer(config, command=command, listener=terminal)
    print(transfer_line(result))
    return 0 if result.main.target.status == "complete" else 1

"""`mudit cost`: before a study is run."""

from __future__ import annotations

from collections.abc import Sequence

from mudit.cli.parsing import parse_study, study_parser
from mudit.cli.texts import cost_text
from mudit.tuning import preview


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = study_parser(
        "cost",
        "What a study would cost: the search as a share of one target training, by Eq. (1) of the "
        "paper (parameters × batch × steps) and by FLOPs counted on the models.",
    )
    print(cost_text(preview(parse_study(parser, argv))))
    return 0

"""`mudit advise`: which proxy would have been enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mudit.cli.parsing import make_parser, parse
from mudit.tuning import advise_study


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = make_parser(
        "advise",
        "From a finished verify study: for every size (and, where it validated on the way, every "
        "number of steps) the value that a search there would have chosen, what that loses at the "
        "largest size, what the search costs, and which one to take.",
    )
    parser.add_argument("folder", type=str, help="the verify study's folder")
    folder = Path(parse(parser, argv).folder)
    found = advise_study(folder)
    print(found.to_markdown(), end="")
    print(f"\n{folder / 'advice.md'}")
    return 4 if found.advice.recommended is None else 0

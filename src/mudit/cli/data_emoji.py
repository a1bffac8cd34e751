"""`mudit data emoji`: a captioned data set that needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mudit.cli.parsing import make_parser, parse
from mudit.data import draw_emoji


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = make_parser(
        "data emoji",
        "Draw every emoji of a colour font on white, and write names and keywords beside them. The "
        "folder is a data set then: --data.source captions:FOLDER. Skin tones and genders of one "
        "emoji stay together, all trained on or all held out. The same command again does what is "
        "left of it.",
    )
    parser.add_argument("--out", type=str, default="data/emoji", help="the folder")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures, pixels")
    parser.add_argument("--font", type=str, default="", help="the font; default: the system's")
    options = parse(parser, argv)
    console = Console(stderr=True)
    with console.status("drawing") as status:
        drawn = draw_emoji(
            Path(options.out),
            size=options.size,
            font=options.font,
            on_progress=lambda count: status.update(f"drawing: {count} emoji"),
        )
    print(
        f"{drawn.pictures} emoji in {options.out}; the font cannot draw {drawn.skipped} others\n"
        f"mudit train --model mmdit --objective.kind flow --data.source captions:{options.out} "
        f"--data.size {options.size}"
    )
    return 0

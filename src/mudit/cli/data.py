"""`mudit data`: prepare data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mudit.cli.parsing import make_parser, parse
from mudit.data import draw_emoji
from mudit.errors import UsageError

_WHAT = {"emoji": "draw every emoji of the system's colour font, with captions"}


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    what = argv[0] if argv else ""
    if what in ("-h", "--help"):
        lines = "\n".join(f"  {name}  {words}" for name, words in _WHAT.items())
        print(f"usage: mudit data WHAT [options]\n\nPrepare a data set.\n\n{lines}")
        raise SystemExit(0)
    if what not in _WHAT:
        raise UsageError(f"mudit data got {what!r}; expected one of: {', '.join(_WHAT)}.")
    return _emoji(argv[1:])


def _emoji(argv: Sequence[str]) -> int:
    parser = make_parser(
        "data emoji",
        "Draw every emoji of a colour font, centred on white, and write names and keywords beside "
        "them. The folder is then a data set: --data.source captions:FOLDER. Skin tones and "
        "genders of one emoji stay together, all trained on or all held out.",
    )
    parser.add_argument("--out", type=str, default="data/emoji", help="the folder")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures, pixels")
    parser.add_argument("--font", type=str, default="", help="the font; default: the system's")
    options = parse(parser, argv)
    drawn = draw_emoji(Path(options.out), size=options.size, font=options.font)
    print(
        f"{drawn.pictures} emoji in {options.out}; the font cannot draw {drawn.skipped} others\n"
        f"mudit transfer --data.source captions:{options.out} --data.size 32"
    )
    return 0

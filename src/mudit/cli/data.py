"""`mudit data WHAT`: prepare data sets. Each WHAT is a module `data_WHAT` beside this one."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence

from mudit.errors import UsageError

WHAT = {
    "emoji": "draw every emoji of the system's colour font, with captions",
    "latents": "encode images with a VAE",
    "text": "encode captions with a text encoder",
}


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    what, rest = (argv[0], argv[1:]) if argv else ("", argv)
    if what in ("-h", "--help"):
        _help()
    if what not in WHAT:
        got = repr(what) if what else "nothing"
        raise UsageError(
            f"`mudit data` is asked to prepare {got}; expected one of: {', '.join(WHAT)}. Give it "
            "before the options, e.g. `mudit data emoji --size 64`."
        )
    code: int = importlib.import_module(f"mudit.cli.data_{what}").run(rest)
    return code


def _help() -> None:
    lines = "\n".join(f"  {name:<10} {words}" for name, words in WHAT.items())
    print(f"usage: mudit data WHAT [options]\n\nPrepare a data set.\n\n{lines}")
    for name in WHAT:
        print()
        with contextlib.suppress(SystemExit):
            importlib.import_module(f"mudit.cli.data_{name}").run(["--help"])
    raise SystemExit(0)

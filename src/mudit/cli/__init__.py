"""The command line: parse, one library call, print. A verb's module is imported when it is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from mudit import __version__
from mudit.errors import MuditError

VERBS = {
    "transfer": "tune base HPs on a small proxy, train the big target with the best (Algorithm 4)",
    "verify": "does the best value of a base HP stay put as models grow? (Algorithms 1-3)",
    "advise": "which proxy would have been enough, from a verify study",
    "train": "train the target task with given base HPs",
    "sample": "draw images from a trained run",
    "export": "write a trained run as a folder for diffusers, with a model card",
    "certify": "prove which weight has which role: the forward pass as an NE⊗OR⊤ program",
    "check": "the coordinate check: what grows with width in training, and the likely cause",
    "data": "prepare data sets: encode images and captions, draw the emoji of the system's font",
    "plan": "print what μP does to each parameter of a model",
    "cost": "what a study would cost, before it is run",
    "recipes": "complete studies by name, for --recipe: the paper's, and ones for a CPU",
    "report": "write the report of a finished study again",
}

_HELP = f"""\
usage: mudit VERB [--config FILE.yaml] [--a.b VALUE ...]

mudit {__version__}: tune diffusion Transformers small, train them big.

verbs:
{chr(10).join(f"  {verb:<10} {text}" for verb, text in VERBS.items())}

`mudit VERB --help` lists a verb's options. With no options, `mudit transfer` runs the whole of
Algorithm 4 on scikit-learn's digits, in a few minutes on two CPU cores.

exit codes: 0 pass or done, 1 fail, 2 usage, 3 data or environment, 4 inconclusive,
130 interrupted (all is saved; the same command resumes)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if arguments[0] == "--version":
        print(f"mudit {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"mudit: there is no verb {verb!r}; there are: {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    try:
        module = importlib.import_module(f"mudit.cli.{verb}")
        code: int = module.run(rest)
    except MuditError as error:
        print(f"mudit {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(f"mudit {verb}: cannot use{where}: {error.strerror or error}.", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print(f"mudit {verb}: interrupted; repeat the command to go on.", file=sys.stderr)
        return 130
    return code

"""`mudit plan`: what μP does to each parameter."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mudit.cli.parsing import make_parser, output_path, parse
from mudit.errors import UsageError
from mudit.models import builder, preset
from mudit.parametrization import plan, write_base_shapes
from mudit.program import Build


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = make_parser("plan", "Print what μP (or sp) does to each parameter of a model.")
    parser.add_argument(
        "--model",
        type=str,
        default="DiT-XL/2",
        help="a preset's name, or package.module:function where function(width) builds a model",
    )
    parser.add_argument(
        "--init", type=str, default="", help="dit or dit_mup; default: the preset's"
    )
    parser.add_argument("--width", type=int, default=1152, help="width of the model")
    parser.add_argument("--base_width", type=int, default=288, help="where nothing changes")
    parser.add_argument("--parametrization", type=str, default="mup", help="mup or sp")
    parser.add_argument("--optimizer", type=str, default="adamw", help="adamw, adam or sgd")
    parser.add_argument("--wd", type=str, default="independent", help="independent or constant")
    parser.add_argument("--eps_rule", type=str, default="constant", help="constant or scaled")
    parser.add_argument("--zero_readout", type=bool, default=False, help="zero the readout")
    for name, text in (("phi", "forward"), ("sigma", "initial scale"), ("lr_multiplier", "lr")):
        parser.add_argument(
            f"--{name}",
            type=dict[str, float],
            default={},
            help=f"base {text} multiplier by role, e.g. '{{output: 4}}'",
        )
    parser.add_argument("--base_shapes", type=str, default="", help="a .bsh that must agree")
    parser.add_argument("--json", type=str, default="", help="write the plan to this file, too")
    parser.add_argument("--bsh", type=str, default="", help="write a microsoft/mup base-shape file")
    options = parse(parser, argv)
    made = plan(
        build_function(options.model, init=options.init),
        width=options.width,
        base_width=options.base_width,
        parametrization=options.parametrization,
        optimizer=options.optimizer,
        wd=options.wd,
        eps_rule=options.eps_rule,
        zero_readout=options.zero_readout,
        phi=options.phi,
        sigma=options.sigma,
        lr_multiplier=options.lr_multiplier,
        base_shapes=options.base_shapes or None,
    )
    if options.json:
        made.save(output_path(options.json))
    if options.bsh:
        write_base_shapes(made, output_path(options.bsh))
    print(made.to_markdown(), end="")
    return 0


def build_function(name: str, *, init: str) -> Build:
    """The build function of a preset, or a user's own.

    Raises:
        UsageError: There is none of that name.
    """
    module, colon, function = name.partition(":")
    if not colon:
        return builder(preset(name, init=init) if init else preset(name))
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        found: Build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"--model {name!r}: {error}. Expected package.module:function, importable from here, "
            "where function(width) returns a torch.nn.Module."
        ) from None
    finally:
        sys.path.pop(0)
    return found

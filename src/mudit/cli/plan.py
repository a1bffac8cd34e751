"""`mudit plan`: what μP does to each parameter."""

from __future__ import annotations

from collections.abc import Sequence

from mudit.cli.models import add_model_arguments, certificate_for, model_source
from mudit.cli.parsing import make_parser, output_path, parse
from mudit.errors import UsageError
from mudit.parametrization import plan, write_base_shapes


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = make_parser("plan", "Print what μP (or sp) does to each parameter of a model.")
    add_model_arguments(parser, default="DiT-XL/2")
    parser.add_argument("--width", type=int, default=0, help="of the model; default: its own")
    parser.add_argument(
        "--base_width", type=int, default=0, help="where nothing changes; default: a quarter"
    )
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
    source = model_source(options)
    width = options.width or source.width
    base_width = options.base_width or source.base_width
    if width is None or base_width is None:
        raise UsageError(f"{source.name} needs --width and --base_width.")
    widths = sorted({base_width, 2 * base_width, 3 * base_width, width})
    made = plan(
        source.build,
        width=width,
        base_width=base_width,
        certificate=certificate_for(source, tuple(widths)),
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

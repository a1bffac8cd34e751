"""`mudit certify`: whether a model's forward pass is an NE⊗OR⊤ program, weight by weight."""

from __future__ import annotations

from collections.abc import Sequence

from mudit.cli.models import add_model_arguments, model_source
from mudit.cli.parsing import make_parser, output_path, parse
from mudit.errors import UsageError
from mudit.parametrization import certify
from mudit.program import Device
from mudit.report import save_program_drawing

_CODES = {"PASS": 0, "FAIL": 1, "REFUSED": 1, "INCONCLUSIVE": 4}


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = make_parser(
        "certify",
        "Record a model's forward pass at three widths and read it as an NE⊗OR⊤ program: the role "
        "of every weight, every op as Avg, MatMul or OuterNonlin, and what μP cannot scale.",
    )
    add_model_arguments(parser, default="DiT-S/2")
    parser.add_argument(
        "--widths", type=list[int], default=[], help="three or more widths that build takes"
    )
    parser.add_argument(
        "--device", type=Device, default="cpu", help="meta: shapes alone, for a full-size model"
    )
    parser.add_argument("--json", type=str, default="", help="write the certificate to this file")
    parser.add_argument("--markdown", type=str, default="", help="and with the table of ops, here")
    parser.add_argument("--svg", type=str, default="", help="and a drawing of the program, here")
    options = parse(parser, argv)
    source = model_source(options, small=options.device == "cpu")
    if source.inputs is None:
        raise UsageError(
            f"{source.name} needs example inputs: --inputs package.module:function, where "
            "function(width) returns what forward takes."
        )
    widths = tuple(options.widths) or source.widths
    if widths is None:
        raise UsageError(f"{source.name} needs --widths '[..., ..., ...]', three that it takes.")
    certificate = certify(source.build, source.inputs, widths, device=options.device)
    if options.json:
        certificate.save(output_path(options.json))
    if options.markdown:
        output_path(options.markdown).write_text(certificate.to_markdown(), encoding="utf-8")
    if options.svg:
        save_program_drawing(certificate.to_json(), output_path(options.svg))
    print(certificate.to_markdown(ops=False), end="")
    return _CODES[certificate.verdict]

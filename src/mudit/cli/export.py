"""`mudit export`: a trained run as a folder for others, with a model card."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from mudit import __version__
from mudit.cli.parsing import make_parser, parse
from mudit.export import Layout, export_run


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = make_parser(
        "export", "Write a trained run's averaged weights as a folder for others, with a card."
    )
    parser.add_argument("run", type=str, help="the run's folder, e.g. runs/digits/target_mup")
    parser.add_argument(
        "--to",
        type=Layout,
        default="diffusers",
        help="diffusers, a folder that a pipeline loads; or authors, a checkpoint for their code",
    )
    parser.add_argument("--out", type=str, required=True, help="the folder to make")
    parser.add_argument(
        "--vae", type=str, default="", help="of a run on latents: folder, or name on the hub"
    )
    parser.add_argument(
        "--text_encoder",
        type=str,
        default="",
        help="where the encoder of the run's texts is now, for --prompts; of a PixArt, a folder "
        "with its T5 and tokenizer goes along",
    )
    parser.add_argument(
        "--prompts",
        type=list[str],
        default=[],
        help="texts whose features go along; default: those of the run's classes",
    )
    parser.add_argument("--name", type=str, default="", help="the model's; default: the folder's")
    parser.add_argument(
        "--license", type=str, default="", help="of the weights, as the hub spells it, e.g. mit"
    )
    parser.add_argument(
        "--data_license",
        "--data-license",
        type=str,
        default="",
        help="of the training data; the card calls it unknown otherwise",
    )
    parser.add_argument(
        "--push_to_hub",
        "--push-to-hub",
        type=str,
        default="",
        help="USER/NAME on the Hugging Face hub; the token is that of HF_TOKEN",
    )
    parser.add_argument(
        "--public", type=bool, default=False, help="make a new repository public, not private"
    )
    options = parse(parser, argv)
    made = export_run(
        Path(options.run),
        Path(options.out),
        to=options.to,
        vae=options.vae,
        text_encoder=options.text_encoder,
        prompts=options.prompts,
        name=options.name,
        license=options.license,
        data_license=options.data_license,
        command=shlex.join(["mudit", "export", *argv]),
        made_by=f"mudit {__version__}",
        push_to=options.push_to_hub,
        public=options.public,
    )
    print(f"{options.run} for {options.to}: {made}")
    return 0

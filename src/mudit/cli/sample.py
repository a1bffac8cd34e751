"""`mudit sample`: images from a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mudit.cli.parsing import make_parser, output_path, parse
from mudit.diffusion import GuidedChannels, Method, SampleNoise, make_objective
from mudit.errors import UsageError
from mudit.evaluation import generate, open_decoder
from mudit.training import load_trained, stream_seed
from mudit.tuning import SamplingConfig


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = make_parser("sample", "Draw images from a trained run's averaged weights.")
    parser.add_argument("run", type=str, help="the run's folder, e.g. runs/digits/target_mup")
    parser.add_argument("--classes", type=list[int], default=[], help="classes; default: all")
    parser.add_argument(
        "--prompts", type=list[str], default=[], help="texts, for a model that is told texts"
    )
    parser.add_argument("--per_class", type=int, default=10, help="images of each class or prompt")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps")
    parser.add_argument(
        "--method",
        type=Method | None,
        default=None,
        help="ddim (default), ddpm or dpm++; for a flow euler (default), heun, sde or dpm++",
    )
    parser.add_argument("--cfg_scale", type=float, default=1.5, help="guidance; 1: none")
    parser.add_argument("--cfg_channels", type=GuidedChannels, default="all")
    parser.add_argument(
        "--cfg_interval",
        type=tuple[float, float] | None,
        default=None,
        help="noise levels with guidance, e.g. [0, 0.7]; default: all",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--out", type=str, default="samples.png", help="the grid, a class in a row")
    parser.add_argument(
        "--vae", type=str, default="", help="of a run on latents: another folder of its VAE"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    options = parse(parser, argv)
    out, folder = output_path(options.out), Path(options.run)
    if out.suffix.lower() not in Image.registered_extensions():
        raise UsageError(f"--out {out}: {out.suffix!r} is no image format; use e.g. .png.")
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}, expected ≥ 0.")
    sampling = SamplingConfig(
        per_class=options.per_class,
        steps=options.steps,
        method=options.method,
        cfg_scale=options.cfg_scale,
        cfg_channels=options.cfg_channels,
        cfg_interval=options.cfg_interval,
    )
    trained = load_trained(folder, device=options.device, prompts=options.prompts)
    classes = options.classes or list(range(trained.conditioning.num_classes))
    labels = torch.tensor(classes).repeat_interleave(sampling.per_class)
    x = generate(
        trained.model,
        trained.conditioning,
        make_objective(trained.config.objective),
        labels,
        noise=SampleNoise.of(len(labels), seed=stream_seed(options.seed, "sample")),
        steps=sampling.steps,
        method=sampling.method,
        cfg_scale=sampling.cfg_scale,
        cfg_channels=sampling.cfg_channels,
        cfg_interval=sampling.cfg_interval,
    )
    decode = open_decoder(trained.config.data, vae=options.vae, device=options.device)
    _save_grid(decode(x), rows=len(classes), path=out)
    print(f"{len(x)} images from the model of width {trained.config.model.width}: {out}")
    return 0


def _save_grid(images: np.ndarray, *, rows: int, path: Path) -> None:
    count, height, width, channels = images.shape
    columns = count // rows
    grid = images.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    grid = grid.reshape(rows * height, columns * width, channels)
    scale = max(1, 32 // height)  # tiny images are enlarged, pixel by pixel
    grid = grid.repeat(scale, axis=0).repeat(scale, axis=1)
    Image.fromarray(grid.squeeze(-1) if channels == 1 else grid).save(path)

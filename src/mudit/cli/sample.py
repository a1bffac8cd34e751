"""`mudit sample`: images from trained runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mudit import __version__
from mudit.cli.parsing import make_parser, parse
from mudit.cli.progress import ImageBars
from mudit.data import read_prompts
from mudit.diffusion import GuidedChannels, Method
from mudit.evaluation import SampleConfig, SampleJob, SamplerConfig, sample_runs
from mudit.tuning import stop_on_interrupt


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = make_parser(
        "sample",
        "Draw images from trained runs' averaged weights. Into a folder or an .npz file, the same "
        "command again goes on where it stopped.",
    )
    parser.add_argument(
        "run",
        type=str,
        nargs="+",
        help="the run's folder, e.g. runs/digits/target_mup; of several, the same prompts and "
        "seeds are drawn beside each other",
    )
    parser.add_argument("--classes", type=list[int], default=[], help="classes; default: all")
    parser.add_argument(
        "--prompts",
        type=list[str] | str,
        default=[],
        help='texts, for a model that is told texts: a list, e.g. \'["a cat", "a dog"]\', or a '
        "file: a prompt a line, or .jsonl or .csv with prompt, caption or text",
    )
    parser.add_argument(
        "--per_class",
        type=int | None,
        default=None,
        help="images of each class or prompt; default: 10, or 3 of each of several runs",
    )
    parser.add_argument(
        "--num_samples",
        type=int | None,
        default=None,
        help="instead, so many in all: classes uniformly at random, prompts in turn",
    )
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
    parser.add_argument(
        "--seed", type=int, default=0, help="of the noise, by each image's number, and the classes"
    )
    parser.add_argument(
        "--out",
        type=str,
        default="samples.png",
        help="a folder for everything; or FILE.npz for the images alone, or FILE.png for a picture "
        "of some",
    )
    parser.add_argument(
        "--files",
        type=bool | None,
        default=None,
        help="whether a folder gets a PNG of each image; default: up to 1,000",
    )
    parser.add_argument(
        "--vae", type=str, default="", help="of a run on latents: another folder of its VAE"
    )
    parser.add_argument(
        "--text_encoder",
        type=str,
        default="",
        help="of a run on texts: where its text encoder is now, a folder or hf:NAME_OR_FOLDER",
    )
    parser.add_argument("--batch_size", type=int, default=64, help="images denoised at once")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    options = parse(parser, argv)
    prompts = options.prompts
    config = SampleConfig(
        sampler=SamplerConfig(
            steps=options.steps,
            method=options.method,
            cfg_scale=options.cfg_scale,
            cfg_channels=options.cfg_channels,
            cfg_interval=options.cfg_interval,
        ),
        prompts=read_prompts(Path(prompts)) if isinstance(prompts, str) else tuple(prompts),
        classes=tuple(options.classes),
        per_class=options.per_class,
        num_samples=options.num_samples,
        seed=options.seed,
    )
    with ImageBars() as bars, stop_on_interrupt() as should_stop:
        job = SampleJob(
            files=options.files,
            batch_size=options.batch_size,
            device=options.device,
            vae=options.vae,
            text_encoder=options.text_encoder,
            made_by=f"mudit {__version__}",
            on_progress=bars.tick,
            on_notice=bars.notice,
            should_stop=should_stop,
        )
        drawn = sample_runs(
            [Path(folder) for folder in options.run], Path(options.out), config, job
        )
    widths = " and ".join(str(width) for width in drawn.widths)
    models = f"the model of width {widths}"
    if len(drawn.widths) > 1:
        models = f"each of the models of widths {widths}"
    print(f"{drawn.num_images:,} images from {models}: {drawn.path}")
    return 0

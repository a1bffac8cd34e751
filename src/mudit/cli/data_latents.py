"""`mudit data latents`: images encoded by a VAE, once for all studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mudit.cli.parsing import make_parser, parse
from mudit.cli.progress import CountBar
from mudit.data import StoredDtype, encode_latents, open_autoencoder, open_dataset
from mudit.training import resolve_device


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = make_parser(
        "data latents",
        "Encode all images of a data set with an AutoencoderKL of diffusers, and store mean and "
        "standard deviation of each posterior, also of the mirrored image. The folder is a data "
        "set then: --data.source latents:FOLDER; training draws anew in each step. The same "
        "command again does what is left of it.",
    )
    parser.add_argument(
        "--source", type=str, required=True, help="the images, as data.source names them"
    )
    parser.add_argument(
        "--size", type=int | None, default=None, help="side to which images are cropped, pixels"
    )
    parser.add_argument(
        "--vae", type=str, required=True, help="folder, or name on the hub, of the AutoencoderKL"
    )
    parser.add_argument("--out", type=str, default="data/latents", help="the folder")
    parser.add_argument(
        "--flipped",
        type=bool,
        default=True,
        help="encode mirrored images, too; false where captions say left and right",
    )
    parser.add_argument(
        "--keep_images",
        type=bool,
        default=False,
        help="keep the images beside their latents, as bytes: repa.encoder has to see them",
    )
    parser.add_argument(
        "--dtype", type=StoredDtype, default="float32", help="of what is stored; or float16"
    )
    parser.add_argument(
        "--scale", type=float | None, default=None, help="default: the VAE's scaling_factor"
    )
    parser.add_argument(
        "--shift", type=float | None, default=None, help="default: the VAE's shift_factor"
    )
    parser.add_argument("--batch_size", type=int, default=16, help="images encoded at once")
    parser.add_argument(
        "--shard_rows", type=int, default=0, help="images in a file; 0: as make 64 MiB"
    )
    parser.add_argument(
        "--most_skipped",
        type=float,
        default=0.01,
        help="share of rows that may be malformed, or hold images that cannot be decoded",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    options = parse(parser, argv)
    device = resolve_device(options.device)
    splits = open_dataset(options.source, size=options.size, most_skipped=options.most_skipped)
    with CountBar("encoding", "images") as bar:
        if splits.skipped.count:
            bar.notice(str(splits.skipped))
        made = encode_latents(
            splits,
            open_autoencoder(options.vae, device=device),
            Path(options.out),
            source=options.source,
            flipped=options.flipped,
            keep_images=options.keep_images,
            dtype=options.dtype,
            batch_size=options.batch_size,
            shard_rows=options.shard_rows,
            scale=options.scale,
            shift=options.shift,
            most_skipped=options.most_skipped,
            on_progress=bar.tick,
        )
        if made.skipped.count:
            bar.notice(str(made.skipped))
    model = " --model mmdit --objective.kind flow" if splits.train.captioned else ""
    print(
        f"{made.rows} images in {options.out}, {made.shards} files written now; latents of "
        f"{options.vae} (hash {made.space.vae_hash[:12]}), (z - {made.space.shift:g}) · "
        f"{made.space.scale:g}\nmudit train{model} --data.source latents:{options.out}"
    )
    return 0

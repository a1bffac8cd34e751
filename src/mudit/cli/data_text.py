"""`mudit data text`: captions encoded by a text encoder, once for all studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mudit.cli.parsing import make_parser, parse
from mudit.cli.progress import CountBar
from mudit.data import StoredDtype, has_own_size, open_captions_of, open_text_encoder, store_text
from mudit.errors import UsageError
from mudit.training import resolve_device


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = make_parser(
        "data text",
        "Encode the captions of a data set, or those made from its classes' names, and an empty "
        "one, and store their features with their masks. Studies take them with --text.features "
        "FOLDER, without loading the encoder. The same command again does what is left of it.",
    )
    parser.add_argument(
        "--source", type=str, required=True, help="the data, as data.source names them"
    )
    parser.add_argument(
        "--encoder", type=str, required=True, help="hf:NAME_OR_FOLDER: T5, CLIP, BERT and others"
    )
    parser.add_argument(
        "--max_tokens", type=int, default=0, help="where longer captions are cut off; 0: nowhere"
    )
    parser.add_argument("--out", type=str, default="data/text", help="the folder")
    parser.add_argument(
        "--dtype", type=StoredDtype, default="float32", help="of what is stored; or float16"
    )
    parser.add_argument(
        "--shard_rows", type=int, default=0, help="captions in a file; 0: as make 64 MiB"
    )
    parser.add_argument(
        "--most_skipped", type=float, default=0.01, help="share of rows that may be malformed"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    options = parse(parser, argv)
    if options.max_tokens < 0:
        raise UsageError(f"--max_tokens is {options.max_tokens}, expected ≥ 0.")
    encoder = open_text_encoder(options.encoder, device=resolve_device(options.device))
    captions, skipped = open_captions_of(options.source, most_skipped=options.most_skipped)
    with CountBar("encoding", "captions") as bar:
        if skipped.count:
            bar.notice(str(skipped))
        tokens = encoder.sizes(captions, most_tokens=options.max_tokens).tokens
        shards = store_text(
            captions,
            encoder,
            Path(options.out),
            spec=options.encoder,
            tokens=tokens,
            max_tokens=options.max_tokens,
            dtype=options.dtype,
            shard_rows=options.shard_rows,
            on_progress=bar.tick,
        )
    stored = "" if options.dtype == "float32" else f" --text.dtype {options.dtype}"
    # The images' side, which texts do not say.
    size = "" if has_own_size(options.source) else " --data.size SIZE"
    print(
        f"{len(captions)} captions and an empty one in {options.out}, {shards} files written now; "
        f"{tokens} tokens at most\nmudit train --model mmdit --objective.kind flow --data.source "
        f"{options.source}{size} --text.encoder {options.encoder} --text.features "
        f"{options.out}{stored}"
    )
    return 0

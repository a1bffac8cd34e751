"""A PixArt's text encoder, where the run's texts were encoded by one that its pipeline can run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mudit.errors import DataError, UsageError
from mudit.export.extras import transformers
from mudit.models import PixArtConfig
from mudit.training import Trained

# Captions that are encoded again, to see whether it is the encoder of the run.
_COMPARED = 4
_TOLERANCE = 1e-2  # of features of about unit size; caches may hold them in half precision


def write_text_encoder(
    trained: Trained, folder: Path, source: Path, captions: Sequence[str]
) -> dict[str, list[str]]:
    """Write a T5 encoder and its tokenizer, and return their rows of `model_index.json`.

    Args:
        trained: The run of a PixArt.
        folder: The pipeline's.
        source: A folder with a T5 encoder and its tokenizer, together or, as in a pipeline, in
            `text_encoder/` and `tokenizer/`.
        captions: The texts of `trained.conditioning`, by number.

    Raises:
        DataError: They cannot be read.
        EnvironmentFailure: transformers is not installed.
        UsageError: The model is no PixArt, or its texts were encoded by something else.
    """
    config = trained.config
    if not isinstance(config.model, PixArtConfig):
        raise UsageError(
            f"--text_encoder {source}: of the pipelines here only PixArt's has one encoder for its "
            "texts. Leave it out: the captions' features go with the folder."
        )
    tokenizer, encoder = _load(source)
    tables = trained.conditioning.tables
    assert tables is not None
    length = config.model.caption_tokens
    difference = _difference(
        tokenizer, encoder, list(captions[:_COMPARED]), length, tables[0], tables[1]
    )
    if difference is None or difference > _TOLERANCE:
        found = "of another shape" if difference is None else f"off by up to {difference:.2g}"
        raise UsageError(
            f"--text_encoder {source} is not what the run's texts were encoded by: its features of "
            f"the run's captions are {found}. The model would not understand it. Leave it out: the "
            "captions' features go with the folder."
        )
    encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return {
        "text_encoder": ["transformers", type(encoder).__name__],
        "tokenizer": ["transformers", type(tokenizer).__name__],
    }


def _load(source: Path) -> tuple[Any, Any]:
    library = transformers()
    parts = [
        source / name if (source / name).is_dir() else source
        for name in ("tokenizer", "text_encoder")
    ]
    try:
        return (
            library.AutoTokenizer.from_pretrained(parts[0], local_files_only=True),
            library.T5EncoderModel.from_pretrained(parts[1], local_files_only=True).eval(),
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"--text_encoder {source} cannot be loaded: {reason} Give a folder with a T5 encoder "
            "and its tokenizer, e.g. one that `save_pretrained` wrote."
        ) from None


@torch.no_grad()
def _difference(
    tokenizer: Any, encoder: Any, captions: list[str], length: int, text: Tensor, mask: Tensor
) -> float | None:
    """The largest, over the captions' own tokens; None where shapes or lengths differ."""
    # As PixArtAlphaPipeline does.
    inputs = tokenizer(
        captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    theirs = encoder(inputs.input_ids, attention_mask=inputs.attention_mask)[0]
    ours, told = text[: len(captions)].cpu(), mask[: len(captions)].cpu()
    if theirs.shape != ours.shape or not torch.equal(inputs.attention_mask.bool(), told):
        return None
    return float(((theirs - ours) * told.unsqueeze(-1)).abs().max())

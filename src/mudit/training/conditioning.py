"""From a sample's class to what a model is told of it: the class itself, or a text about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mudit.data import TextFeatures, encode_captions, open_text_encoder
from mudit.errors import DataError, UsageError
from mudit.files import write_whole
from mudit.models import (
    DiTConfig,
    MMDiTConfig,
    ModelConfig,
    PixArt,
    UViTConfig,
    is_text_conditioned,
)
from mudit.training.config import TextConfig

Condition: TypeAlias = tuple[Tensor, ...]

# Features of the data's captions, in the folder of a run or of its study.
TEXT_FILE = "text_features.safetensors"


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Turns classes, the null one included, into the arguments that follow x and t in `forward`.

    Attributes:
        num_classes: Classes, without the null one.
        tables: For a text-conditioned model, what it is told of each class: one row for each, the
            last for "nothing said". Empty where the model is told nothing; None where it takes the
            class itself.
    """

    num_classes: int
    tables: Condition | None

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        captions: Sequence[str],
        model: nn.Module,
        *,
        features: TextFeatures | None = None,
    ) -> Conditioning:
        """Returns the conditioning of `model`.

        Args:
            config: The model's.
            captions: For a text-conditioned model, one for each label.
            model: A model may hold a text of its own that stands for "nothing said".
            features: Of the captions and, last, of an empty one; None: by the built-in encoder.

        Raises:
            UsageError: A text-conditioned model has no captions, or one is too long.
        """
        if not is_text_conditioned(config):
            num_classes = config.num_classes if isinstance(config, DiTConfig | UViTConfig) else None
            return cls(num_classes=num_classes or 0, tables=() if num_classes is None else None)
        if not captions:
            raise UsageError(
                f"{type(model).__name__} is conditioned on text, but the run's config has no "
                "captions; give one for each class, or prompts."
            )
        assert config.caption_dim is not None
        pooled_dim = config.pooled_dim if isinstance(config, MMDiTConfig) else None
        if features is None:
            features = encode_captions(
                [*captions, ""],
                length=config.caption_tokens,
                dim=config.caption_dim,
                pooled_dim=pooled_dim or config.caption_dim,
            )
        text, mask, pooled = features
        if isinstance(model, PixArt):
            text[-1], mask[-1] = model.null_text()[0].cpu(), True
        device = next(model.parameters()).device
        tables = [text, mask]
        if pooled_dim is not None:
            tables.append(pooled)
        return cls(num_classes=len(captions), tables=tuple(part.to(device) for part in tables))

    @property
    def null_label(self) -> int:
        """The class that stands for "nothing said"."""
        return self.num_classes

    def __call__(self, labels: Tensor) -> Condition:
        """Returns what the model is told of classes `labels` (B,), on their device."""
        if self.tables is None:
            return (labels,)
        return tuple(table[labels] for table in self.tables)


def text_features(
    text: TextConfig, captions: Sequence[str], folder: Path, *, tokens: int
) -> TextFeatures | None:
    """Features of captions and, last, of an empty one; None for the built-in encoder.

    They are looked for in the folder and in the one above, the study's, and encoded and kept if
    they are in neither.

    Args:
        text: The encoder.
        captions: Texts.
        folder: The run's.
        tokens: Length of the result.

    Raises:
        DataError: The file holds features of another encoder, another length or other captions.
        EnvironmentFailure: The encoder cannot be had.
    """
    if text.encoder == "bytes":
        return None
    places = (folder / TEXT_FILE, folder.parent / TEXT_FILE)
    path = next((place for place in places if place.exists()), None)
    if path is None:
        path = places[0]
        save_text_features(text, captions, path, tokens=tokens)
    return _read(path, _header(text, captions, tokens))


def save_text_features(
    text: TextConfig, captions: Sequence[str], path: Path, *, tokens: int
) -> None:
    """Encode captions and an empty one, and write their features; see `text_features`."""
    features = open_text_encoder(text.encoder).encode([*captions, ""], tokens=tokens)
    parts = {name: part.contiguous() for name, part in features._asdict().items()}
    header = _header(text, captions, tokens)
    write_whole(path, partial(save_file, parts, metadata=header))


def _header(text: TextConfig, captions: Sequence[str], tokens: int) -> dict[str, str]:
    digest = hashlib.sha256()
    for caption in captions:
        digest.update(json.dumps(caption).encode())
    return {"encoder": text.encoder, "tokens": str(tokens), "captions": digest.hexdigest()}


def _read(path: Path, expected: dict[str, str]) -> TextFeatures:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if found := [name for name in expected if header.get(name) != expected[name]]:
                shown = ", ".join(f"{k}: {header.get(k)} there, {expected[k]} here" for k in found)
                raise DataError(
                    f"{path} holds text features of something else ({shown}). Delete it to encode "
                    "the captions again, or correct text.encoder and text.max_tokens."
                )
            return TextFeatures(*(file.get_tensor(name) for name in TextFeatures._fields))
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"cannot read {path} ({error}). Delete it to encode the captions again."
        ) from None

"""From a sample's class to what a model is told of it: the class itself, or a text about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from mudit.data import (
    StoredText,
    TextFeatures,
    check_text,
    encode_captions,
    is_finished,
    is_stored,
    open_text_encoder,
    store_text,
    text_facts,
)
from mudit.errors import UsageError
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
TEXT_FOLDER = "text_features"

_FEW = 4096  # captions that the built-in encoder encodes again for each run
_IN_MEMORY = 1 << 28  # bytes of features that are read at the start instead of batch by batch


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Turns classes, the null one included, into the arguments that follow x and t in `forward`.

    Attributes:
        num_classes: Classes, without the null one.
        tables: For a text-conditioned model, what it is told of each class: one row for each, the
            last for "nothing said". Empty where the model is told nothing; None where it takes the
            class itself.
        stored: Where there is too much of it: rows that are read when they are asked for; `tables`
            is empty then.
        num_parts: How many of tokens, mask and pooled vector the model takes of `stored`.
        null: What stands for "nothing said" in their place; empty: the last row.
    """

    num_classes: int
    tables: Condition | None
    stored: StoredText | None = None
    num_parts: int = 0
    null: Condition = ()

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        captions: Sequence[str],
        model: nn.Module,
        *,
        features: TextFeatures | StoredText | None = None,
        in_memory: int | None = _IN_MEMORY,
    ) -> Conditioning:
        """Returns the conditioning of `model`.

        Args:
            config: The model's.
            captions: For a text-conditioned model, one for each label.
            model: A model may hold a text of its own that stands for "nothing said".
            features: Of the captions and, last, of an empty one; None: by the built-in encoder.
            in_memory: Bytes of stored features that are read at once; None: all.

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
        device = next(model.parameters()).device
        null: Condition = ()
        if isinstance(model, PixArt):  # it has a text of its own, all of whose tokens count
            (own,) = model.null_text().detach().to(device)
            null = (own, torch.ones(len(own), dtype=torch.bool, device=device))
        parts = 2 if pooled_dim is None else 3
        if isinstance(features, StoredText):
            if in_memory is not None and features.num_bytes > in_memory:
                return cls(
                    num_classes=len(captions),
                    tables=(),
                    stored=features,
                    num_parts=parts,
                    null=null,
                )
            features = features.all()
        tables = tuple(part.to(device) for part in features[:parts])
        for table, row in zip(tables, null):
            table[-1] = row
        return cls(num_classes=len(captions), tables=tables)

    @property
    def null_label(self) -> int:
        """The class that stands for "nothing said"."""
        return self.num_classes

    def __call__(self, labels: Tensor) -> Condition:
        """Returns what the model is told of classes `labels` (B,), on their device."""
        if self.tables is None:
            return (labels,)
        if self.stored is None:
            return tuple(table[labels] for table in self.tables)
        rows = self.stored.rows(labels.cpu().numpy())[: self.num_parts]
        told = tuple(part.to(labels.device) for part in rows)
        for part, row in zip(told, self.null):
            part[labels == self.null_label] = row
        return told


def text_features(
    text: TextConfig,
    captions: Sequence[str],
    folder: Path,
    *,
    tokens: int,
    bytes_dim: int,
) -> StoredText | None:
    """Features of captions and, last, of an empty one; None for the built-in encoder of few.

    They are those of `text.features`. Without it they are looked for in the folder and in the one
    above, the study's, and encoded and kept if they are in neither.

    Args:
        text: The encoder.
        captions: Texts.
        folder: The run's.
        tokens: Length of the result.
        bytes_dim: Size of a token of the built-in encoder.

    Raises:
        DataError: The features are of another encoder, another length or other captions; or not
            finished, or damaged.
        EnvironmentFailure: The encoder cannot be had.
    """
    if not are_stored(text, captions):
        return None
    place = text_folder(text, folder) or folder / TEXT_FOLDER
    if text.features or is_stored(place):
        check_text(place, text_facts(text.encoder, captions, tokens, text.dtype))
    if not text.features and not is_finished(place):
        save_text_features(text, captions, place, tokens=tokens, bytes_dim=bytes_dim)
    return StoredText(place)


def text_folder(text: TextConfig, folder: Path) -> Path | None:
    """Where the features of a run's captions lie; None: nowhere yet."""
    if text.features:
        return Path(text.features).expanduser()
    places = (folder / TEXT_FOLDER, folder.parent / TEXT_FOLDER)
    return next((place for place in places if is_stored(place)), None)


def are_stored(text: TextConfig, captions: Sequence[str]) -> bool:
    """Whether features lie in a folder: the built-in encoder makes those of few in no time."""
    return text.encoder != "bytes" or bool(text.features) or len(captions) > _FEW


def save_text_features(
    text: TextConfig, captions: Sequence[str], folder: Path, *, tokens: int, bytes_dim: int
) -> None:
    """Encode captions and an empty one, and store their features; see `text_features`."""
    encoder = open_text_encoder(text.encoder, bytes_dim=bytes_dim)
    store_text(captions, encoder, folder, spec=text.encoder, tokens=tokens, dtype=text.dtype)

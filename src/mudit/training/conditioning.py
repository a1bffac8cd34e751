"""From a sample's class to what a model is told of it: the class itself, or a text about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from mudit.data import encode_captions
from mudit.errors import UsageError
from mudit.models import (
    DiTConfig,
    MMDiTConfig,
    ModelConfig,
    PixArt,
    UViTConfig,
    is_text_conditioned,
)

Condition: TypeAlias = tuple[Tensor, ...]


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
    def of(cls, config: ModelConfig, captions: tuple[str, ...], model: nn.Module) -> Conditioning:
        """Returns the conditioning of `model`.

        Args:
            config: The model's.
            captions: For a text-conditioned model, one for each class.
            model: A model may hold a text of its own that stands for "nothing said".

        Raises:
            UsageError: A text-conditioned model has no captions, or one is too long.
        """
        if not is_text_conditioned(config):
            num_classes = config.num_classes if isinstance(config, DiTConfig | UViTConfig) else None
            return cls(num_classes=num_classes or 0, tables=() if num_classes is None else None)
        if not captions:
            raise UsageError(
                f"{type(model).__name__} is conditioned on text, but the run's config has no "
                "captions; give one for each class."
            )
        assert config.caption_dim is not None
        pooled_dim = config.pooled_dim if isinstance(config, MMDiTConfig) else None
        text, mask, pooled = encode_captions(
            [*captions, ""],
            length=config.caption_tokens,
            dim=config.caption_dim,
            pooled_dim=pooled_dim or config.caption_dim,
        )
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

"""Data that are not there: their sizes, for what a study would do and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch

from mudit.data.dataset import Flips, Indices, Splits
from mudit.data.encoders import TextSizes
from mudit.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class DeclaredDataset:
    """The sizes of a dataset in words of an `ImageDataset`; it has no images to give.

    Attributes:
        name: What to call it.
        num_samples: Number of images.
        size: Side of the images or latents.
        channels: Their channels.
        num_classes: Number of classes; of captioned data, of captions.
        captioned: Whether images have captions instead of classes.
        text: Sizes of the captions' features; None: as the text encoder has them.
        flip: Whether training mirrors images.
    """

    name: str
    num_samples: int
    size: int
    channels: int
    num_classes: int
    captioned: bool = False
    text: TextSizes | None = None
    flip: bool = False

    @property
    def class_names(self) -> Sequence[str]:
        """A number for each class; of captioned data nothing is known."""
        return () if self.captioned else tuple(map(str, range(self.num_classes)))

    @property
    def fingerprint(self) -> str:
        """None: there is no content."""
        return ""

    def batch(
        self,
        indices: Indices,
        flips: Flips | None = None,
        generator: torch.Generator | None = None,
    ) -> NoReturn:
        """There are no images.

        Raises:
            DataError: Always.
        """
        raise DataError(
            f"{self.name} is only declared, so that a study can be planned without it; there are "
            "no images to train on. Prepare the data first."
        )


def declared_splits(dataset: DeclaredDataset) -> Splits:
    """Splits of which only the sizes are known."""
    return Splits(train=dataset, validation=dataset)

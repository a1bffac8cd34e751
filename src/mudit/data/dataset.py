"""What a dataset is, and the kind that lies in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mudit.errors import UsageError

Indices = npt.NDArray[np.int64]
Flips = npt.NDArray[np.bool_]


class ImageDataset(Protocol):
    """Square images with a class or a caption each; a batch is a function of its arguments."""

    @property
    def name(self) -> str:
        """What to call it."""

    @property
    def num_samples(self) -> int:
        """Number of images."""

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are below it."""

    @property
    def class_names(self) -> Sequence[str]:
        """A name for each label; where `captioned`, the distinct captions."""

    @property
    def captioned(self) -> bool:
        """Whether labels number captions of single images instead of classes."""

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""

    @property
    def size(self) -> int:
        """Side of the images, pixels."""

    @property
    def flip(self) -> bool:
        """Whether training should mirror images at random; `batch` does what it is told."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes with the data, hex."""

    def batch(
        self,
        indices: Indices,
        flips: Flips | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch channels size size"], Int[Tensor, " batch"]]:
        """Images in [-1, 1] (float32) and labels (int64) of the samples asked for, in that order.

        Args:
            indices: 0 to `num_samples` - 1, repeats allowed, shape (B,).
            flips: Which of them to mirror left to right, shape (B,); None: none.
            generator: Source of what the data themselves leave to chance (a latent's draw from its
                posterior); None: the most likely. Most data use none.

        Raises:
            UsageError: An index is out of range, or `flips` has another shape than `indices`.
            DataError: An image cannot be read.
        """


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Rows of a data set that were left out.

    Attributes:
        count: How many.
        examples: The first of them, in words.
        what: What they are.
    """

    count: int = 0
    examples: tuple[str, ...] = ()
    what: str = "malformed rows"

    def __str__(self) -> str:
        """Count and examples in words."""
        return f"{self.what} that are left out: {self.count}, e.g. {'; '.join(self.examples)}"


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A dataset's two parts, which share no image.

    Attributes:
        train: What to train on.
        validation: Held out.
        skipped: What is in neither, since it is malformed.
    """

    train: ImageDataset
    validation: ImageDataset
    skipped: Skipped = Skipped()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of both fingerprints, hex."""
        both = f"{self.train.fingerprint} {self.validation.fingerprint}"
        return hashlib.sha256(both.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayDataset:
    """Images in memory.

    Attributes:
        name: What to call it.
        images: uint8, shape (N, C, H, W), H = W.
        labels: int64, shape (N,).
        class_names: A name for each label.
        white: The pixel value that becomes 1; 0 becomes -1.
        flip: Whether training should mirror images.
        captioned: Whether `class_names` are captions of single images.
    """

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    class_names: Sequence[str]
    white: int = 255
    flip: bool = False
    captioned: bool = False

    @property
    def num_samples(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.images.shape[1])

    @property
    def size(self) -> int:
        """Side of an image, pixels."""
        return int(self.images.shape[2])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of shape, pixels and labels, hex."""
        digest = hashlib.sha256(f"{self.images.shape} {self.white}".encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def batch(
        self,
        indices: Indices,
        flips: Flips | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch channels size size"], Int[Tensor, " batch"]]:
        """Images and labels; see `ImageDataset.batch`."""
        check_batch(indices, flips, self.num_samples)
        images = to_unit(self.images[indices], white=self.white)
        return mirrored(images, flips), torch.from_numpy(self.labels[indices])


def check_batch(indices: Indices, flips: Flips | None, num_samples: int) -> None:
    """Refuse indices out of range; negative ones, too, which NumPy would count from the end.

    Raises:
        UsageError: An index is out of range, or `flips` has another shape than `indices`.
    """
    if indices.size and not (indices.min() >= 0 and indices.max() < num_samples):
        raise UsageError(
            f"batch got indices from {indices.min()} to {indices.max()}; expected 0 to "
            f"{num_samples - 1}, since this split has {num_samples} images."
        )
    if flips is not None and flips.shape != indices.shape:
        raise UsageError(
            f"batch got flips of shape {flips.shape} for indices of shape {indices.shape}; "
            "expected the same shape."
        )


def to_unit(pixels: npt.NDArray[np.uint8], *, white: int = 255) -> Tensor:
    """Pixel values 0 to `white` as float32 in [-1, 1], same shape."""
    return torch.from_numpy(pixels).to(torch.float32) / (white / 2) - 1


def mirrored(images: Tensor, flips: Flips | None) -> Tensor:
    """`images` (B, C, H, W) with those left-right mirrored where `flips` (B,) is true."""
    if flips is None:
        return images
    return torch.where(torch.from_numpy(flips)[:, None, None, None], images.flip(-1), images)

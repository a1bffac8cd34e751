"""The samples that a study's targets drew, in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mudit.data import ImageDataset, Splits, keeps_images, latent_space
from mudit.evaluation import pictures_of
from mudit.tuning.config import StudyConfig

# Images that a judge is fitted on, where latents have to be decoded for it.
_MOST_DECODED = 2_000

# uint8 images (N, H, W, C) and the classes or captions asked for (N,)
Samples: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_samples(config: StudyConfig, parametrization: str) -> Samples | None:
    """What the target of a parametrization drew; None if it has none."""
    path = Path(config.folder) / "samples" / f"target_{parametrization}.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["arr_0"], arrays["labels"]


def judged_pictures(
    config: StudyConfig, splits: Splits
) -> tuple[ImageDataset, ImageDataset, int | None]:
    """What a judge is fitted on and measured by, and how many of it; None: as many as it likes.

    Of latents they are the images kept beside them; where none were, what the VAE makes of them,
    which takes long.
    """
    slow = latent_space(splits.train) is not None and not keeps_images(splits.train)
    train, held_out = (
        pictures_of(part, config.data, kept=True) for part in (splits.train, splits.validation)
    )
    return train, held_out, _MOST_DECODED if slow else None


def as_tensors(samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, C, H, W) and labels, as judges take them."""
    images, labels = samples
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)

"""What an image looks like, in numbers: coarse pixels, edges by direction, colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

Array = npt.NDArray[np.float32]

_PIXELS = 8  # a side, after averaging
_CELLS, _DIRECTIONS = 4, 8  # of edges: cells in a side, directions in half a turn
_LEVELS = 4  # of a colour channel


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """Turns images into features: three kinds, centred, of equal weight, one mean square in all.

    Attributes:
        means: Of each kind over the images that it was fitted on.
        scales: What each kind is divided by.
    """

    means: tuple[Array, ...]
    scales: tuple[float, ...]

    @classmethod
    def fit(cls, images: Float[Tensor, "batch channels size size"]) -> Looks:
        """The features' means and scales over images in [-1, 1]."""
        kinds = _kinds(images)
        means = tuple(kind.mean(axis=0) for kind in kinds)
        squares = (float(((k - m) ** 2).sum(axis=1).mean()) for k, m in zip(kinds, means))
        return cls(means=means, scales=tuple((max(s, 1e-12) * len(kinds)) ** 0.5 for s in squares))

    def __call__(self, images: Float[Tensor, "batch channels size size"]) -> Array:
        """Features of images in [-1, 1], shape (B, F)."""
        kinds = zip(_kinds(images), self.means, self.scales, strict=True)
        return np.concatenate([(kind - mean) / scale for kind, mean, scale in kinds], axis=1)


def _kinds(images: Tensor) -> tuple[Array, Array, Array]:
    images = images.expand(-1, 3, -1, -1)  # grey has one channel
    coarse = adaptive_avg_pool2d(images, _PIXELS).flatten(1)
    return tuple(np.asarray(kind.numpy()) for kind in (coarse, edges(images), colours(images)))  # type: ignore[return-value]


def edges(images: Float[Tensor, "batch channels size size"]) -> Float[Tensor, "batch features"]:
    """Histograms of oriented gradients [HOG]: 8 directions in 4x4 cells, of unit length.

    Each pixel counts with the channel whose gradient is largest, shared between the two nearest
    directions; a direction and its opposite are one.
    """
    across, down = torch.zeros_like(images), torch.zeros_like(images)
    across[..., 1:-1] = images[..., 2:] - images[..., :-2]
    down[..., 1:-1, :] = images[..., 2:, :] - images[..., :-2, :]
    strength, channel = (across.square() + down.square()).sqrt().max(dim=1, keepdim=True)
    angle = torch.atan2(down.gather(1, channel), across.gather(1, channel))
    direction = (angle % torch.pi) / torch.pi * _DIRECTIONS  # (B, 1, H, W), in [0, 8]
    bins = torch.arange(_DIRECTIONS).view(1, -1, 1, 1)
    apart = (direction - bins).abs()
    weights = (1 - torch.minimum(apart, _DIRECTIONS - apart)).clamp(min=0)
    found = adaptive_avg_pool2d(weights * strength, _CELLS).flatten(1)
    lengths: Tensor = found.norm(dim=1, keepdim=True) + 1e-3
    return found / lengths


def colours(images: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 64"]:
    """Square roots of the shares of 4x4x4 colours; a pixel is shared between the nearest ones."""
    level = (images + 1) / 2 * (_LEVELS - 1)
    steps = torch.arange(_LEVELS).view(-1, 1, 1, 1, 1)
    red, green, blue = (1 - (level - steps).abs()).clamp(min=0).unbind(dim=2)  # each (4, B, H, W)
    shares = torch.einsum("rbhw,gbhw,cbhw->brgc", red, green, blue) / images[0, 0].numel()
    return shares.flatten(1).sqrt()

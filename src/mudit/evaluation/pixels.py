"""Images as the judges of samples take them."""

from __future__ import annotations

import torch
from torch import Tensor

from mudit.errors import UsageError


def as_unit(images: Tensor, shape: tuple[int, int, int], *, who: str) -> Tensor:
    """Images (B, C, H, W), on the CPU, as float32 in [-1, 1]; floating-point ones as they are.

    Args:
        images: uint8 0 to 255, or floating point.
        shape: (C, H, W) that they must have.
        who: The judge, for errors.

    Raises:
        UsageError: Images have another shape or dtype.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != shape:
        raise UsageError(
            f"{who} got images of shape {tuple(images.shape)}; expected (B, "
            f"{', '.join(map(str, shape))}), as in the data it was fitted on."
        )
    whole = images.dtype == torch.uint8
    if not whole and not images.is_floating_point():
        raise UsageError(
            f"{who} got images of {images.dtype}; expected uint8 in 0 to 255 or floating point in "
            "[-1, 1]."
        )
    values = images.detach().cpu().float()
    return values / 127.5 - 1 if whole else values

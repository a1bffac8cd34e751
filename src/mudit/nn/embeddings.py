"""Patches, positions, timesteps and labels as vectors of the model's width."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int, Real
from torch import Tensor, nn
from torch.nn import functional as F

_MAX_PERIOD = 10_000  # [DiT] code, as in Vaswani et al. 2017, for positions and timesteps alike


class PatchEmbed(nn.Module):
    """Cuts an image into patches and maps each to a token, row by row.

    Args:
        patch_size: Side of a patch, in pixels.
        in_channels: Channels of the image.
        width: Size of a token.
    """

    def __init__(self, patch_size: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch tokens embedding"]:
        """Returns one token per patch."""
        # The convolution written as a matrix product over patches: twice as fast forward and
        # backward on CPU. Patches and the flattened kernel are both ordered (C, row, column).
        batch, channels, height, width = x.shape
        p, rows, columns = self.patch_size, height // self.patch_size, width // self.patch_size
        patches = x.reshape(batch, channels, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5)
        patches = patches.reshape(batch, rows * columns, channels * p * p)  # (B, N, C·P·P)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)  # (B, N, W)


def unpatchify(
    patches: Float[Tensor, "batch tokens patch"], patch_size: int
) -> Float[Tensor, "batch channels size size"]:
    """Returns the square image that patches make, row by row.

    Args:
        patches: Each flattened in the order (row, column, channel). Not the order in which
            `PatchEmbed` reads them, which is (channel, row, column): so it is in [DiT] code.
        patch_size: Side of a patch, in pixels.
    """
    batch, tokens, size = patches.shape
    grid, p, channels = math.isqrt(tokens), patch_size, size // patch_size**2
    pixels = patches.reshape(batch, grid, grid, p, p, channels).permute(0, 5, 1, 3, 2, 4)
    return pixels.reshape(batch, channels, grid * p, grid * p)


class TimestepEmbedder(nn.Module):
    """Sinusoids of the raw timestep, ordered [cos, sin], then a two-layer MLP.

    Args:
        width: Size of the embedding.
        num_frequencies: Number of cosines, and of sines.
    """

    frequencies: Tensor

    def __init__(self, width: int, *, num_frequencies: int = 128) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.mlp = nn.Sequential(
            nn.Linear(2 * num_frequencies, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.register_buffer("frequencies", self._compute_frequencies(), persistent=False)

    def _compute_frequencies(self, device: torch.device | None = None) -> Tensor:
        # [DiT] code: exp(-ln(10000)·k/128), k = 0..127, in float32.
        k = torch.arange(self.num_frequencies, dtype=torch.float32, device="cpu")
        frequencies = torch.exp(-math.log(_MAX_PERIOD) / self.num_frequencies * k)
        return frequencies.to(device or torch.get_default_device())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TimestepEmbedder:
        # A buffer that no checkpoint holds is garbage after meta → to_empty, and too coarse for
        # t = 999 after .to(bfloat16). Both come through here, so it is computed anew.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.frequencies = self._compute_frequencies(self.frequencies.device)
        return self

    def forward(self, t: Real[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Returns the embeddings of timesteps, in steps, not rescaled to [0, 1]."""
        angles = t.float().unsqueeze(1) * self.frequencies  # (B, 128)
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=1)
        embedding: Tensor = self.mlp(sinusoids.to(self.mlp.get_parameter("0.weight").dtype))
        return embedding  # (B, W)


class LabelEmbedder(nn.Module):
    """A vector per class, and one more, the last row, for "no label"; the model initialises them.

    Args:
        num_classes: Classes, without the null label.
        width: Size of the embedding.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        # nn.Embedding's own initialiser, on meta, would import torch's compiler: two seconds.
        table = torch.empty(num_classes + 1, width)
        self.embedding_table = nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
            table, freeze=False
        )

    def forward(self, labels: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Returns the labels' rows."""
        embedding: Tensor = self.embedding_table(labels)
        return embedding  # (B, W)


def sincos_positions(grid_size: int, width: int) -> Float64[Tensor, "tokens width"]:
    """Returns fixed position embeddings of a square grid, row by row, on the CPU.

    The first half of the width encodes the column, the second half the row; each half is
    [sin, cos] with frequencies 10000^(-k/(width/4)), k = 0..width/4-1 ([DiT] code).

    Args:
        grid_size: Side of the grid, in tokens.
        width: Size of an embedding; a multiple of 4.
    """
    # The device is explicit so that values are real inside `with torch.device("meta")` too.
    k = torch.arange(width // 4, dtype=torch.float64, device="cpu")
    coordinate = torch.arange(grid_size, dtype=torch.float64, device="cpu")
    angles = torch.outer(coordinate, _MAX_PERIOD ** (-k / (width / 4)))
    half = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid_size, W/2)
    column = half.repeat(grid_size, 1)  # (N, W/2)
    row = half.repeat_interleave(grid_size, dim=0)
    return torch.cat([column, row], dim=1)  # (N, W)

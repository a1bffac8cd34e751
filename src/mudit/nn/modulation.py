"""Adaptive layer norm (adaLN): a condition sets shifts, scales and gates ([DiT] 3.2)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class AdaLN(nn.Sequential):
    """SiLU and one Linear that turn a condition into `chunks` modulation vectors.

    Args:
        width: Size of the condition and of each vector.
        chunks: How many vectors; 6 in a block, 2 before the readout.
    """

    def __init__(self, width: int, chunks: int) -> None:
        super().__init__(nn.SiLU(), nn.Linear(width, chunks * width))
        self.chunks = chunks

    def forward(self, condition: Float[Tensor, "batch width"]) -> tuple[Tensor, ...]:
        """Returns `chunks` tensors of shape (B, 1, W), ready to broadcast over tokens."""
        activation, linear = self
        vectors: Tensor = linear(activation(condition))  # (B, chunks·W)
        return vectors.unsqueeze(1).chunk(self.chunks, dim=-1)


def modulate(
    x: Float[Tensor, "batch tokens width"],
    shift: Float[Tensor, "batch 1 width"],
    scale: Float[Tensor, "batch 1 width"],
) -> Float[Tensor, "batch tokens width"]:
    """Returns x·(1 + scale) + shift."""
    return x * (1 + scale) + shift

"""The readout of DiT and its descendants."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from mudit.nn.modulation import AdaLN, modulate


class FinalLayer(nn.Module):
    """Normalises, shifts and scales, and reads out one patch per token ([DiT] code).

    Args:
        width: Size of a token.
        patch_size: Side of a patch, in pixels.
        out_channels: Channels of the output.
    """

    def __init__(self, width: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, patch_size**2 * out_channels)
        self.adaLN_modulation = AdaLN(width, 2)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        condition: Float[Tensor, "batch width"],
    ) -> Float[Tensor, "batch tokens patch"]:
        """Returns patches, each flattened in the order (row, column, channel)."""
        shift, scale = self.adaLN_modulation(condition)
        patches: Tensor = self.linear(modulate(self.norm_final(x), shift, scale))
        return patches  # (B, N, P·P·C)

"""Multi-head self-attention with one fused projection."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention over all tokens; logits are scaled by head_dim^-1/2 ([muDiT] 3.2.1, footnote 1).

    The rows of `qkv` are laid out (3, H, D) as in timm, so that its checkpoints load.

    Args:
        width: Size of a token.
        num_heads: Heads; must divide `width`.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the mixed tokens."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, H, D)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, N, D) each
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # (B, N, W)

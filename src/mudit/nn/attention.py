"""Multi-head self-attention with one fused projection."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention over all tokens, with logits scaled by head_dim^-1/2 ([muDiT] 3.2.1).

    The rows of `qkv` are laid out (3, H, D) as in timm, so that its checkpoints load.

    Args:
        width: Size of a token.
        num_heads: Heads; must divide `width`.
        qkv_bias: Biases of queries, keys and values.
    """

    def __init__(self, width: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = width // num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        mask: Bool[Tensor, "batch 1 1 tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the mixed tokens.

        Args:
            x: Tokens.
            mask: Which of them are attended to; None for all.
        """
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
        # Unbound before they are transposed, so that backward joins the gradients without a copy.
        query, key, value = (z.transpose(1, 2) for z in qkv.unbind(2))  # (B, H, N, D) each
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))  # (B, N, W)
        return out

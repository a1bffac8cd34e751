"""Attention of image tokens over a text."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class CrossAttention(nn.Module):
    """Multi-head attention whose keys and values come from a text ([PixArt] code).

    The rows of `kv_linear` are laid out (2, H, D).

    Args:
        width: Size of a token, of image and text alike.
        num_heads: Heads; must divide `width`.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = width // num_heads
        self.q_linear = nn.Linear(width, width)
        self.kv_linear = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        text: Float[Tensor, "batch length width"],
        mask: Bool[Tensor, "batch 1 1 length"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns what the image's tokens read in the text.

        Args:
            x: Tokens of the image.
            text: Tokens of the text.
            mask: False for tokens that are not attended to. Of a text that is False throughout,
                zeros are read: torch's softmax of nothing.
        """
        batch, tokens, width = x.shape
        query = self.q_linear(x).view(batch, tokens, self.num_heads, self.head_dim)
        both = self.kv_linear(text).view(batch, -1, 2, self.num_heads, self.head_dim)
        key, value = (z.transpose(1, 2) for z in both.unbind(2))  # (B, H, L, D) each
        mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, mask)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))  # (B, N, W)
        return out

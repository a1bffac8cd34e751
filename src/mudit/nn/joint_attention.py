"""Attention over two streams of tokens, each with projections of its own ([SD3] 4)."""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

_NORM_EPS = 1e-6  # [SD3] code

# Queries, keys and values of one stream, which has as many tokens as it likes.
Heads: TypeAlias = tuple[
    Float[Tensor, "batch _ heads dim"],
    Float[Tensor, "batch _ heads dim"],
    Float[Tensor, "batch _ heads dim"],
]


class HeadNorm(nn.RMSNorm):
    """RMS norm over a head, with a gain that all heads share ([SD3] code's RMSNorm).

    Args:
        head_dim: Size of a head.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__(head_dim, eps=_NORM_EPS)

    def forward(
        self, x: Float[Tensor, "batch tokens heads dim"]
    ) -> Float[Tensor, "batch tokens heads dim"]:
        """Returns the normalised heads."""
        # Under autocast x is half precision, and torch has no fused norm for two kinds of float.
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class StreamAttention(nn.Module):
    """One stream's part of a joint attention, or, called alone, self-attention.

    The rows of `qkv` are laid out (3, H, D) as in [SD3] code, so that its checkpoints load.

    Args:
        width: Size of a token.
        num_heads: Heads; must divide `width`.
        qk_norm: RMS norms of queries and keys over each head, with gains that the heads share.
        pre_only: No output projection: nothing reads what this stream takes from the others.
    """

    def __init__(
        self, width: int, num_heads: int, *, qk_norm: bool, pre_only: bool = False
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = width // num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = None if pre_only else nn.Linear(width, width)
        self.ln_q = HeadNorm(self.head_dim) if qk_norm else None
        self.ln_k = HeadNorm(self.head_dim) if qk_norm else None

    def project(self, x: Float[Tensor, "batch tokens width"]) -> Heads:
        """Returns queries, keys and values, (B, N, H, D) each."""
        batch, tokens, width = x.shape
        heads = (self.num_heads, self.head_dim)
        if self.ln_q is None or self.ln_k is None:
            query, key, value = self.qkv(x).view(batch, tokens, 3, *heads).unbind(2)
            return query, key, value
        # Values apart: the norms keep queries and keys for backward, and would keep them, too.
        weights = torch.split(self.qkv.weight, [2 * width, width])
        biases = torch.split(self.qkv.bias, [2 * width, width])
        query, key = F.linear(x, weights[0], biases[0]).view(batch, tokens, 2, *heads).unbind(2)
        value = F.linear(x, weights[1], biases[1]).view(batch, tokens, *heads)
        return self.ln_q(query), self.ln_k(key), value

    def read_out(
        self, mixed: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns what the attention mixed, projected; not with `pre_only`."""
        assert self.proj is not None
        out: Tensor = self.proj(mixed)
        return out

    def forward(
        self, x: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the mixed tokens of this stream alone."""
        return self.read_out(_attend(*self.project(x), None))


def joint_attention(
    first: Heads, second: Heads, mask: Bool[Tensor, "batch 1 1 all_tokens"] | None = None
) -> tuple[Float[Tensor, "batch first width"], Float[Tensor, "batch second width"]]:
    """Returns the tokens of two streams, each mixed from both; not yet projected.

    Args:
        first: Queries, keys and values of the stream that comes first in the joint sequence.
        second: Those of the other.
        mask: Which tokens of the joint sequence are attended to; None for all.
    """
    # Joined before heads and tokens change places, so that backward cuts without a copy.
    query, key, value = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
    mixed = _attend(query, key, value, mask)  # (B, L + N, W)
    length = first[0].shape[1]
    return mixed[:, :length], mixed[:, length:]


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))  # (B, H, N, D)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)  # (B, N, W)

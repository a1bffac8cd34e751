"""The token-wise MLP with a gate."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SwiGLU(nn.Module):
    """w2(SiLU(w1·x) ∘ w3·x) without biases; the names are those of [SD3] code.

    Differs from [SD3] code: `hidden` is taken as it is, neither cut to two thirds nor rounded.

    Args:
        width: Size of a token.
        hidden: Size of the gate and of what it gates.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Returns each token transformed on its own."""
        out: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return out

"""The token-wise MLP of a Transformer block."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Linear, GELU (tanh approximation, [DiT] code), Linear.

    Args:
        width: Size of a token.
        hidden: Size between the two layers.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Returns each token transformed on its own."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out

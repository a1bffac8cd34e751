"""The token-wise MLP of a Transformer block."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Linear, GELU, Linear.

    Args:
        width: Size of a token.
        hidden: Size between the two layers.
        in_features: Size of what comes in, where it is not a token.
        approximate: GELU's: "tanh" ([DiT] code), or "none" ([U-ViT] code).
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        in_features: int | None = None,
        approximate: Literal["none", "tanh"] = "tanh",
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features or width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.approximate = approximate

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch width"]:
        """Returns each token transformed on its own."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))
        return out

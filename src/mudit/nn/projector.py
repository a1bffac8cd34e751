"""The head that representation alignment trains beside a model ([REPA])."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

_HIDDEN = 2048  # [REPA] code: projector_dim, whatever the model's width


class Projector(nn.Sequential):
    """Maps a model's tokens to the features of another encoder: Linear, SiLU, Linear, SiLU, Linear.

    Its hidden size does not grow with the model, so under μP the first weight is an output weight
    and the others are scalars. It must not start at zero: its result would be one constant vector,
    whose cosine with anything has no useful gradient.

    Args:
        width: Size of a token.
        out_features: Size of the encoder's features.
        hidden: Size between the layers.
    """

    def __init__(self, width: int, out_features: int, *, hidden: int = _HIDDEN) -> None:
        super().__init__(
            nn.Linear(width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, out_features),
        )

    def forward(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens features"]:
        """Returns one feature for each token."""
        features: Tensor = super().forward(tokens)  # type: ignore[no-untyped-call]
        return features

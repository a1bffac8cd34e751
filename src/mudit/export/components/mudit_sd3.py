"""SD3Transformer2DModel that attends to no padding, as this folder's weights were trained.

Made by mudit. The stock class attends to every row of a text's features, and pads are rows; with
guidance, a text and "nothing said" have one length. Here rows that are 0 throughout, at the end of
a text, are cut off.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput


class MuSD3(SD3Transformer2DModel):
    """The stock class and its weights; texts of each length go through it on their own."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        pooled_projections: torch.Tensor,
        timestep: torch.Tensor,
        joint_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> Any:
        """As the stock class does."""
        says = encoder_hidden_states.ne(0).any(dim=-1)  # (B, L)
        places = torch.arange(1, says.shape[1] + 1, device=says.device)
        lengths = (says * places).amax(dim=1).clamp(min=1)  # (B,)
        prediction = torch.empty_like(hidden_states)
        for length in lengths.unique().tolist():
            rows = lengths == length
            prediction[rows] = (
                super()
                .forward(
                    hidden_states[rows],
                    encoder_hidden_states[rows, :length],
                    pooled_projections[rows],
                    timestep[rows],
                    joint_attention_kwargs=joint_attention_kwargs,
                    return_dict=False,
                    **kwargs,
                )[0]
                .to(prediction.dtype)
            )
        return Transformer2DModelOutput(sample=prediction) if return_dict else (prediction,)

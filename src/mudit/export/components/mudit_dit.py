"""DiTTransformer2DModel as this folder's weights were trained. Made by mudit.

Two constants of diffusers are others here. The frequencies of the timestep are 1/128 of their range
apart, as in facebookresearch/DiT, and not 1/127. And the class "nothing said" is the last row of
the table, which DiTPipeline takes for number 1000.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import Timesteps

PIPELINES_NULL_CLASS = 1000


class MuDiT(DiTTransformer2DModel):
    """The stock class and its weights, with the two constants of training."""

    @functools.wraps(DiTTransformer2DModel.__init__)  # diffusers reads the options' names off it
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, Timesteps):
                module.downscale_freq_shift = 0

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor | None = None,
        class_labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the stock class does."""
        if class_labels is not None:
            null = self.config.num_embeds_ada_norm
            class_labels = class_labels.masked_fill(class_labels == PIPELINES_NULL_CLASS, null)
        return super().forward(hidden_states, timestep, class_labels, **kwargs)

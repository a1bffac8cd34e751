"""The exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


def decay_from_half_life(share: float, steps: int) -> float:
    """The decay per step whose half-life is `share` of a run of `steps` steps."""
    return float(0.5 ** (1.0 / max(share * steps, 1e-9)))


class EMA:
    """A copy of a model that follows it; buffers are those at the time of copying.

    Args:
        model: The model to follow. A plan attaches nothing to it, so a deep copy is a whole model.
        decay: Share of the average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self._pairs = [
            (mine, theirs)
            for mine, theirs in zip(self.model.parameters(), model.parameters())
            if theirs.requires_grad
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the followed model's weights by 1 - decay."""
        mine, theirs = zip(*self._pairs)
        torch._foreach_lerp_(list(mine), list(theirs), 1.0 - self.decay)

"""The validation bank: fixed held-out images, t and noise, shared by every trial of a study.

Losses on it are compared in pairs: what differs between two trials is their weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mudit.data import ImageDataset
from mudit.diffusion import LabelledNetwork, Objective
from mudit.training.randomness import generator


@dataclass(frozen=True, kw_only=True)
class ValidationBank:
    """(image, label, t, noise) quadruples.

    Attributes:
        x0: Images, shape (K, C, H, W).
        labels: Classes, shape (K,).
        t: Times, one from the middle of each of K equally likely strata, shape (K,).
        noise: Standard normal, shape (K, C, H, W).
    """

    x0: Tensor
    labels: Tensor
    t: Tensor
    noise: Tensor

    @classmethod
    def draw(
        cls, dataset: ImageDataset, objective: Objective, *, size: int, seed: int
    ) -> ValidationBank:
        """A bank of `size` entries from held-out images, a function of its arguments alone.

        Images are taken round and round in an order of their own, so that t and class do not go
        together.
        """
        rng = generator(seed, "bank")
        order = torch.randperm(dataset.num_samples, generator=rng).numpy()
        indices = np.resize(order, size).astype(np.int64)
        x0, labels = dataset.batch(indices)
        noise = torch.randn(x0.shape, generator=rng)
        t = objective.stratified_t(size)[torch.randperm(size, generator=rng)]
        return cls(x0=x0, labels=labels, t=t, noise=noise)

    def to(self, device: torch.device) -> ValidationBank:
        """The bank on another device."""
        return ValidationBank(
            x0=self.x0.to(device),
            labels=self.labels.to(device),
            t=self.t.to(device),
            noise=self.noise.to(device),
        )

    @torch.no_grad()
    def losses(
        self, network: LabelledNetwork, objective: Objective, *, batch_size: int
    ) -> dict[str, float]:
        """Mean of each term of the loss over the bank, summed in float64."""
        sums: dict[str, float] = {}
        for start in range(0, len(self.t), batch_size):
            part = slice(start, start + batch_size)
            at = partial(_labelled, network, self.labels[part])
            terms = objective.loss(at, self.x0[part], self.t[part], noise=self.noise[part])
            for name, values in terms.named().items():
                sums[name] = sums.get(name, 0.0) + values.double().sum().item()
        return {name: value / len(self.t) for name, value in sums.items()}


def _labelled(network: LabelledNetwork, labels: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    return network(x_t, t, labels)

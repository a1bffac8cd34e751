"""What a coordinate check trains when it is not given a loss of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mudit.data import open_dataset
from mudit.diffusion import DDPM, DDPMConfig
from mudit.models import DiTConfig, builder
from mudit.program import Build
from mudit.tuning.measurement import Loss

_Draw: TypeAlias = Callable[[torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class CheckTask:
    """A model and a loss on data.

    Attributes:
        build: Makes the model at a width.
        loss: Of the model, on a batch that it draws from the generator.
    """

    build: Build
    loss: Loss


def digits_task(
    *,
    depth: int = 1,
    head_dim: int = 8,
    patch_size: int = 4,
    init: Literal["dit", "dit_mup"] = "dit_mup",
    batch_size: int = 16,
) -> CheckTask:
    """A small DiT that denoises scikit-learn's digits.

    Few tokens and a small batch: the rank of a gradient is at most tokens times images, and where
    that is above the width, slopes are bent by it.
    """
    dataset = open_dataset("digits").train
    images, labels = dataset.batch(np.arange(dataset.num_samples))
    config = DiTConfig(
        depth=depth,
        num_heads=4,
        head_dim=head_dim,
        patch_size=patch_size,
        input_size=dataset.size,
        in_channels=dataset.channels,
        num_classes=dataset.num_classes,
        learn_sigma=False,
        init=init,
    )

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(labels), (batch_size,), generator=generator)
        return images[chosen], labels[chosen]

    return CheckTask(build=builder(config), loss=_ddpm_loss(config, draw))


def noise_task(config: DiTConfig, *, batch_size: int = 16) -> CheckTask:
    """Any DiT, on images of normal noise with random labels: its own data are not needed."""

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        size = (batch_size, config.in_channels, config.input_size, config.input_size)
        images = torch.randn(size, generator=generator)
        labels = torch.randint(config.num_classes, (batch_size,), generator=generator)
        return images, labels

    return CheckTask(build=builder(config), loss=_ddpm_loss(config, draw))


def _ddpm_loss(config: DiTConfig, draw: _Draw) -> Loss:
    ddpm = DDPM(DDPMConfig(learn_sigma=config.learn_sigma))

    def loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        images, labels = draw(generator)
        t = ddpm.draw_t(len(images), generator)
        noise = torch.randn(images.shape, generator=generator)
        terms = ddpm.loss(lambda x, t: model(x, t, labels), images, t, noise=noise)
        return terms.total.mean()

    return loss

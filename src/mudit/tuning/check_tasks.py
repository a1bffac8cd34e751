"""What a coordinate check trains when it is not given a loss of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mudit.data import class_captions, open_dataset
from mudit.diffusion import DDPM, ObjectiveConfig
from mudit.models import (
    ModelConfig,
    architecture_named,
    architecture_of,
    builder,
    config_for,
    example_inputs,
)
from mudit.program import Build, Inputs
from mudit.training import Conditioning
from mudit.tuning.measurement import Loss

_CAPTIONS = 10  # classes of a text-conditioned model on noise
_Draw: TypeAlias = Callable[[torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class CheckTask:
    """A model and a loss on data.

    Attributes:
        build: Makes the model at a width.
        loss: Of the model, on a batch that it draws from the generator.
        inputs: Example inputs, from which roles are measured; None if there are none.
        eps: Adam's.
        unused: Patterns of parameters that the loss does not use.
    """

    build: Build
    loss: Loss
    inputs: Inputs | None = None
    eps: float = 1e-8
    unused: tuple[str, ...] = ()


def digits_task(
    architecture: str = "dit",
    *,
    depth: int | None = None,
    head_dim: int = 8,
    patch_size: int = 4,
    init: str | None = None,
    batch_size: int = 16,
) -> CheckTask:
    """A small model that denoises scikit-learn's digits; by default as shallow as can be.

    Few tokens and a small batch: the rank of a gradient is at most tokens times images, and where
    that is above the width, slopes are bent by it.
    """
    dataset = open_dataset("digits").train
    images, labels = dataset.batch(np.arange(dataset.num_samples))
    captions = class_captions(dataset.class_names)
    config = config_for(
        architecture,
        init=init,
        learn_sigma=False,
        depth=depth or architecture_named(architecture).least_depth,
        num_heads=4,
        head_dim=head_dim,
        patch_size=patch_size,
        input_size=dataset.size,
        in_channels=dataset.channels,
        num_classes=dataset.num_classes,
        caption_dim=32,
        caption_tokens=1 + max(len(caption.encode()) for caption in captions),
    )

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(labels), (batch_size,), generator=generator)
        return images[chosen], labels[chosen]

    return _task(config, captions, draw)


def noise_task(config: ModelConfig, *, batch_size: int = 16) -> CheckTask:
    """Any of the architectures, on normal noise with random labels: its own data are not needed."""
    num_classes: int = getattr(config, "num_classes", None) or _CAPTIONS
    captions = class_captions([str(number) for number in range(num_classes)])

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        size = (batch_size, config.in_channels, config.input_size, config.input_size)
        images = torch.randn(size, generator=generator)
        labels = torch.randint(num_classes, (batch_size,), generator=generator)
        return images, labels

    return _task(config, captions, draw)


def _task(config: ModelConfig, captions: tuple[str, ...], draw: _Draw) -> CheckTask:
    architecture = architecture_of(config)
    return CheckTask(
        build=builder(config),
        loss=_ddpm_loss(config, captions, draw),
        inputs=example_inputs(config),
        eps=architecture.eps,
        unused=architecture.idle(config.depth),
    )


def _ddpm_loss(config: ModelConfig, captions: tuple[str, ...], draw: _Draw) -> Loss:
    ddpm = DDPM(ObjectiveConfig(learn_sigma=config.out_channels > config.in_channels))

    def loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        images, labels = draw(generator)
        t = ddpm.draw_t(len(images), generator)
        noise = torch.randn(images.shape, generator=generator)
        told = Conditioning.of(config, captions, model)(labels)
        terms = ddpm.loss(lambda x, t: model(x, t, *told), images, t, noise=noise)
        return terms.total.mean()

    return loss

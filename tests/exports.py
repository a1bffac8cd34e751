"""Runs to be exported: their configs, and models that need no training."""

from __future__ import annotations

from typing import Any

import torch

from mudit.diffusion import ObjectiveConfig
from mudit.models import architecture_of, config_for
from mudit.training import (
    DataConfig,
    Hyperparameters,
    ParametrizationConfig,
    RunConfig,
    TrainingConfig,
)

CAPTIONS = ("a cat", "a picture of two dogs", "nine red balloons over a lake")


def run_config(
    architecture: str,
    *,
    kind: str = "ddpm",
    source: str = "folder:pets",
    channels: int = 3,
    size: int = 8,
    patch_size: int = 2,
    num_classes: int = 3,
    learn_sigma: bool | None = None,
    objective: dict[str, Any] | None = None,
) -> RunConfig:
    if learn_sigma is None:
        learn_sigma = architecture in ("dit", "pixart") and kind == "ddpm"
    model = config_for(
        architecture, init=None, learn_sigma=learn_sigma, depth=2, num_heads=2, head_dim=16,
        patch_size=patch_size, input_size=size, in_channels=channels, mlp_ratio=4.0,
        num_classes=num_classes, caption_dim=24, caption_tokens=40,
    )  # fmt: skip
    return RunConfig(
        model=model,
        data=DataConfig(source=source, size=size),
        objective=ObjectiveConfig(kind=kind, learn_sigma=learn_sigma, **(objective or {})),  # type: ignore[arg-type]
        parametrization=ParametrizationConfig(base_width=16),
        hps=Hyperparameters(lr=2**-7, phi={"output": 2.0}),
        training=TrainingConfig(bank_size=32),
        batch_size=4,
        steps=3,
        captions=() if architecture in ("dit", "uvit") else CAPTIONS,
    )


def drawn_model(config: RunConfig, *, seed: int = 0) -> torch.nn.Module:
    """A model none of whose trainable weights is zero, so that each of them has a say."""
    torch.manual_seed(seed)
    model = architecture_of(config.model).model(config.model).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model

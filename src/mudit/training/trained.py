"""A finished run's model, ready to be sampled."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import nn

from mudit.errors import DataError
from mudit.models import builder
from mudit.training.checkpoint import load_weights
from mudit.training.conditioning import Conditioning
from mudit.training.config import RunConfig, read_config
from mudit.training.trainer import resolve_device


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        config: Its run's.
        model: In evaluation mode, with the averaged weights.
        conditioning: What it is told of a class.
    """

    config: RunConfig
    model: nn.Module
    conditioning: Conditioning


def load_trained(folder: Path, *, device: str = "auto") -> Trained:
    """Returns the model of the run in `folder`.

    Raises:
        DataError: There is no finished run, or its files are damaged.
        EnvironmentFailure: The device is not there.
    """
    if not (folder / "ema.safetensors").exists():
        raise DataError(f"{folder} holds no finished run: there is no ema.safetensors in it.")
    config = read_config(RunConfig, folder / "config.json")
    model = builder(config.model)(config.model.width)
    load_weights(model, folder / "ema.safetensors")
    model.to(resolve_device(device)).eval()
    return Trained(config, model, Conditioning.of(config.model, config.captions, model))

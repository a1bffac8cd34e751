"""A finished run's model, ready to be sampled."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from mudit.data import (
    TextEncoder,
    is_stored,
    open_text_encoder,
    read_layout,
    text_encoder_spec,
)
from mudit.errors import DataError, UsageError
from mudit.models import MMDiTConfig, builder, is_text_conditioned
from mudit.training.checkpoint import load_weights
from mudit.training.conditioning import Conditioning, text_features, text_folder
from mudit.training.config import RunConfig, TextConfig, read_config
from mudit.training.trainer import resolve_device


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        config: Its run's.
        model: In evaluation mode, with the averaged weights.
        conditioning: What it is told of a class, or a prompt.
    """

    config: RunConfig
    model: nn.Module
    conditioning: Conditioning


def finished_run(folder: Path) -> RunConfig:
    """The config of the finished run in `folder`.

    Raises:
        DataError: There is none.
        UsageError: Its config is not valid.
    """
    if not (folder / "ema.safetensors").exists():
        raise DataError(
            f"{folder} holds no finished run: there is no ema.safetensors in it. Expected the "
            "folder of `mudit train`, or of a study's target, e.g. runs/digits/target_mup."
        )
    return read_config(RunConfig, folder / "config.json")


def load_trained(
    folder: Path,
    *,
    device: str = "auto",
    prompts: Sequence[str] = (),
    text_encoder: str = "",
) -> Trained:
    """Returns the model of the run in `folder`.

    Args:
        folder: The run's.
        device: Where to put it.
        prompts: What a text-conditioned model can be asked for, by number; empty: the captions of
            its classes, if its data had classes.
        text_encoder: Where the run's text encoder is now; see `with_text_encoder`.

    Raises:
        DataError: There is no finished run, its files are damaged, or the text encoder is another.
        EnvironmentFailure: The device is not there, or the text encoder cannot be had.
        UsageError: There are prompts for a model that takes classes, or none for one of captions.
    """
    config = with_text_encoder(finished_run(folder), text_encoder)
    model = builder(config.model)(config.model.width)
    load_weights(model, folder / "ema.safetensors")
    model.to(resolve_device(device)).eval()
    return Trained(config, model, _conditioning(config, model, folder, prompts))


def _conditioning(
    config: RunConfig, model: nn.Module, folder: Path, prompts: Sequence[str]
) -> Conditioning:
    if not is_text_conditioned(config.model):
        if prompts:
            raise UsageError(
                f"{folder} holds a model that is told a class, not a text; ask for classes instead "
                "of prompts."
            )
        return Conditioning.of(config.model, (), model)
    tokens, captions = config.model.caption_tokens, prompts or config.captions
    if not captions:
        raise UsageError(
            f"{folder} holds a model that was trained on captions: give prompts, e.g. --prompts "
            "'[\"a red apple\"]'."
        )
    if prompts:
        encoder = run_encoder(config, folder, device=next(model.parameters()).device)
        return prompt_conditioning(config, model, prompts, encoder)
    kept = text_features(
        config.text, captions, folder, tokens=tokens, bytes_dim=config.model.caption_dim or 0
    )
    return Conditioning.of(config.model, captions, model, features=kept, in_memory=None)


def with_text_encoder(config: RunConfig, spec: str) -> RunConfig:
    """A run's config that names another place of its text encoder.

    Args:
        config: The run's.
        spec: As `open_text_encoder` takes it, or a folder; empty: the place that the run knows.

    Raises:
        UsageError: The run has none, or the built-in one in place of another, or the reverse.
    """
    if not spec:
        return config
    if not is_text_conditioned(config.model):
        raise UsageError(
            f"--text_encoder {spec}: the model is told classes, not texts. Leave it out."
        )
    spec, own = text_encoder_spec(spec), config.text.encoder
    if spec != own and "bytes" in (spec, own):
        raise UsageError(
            f"--text_encoder is {spec}, but the run was told texts by {own}. Leave it out, or give "
            "that encoder."
        )
    return dataclasses.replace(config, text=dataclasses.replace(config.text, encoder=spec))


def run_encoder(
    config: RunConfig, folder: Path, *, device: torch.device | None = None
) -> TextEncoder:
    """The frozen text encoder of a text-conditioned run.

    Args:
        config: The run's.
        folder: The run's, where its texts' features may be.
        device: Where it works; None: the CPU.

    Raises:
        DataError: It is not the one that the training's captions were encoded with.
        EnvironmentFailure: It cannot be had.
    """
    assert is_text_conditioned(config.model)
    assert config.model.caption_dim is not None
    encoder = open_text_encoder(
        config.text.encoder, bytes_dim=config.model.caption_dim, device=device
    )
    _check_sizes(encoder, config)
    _check_encoder(encoder, config.text, folder)
    return encoder


def prompt_conditioning(
    config: RunConfig, model: nn.Module, prompts: Sequence[str], encoder: TextEncoder
) -> Conditioning:
    """What a text-conditioned run's model is told of prompts, by their number.

    Args:
        config: The run's.
        model: Its model.
        prompts: Texts; a longer one than the run's captions is cut off with a warning.
        encoder: `run_encoder` of the run.
    """
    assert is_text_conditioned(config.model)
    features = encoder.encode([*prompts, ""], tokens=config.model.caption_tokens)
    return Conditioning.of(config.model, prompts, model, features=features)


def _check_sizes(encoder: TextEncoder, config: RunConfig) -> None:
    """All that tells encoders apart where the features of the run's captions are gone."""
    model, found = config.model, encoder.sizes(())
    assert is_text_conditioned(model)
    known = [model.caption_dim, model.pooled_dim if isinstance(model, MMDiTConfig) else None]
    names = ("token", "pooled vector")
    for name, size, wanted in zip(names, (found.dim, found.pooled_dim), known, strict=True):
        if wanted is not None and size != wanted:
            raise DataError(
                f"the text encoder {config.text.encoder} has {size} numbers for a {name}, but the "
                f"run's model is told {wanted}. Give the encoder that the run's texts were encoded "
                "by, with --text_encoder if it has moved."
            )


def _check_encoder(encoder: TextEncoder, text: TextConfig, folder: Path) -> None:
    """Prompts are for the weights that the training's captions were encoded with."""
    place = text_folder(text, folder)
    if place is None or not is_stored(place):
        return
    known = read_layout(place).facts["encoder_hash"]
    if encoder.hash != known:
        raise DataError(
            f"text.encoder {text.encoder} has the hash {encoder.hash[:12]}, but the run's texts "
            f"were encoded by one with the hash {known[:12]} ({place}). Put that one there, or "
            "say with --text_encoder where it is."
        )

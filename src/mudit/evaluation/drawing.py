"""One run's samples, batch by batch, whatever batches they are drawn in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mudit.diffusion import SampleNoise, SamplerStep, resolve_method
from mudit.errors import EnvironmentFailure, Interrupted, UsageError
from mudit.evaluation.decode import Decode, open_decoder
from mudit.evaluation.generate import sampled_images
from mudit.evaluation.request import Asked, SampleConfig, asked_of
from mudit.training import (
    RunConfig,
    Trained,
    finished_run,
    load_trained,
    prompt_conditioning,
    run_encoder,
    stream_seed,
    with_text_encoder,
)

# So many prompts are encoded before the first image; more of them batch by batch, so that their
# features, up to 2 MB each from a T5-XXL, do not fill the memory.
_ENCODED_AT_ONCE = 512

OnProgress: TypeAlias = Callable[[str, float, int], None]
"""Told a run's name, its images so far (a part of one counts) and how many there will be."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A run that is sampled.

    Attributes:
        folder: The run's.
        name: What it is called beside others.
        run: Its config.
        config: Which samples.
        asked: What each is asked for.
    """

    folder: Path
    name: str
    run: RunConfig
    config: SampleConfig
    asked: Asked

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Everything that all its images share, for their metadata."""
        sampler = dataclasses.asdict(self.config.sampler)
        sampler["method"] = resolve_method(self.config.sampler.method, self.run.objective)
        return {
            "run": "/".join(self.folder.resolve().parts[-2:]),
            "run_config": _digest(self.folder / "config.json"),
            "weights": _digest(self.folder / "ema.safetensors"),
            "seed": self.config.seed,
            **sampler,
        }

    @cached_property
    def claim(self) -> str:
        """What its images depend on, as JSON."""
        config = {
            key: value
            for key, value in dataclasses.asdict(self.config).items()
            if key not in ("sampler", "seed")
        }
        config["prompts"] = self.asked.texts
        config["num_samples"] = len(self.asked.labels)
        return json.dumps(self.facts | config, indent=1, ensure_ascii=False) + "\n"

    @property
    def image_size(self) -> int:
        """Side of its pictures, pixels; of a run on latents those that they are decoded to."""
        latents = self.run.data.latents
        return self.run.model.input_size if latents is None else latents.image_size

    def row(self, number: int) -> dict[str, Any]:
        """What is a sample's own: its number, its class or prompt."""
        label = int(self.asked.labels[number])
        if self.asked.texts:
            return {"number": number, "prompt": self.asked.texts[label]}
        return {"number": number, "class": label}

    def metadata(self, number: int, *, made_by: str) -> dict[str, Any]:
        """What its picture says of itself."""
        return self.row(number) | self.facts | {"made_by": made_by}


def open_sources(folders: Sequence[Path], config: SampleConfig) -> tuple[Source, ...]:
    """The runs, none of their models loaded yet; several must be comparable.

    Raises:
        DataError: One is no finished run.
        UsageError: One cannot be asked for this, or they cannot stand beside each other.
    """
    runs = [finished_run(folder) for folder in folders]
    sources = tuple(
        Source(folder=folder, name=name, run=run, config=config, asked=asked)
        for folder, name, run, asked in zip(
            folders,
            _names(folders),
            runs,
            [asked_of(config, run, folder) for folder, run in zip(folders, runs)],
        )
    )
    for other in sources[1:]:
        _comparable(sources[0], other)
    return sources


def batches(
    source: Source,
    numbers: Sequence[int],
    *,
    batch_size: int,
    device: str,
    vae: str,
    text_encoder: str,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
    done: int = 0,
) -> Iterator[NDArray[np.uint8]]:
    """The images of samples `numbers`, batch by batch, as uint8 (B, H, W, 3).

    A sample depends on the seed and on its number alone, but for the model's rounding. Grey images
    are repeated to three channels.

    Args:
        source: The run; its model is loaded now.
        numbers: Which of its samples.
        batch_size: Images denoised at once.
        device: Where.
        vae: For a run on latents, another place of its VAE; empty: the one that it knows.
        text_encoder: Another place of its text encoder; likewise.
        on_progress: Told after each step.
        should_stop: Asked after each step.
        done: Images that were there before, for `on_progress`.

    Raises:
        EnvironmentFailure: The device is not there, or has too little memory.
        Interrupted: `should_stop` said so; the batch is lost.
        UsageError: The model makes NaN, or no pictures.
    """
    texts = source.asked.texts
    piecemeal = not source.asked.from_run and len(texts) > _ENCODED_AT_ONCE
    prompts = () if source.asked.from_run else texts[:1] if piecemeal else texts
    trained = load_trained(source.folder, device=device, prompts=prompts, text_encoder=text_encoder)
    decode = open_decoder(source.run.data, vae=vae, device=device)
    device_of_text = next(trained.model.parameters()).device
    run = with_text_encoder(source.run, text_encoder)
    encoder = run_encoder(run, source.folder, device=device_of_text) if piecemeal else None
    seed = stream_seed(source.config.seed, "sample")
    total = done + len(numbers)
    for start in range(0, len(numbers), batch_size):
        part = tuple(numbers[start : start + batch_size])
        labels = source.asked.labels[list(part)]
        told = trained
        if encoder is not None:
            which, labels = np.unique(labels, return_inverse=True)
            chosen = [texts[label] for label in which]
            told = trained._replace(
                conditioning=prompt_conditioning(source.run, trained.model, chosen, encoder)
            )
        finished = done + start

        def step(
            state: SamplerStep, finished: int = finished, part: tuple[int, ...] = part
        ) -> None:
            if should_stop():
                raise Interrupted(
                    f"stopped after {finished:,} of {total:,} images of {source.folder}. Repeat "
                    "the command to go on."
                )
            share = min(1.0, (state.index + 1) / source.config.sampler.steps)
            on_progress(source.name, finished + share * len(part), total)

        yield _batch(told, labels, source, SampleNoise(seed=seed, numbers=part), decode, step)
        on_progress(source.name, finished + len(part), total)


def _batch(
    trained: Trained,
    labels: NDArray[np.int64],
    source: Source,
    noise: SampleNoise,
    decode: Decode,
    step: Callable[[SamplerStep], None],
) -> NDArray[np.uint8]:
    try:
        images = sampled_images(
            trained,
            torch.from_numpy(labels),
            source.config.sampler,
            noise=noise,
            decode=decode,
            batch_size=len(noise),
            callback=step,
        )
    except torch.OutOfMemoryError as error:
        raise EnvironmentFailure(
            f"a batch of {len(noise)} images does not fit into the device's memory ({error}). "
            "Repeat the command with a smaller --batch_size; what was drawn before is kept."
        ) from None
    if images.shape[3] not in (1, 3):
        raise UsageError(
            f"{source.folder} makes {images.shape[3]} channels, expected 1 (grey) or 3 (RGB): "
            "these are no pictures."
        )
    return images if images.shape[3] == 3 else images.repeat(3, axis=3)


def _names(folders: Sequence[Path]) -> list[str]:
    """As much of the ends of their paths as tells them apart."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        twice = next(folder for folder, one in zip(folders, parts) if parts.count(one) > 1)
        raise UsageError(f"the run {twice} is given twice; give different runs to compare.")
    length = 1
    while len({one[-length:] for one in parts}) < len(parts):
        length += 1
    return ["/".join(one[-length:]) for one in parts]


def _comparable(first: Source, other: Source) -> None:
    """Raises UsageError unless the two models make the same kind of images of the same things."""
    a, b = first.run.model, other.run.model
    pair = f"{first.folder} and {other.folder} cannot stand beside each other"
    sizes = [(model.in_channels, model.input_size, model.input_size) for model in (a, b)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"{pair}: their images (channels, height, width) are {sizes[0]} and {sizes[1]}; "
            "expected the same size, and so the same noise. Give runs on the same data."
        )
    kinds = ["texts" if source.asked.texts else "classes" for source in (first, other)]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"{pair}: the one is told {kinds[0]}, the other {kinds[1]}. Give two models of "
            "the same."
        )
    if first.asked.texts != other.asked.texts:
        raise UsageError(
            f"{pair}: they were trained on other captions. Give --prompts, which both are told."
        )
    counts = [getattr(model, "num_classes", None) for model in (a, b)]
    if not first.asked.texts and counts[0] != counts[1]:
        raise UsageError(
            f"{pair}: the one has {counts[0]} classes, the other {counts[1]}. Give runs on the "
            "same data."
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]

"""Images from a trained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mudit.diffusion import (
    GuidedChannels,
    LabelledNetwork,
    Method,
    Objective,
    SampleNoise,
    SamplerStep,
    check_interval,
    guided,
    make_objective,
    resolve_method,
    sample,
)
from mudit.errors import UsageError
from mudit.evaluation.decode import Decode
from mudit.models import ModelConfig
from mudit.training import Conditioning, Trained


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How images are drawn from a model.

    Attributes:
        steps: Denoising steps.
        method: For ddpm and vp_sde `ddim` (deterministic), `ddpm` (ancestral) or `dpm++`; for flow
            `euler`, `heun`, `sde` or `dpm++`. None: the first of these.
        cfg_scale: Classifier-free guidance; 1: none.
        cfg_channels: Which channels are guided: `all`, or DiT's `first_three`.
        cfg_interval: Noise levels, in [0, 1], between which there is guidance; None: everywhere.
    """

    _group: ClassVar[str] = ""  # before the fields' names in messages

    steps: int = 50
    method: Method | None = None
    cfg_scale: float = 1.5
    cfg_channels: GuidedChannels = "all"
    cfg_interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.cfg_interval is not None:
            check_interval(self.cfg_interval)
        if self.steps < 2:
            raise UsageError(f"{self._group}steps is {self.steps}, expected at least 2.")


def sampled_images(
    trained: Trained,
    labels: Tensor,
    sampler: SamplerConfig,
    *,
    noise: SampleNoise,
    decode: Decode,
    batch_size: int = 256,
    callback: Callable[[SamplerStep], None] | None = None,
) -> NDArray[np.uint8]:
    """Images of a trained run, as bytes.

    Args:
        trained: The run.
        labels: Classes, or numbers of prompts, shape (N,).
        sampler: How to draw.
        noise: Each sample's own.
        decode: `open_decoder` of the run's data.
        batch_size: Images denoised at once.
        callback: Called once per step of each batch.

    Returns:
        Shape (N, H, W, C).

    Raises:
        UsageError: As `generate`, or the model makes NaN.
    """
    options = {f.name: getattr(sampler, f.name) for f in dataclasses.fields(SamplerConfig)}
    x = generate(
        trained.model,
        trained.conditioning,
        make_objective(trained.config.objective),
        labels,
        noise=noise,
        batch_size=batch_size,
        callback=callback,
        **options,
    )
    return decode(x)


@torch.no_grad()
def generate(
    model: nn.Module,
    conditioning: Conditioning,
    objective: Objective,
    labels: Tensor,
    *,
    noise: SampleNoise,
    steps: int = 50,
    method: Method | None = None,
    cfg_scale: float = 1.0,
    cfg_channels: GuidedChannels = "all",
    cfg_interval: tuple[float, float] | None = None,
    batch_size: int = 256,
    callback: Callable[[SamplerStep], None] | None = None,
) -> Tensor:
    """Samples of the classes in `labels`, in data space.

    Args:
        model: One of `mudit.models`, in evaluation mode, on any device.
        conditioning: What it is told of a class.
        objective: What it was trained with.
        labels: Classes, shape (N,).
        noise: Each sample's own, so that batch size and order change no image (but for the
            rounding of the model).
        steps: Denoising steps.
        method: One that suits the objective; None: `ddim`, or `euler` for a flow.
        cfg_scale: Classifier-free guidance; 1: none.
        cfg_channels: Which channels are guided.
        cfg_interval: Noise levels, in [0, 1], between which there is guidance; None: everywhere.
        batch_size: Images denoised at once.
        callback: Called once per step of each batch.

    Returns:
        Shape (N, C, H, W), on the CPU; data lie in [-1, 1].

    Raises:
        UsageError: A class or the method is unknown, or `noise` is not for N samples.
    """
    config: ModelConfig = model.config  # type: ignore[assignment]
    count = conditioning.num_classes
    if not ((labels >= 0) & (labels < count)).all():
        raise UsageError(
            f"classes run from 0 to {count - 1}, got {labels.min()} to {labels.max()}."
        )
    if len(noise) != len(labels):
        raise UsageError(
            f"generate got {len(labels)} labels and the noise of {len(noise)} samples, expected "
            "as many: SampleNoise.of(len(labels), seed=...)."
        )
    method = resolve_method(method, objective.config)
    device = next(model.parameters()).device
    shape = (config.in_channels, config.input_size, config.input_size)
    network: LabelledNetwork = lambda x, t, y: model(x, t, *conditioning(y))  # noqa: E731
    done = []
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        network_here = guided(
            network,
            labels[part].to(device),
            conditioning.null_label,
            cfg_scale=cfg_scale,
            channels=cfg_channels,
            interval=cfg_interval,
            noise_level=objective.noise_level,
        )
        x0 = sample(
            network_here,
            noise[part].initial(shape).to(device),
            objective,
            method=method,
            sampling_steps=steps,
            noise=noise[part],
            callback=callback,
        )
        done.append(x0.cpu())
    return torch.cat(done)

"""Images from a trained model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mudit.diffusion import (
    DDPM,
    GuidedChannels,
    LabelledNetwork,
    guided,
    sample_ddim,
    sample_ddpm,
    to_uint8,
)
from mudit.errors import UsageError
from mudit.models import ModelConfig
from mudit.training import Conditioning


@torch.no_grad()
def generate(
    model: nn.Module,
    conditioning: Conditioning,
    objective: DDPM,
    labels: Tensor,
    *,
    generator: torch.Generator,
    steps: int = 50,
    method: str = "ddim",
    cfg_scale: float = 1.0,
    cfg_channels: GuidedChannels = "all",
    batch_size: int = 256,
) -> Tensor:
    """Samples of the classes in `labels`, in data space.

    The initial noise is drawn at once on the CPU, so it does not depend on the batch size.

    Args:
        model: One of `mudit.models`, in evaluation mode, on any device.
        conditioning: What it is told of a class.
        objective: What it was trained with.
        labels: Classes, shape (N,).
        generator: Source of the noise, on the CPU.
        steps: Denoising steps.
        method: `ddpm` or `ddim`.
        cfg_scale: Classifier-free guidance; 1: none.
        cfg_channels: Which channels are guided.
        batch_size: Images denoised at once.

    Returns:
        Shape (N, C, H, W), on the CPU; data lie in [-1, 1].

    Raises:
        UsageError: A class or the method is unknown.
    """
    config: ModelConfig = model.config  # type: ignore[assignment]
    count = conditioning.num_classes
    if not ((labels >= 0) & (labels < count)).all():
        raise UsageError(
            f"classes run from 0 to {count - 1}, got {labels.min()} to {labels.max()}."
        )
    if method not in ("ddpm", "ddim"):
        raise UsageError(f"the sampling method is {method!r}, expected 'ddpm' or 'ddim'.")
    device = next(model.parameters()).device
    shape = (len(labels), config.in_channels, config.input_size, config.input_size)
    x_T = torch.randn(shape, generator=generator)
    network: LabelledNetwork = lambda x, t, y: model(x, t, *conditioning(y))  # noqa: E731
    done = []
    for part, noise in zip(torch.split(labels, batch_size), torch.split(x_T, batch_size)):
        guide = guided(
            network,
            part.to(device),
            conditioning.null_label,
            cfg_scale=cfg_scale,
            channels=cfg_channels,
        )
        if method == "ddim":
            x0 = sample_ddim(guide, noise.to(device), objective.schedule, sampling_steps=steps)
        else:
            x0 = sample_ddpm(
                guide,
                noise.to(device),
                objective.schedule,
                sampling_steps=steps,
                generator=generator if device.type == "cpu" else _on(device, generator),
            )
        done.append(x0.cpu())
    return torch.cat(done)


def as_images(x: Tensor) -> NDArray[np.uint8]:
    """uint8 images of shape (N, H, W, C) from data-space tensors (N, C, H, W)."""
    pixels: NDArray[np.uint8] = to_uint8(x).permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def _on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)

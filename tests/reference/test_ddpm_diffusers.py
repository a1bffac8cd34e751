"""Samplers and noising against diffusers' DDPMScheduler and DDIMScheduler, step for step.

The schedulers' float32 tables are replaced by float64 ones, so that only formulas are compared.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from mudit.diffusion import (
    SampleNoise,
    SamplerStep,
    Spacing,
    linear_schedule,
    q_sample,
    respace,
    sample_ddim,
    sample_ddpm,
)

SCHEDULE = linear_schedule()
NOISE = SampleNoise.of(3, seed=1)
# 1000 steps of float64 with amplification 157 (1 / sqrt(alphas_cumprod)) at the first.
TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}


def network(x_t: Tensor, t: Tensor) -> Tensor:
    """Nonlinear in x_t and t; its noise half is near x_t, so that samples stay bounded."""
    phase = (t / 100).view(-1, 1, 1, 1)
    return torch.cat([0.95 * x_t + 0.1 * torch.sin(3 * x_t + phase), torch.cos(x_t + phase)], dim=1)


def noise_only(x_t: Tensor, t: Tensor) -> Tensor:
    return network(x_t, t)[:, : x_t.shape[1]]


def precise(scheduler: DDPMScheduler | DDIMScheduler) -> DDPMScheduler | DDIMScheduler:
    scheduler.betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, dim=0)
    return scheduler


def start() -> Tensor:
    return torch.randn(3, 2, 4, 4, generator=generator(0), dtype=torch.float64)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_same_path(  # type: ignore[no-untyped-def]
    scheduler, steps: list[SamplerStep], end: Tensor, *, model, monkeypatch, **options
) -> None:
    """Walks `scheduler` over its own steps, and compares each x_t and prediction of x0.

    Where diffusers draws a step's noise, it gets that which our sampler drew.
    """
    module = type(scheduler).__module__
    assert [step.t for step in steps] == scheduler.timesteps.tolist()
    x_t = start()
    for place, step in enumerate(steps, start=1):
        drawn = NOISE.like(x_t, place)
        monkeypatch.setattr(f"{module}.randn_tensor", lambda *a, drawn=drawn, **k: drawn)
        torch.testing.assert_close(step.x_t, x_t, **TOLERANCE)
        output = model(x_t, torch.full((3,), step.t))
        result = scheduler.step(output, step.t, x_t, **options)
        torch.testing.assert_close(step.x0, result.pred_original_sample, rtol=1e-9, atol=1e-7)
        x_t = result.prev_sample
    torch.testing.assert_close(end, x_t, **TOLERANCE)
    assert 0.1 < float(end.std()) < 1000  # the path has not collapsed


@pytest.mark.parametrize(
    ("variance_type", "model", "sampling_steps", "clip"),
    [
        ("learned_range", network, 250, False),
        ("learned_range", network, 50, True),
        ("fixed_small", noise_only, 50, False),
        ("fixed_small", noise_only, 50, True),
    ],
)
def test_ddpm_takes_diffusers_steps(  # type: ignore[no-untyped-def]
    variance_type, model, sampling_steps: int, clip: bool, monkeypatch
) -> None:
    scheduler = precise(
        DDPMScheduler(
            variance_type=variance_type,
            beta_schedule="linear",
            timestep_spacing="linspace",
            clip_sample=clip,
        )
    )
    scheduler.set_timesteps(sampling_steps)
    steps: list[SamplerStep] = []
    end = sample_ddpm(
        model,
        start(),
        SCHEDULE,
        sampling_steps=sampling_steps,
        noise=NOISE,
        clip_denoised=clip,
        callback=steps.append,
    )
    assert_same_path(scheduler, steps, end, model=model, monkeypatch=monkeypatch)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_takes_diffusers_steps(
    eta: float, clip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # "leading" spacing is every k-th step, ours too where k divides 1000.
    scheduler = precise(
        DDIMScheduler(beta_schedule="linear", timestep_spacing="leading", clip_sample=clip)
    )
    scheduler.set_timesteps(50)
    steps: list[SamplerStep] = []
    end = sample_ddim(
        noise_only,
        start(),
        SCHEDULE,
        sampling_steps=50,
        spacing="stride",
        eta=eta,
        noise=NOISE,
        clip_denoised=clip,
        callback=steps.append,
    )
    assert_same_path(
        scheduler,
        steps,
        end,
        model=noise_only,
        eta=eta,
        use_clipped_model_output=clip,
        monkeypatch=monkeypatch,
    )


@pytest.mark.parametrize(
    ("spacing", "theirs", "counts"),
    [
        ("even", "linspace", (10, 50, 100, 250, 1000)),
        ("stride", "leading", (10, 50, 100, 250, 1000)),
    ],
)
def test_spacings_agree_where_they_should(
    spacing: Spacing, theirs: str, counts: tuple[int, ...]
) -> None:
    scheduler = DDPMScheduler(timestep_spacing=theirs)
    for count in counts:
        scheduler.set_timesteps(count)
        _, original = respace(SCHEDULE, count, spacing=spacing)
        assert list(reversed(original)) == scheduler.timesteps.tolist()


def test_noising_is_diffusers_noising() -> None:
    x0, noise = torch.randn(2, 4, 3, 2, 2, generator=generator(), dtype=torch.float64)
    t = torch.tensor([0, 10, 500, 999])
    scheduler = precise(DDPMScheduler(beta_schedule="linear"))
    theirs = scheduler.add_noise(x0, noise, t)
    torch.testing.assert_close(q_sample(SCHEDULE.at(t, x0), x0, noise), theirs)


def test_untouched_float32_schedulers_differ_by_rounding_alone() -> None:
    scheduler = DDPMScheduler(beta_schedule="linear")
    # A product of 1000 float32 factors: 1000 roundings of 6e-8.
    torch.testing.assert_close(
        scheduler.alphas_cumprod.double(), SCHEDULE.alphas_cumprod, rtol=6e-5, atol=0
    )

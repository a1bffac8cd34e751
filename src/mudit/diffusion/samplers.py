"""Samplers of networks that predict noise: free functions from noise x_T to samples.

A network is called as `network(x_t, t)` with t (B,) the *original* step that it was trained on, and
returns the noise (B, C, ...) or noise and variance fraction (B, 2C, ...).

Sources: [DDPM] Ho et al. 2020; [IDDPM] Nichol & Dhariwal 2021; [DDIM] Song et al. 2021; [DiT] code
`p_sample_loop` and `ddim_sample_loop`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mudit.diffusion.noise import SampleNoise
from mudit.diffusion.objective import Network
from mudit.diffusion.schedules import (
    NoiseSchedule,
    Spacing,
    compute_dtype,
    learned_log_variance,
    posterior_mean,
    predict_noise_from_x0,
    predict_x0_from_noise,
    respace,
)
from mudit.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerStep:
    """What a sampler hands to its callback once per step, after its (first) call of the network.

    Attributes:
        index: How many steps came before: 0 first, `sampling_steps - 1` last.
        t: The original step of the schedule; for a flow, t in [0, 1].
        x_t: What the network was given, shape (B, C, ...).
        x0: The prediction of x0 (clipped where asked for), shape (B, C, ...).
    """

    index: int
    t: int | float
    x_t: Tensor
    x0: Tensor


Callback: TypeAlias = Callable[[SamplerStep], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prediction:
    """What the network says at one step of a respaced schedule."""

    index: int  # into the respaced schedule; 0 is the last step taken
    place: int  # of the step's noise: 1 in the first step taken
    x_t: Tensor
    x0: Tensor
    noise: Tensor
    fraction: Tensor | None  # the variance half, where the network has one


def sample_ddpm(
    network: Network,
    x_T: Float[Tensor, "batch channels *space"],
    schedule: NoiseSchedule,
    *,
    sampling_steps: int,
    noise: SampleNoise,
    spacing: Spacing = "even",
    clip_denoised: bool = False,
    callback: Callback | None = None,
) -> Float[Tensor, "batch channels *space"]:
    """Samples by the stochastic reverse process. [DDPM] Algorithm 2 on a respaced schedule.

    A step's variance is the learned one where the network returns 2C channels ([IDDPM] Eq. 15), and
    the clipped posterior variance where it returns C ([DDPM] §3.2, the smaller of its two choices).
    Noise is added at each step except the last. DiT evaluates with 250 steps and EMA weights.

    Args:
        network: Called without gradients, `sampling_steps` times, with x_t in the dtype of `x_T`.
        x_T: Standard normal noise.
        schedule: The one that the network was trained with.
        sampling_steps: How many of its steps to visit.
        noise: Each sample's own; the steps draw from it at places 1, 2, ...
        spacing: Which steps to visit; see `respace`.
        clip_denoised: Whether to clamp each prediction of x0 to [-1, 1] (off for latents).
        callback: Called after each network call.

    Returns:
        Samples, in the dtype of `x_T`; the arithmetic is done in at least float32.

    Raises:
        UsageError: `sampling_steps` is impossible, `noise` is not for this batch, or the network's
            output has a wrong shape.
    """
    check_noise(noise, x_T)
    short, original = respace(schedule, sampling_steps, spacing=spacing)

    def previous(step: _Prediction) -> Tensor:
        at = short.step(step.index)
        mean = posterior_mean(at, step.x0, step.x_t)
        if step.index == 0:
            return mean
        if step.fraction is None:
            std = math.exp(0.5 * float(at.posterior_log_variance))
            return mean + std * noise.like(mean, step.place)
        scale = (0.5 * learned_log_variance(at, step.fraction)).exp()
        return mean + scale * noise.like(mean, step.place)

    return _reverse(
        network,
        x_T,
        short,
        original=original,
        previous=previous,
        clip_denoised=clip_denoised,
        callback=callback,
    )


def sample_ddim(
    network: Network,
    x_T: Float[Tensor, "batch channels *space"],
    schedule: NoiseSchedule,
    *,
    sampling_steps: int,
    noise: SampleNoise | None = None,
    eta: float = 0.0,
    spacing: Spacing = "even",
    clip_denoised: bool = False,
    callback: Callback | None = None,
) -> Float[Tensor, "batch channels *space"]:
    """Samples by the implicit process: deterministic at `eta` 0. [DDIM] Eq. 12.

    A variance half of the network's output is ignored. Papers' "ddimN" is `spacing="stride"`; the
    default visits the noisiest step too.

    Args:
        network: Called without gradients, `sampling_steps` times, with x_t in the dtype of `x_T`.
        x_T: Standard normal noise.
        schedule: The one that the network was trained with.
        sampling_steps: How many of its steps to visit.
        noise: Each sample's own; needed where `eta` is positive.
        eta: Share of the posterior's standard deviation that is drawn anew at each step, 0 to 1;
            [DDIM] Eq. 16.
        spacing: Which steps to visit; see `respace`.
        clip_denoised: Whether to clamp each prediction of x0 to [-1, 1]; the noise prediction is
            then that of the clamped x0 ([DiT] code).
        callback: Called after each network call.

    Returns:
        Samples, in the dtype of `x_T`; the arithmetic is done in at least float32.

    Raises:
        UsageError: `sampling_steps` is impossible, `eta` is out of range or lacks its noise, or
            the network's output has a wrong shape.
    """
    _check_eta(eta, noise)
    if noise is not None:
        check_noise(noise, x_T)
    short, original = respace(schedule, sampling_steps, spacing=spacing)

    def previous(step: _Prediction) -> Tensor:
        x0_share = float(short.alphas_cumprod_prev[step.index])
        variance = eta**2 * float(short.posterior_variance[step.index])  # [DDIM] Eq. 16
        noise_scale = math.sqrt(max(0.0, 1 - x0_share - variance))
        mean = math.sqrt(x0_share) * step.x0 + noise_scale * step.noise
        if noise is None or variance == 0:  # the last step's variance is 0
            return mean
        return mean + math.sqrt(variance) * noise.like(mean, step.place)

    return _reverse(
        network,
        x_T,
        short,
        original=original,
        previous=previous,
        clip_denoised=clip_denoised,
        callback=callback,
    )


def to_uint8(x: Float[Tensor, "*dims"]) -> UInt8[Tensor, "*dims"]:
    """Images in [-1, 1] as bytes: trunc(clamp(127.5 x + 128, 0, 255)). [DiT] code `sample_ddp.py`.

    Raises:
        UsageError: `x` contains NaN, which has no byte value.
    """
    if bool(x.isnan().any()):
        raise UsageError(
            "to_uint8 got NaN; expected numbers. The network that made these samples has probably "
            "diverged: use an earlier checkpoint."
        )
    return (127.5 * x.to(compute_dtype(x)) + 128).clamp(0, 255).to(torch.uint8)


def _reverse(
    network: Network,
    x_T: Tensor,
    schedule: NoiseSchedule,
    *,
    original: tuple[int, ...],
    previous: Callable[[_Prediction], Tensor],
    clip_denoised: bool,
    callback: Callback | None,
) -> Tensor:
    """Runs `previous` from the noisiest step of a respaced schedule down to step 0."""
    x_t = x_T.to(compute_dtype(x_T))
    with torch.no_grad():
        for index in reversed(range(schedule.num_timesteps)):
            t = torch.full(x_T.shape[:1], original[index], device=x_T.device)
            output = network(x_t.to(x_T.dtype), t)
            step = _predict(schedule, index, x_t, output=output, clip_denoised=clip_denoised)
            if callback is not None:
                passed = schedule.num_timesteps - 1 - index
                callback(SamplerStep(index=passed, t=original[index], x_t=x_t, x0=step.x0))
            x_t = previous(step)
    return x_t.to(x_T.dtype)


def _predict(
    schedule: NoiseSchedule, index: int, x_t: Tensor, *, output: Tensor, clip_denoised: bool
) -> _Prediction:
    noise, fraction = split_output(output.to(x_t.dtype), x_t)
    at = schedule.step(index)
    x0 = predict_x0_from_noise(at, x_t, noise)
    if clip_denoised:
        x0 = x0.clamp(-1, 1)
        noise = predict_noise_from_x0(at, x_t, x0)
    place = schedule.num_timesteps - index
    return _Prediction(index=index, place=place, x_t=x_t, x0=x0, noise=noise, fraction=fraction)


def split_output(output: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor | None]:
    """The noise that a network predicts, and its variance half, if any.

    Raises:
        UsageError: The output is neither.
    """
    batch, channels, *space = x_t.shape
    if output.shape == (batch, channels, *space):
        return output, None
    if output.shape == (batch, 2 * channels, *space):
        return output[:, :channels], output[:, channels:]
    raise UsageError(
        f"The network returned shape {tuple(output.shape)} for x_t {tuple(x_t.shape)}; a sampler "
        f"expects {channels} channels (noise) or {2 * channels} (noise and variance), and x_t's "
        "other dimensions."
    )


def check_noise(noise: SampleNoise, x_T: Tensor) -> None:
    """Raises UsageError unless `noise` is that of as many samples as `x_T` has."""
    if len(noise) != len(x_T):
        raise UsageError(
            f"A sampler got x_T of {len(x_T)} samples and the noise of {len(noise)}; expected one "
            "number per sample. Take the batch's part, noise[start:stop]."
        )


def _check_eta(eta: float, noise: SampleNoise | None) -> None:
    if not 0 <= eta <= 1:
        raise UsageError(f"sample_ddim got eta={eta}; expected 0 (deterministic) to 1.")
    if eta > 0 and noise is None:
        raise UsageError(
            f"sample_ddim got eta={eta} without noise; each step then draws some. Pass "
            "noise=SampleNoise.of(count, seed=...), or eta=0."
        )

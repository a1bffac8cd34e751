"""Samplers of rectified flows: free functions from noise x_T at t = 1 to samples at t = 0.

A network is called as `network(x_t, flow.told(t))` and returns the velocity, noise - x0. Times are
float64 numbers; they are shifted as those of training are (`ObjectiveConfig.shift`).

Sources: [SD3] Esser et al. 2024; [REPA] code `samplers.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from mudit.diffusion.flow import Flow, score_from_velocity
from mudit.diffusion.noise import SampleNoise
from mudit.diffusion.objective import Network
from mudit.diffusion.samplers import Callback, SamplerStep, check_noise
from mudit.diffusion.schedules import compute_dtype
from mudit.errors import UsageError

# Where the SDE's noise ends, before the shift: the last step, to 0, is without. [REPA] code.
_LAST_NOISY_TIME = 0.04

_Velocity: TypeAlias = Callable[[Tensor, float], Tensor]
# (x_t, velocity at x_t, t, the next t, steps before) to the next x_t.
_Step: TypeAlias = Callable[[Tensor, Tensor, float, float, int], Tensor]


def sample_euler(
    network: Network,
    x_T: Float[Tensor, "batch channels *space"],
    flow: Flow,
    *,
    sampling_steps: int,
    callback: Callback | None = None,
) -> Float[Tensor, "batch channels *space"]:
    """Samples by Euler steps along the flow: x += (t_next - t) v. Deterministic, first order.

    Args:
        network: Called without gradients, `sampling_steps` times, with x_t in the dtype of `x_T`.
        x_T: Standard normal noise.
        flow: What it was trained with; tells times and shift.
        sampling_steps: Steps of equal size from 1 to 0, before the shift.
        callback: Called once per step.

    Returns:
        Samples, in the dtype of `x_T`; the arithmetic is done in at least float32.

    Raises:
        UsageError: `sampling_steps` is not positive, or the network's output has a wrong shape.
    """
    _check_steps(sampling_steps, 1)

    def step(x: Tensor, v: Tensor, t: float, after: float, index: int) -> Tensor:
        return x + (after - t) * v

    velocity = _velocity(network, x_T, flow)
    return _walk(velocity, x_T, flow.times(sampling_steps), step=step, callback=callback)


def sample_heun(
    network: Network,
    x_T: Float[Tensor, "batch channels *space"],
    flow: Flow,
    *,
    sampling_steps: int,
    callback: Callback | None = None,
) -> Float[Tensor, "batch channels *space"]:
    """Samples by Heun steps along the flow: the mean of the velocities at both ends of a step.

    Deterministic, second order. The last step is an Euler step ([REPA] code), so the network is
    called `2 sampling_steps - 1` times.

    Args:
        network: Called without gradients, with x_t in the dtype of `x_T`.
        x_T: Standard normal noise.
        flow: What it was trained with; tells times and shift.
        sampling_steps: Steps of equal size from 1 to 0, before the shift.
        callback: Called once per step.

    Returns:
        Samples, in the dtype of `x_T`; the arithmetic is done in at least float32.

    Raises:
        UsageError: `sampling_steps` is not positive, or the network's output has a wrong shape.
    """
    _check_steps(sampling_steps, 1)
    velocity = _velocity(network, x_T, flow)

    def step(x: Tensor, v: Tensor, t: float, after: float, index: int) -> Tensor:
        end = x + (after - t) * v
        if index == sampling_steps - 1:
            return end
        return x + (after - t) * (v + velocity(end, after)) / 2

    return _walk(velocity, x_T, flow.times(sampling_steps), step=step, callback=callback)


def sample_sde(
    network: Network,
    x_T: Float[Tensor, "batch channels *space"],
    flow: Flow,
    *,
    sampling_steps: int,
    noise: SampleNoise,
    callback: Callback | None = None,
) -> Float[Tensor, "batch channels *space"]:
    """Samples by Euler-Maruyama steps of the SDE that has the flow's marginals.

    dx = (v - w s / 2) dt + sqrt(w) dw backwards in time, with the score s and diffusion w = 2t.
    `sampling_steps` times lie between 1 and 0.04 at equal distances; the last step, from there to
    0, follows the drift alone ([REPA] code, which evaluates with 250 steps).

    Args:
        network: Called without gradients, `sampling_steps` times, with x_t in the dtype of `x_T`.
        x_T: Standard normal noise.
        flow: What it was trained with; tells times and shift.
        sampling_steps: At least 2.
        noise: Each sample's own; the steps draw from it at places 1, 2, ...
        callback: Called once per step.

    Returns:
        Samples, in the dtype of `x_T`; the arithmetic is done in at least float32.

    Raises:
        UsageError: `sampling_steps` is below 2, `noise` is not for this batch, or the network's
            output has a wrong shape.
    """
    _check_steps(sampling_steps, 2)
    check_noise(noise, x_T)

    def step(x: Tensor, v: Tensor, t: float, after: float, index: int) -> Tensor:
        diffusion = 2 * t
        drift = v - 0.5 * diffusion * score_from_velocity(x, v, t)
        mean = x + (after - t) * drift
        if index == sampling_steps - 1:
            return mean
        return mean + math.sqrt(diffusion * (t - after)) * noise.like(mean, index + 1)

    noisy = flow.times(sampling_steps - 1, last=_LAST_NOISY_TIME)
    times = torch.cat([noisy, noisy.new_zeros(1)])
    return _walk(_velocity(network, x_T, flow), x_T, times, step=step, callback=callback)


def _walk(
    velocity: _Velocity, x_T: Tensor, times: Tensor, *, step: _Step, callback: Callback | None
) -> Tensor:
    x_t = x_T.to(compute_dtype(x_T))
    pairs = zip(times[:-1].tolist(), times[1:].tolist())
    with torch.no_grad():
        for index, (t, after) in enumerate(pairs):
            v = velocity(x_t, t)
            if callback is not None:
                callback(SamplerStep(index=index, t=t, x_t=x_t, x0=x_t - t * v))
            x_t = step(x_t, v, t, after, index)
    return x_t.to(x_T.dtype)


def _velocity(network: Network, x_T: Tensor, flow: Flow) -> _Velocity:
    """The network as a function of x_t and a plain time, checked."""
    dtype = compute_dtype(x_T)

    def velocity(x_t: Tensor, t: float) -> Tensor:
        told = flow.told(torch.full(x_T.shape[:1], t, dtype=dtype, device=x_T.device))
        output = network(x_t.to(x_T.dtype), told)
        if output.shape != x_t.shape:
            raise UsageError(
                f"The network returned shape {tuple(output.shape)} for x_t {tuple(x_t.shape)}; a "
                "flow's sampler expects a velocity of x_t's shape."
            )
        return output.to(dtype)

    return velocity


def _check_steps(sampling_steps: int, least: int) -> None:
    if sampling_steps < least:
        raise UsageError(f"Got sampling_steps={sampling_steps}; expected at least {least}.")

"""Flow samplers on data whose best velocity is known: a Gaussian N(MEAN, STD²).

The velocity is linear in x_t, so that the ODE has a closed solution, and each sampler is a line in
x_T whose coefficients a recursion of plain numbers gives. Statistical tests fail by chance with
probability FALSE_ALARM each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from mudit.diffusion import (
    Flow,
    Network,
    ObjectiveConfig,
    SampleNoise,
    SamplerStep,
    sample_euler,
    sample_heun,
    sample_sde,
)
from mudit.errors import UsageError

MEAN, STD = 0.7, 0.4
FALSE_ALARM = 1e-6
FLOW = Flow(ObjectiveConfig(kind="flow"))
SHIFTED = Flow(ObjectiveConfig(kind="flow", shift=3.0))
ODE = (sample_euler, sample_heun)
ALL = (*ODE, sample_sde)


def line(t: float) -> tuple[float, float]:
    """E[noise - x0 | x_t] = a x_t + b, by regression of one Gaussian on another."""
    variance = (1 - t) ** 2 * STD**2 + t**2
    a = (t - (1 - t) * STD**2) / variance
    return a, -MEAN - a * (1 - t) * MEAN


def best_velocity(sign: float = 1.0, time_scale: float = 1000.0) -> Network:
    def network(x_t: Tensor, told: Tensor) -> Tensor:
        assert told.dtype == x_t.dtype
        assert len(set(told.tolist())) == 1
        a, b = line(float(told[0]) / time_scale)
        return sign * (a * x_t + b)

    return network


def as_line(sampler, flow: Flow, steps: int, network: Network) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """A sampler's intercept and slope in x_T."""
    x_T = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    zero, one = sampler(network, x_T, flow, sampling_steps=steps).flatten().tolist()
    return zero, one - zero


def error(sampler, flow: Flow, steps: int, network: Network | None = None) -> float:  # type: ignore[no-untyped-def]
    """The flow keeps (x_t - its mean) / its standard deviation: x_T ends at MEAN + STD x_T."""
    intercept, slope = as_line(sampler, flow, steps, network or best_velocity())
    return max(abs(intercept - MEAN), abs(slope - STD))


@pytest.mark.parametrize("flow", [FLOW, SHIFTED], ids=["plain", "shifted"])
@pytest.mark.parametrize(("sampler", "order"), [(sample_euler, 1), (sample_heun, 2)])
def test_ode_samplers_converge_at_their_order(sampler, order: int, flow: Flow) -> None:  # type: ignore[no-untyped-def]
    errors = np.array([error(sampler, flow, steps) for steps in (50, 100, 200, 400)])
    ratios = errors[:-1] / errors[1:]
    assert errors[-1] < (5e-3, 1e-4)[order - 1]
    assert ((ratios > 0.85 * 2**order) & (ratios < 1.15 * 2**order)).all()


@pytest.mark.parametrize("sampler", ODE)
@pytest.mark.parametrize(
    "wrong", [best_velocity(sign=-1.0), best_velocity(time_scale=900.0), lambda x, t: 0 * x]
)
def test_a_wrong_velocity_or_time_is_noticed(sampler, wrong: Network) -> None:  # type: ignore[no-untyped-def]
    """Planted: the sign of others' convention, another scale of time, nothing learned."""
    right = error(sampler, FLOW, 400)
    assert error(sampler, FLOW, 400, wrong) > max(2 * right, 1e-4)


def test_one_euler_step_is_the_mean_of_the_data() -> None:
    """At t = 1 the best guess at noise - x0 is x_T - MEAN: the step lands on MEAN."""
    assert as_line(sample_euler, FLOW, 1, best_velocity()) == pytest.approx((MEAN, 0.0))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("sampler", ODE)
def test_times_are_even_before_their_shift(sampler, shift: float) -> None:  # type: ignore[no-untyped-def]
    flow = Flow(ObjectiveConfig(kind="flow", shift=shift, time_scale=10.0))
    told: list[float] = []
    steps: list[SamplerStep] = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        told.append(float(t[0]))
        return torch.zeros_like(x_t)

    x_T = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    sampler(network, x_T, flow, sampling_steps=4, callback=steps.append)
    even = np.array([1.0, 0.75, 0.5, 0.25])
    times = even if shift == 1 else 3 * even / (1 + 2 * even)
    np.testing.assert_allclose([step.t for step in steps], times)
    assert [step.index for step in steps] == [0, 1, 2, 3]
    calls = times if sampler is sample_euler else np.repeat(times, 2)[[0, 2, 3, 4, 5, 6, 7]]
    np.testing.assert_allclose(told, 10 * calls)


def test_the_callback_sees_the_prediction_of_x0() -> None:
    """x_t = (1 - t) x0 + t noise: with the true velocity of one pair, x0 is exact at every t."""
    x0, x_T = torch.randn(2, 3, 1, 4, dtype=torch.float64)
    steps: list[SamplerStep] = []
    end = sample_euler(lambda x, t: x_T - x0, x_T, FLOW, sampling_steps=5, callback=steps.append)
    for step in steps:
        torch.testing.assert_close(step.x0, x0)
    torch.testing.assert_close(end, x0)


# --- the SDE ------------------------------------------------------------------------------------


def sde_moments(steps: int, *, noisy: bool = True) -> tuple[float, float]:
    """Mean and standard deviation at the end of Euler-Maruyama, by recursion from N(0, 1)."""
    times = [*np.linspace(1, 0.04, steps), 0.0]
    mean, variance = 0.0, 1.0
    for index, (t, after) in enumerate(itertools.pairwise(times)):
        a, b = line(t)
        step = after - t
        # The score of x_t is minus the noise x + (1 - t) v over t; the drift v - t score.
        drift_a, drift_b = a + (1 + (1 - t) * a), b + (1 - t) * b
        mean += step * (drift_a * mean + drift_b)
        variance *= (1 + step * drift_a) ** 2
        if noisy and index < steps - 1:
            variance += 2 * t * (t - after)
    return mean, math.sqrt(variance)


def sde_samples(steps: int, network: Network) -> np.ndarray:
    x_T = torch.randn(1, 1, 50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = SampleNoise.of(1, seed=1)
    return sample_sde(network, x_T, FLOW, sampling_steps=steps, noise=noise).numpy().ravel()


def assert_normal(x: np.ndarray, mean: float, std: float) -> None:
    """Mean and standard deviation lie in their exact sampling intervals."""
    tail = FALSE_ALARM / 4
    assert abs(x.mean() - mean) < scipy.stats.norm.isf(tail) * std / math.sqrt(x.size)
    low, high = scipy.stats.chi2.ppf([tail, 1 - tail], x.size - 1) / (x.size - 1)
    assert low < x.var(ddof=1) / std**2 < high


@pytest.mark.parametrize("steps", [10, 100])
def test_the_sde_has_the_moments_of_its_recursion(steps: int) -> None:
    assert_normal(sde_samples(steps, best_velocity()), *sde_moments(steps))


@pytest.mark.parametrize(("sign", "noisy"), [(-1.0, True), (1.0, False)])
def test_a_planted_mistake_has_other_moments(sign: float, noisy: bool) -> None:
    """The other sign of the velocity, and steps without their noise."""
    samples = sde_samples(10, best_velocity(sign=sign))
    with pytest.raises(AssertionError):
        assert_normal(samples, *sde_moments(10, noisy=noisy))


def test_the_sde_converges_to_the_data() -> None:
    """Up to the last step, of 0.04, which the number of steps does not shorten."""
    errors = [max(np.abs(np.subtract(sde_moments(n), (MEAN, STD)))) for n in (25, 100, 400)]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.01


def test_the_sde_stops_its_noise_before_the_last_step() -> None:
    """The network returns v = -x_t / (1 - t), a guess at noise of 0: the drift is v alone."""
    steps: list[SamplerStep] = []
    x_T = torch.ones(2, 1, 3, dtype=torch.float64)

    def network(x_t: Tensor, told: Tensor) -> Tensor:
        t = float(told[0]) / 1000
        return 0 * x_t if t == 1 else -x_t / (1 - t)

    noise = SampleNoise.of(2, seed=4)
    end = sample_sde(network, x_T, FLOW, sampling_steps=5, noise=noise, callback=steps.append)
    assert [step.t for step in steps] == pytest.approx([1, 0.76, 0.52, 0.28, 0.04])
    for place in (2, 3, 4):
        before, after = steps[place - 1], steps[place]
        dt = before.t - after.t
        mean = before.x_t * (1 + dt / (1 - before.t))
        got = (after.x_t - mean) / math.sqrt(2 * before.t * dt)
        torch.testing.assert_close(got, noise.draw(place, (1, 3)).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(end, steps[-1].x_t / 0.96)


# --- all ----------------------------------------------------------------------------------------


def called(sampler: Callable[..., Tensor], network: Network, x_T: Tensor, **options) -> Tensor:  # type: ignore[no-untyped-def]
    if sampler is sample_sde:
        options["noise"] = SampleNoise.of(len(x_T), seed=0)
    return sampler(network, x_T, FLOW, **{"sampling_steps": 5} | options)


@pytest.mark.parametrize("sampler", ALL)
def test_half_precision_is_only_for_the_network(sampler) -> None:  # type: ignore[no-untyped-def]
    seen: set[tuple[torch.dtype, torch.dtype]] = set()

    def network(x_t: Tensor, told: Tensor) -> Tensor:
        seen.add((x_t.dtype, told.dtype))
        return x_t

    states: set[torch.dtype] = set()
    x = called(
        sampler,
        network,
        torch.ones(2, 1, 2, 2).bfloat16(),
        callback=lambda step: states.add(step.x_t.dtype),
    )
    assert (x.dtype, states) == (torch.bfloat16, {torch.float32})
    assert seen == {(torch.bfloat16, torch.float32)}


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("channels", [2, 3])
def test_a_wrong_output_shape_is_refused(sampler, channels: int) -> None:  # type: ignore[no-untyped-def]
    """Twice the channels too: a flow has no variance half."""
    with pytest.raises(UsageError, match=r"expects a velocity of x_t's shape"):
        called(sampler, lambda x, t: x.expand(-1, channels, -1, -1), torch.ones(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("sampler", "least"), [(sample_euler, 1), (sample_heun, 1), (sample_sde, 2)]
)
def test_too_few_steps_are_refused(sampler, least: int) -> None:  # type: ignore[no-untyped-def]
    called(sampler, lambda x, t: x, torch.ones(2, 1), sampling_steps=least)
    with pytest.raises(UsageError, match=f"sampling_steps={least - 1}; expected at least {least}"):
        called(sampler, lambda x, t: x, torch.ones(2, 1), sampling_steps=least - 1)


def test_noise_of_another_batch_is_refused() -> None:
    noise = SampleNoise.of(3, seed=0)
    with pytest.raises(UsageError, match="x_T of 2 samples and the noise of 3"):
        sample_sde(lambda x, t: x, torch.ones(2, 1), FLOW, sampling_steps=5, noise=noise)

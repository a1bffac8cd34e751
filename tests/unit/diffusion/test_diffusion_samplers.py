"""Samplers on data whose best noise prediction is known: a Gaussian N(MEAN, STD²), and one point.

Statistical tests fail by chance with probability FALSE_ALARM each, split over their comparisons.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from mudit.diffusion import (
    Network,
    SampleNoise,
    SamplerStep,
    even_timesteps,
    linear_schedule,
    posterior_mean,
    respace,
    sample_ddim,
    sample_ddpm,
    to_uint8,
)
from mudit.errors import UsageError

SCHEDULE = linear_schedule()
KEPT = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))  # alphas_cumprod by hand
MEAN, STD = 0.7, 0.4
FALSE_ALARM = 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard_normal(count: int, seed: int = 0) -> Tensor:
    """As one sample of `count` numbers, since each sample's noise has a stream of its own."""
    return torch.randn(1, 1, count, generator=seeded(seed), dtype=torch.float64)


def own_noise(seed: int = 0, *, batch: int = 1) -> SampleNoise:
    return SampleNoise.of(batch, seed=seed)


def best_noise(mean: float = MEAN, std: float = STD) -> Network:
    """E[noise | x_t] for x0 ~ N(mean, std²), by regression of one Gaussian on another."""

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        kept = torch.from_numpy(KEPT)[t].unsqueeze(1)
        variance = kept * std**2 + 1 - kept
        return (1 - kept).sqrt() * (x_t - kept.sqrt() * mean) / variance

    return network


def best_noise_and_variance(sampling_steps: int) -> Network:
    """Also the variance of x_{t-1} given x_t, as a fraction of the learned range."""
    original = even_timesteps(1000, sampling_steps)

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        row = original.index(int(t[0]))
        kept, before = KEPT[original[row]], KEPT[original[row - 1]] if row else 1.0
        beta = 1 - kept / before
        posterior = beta * (1 - before) / (1 - kept)
        # Var[x_{t-1} | x_t] = posterior variance + (weight of x0)² Var[x0 | x_t].
        x0_variance = STD**2 * (1 - kept) / (kept * STD**2 + 1 - kept)
        true = posterior + (math.sqrt(before) * beta / (1 - kept)) ** 2 * x0_variance
        fraction = math.log(true / posterior) / math.log(beta / posterior) if row else 0.0
        return torch.cat([best_noise()(x_t, t), torch.full_like(x_t, 2 * fraction - 1)], dim=1)

    return network


def assert_normal(x: NDArray[np.float64], mean: float, std: float, *, comparisons: int) -> None:
    """Mean and standard deviation lie in their exact sampling intervals."""
    tail = FALSE_ALARM / (4 * comparisons)
    z = scipy.stats.norm.isf(tail) * std / math.sqrt(x.size)
    assert abs(x.mean() - mean) < z
    low, high = scipy.stats.chi2.ppf([tail, 1 - tail], x.size - 1) / (x.size - 1)
    assert low < x.var(ddof=1) / std**2 < high


# --- DDIM ---------------------------------------------------------------------------------------


def ddim_line(sampling_steps: int) -> tuple[float, float]:
    """DDIM with a linear network is a line in x_T: its intercept and slope."""
    at_zero, at_one = sample_ddim(
        best_noise(),
        torch.tensor([[[0.0, 1.0]]], dtype=torch.float64),
        SCHEDULE,
        sampling_steps=sampling_steps,
    ).flatten()
    return float(at_zero), float(at_one - at_zero)


def test_ddim_converges_to_the_probability_flow_at_first_order() -> None:
    """The flow keeps (x_t - its mean) / its standard deviation, so that its end is known."""
    slope = STD / math.sqrt(KEPT[-1] * STD**2 + 1 - KEPT[-1])
    intercept = MEAN - slope * math.sqrt(KEPT[-1]) * MEAN
    errors = []
    for sampling_steps in (125, 250, 500):
        got = ddim_line(sampling_steps)
        errors.append(max(abs(got[0] - intercept), abs(got[1] - slope)))
    assert errors[-1] < 0.02
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert ((ratios > 1.8) & (ratios < 2.2)).all()


def test_ddim_recovers_mean_and_standard_deviation() -> None:
    x = sample_ddim(best_noise(), standard_normal(20_000), SCHEDULE, sampling_steps=500)
    # The line itself is off by less than 0.02 (above); a sample of it is normal around that line.
    intercept, slope = ddim_line(500)
    assert_normal(x.numpy(), intercept, slope, comparisons=1)
    assert (intercept, slope) == (pytest.approx(MEAN, abs=0.02), pytest.approx(STD, abs=0.02))


def test_ddim_is_deterministic_and_ignores_the_variance_half() -> None:
    x_T = standard_normal(5)
    plain = sample_ddim(best_noise(), x_T, SCHEDULE, sampling_steps=10)
    with_variance = sample_ddim(best_noise_and_variance(10), x_T, SCHEDULE, sampling_steps=10)
    assert torch.equal(plain, with_variance)


def test_ddim_at_eta_one_is_ddpm_with_the_posterior_variance() -> None:
    x_T = standard_normal(50)
    implicit = sample_ddim(
        best_noise(), x_T, SCHEDULE, sampling_steps=20, eta=1.0, noise=own_noise(1)
    )
    explicit = sample_ddpm(best_noise(), x_T, SCHEDULE, sampling_steps=20, noise=own_noise(1))
    torch.testing.assert_close(implicit, explicit, rtol=0, atol=1e-12)


@pytest.mark.parametrize("eta", [-0.1, 1.5, math.nan])
def test_eta_out_of_range_is_refused(eta: float) -> None:
    with pytest.raises(UsageError, match="expected 0"):
        sample_ddim(
            best_noise(),
            standard_normal(1),
            SCHEDULE,
            sampling_steps=10,
            eta=eta,
            noise=own_noise(),
        )


def test_a_positive_eta_needs_noise() -> None:
    with pytest.raises(UsageError, match="without noise"):
        sample_ddim(best_noise(), standard_normal(1), SCHEDULE, sampling_steps=10, eta=0.5)


# --- DDPM ---------------------------------------------------------------------------------------


def exact_start(count: int) -> Tensor:
    """x_T from its true marginal, which differs from N(0, 1) by 0.6 % of MEAN."""
    return math.sqrt(KEPT[-1]) * MEAN + math.sqrt(
        KEPT[-1] * STD**2 + 1 - KEPT[-1]
    ) * standard_normal(count)


@pytest.mark.parametrize("sampling_steps", [5, 50])
def test_ddpm_with_the_true_variance_is_exact_for_any_number_of_steps(sampling_steps: int) -> None:
    x = sample_ddpm(
        best_noise_and_variance(sampling_steps),
        exact_start(50_000),
        SCHEDULE,
        sampling_steps=sampling_steps,
        noise=own_noise(1),
    )
    # The last step returns E[x0 | x_1] without noise: a factor on STD of 1 / sqrt(1 + 6e-4).
    std = STD * math.sqrt(KEPT[0] * STD**2 / (KEPT[0] * STD**2 + 1 - KEPT[0]))
    assert_normal(x.numpy(), MEAN, std, comparisons=1)


def test_a_wrong_learned_variance_is_noticed() -> None:
    """The same test, with the ends of the learned range exchanged, fails."""
    right = best_noise_and_variance(5)

    def swapped(x_t: Tensor, t: Tensor) -> Tensor:
        noise, fraction = right(x_t, t).chunk(2, dim=1)
        return torch.cat([noise, -fraction], dim=1)

    x = sample_ddpm(swapped, exact_start(50_000), SCHEDULE, sampling_steps=5, noise=own_noise(1))
    with pytest.raises(AssertionError):
        assert_normal(x.numpy(), MEAN, STD, comparisons=1)


def test_fixed_variance_visits_the_true_marginals_of_a_single_point() -> None:
    """Data that is one point leaves no doubt about x0: the posterior variance is then exact."""
    seen: list[SamplerStep] = []
    start = math.sqrt(KEPT[-1]) * MEAN + math.sqrt(1 - KEPT[-1]) * standard_normal(20_000)
    x = sample_ddpm(
        best_noise(std=0.0),
        start,
        SCHEDULE,
        sampling_steps=10,
        noise=own_noise(1),
        callback=seen.append,
    )
    for step in seen:
        kept = KEPT[step.t]
        assert_normal(step.x_t.numpy(), math.sqrt(kept) * MEAN, math.sqrt(1 - kept), comparisons=10)
    torch.testing.assert_close(x, torch.full_like(x, MEAN), rtol=0, atol=1e-9)


def test_noise_is_added_at_each_step_but_the_last() -> None:
    """A network for which x_{t-1} - mean is the noise: x0 is always the same number."""
    short, original = respace(SCHEDULE, 7)
    steps: list[SamplerStep] = []
    x_T = standard_normal(3)
    end = sample_ddpm(
        best_noise(std=0.0),
        x_T,
        SCHEDULE,
        sampling_steps=7,
        noise=own_noise(4),
        callback=steps.append,
    )
    for place in range(1, 7):
        index = 7 - place
        before, after = steps[place - 1].x_t, steps[place].x_t
        x0 = torch.full_like(before, MEAN)
        std = math.sqrt(float(short.posterior_variance[index]))
        got = (after - posterior_mean(short.step(index), x0, before)) / std
        expected = own_noise(4).draw(place, (1, 3)).double()
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)
    assert original[0] == steps[-1].t == 0
    torch.testing.assert_close(end, torch.full_like(end, MEAN), rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", [sample_ddpm, sample_ddim])
def test_noise_of_another_batch_is_refused(sampler) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="x_T of 1 samples and the noise of 3"):
        sampler(
            best_noise(),
            standard_normal(2),
            SCHEDULE,
            sampling_steps=5,
            noise=own_noise(batch=3),
        )


# --- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [sample_ddpm, sample_ddim])
def test_the_network_gets_original_steps_without_gradients(sampler) -> None:  # type: ignore[no-untyped-def]
    weight = torch.ones((), requires_grad=True)
    seen: list[Tensor] = []
    steps: list[SamplerStep] = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        seen.append(t)
        return weight * x_t

    x = sampler(
        network,
        torch.randn(2, 1, 4, 4, generator=seeded()),
        SCHEDULE,
        sampling_steps=250,
        noise=own_noise(1, batch=2),
        callback=steps.append,
    )
    assert not x.requires_grad
    assert seen[0].dtype == torch.int64
    expected = list(reversed(even_timesteps(1000, 250)))
    assert [t.tolist() for t in seen] == [[t, t] for t in expected]
    assert [step.t for step in steps] == expected
    assert [step.index for step in steps] == list(range(250))


@pytest.mark.parametrize("sampler", [sample_ddpm, sample_ddim])
def test_strided_spacing_is_an_option(sampler) -> None:  # type: ignore[no-untyped-def]
    steps: list[SamplerStep] = []
    sampler(
        best_noise(),
        standard_normal(2),
        SCHEDULE,
        sampling_steps=250,
        noise=own_noise(),
        spacing="stride",
        callback=steps.append,
    )
    assert [step.t for step in steps] == list(range(996, -1, -4))


@pytest.mark.parametrize("sampler", [sample_ddpm, sample_ddim])
def test_clipping_bounds_every_prediction_of_x0(sampler) -> None:  # type: ignore[no-untyped-def]
    def largest(clip_denoised: bool) -> float:
        seen: list[float] = []
        sampler(
            lambda x_t, t: 0.1 * x_t,
            standard_normal(20),
            SCHEDULE,
            sampling_steps=10,
            noise=own_noise(),
            clip_denoised=clip_denoised,
            callback=lambda step: seen.append(float(step.x0.abs().max())),
        )
        return max(seen)

    assert largest(clip_denoised=False) > 10
    assert largest(clip_denoised=True) == 1


@pytest.mark.parametrize("sampler", [sample_ddpm, sample_ddim])
def test_half_precision_is_only_for_the_network(sampler) -> None:  # type: ignore[no-untyped-def]
    """The state between steps keeps float32: rounding it at 50 steps would lose digits."""
    dtypes: set[torch.dtype] = set()

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        dtypes.add(x_t.dtype)
        return 0.9 * x_t

    states: list[torch.dtype] = []
    x = sampler(
        network,
        torch.randn(2, 1, 2, 2, generator=seeded()).bfloat16(),
        SCHEDULE,
        sampling_steps=50,
        noise=own_noise(batch=2),
        callback=lambda step: states.append(step.x_t.dtype),
    )
    assert (x.dtype, dtypes, set(states)) == (torch.bfloat16, {torch.bfloat16}, {torch.float32})


@pytest.mark.parametrize("sampler", [sample_ddpm, sample_ddim])
def test_a_wrong_output_shape_is_refused(sampler) -> None:  # type: ignore[no-untyped-def]
    for output in (torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 5), torch.zeros(1, 1, 4, 4)):
        with pytest.raises(UsageError, match=r"expects 1 channels \(noise\) or 2"):
            sampler(
                lambda x_t, t, output=output: output,
                torch.zeros(2, 1, 4, 4),
                SCHEDULE,
                sampling_steps=5,
                noise=own_noise(batch=2),
            )


# --- bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "byte"),
    [
        (-math.inf, 0),
        (-2.0, 0),
        (-1.0, 0),  # 0.5, truncated
        (-0.996, 1),  # 1.01
        (0.0, 128),
        (-0.0001, 127),  # 127.987, truncated
        (0.5, 191),  # 191.75, truncated
        (0.996, 254),  # 254.99
        (0.9961, 255),  # 255.003
        (1.0, 255),  # 255.5, clamped
        (math.inf, 255),
    ],
)
def test_bytes_are_truncated_from_128(value: float, byte: int) -> None:
    assert to_uint8(torch.full((2, 1), value)).tolist() == [[byte], [byte]]


def test_all_bytes_survive_the_round_trip_from_a_dataset() -> None:
    """Data is scaled as byte / 127.5 - 1, so a perfect sample is half a level high: truncated."""
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels / 127.5 - 1), levels.to(torch.uint8))


def test_nan_has_no_byte() -> None:
    with pytest.raises(UsageError, match=r"NaN.*diverged"):
        to_uint8(torch.tensor([0.0, math.nan]))

"""Rectified flow against closed forms: its laws of t by scipy, its loss by hand in numpy.

Statistical tests fail by chance with probability FALSE_ALARM each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from mudit.diffusion import Flow, ObjectiveConfig, shifted
from mudit.diffusion.flow import score_from_velocity
from mudit.errors import UsageError

FALSE_ALARM = 1e-6
COUNT = 20_000
MEAN, STD, SHIFT = 0.3, 1.4, 3.0
Cdf = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def unshift(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of t' = s t / (1 + (s - 1) t), solved by hand."""
    return t / (SHIFT - (SHIFT - 1) * t)


def logit_normal_density(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The normal density at logit(t), times the derivative 1 / (t (1 - t)). [SD3] §3.1."""
    return scipy.stats.norm.pdf(scipy.special.logit(t), MEAN, STD) / (t * (1 - t))


def logit_normal_cdf(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return scipy.stats.norm.cdf(scipy.special.logit(t), MEAN, STD)


LOGIT = ObjectiveConfig(kind="flow", time_law="logit_normal", logit_mean=MEAN, logit_std=STD)
LAWS: dict[str, tuple[ObjectiveConfig, Cdf]] = {
    "uniform": (ObjectiveConfig(kind="flow"), lambda t: t),
    "uniform, shifted": (ObjectiveConfig(kind="flow", shift=SHIFT), unshift),
    "logit-normal": (LOGIT, logit_normal_cdf),
    "logit-normal, shifted": (
        ObjectiveConfig(
            kind="flow", time_law="logit_normal", logit_mean=MEAN, logit_std=STD, shift=SHIFT
        ),
        lambda t: logit_normal_cdf(unshift(t)),
    ),
}


def draws(config: ObjectiveConfig) -> NDArray[np.float64]:
    t = Flow(config).draw_t(COUNT, torch.Generator().manual_seed(3))
    assert t.dtype == torch.float32
    return t.double().numpy()


@pytest.mark.parametrize("law", LAWS)
def test_times_follow_their_law(law: str) -> None:
    """Kolmogorov-Smirnov."""
    config, cdf = LAWS[law]
    t = draws(config)
    assert scipy.stats.kstest(t, cdf).pvalue > FALSE_ALARM
    again = Flow(config).draw_t(COUNT, torch.Generator().manual_seed(3))
    assert np.array_equal(t, again.double().numpy())


@pytest.mark.parametrize("law", LAWS)
def test_the_same_test_tells_the_laws_apart(law: str) -> None:
    """Planted: another mean, no shift, another law. Each is found."""
    t = draws(LAWS[law][0])
    others = [name for name in LAWS if name != law]
    assert all(scipy.stats.kstest(t, LAWS[name][1]).pvalue < FALSE_ALARM for name in others)


def test_the_density_of_logit_normal_times_is_sd3s() -> None:
    """A chi-squared test over bins, with probabilities integrated from the density itself."""
    edges = np.linspace(0, 1, 21)
    grid = (np.arange(200_000) + 0.5) / 200_000
    density = logit_normal_density(grid)
    expected = density.reshape(20, -1).mean(axis=1) / 20
    assert expected.sum() == pytest.approx(1, abs=1e-6)
    counts, _ = np.histogram(draws(LOGIT), edges)
    test = scipy.stats.chisquare(counts, COUNT * expected / expected.sum())
    assert test.pvalue > FALSE_ALARM


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("count", [1, 10, 257])
def test_a_banks_times_are_the_middle_quantiles(law: str, count: int) -> None:
    config, cdf = LAWS[law]
    t = Flow(config).stratified_t(count)
    assert t.dtype == torch.float32
    middles = (np.arange(count) + 0.5) / count
    np.testing.assert_allclose(cdf(t.double().numpy()), middles, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("t", "expected"), [(0.0, 0.0), (0.25, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_a_shift_of_three_multiplies_the_odds_by_three(t: float, expected: float) -> None:
    assert float(shifted(torch.tensor(t).double().view(1), 3.0)) == pytest.approx(expected)


# --- the loss -----------------------------------------------------------------------------------


def data() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 3, 2, 2, generator=generator, dtype=torch.float64)
    return x0, torch.tensor([0.0, 0.25, 0.7, 1.0], dtype=torch.float64), noise


def network(x_t: Tensor, told: Tensor) -> Tensor:
    return torch.sin(2 * x_t) + told.view(-1, 1, 1, 1) / 500


def loss_by_hand(*, sign: float = 1.0, time_scale: float = 1000.0) -> NDArray[np.float64]:
    x0, t, noise = (x.numpy() for x in data())
    losses = []
    for i in range(4):
        x_t = (1 - t[i]) * x0[i] + t[i] * noise[i]
        output = np.sin(2 * x_t) + t[i] * time_scale / 500
        losses.append(((output - sign * (noise[i] - x0[i])) ** 2).mean())
    return np.array(losses)


@pytest.mark.parametrize("time_scale", [1000.0, 999.0, 1.0])
def test_the_loss_is_the_squared_error_of_the_velocity(time_scale: float) -> None:
    x0, t, noise = data()
    flow = Flow(ObjectiveConfig(kind="flow", time_scale=time_scale))
    terms = flow.loss(network, x0, t, noise=noise)
    np.testing.assert_allclose(terms.total.numpy(), loss_by_hand(time_scale=time_scale), rtol=1e-12)
    assert torch.equal(terms.total, terms.denoising)
    assert tuple(terms.named()) == flow.term_names == ("denoising",)


@pytest.mark.parametrize("mistake", [{"sign": -1.0}, {"time_scale": 1.0}])
def test_the_closed_form_tells_signs_and_scales_apart(mistake: dict[str, float]) -> None:
    x0, t, noise = data()
    total = Flow(ObjectiveConfig(kind="flow")).loss(network, x0, t, noise=noise).total.numpy()
    assert not np.allclose(total, loss_by_hand(**mistake), rtol=1e-2)


def test_a_perfect_velocity_has_no_loss_and_a_zero_one_that_of_the_target() -> None:
    x0, t, noise = data()
    flow = Flow(ObjectiveConfig(kind="flow"))
    perfect = flow.loss(lambda x, told: noise - x0, x0, t, noise=noise).total
    assert torch.equal(perfect, torch.zeros(4, dtype=torch.float64))
    zero = flow.loss(lambda x, told: torch.zeros_like(x), x0, t, noise=noise).total
    torch.testing.assert_close(zero, (noise - x0).square().flatten(1).mean(1))


def test_half_precision_is_only_for_the_network() -> None:
    x0, t, noise = data()
    seen: list[torch.dtype] = []

    def half(x_t: Tensor, told: Tensor) -> Tensor:
        seen.extend([x_t.dtype, told.dtype])
        return torch.zeros_like(x_t)

    flow = Flow(ObjectiveConfig(kind="flow"))
    terms = flow.loss(half, x0.bfloat16(), t.float(), noise=noise.bfloat16())
    assert (terms.total.dtype, seen) == (torch.float32, [torch.bfloat16, torch.float32])


def test_the_network_time_and_the_noise_level_are_inverse() -> None:
    flow = Flow(ObjectiveConfig(kind="flow", time_scale=999.0))
    t = torch.tensor([0.0, 0.5, 1.0])
    assert flow.told(t).tolist() == [0.0, 499.5, 999.0]
    torch.testing.assert_close(flow.noise_level(flow.told(t)), t)


def test_twice_the_channels_are_refused() -> None:
    """A network that learns a variance beside the velocity."""
    x0, t, noise = data()
    with pytest.raises(UsageError, match=r"returned shape \(4, 6, 2, 2\).*kind='flow'.*\(4, 3, 2"):
        Flow(ObjectiveConfig(kind="flow")).loss(
            lambda x, told: torch.cat([x, x], dim=1), x0, t, noise=noise
        )


def test_one_time_per_sample(unchecked_types: None) -> None:
    x0, t, noise = data()
    with pytest.raises(UsageError, match=r"Flow.loss got x0 .*one t per sample"):
        Flow(ObjectiveConfig(kind="flow")).loss(network, x0, t[:1], noise=noise)


def test_the_score_is_that_of_a_gaussian() -> None:
    """x_t of N(m, s²) data is normal: its score is linear, and so is the best velocity."""
    m, s, t = 0.7, 0.4, 0.3
    variance = (1 - t) ** 2 * s**2 + t**2
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 9)
    velocity = -m + (t - (1 - t) * s**2) / variance * (x - (1 - t) * m)
    expected = -(x - (1 - t) * m) / variance
    torch.testing.assert_close(score_from_velocity(x, velocity, t), expected)

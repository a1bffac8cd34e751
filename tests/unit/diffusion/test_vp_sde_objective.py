"""The variance-preserving SDE against its integral, and its loss by hand in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

from mudit.diffusion import VPSDE, ObjectiveConfig
from mudit.diffusion.vp_sde import log_alphas_cumprod
from mudit.errors import UsageError

CONFIG = ObjectiveConfig(kind="vp_sde", time_scale=999.0)
FALSE_ALARM = 1e-6


def kept(t: float) -> float:
    """alphas_cumprod(t) = exp(-∫ beta), by quadrature."""
    return float(np.exp(-scipy.integrate.quad(lambda u: 0.1 + 19.9 * u, 0, t)[0]))


@pytest.mark.parametrize("t", [0.0, 1e-3, 0.25, 0.5, 1.0])
def test_the_share_of_data_is_the_exponential_of_the_integral(t: float) -> None:
    got = log_alphas_cumprod(torch.tensor([t], dtype=torch.float64)).exp()
    assert float(got) == pytest.approx(kept(t), rel=1e-12)


def test_the_ends() -> None:
    """No noise at 0; e^-10.05 = 4.3e-5 of the variance is data at 1, as with DDPM's last step."""
    assert kept(0) == 1
    assert kept(1) == pytest.approx(np.exp(-10.05))


def data() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 3, 2, 2, generator=generator, dtype=torch.float64)
    return x0, torch.tensor([0.0, 1e-4, 0.5, 1.0], dtype=torch.float64), noise


def test_the_loss_is_the_squared_error_of_the_noise() -> None:
    x0, t, noise = data()
    terms = VPSDE(CONFIG).loss(
        lambda x, told: torch.sin(2 * x) + told.view(-1, 1, 1, 1) / 500, x0, t, noise=noise
    )
    for i in range(4):
        share = kept(float(t[i]))
        x_t = np.sqrt(share) * x0[i].numpy() + np.sqrt(1 - share) * noise[i].numpy()
        output = np.sin(2 * x_t) + float(t[i]) * 999 / 500
        by_hand = ((output - noise[i].numpy()) ** 2).mean()
        assert float(terms.total[i]) == pytest.approx(by_hand, rel=1e-9)
    assert tuple(terms.named()) == ("denoising",)


def test_little_noise_is_not_lost_in_rounding() -> None:
    """At t = 1e-6 the noise's share is 1e-7, below the rounding of 1 - exp in float32."""
    x0, _, noise = data()
    seen: list[Tensor] = []

    def network(x_t: Tensor, told: Tensor) -> Tensor:
        seen.append(x_t)
        return x_t

    VPSDE(CONFIG).loss(network, 0 * x0.float(), torch.full((4,), 1e-6), noise=noise.float())
    expected = np.sqrt(1e-7) * noise
    torch.testing.assert_close(seen[0].double(), expected, rtol=1e-4, atol=0)


def test_times_are_uniform() -> None:
    """Kolmogorov-Smirnov; fails by chance with probability 1e-6."""
    t = VPSDE(CONFIG).draw_t(20_000, torch.Generator().manual_seed(0)).double().numpy()
    assert scipy.stats.kstest(t, "uniform").pvalue > FALSE_ALARM
    assert VPSDE(CONFIG).stratified_t(4).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_the_samplers_schedule_is_the_process_at_a_thousand_times() -> None:
    objective = VPSDE(CONFIG)
    expected = [kept((n + 1) / 1000) for n in range(1000)]
    np.testing.assert_allclose(objective.schedule.alphas_cumprod.numpy(), expected, rtol=1e-9)
    told = objective.told_at(torch.tensor([0, 499, 999]), dtype=torch.float64)
    np.testing.assert_allclose(told.numpy(), [0.999, 499.5, 999.0])
    np.testing.assert_allclose(objective.noise_level(told).numpy(), [0.001, 0.5, 1.0])


def test_twice_the_channels_are_refused() -> None:
    x0, t, noise = data()
    with pytest.raises(UsageError, match=r"kind='vp_sde'.*expects \(4, 3, 2, 2\)"):
        VPSDE(CONFIG).loss(lambda x, told: torch.cat([x, x], dim=1), x0, t, noise=noise)


def test_one_time_per_sample(unchecked_types: None) -> None:
    x0, t, noise = data()
    with pytest.raises(UsageError, match=r"VPSDE.loss got x0 .*one t per sample"):
        VPSDE(CONFIG).loss(lambda x, told: x, x0, t[:1], noise=noise)

"""The DDPM objective against closed forms written out in numpy and scipy, in float64.

The oracle takes the long way of [DiT] code: both means of the reverse step, then their difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray

from mudit.diffusion import DDPM, ObjectiveConfig, Terms
from mudit.diffusion.ddpm import discretized_gaussian_nll, gaussian_kl
from mudit.errors import UsageError

Array = NDArray[np.float64]
LEARNED = DDPM(ObjectiveConfig())
FIXED = DDPM(ObjectiveConfig(learn_sigma=False))
SHAPE = (7, 3, 4, 4)
STEPS = torch.tensor([0, 1, 2, 100, 500, 998, 999])


def example(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """x0 (some of it beyond ±0.999), noise, and a network output near the noise."""
    generator = torch.Generator().manual_seed(seed)
    x0, noise, error, fraction = torch.randn(4, *SHAPE, generator=generator, dtype=dtype)
    return x0, noise, torch.cat([noise + 0.3 * error, fraction], dim=1)


def terms_of(x0: torch.Tensor, noise: torch.Tensor, output: torch.Tensor) -> Terms:
    return LEARNED.loss(lambda x_t, t: output, x0, STEPS, noise=noise)


# --- the oracle ---------------------------------------------------------------------------------


def tanh_cdf(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def bin_probability(x0: Array, mean: Array, std: Array, cdf: Callable[[Array], Array]) -> Array:
    upper, lower = cdf((x0 + 1 / 255 - mean) / std), cdf((x0 - 1 / 255 - mean) / std)
    inner: Array = np.where(x0 > 0.999, 1 - lower, upper - lower)
    return np.where(x0 < -0.999, upper, inner)


def bound_by_hand(
    x0: torch.Tensor,
    noise: torch.Tensor,
    output: torch.Tensor,
    *,
    swapped: bool = False,
    clipped: bool = False,
    nats: bool = False,
    halved: bool = False,
    always_kl: bool = False,
) -> Array:
    """Bits per dimension, sample by sample; each flag plants one mistake."""
    betas = np.linspace(1e-4, 0.02, 1000)
    kept = np.cumprod(1 - betas)
    bounds = []
    for sample, t in enumerate(STEPS.tolist()):
        x, e = x0[sample].numpy(), noise[sample].numpy()
        e_hat, v = output[sample, :3].numpy(), output[sample, 3:].numpy()
        before = kept[t - 1] if t > 0 else 1.0
        x_t = np.sqrt(kept[t]) * x + np.sqrt(1 - kept[t]) * e
        x_hat = (x_t - np.sqrt(1 - kept[t]) * e_hat) / np.sqrt(kept[t])
        if clipped:
            x_hat = x_hat.clip(-1, 1)

        def mean(
            x: Array, x_t: Array = x_t, t: int = t, before: float = before
        ) -> Array:  # [DDPM] Eq. 7
            total = 1 - kept[t]
            return (np.sqrt(before) * betas[t] * x + np.sqrt(1 - betas[t]) * (1 - before) * x_t) / (
                total
            )

        s = max(t, 1)
        smallest = math.log(betas[s] * (1 - kept[s - 1]) / (1 - kept[s]))
        largest = math.log(betas[t])
        f = v if halved else (v + 1) / 2
        f = 1 - f if swapped else f
        log_variance = f * largest + (1 - f) * smallest
        if t == 0 and not always_kl:
            probability = bin_probability(x, mean(x_hat), np.exp(0.5 * log_variance), tanh_cdf)
            value = -np.log(np.maximum(probability, 1e-12))
        else:
            variance_ratio = np.exp(smallest - log_variance)
            distance = (mean(x) - mean(x_hat)) ** 2 / np.exp(log_variance)
            value = 0.5 * (variance_ratio - 1 - np.log(variance_ratio) + distance)
        bounds.append(value.mean() / (1 if nats else math.log(2)))
    return np.array(bounds)


# --- the terms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_terms_equal_the_closed_forms(seed: int) -> None:
    x0, noise, output = example(seed)
    terms = terms_of(x0, noise, output)
    assert terms.variational_bound is not None
    by_hand = ((output[:, :3] - noise).numpy() ** 2).reshape(7, -1).mean(axis=1)
    np.testing.assert_allclose(terms.denoising.numpy(), by_hand, rtol=1e-12)
    # The oracle subtracts means that are nearly equal, and x0 at t = 999 loses 157 * 1e-16.
    expected = bound_by_hand(x0, noise, output)
    np.testing.assert_allclose(terms.variational_bound.numpy(), expected, rtol=1e-9)
    assert torch.equal(terms.total, terms.denoising + terms.variational_bound)


@pytest.mark.parametrize("mistake", ["swapped", "clipped", "nats", "halved", "always_kl"])
def test_planted_mistakes_give_other_numbers(mistake: str) -> None:
    x0, noise, output = example()
    wrong = bound_by_hand(x0, noise, output, **{mistake: True})
    right = terms_of(x0, noise, output).variational_bound
    assert right is not None
    assert np.abs(wrong / right.numpy() - 1).max() > 0.01


def test_float32_agrees_with_float64() -> None:
    x0, noise, output = example()
    exact = terms_of(x0, noise, output)
    single = terms_of(x0.float(), noise.float(), output.float())
    for name, term in single.named().items():
        assert term.dtype == torch.float32
        # Log variances near -10 carry 1e-6 of absolute rounding, against bounds of 1e-3 and more.
        torch.testing.assert_close(term.double(), exact.named()[name], rtol=2e-3, atol=1e-6)


def test_a_zero_output_scores_the_mean_square_of_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 64, 4, 16, 16, generator=generator)
    t = LEARNED.stratified_t(64)
    terms = LEARNED.loss(lambda x, t: x.new_zeros(64, 8, 16, 16), x0, t, noise=noise)
    torch.testing.assert_close(terms.denoising, noise.square().flatten(1).mean(1))
    # 65,536 squares of standard normals: mean 1, standard deviation 0.0055; six of them.
    assert float(terms.denoising.mean()) == pytest.approx(1, abs=0.033)
    assert 0 < float(terms.total.mean()) - float(terms.denoising.mean()) < 1


def test_the_exact_noise_leaves_only_the_variances_kl() -> None:
    """With v = -1 the reverse step's variance is the posterior's: no loss at all for t > 0."""
    x0, noise, _ = example()
    output = torch.cat([noise, -torch.ones_like(noise)], dim=1)
    terms = terms_of(x0, noise, output)
    assert terms.variational_bound is not None
    assert not terms.denoising.any()
    assert float(terms.variational_bound[1:].abs().max()) < 1e-14
    assert float(terms.variational_bound[0]) > 0.1  # a bin has probability below 1


def test_without_learned_variance_there_is_no_bound() -> None:
    x0, noise, output = example()
    terms = FIXED.loss(lambda x_t, t: output[:, :3], x0, STEPS, noise=noise)
    assert terms.variational_bound is None
    assert torch.equal(terms.total, terms.denoising)
    assert list(terms.named()) == ["denoising"]
    assert list(terms_of(x0, noise, output).named()) == ["denoising", "variational_bound"]


def test_the_network_sees_x_t_in_x0s_dtype_and_the_steps_as_given() -> None:
    x0, noise, output = example()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def network(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x_t, t))
        return output.to(x_t.dtype)

    terms = LEARNED.loss(network, x0.bfloat16(), STEPS, noise=noise.bfloat16())
    ((x_t, t),) = seen
    assert x_t.dtype == torch.bfloat16
    assert torch.equal(t, STEPS)
    assert {term.dtype for term in terms.named().values()} == {torch.float32}
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[STEPS.numpy()]
    scale = torch.as_tensor(kept).sqrt().view(-1, 1, 1, 1)
    by_hand = scale * x0 + (1 - scale**2).sqrt() * noise
    torch.testing.assert_close(x_t.double(), by_hand, rtol=0, atol=0.05)  # bfloat16: 3 digits


# --- gradients ----------------------------------------------------------------------------------


def test_the_bound_does_not_train_the_noise_half() -> None:
    x0, noise, output = example()
    output.requires_grad_()
    bound = terms_of(x0, noise, output).variational_bound
    assert bound is not None
    (grad,) = torch.autograd.grad(bound.sum(), output)
    assert not grad[:, :3].any()
    assert bool((grad[:, 3:] != 0).flatten(1).any(1).all())


def test_the_noise_half_is_trained_by_the_denoising_term_alone() -> None:
    x0, noise, output = example()
    output.requires_grad_()
    (grad,) = torch.autograd.grad(terms_of(x0, noise, output).total.sum(), output)
    by_hand = 2 * (output[:, :3] - noise).detach() / (3 * 4 * 4)
    torch.testing.assert_close(grad[:, :3], by_hand)


def test_the_variance_halfs_gradient_is_the_kls_derivative() -> None:
    """d KL / d v = (largest - smallest)/2 * (1 - (q's variance + distance²) / p's variance) / 2."""
    x0, noise, output = example()
    output.requires_grad_()
    bound = terms_of(x0, noise, output).variational_bound
    assert bound is not None
    (grad,) = torch.autograd.grad(bound[4], output)  # t = 500
    betas = np.linspace(1e-4, 0.02, 1000)
    kept = np.cumprod(1 - betas)
    smallest = math.log(betas[500] * (1 - kept[499]) / (1 - kept[500]))
    largest = math.log(betas[500])
    error, v = (output[4, :3] - noise[4]).detach().numpy(), output[4, 3:].detach().numpy()
    # [DDPM] Eq. 12: the means differ by beta / sqrt(alpha (1 - alphas_cumprod)) times the error's.
    distance = betas[500] / np.sqrt((1 - betas[500]) * (1 - kept[500])) * error
    log_variance = (v + 1) / 2 * largest + (1 - v) / 2 * smallest
    slope = 0.5 * (1 - (np.exp(smallest) + distance**2) / np.exp(log_variance))
    by_hand = slope * (largest - smallest) / 2 / math.log(2) / (3 * 4 * 4)
    np.testing.assert_allclose(grad[4, 3:].numpy(), by_hand, rtol=1e-9)


def test_leaving_out_the_unused_nll_changes_no_bit() -> None:
    """Without a t = 0 in the batch the CPU skips its branch; the others' numbers stay the same."""
    x0, noise, output = example(dtype=torch.float32)
    output.requires_grad_()

    def run(keep: slice) -> tuple[torch.Tensor, torch.Tensor]:
        terms = LEARNED.loss(lambda x, t: output[keep], x0[keep], STEPS[keep], noise=noise[keep])
        (grad,) = torch.autograd.grad(terms.total.sum(), output)
        return terms.total.detach(), grad

    (whole, whole_grad), (part, part_grad) = run(slice(0, 7)), run(slice(1, 7))
    assert torch.equal(whole[1:], part)
    assert torch.equal(whole_grad[1:], part_grad[1:])


# --- the two elementwise formulas ---------------------------------------------------------------


def test_kl_is_that_of_the_densities() -> None:
    """Against the integral of q log(q / p) on a grid (trapezoidal: exact to 1e-10 here)."""
    q, p = scipy.stats.norm(0.3, 0.8), scipy.stats.norm(-0.2, 1.3)
    grid = np.linspace(-12, 12, 200_001)
    integral = np.trapezoid(q.pdf(grid) * (q.logpdf(grid) - p.logpdf(grid)), grid)
    kl = gaussian_kl(
        torch.full((1, 1), 0.5, dtype=torch.float64),
        2 * math.log(0.8),
        torch.full((1, 1), 2 * math.log(1.3), dtype=torch.float64),
    )
    assert float(kl) == pytest.approx(integral, abs=1e-9)


def nll_example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x0 = (torch.randint(0, 256, (1, 4000), generator=generator) / 127.5 - 1).double()
    x0[0, :20], x0[0, 20:40] = -1, 1
    std = 0.005 + 0.02 * torch.rand(1, 4000, generator=generator, dtype=torch.float64)
    difference = std * torch.randn(1, 4000, generator=generator, dtype=torch.float64)
    return x0, difference, 2 * std.log()


def test_nll_equals_the_tanh_form_by_hand() -> None:
    x0, difference, log_variance = nll_example()
    nll = discretized_gaussian_nll(x0, difference, log_variance).numpy()
    mean, std = (x0 - difference).numpy(), (0.5 * log_variance).exp().numpy()
    probability = bin_probability(x0.numpy(), mean, std, tanh_cdf)
    np.testing.assert_allclose(nll, -np.log(probability), rtol=1e-9)


def test_nll_is_near_the_exact_normal_distributions() -> None:
    x0, difference, log_variance = nll_example()
    nll = discretized_gaussian_nll(x0, difference, log_variance).numpy()
    mean, std = (x0 - difference).numpy(), (0.5 * log_variance).exp().numpy()
    exact = bin_probability(x0.numpy(), mean, std, scipy.stats.norm.cdf)
    # The tanh form is off by at most 1.8e-4 at each edge of a bin, and |log p - log p'| is at most
    # |p - p'| / min(p, p').
    smaller = np.minimum(exact, np.exp(-nll))
    assert (np.abs(nll + np.log(exact)) <= 3.6e-4 / smaller).all()
    assert np.abs(nll + np.log(exact)).mean() < 0.01


def test_nll_of_the_impossible_is_finite() -> None:
    far = discretized_gaussian_nll(
        torch.zeros(1, 1), torch.full((1, 1), 9.0), torch.full((1, 1), -10.0)
    )
    assert float(far) == pytest.approx(-math.log(1e-12), rel=1e-6)


# --- steps --------------------------------------------------------------------------------------


def test_drawn_steps_are_uniform_and_reproducible() -> None:
    """Chi-square over all 50 steps of a small schedule: fails by chance with probability 1e-6."""
    ddpm = DDPM(ObjectiveConfig(num_timesteps=50))
    t = ddpm.draw_t(20_000, torch.Generator().manual_seed(5))
    assert t.dtype == torch.int64
    counts = np.bincount(t.numpy(), minlength=50)
    assert counts.shape == (50,)
    assert scipy.stats.chisquare(counts).pvalue > 1e-6
    assert torch.equal(t, ddpm.draw_t(20_000, torch.Generator().manual_seed(5)))


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [500]), (2, [250, 750]), (4, [125, 375, 625, 875]), (1000, list(range(1000)))],
)
def test_stratified_steps_are_the_middles_of_equal_parts(count: int, expected: list[int]) -> None:
    assert LEARNED.stratified_t(count).tolist() == expected


def test_stratified_steps_may_outnumber_the_schedule() -> None:
    counts = np.bincount(DDPM(ObjectiveConfig(num_timesteps=50)).stratified_t(150).numpy())
    assert (counts == 3).all()
    assert counts.shape == (50,)


def test_u_vits_discrete_scripts_count_steps_from_one() -> None:
    """n in 1..1000 is what the network is told; the noise is that of the n-th step."""
    config = ObjectiveConfig(learn_sigma=False, betas="scaled_linear", first_step=1)
    x0, noise, _ = example()
    told: list[torch.Tensor] = []

    def network(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        told.extend([x_t, t])
        return torch.zeros_like(x_t)

    objective = DDPM(config)
    total = objective.loss(network, x0, STEPS, noise=noise).total
    assert torch.equal(told[1], STEPS + 1)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = torch.from_numpy(np.cumprod(1 - betas))[STEPS].view(-1, 1, 1, 1)
    torch.testing.assert_close(told[0], kept.sqrt() * x0 + (1 - kept).sqrt() * noise)
    torch.testing.assert_close(total, noise.square().flatten(1).mean(1))
    assert torch.equal(objective.told_at(STEPS, dtype=torch.float32), STEPS + 1)


@pytest.mark.parametrize("first_step", [0, 1])
def test_the_noise_level_counts_the_steps_of_noise(first_step: int) -> None:
    objective = DDPM(ObjectiveConfig(first_step=first_step))
    level = objective.noise_level(objective.told(torch.tensor([0, 699, 999])))
    torch.testing.assert_close(level, torch.tensor([0.001, 0.7, 1.0]))


# --- errors, compilation, devices ---------------------------------------------------------------


@pytest.mark.parametrize(("ddpm", "channels"), [(LEARNED, 3), (FIXED, 6), (LEARNED, 5)])
def test_a_wrong_number_of_output_channels_is_refused(ddpm: DDPM, channels: int) -> None:
    x0, noise, _ = example()
    with pytest.raises(UsageError, match=rf"returned shape \(7, {channels}, 4, 4\).*learn_sigma"):
        ddpm.loss(lambda x, t: x.new_zeros(7, channels, 4, 4), x0, STEPS, noise=noise)


def test_shapes_that_would_broadcast_are_refused(unchecked_types: None) -> None:
    x0, noise, output = example()
    for t, wrong in ((STEPS, noise[:1]), (STEPS[:1], noise)):
        with pytest.raises(UsageError, match="one t per sample"):
            LEARNED.loss(lambda x, t: output, x0, t, noise=wrong)


def test_a_config_is_checked_when_it_is_made() -> None:
    with pytest.raises(UsageError, match="num_timesteps=10"):
        ObjectiveConfig(num_timesteps=10)


def test_the_loss_compiles_into_one_graph(unchecked_types: None) -> None:
    ddpm = DDPM(ObjectiveConfig())
    layer = torch.nn.Conv2d(3, 6, 1)
    x0, noise, _ = example(dtype=torch.float32)

    def loss(x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return ddpm.loss(lambda x_t, t: layer(x_t), x0, t, noise=noise).total

    # "eager" runs the captured graph as it is: what is tested is that one graph can be captured.
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    for _ in range(2):  # the first call also makes the schedule's table
        torch.testing.assert_close(compiled(x0, STEPS, noise), loss(x0, STEPS, noise))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_gives_the_cpus_numbers() -> None:
    x0, noise, output = example()
    here = terms_of(x0, noise, output).total
    there = LEARNED.loss(
        lambda x, t: output.cuda(), x0.cuda(), STEPS.cuda(), noise=noise.cuda()
    ).total
    torch.testing.assert_close(there.cpu(), here)

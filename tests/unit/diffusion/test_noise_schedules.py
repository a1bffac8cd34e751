"""Noise schedules against Bayes' rule, the numbers of FACTS, and [DiT] code's respacing."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mudit.diffusion import (
    NoiseSchedule,
    even_timesteps,
    linear_schedule,
    make_schedule,
    posterior_mean,
    predict_noise_from_x0,
    predict_x0_from_noise,
    q_sample,
    respace,
    scaled_linear_schedule,
    strided_timesteps,
)
from mudit.errors import UsageError

SCHEDULE = linear_schedule()


def noisy_batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 2, 3, 3, generator=generator, dtype=dtype)
    return x0, noise, torch.tensor([0, 1, 250, 640, 999])


# Products of 1 - beta in 50 decimal digits (module decimal), cut to 12.
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, 0.9999),
        (250, 0.524085373825),
        (500, 0.0785872428818),
        (750, 0.00335055043894),
        (1000, 4.03582976538e-5),
    ],
)
def test_alphas_cumprod_has_the_known_values(steps: int, expected: float) -> None:
    assert float(SCHEDULE.alphas_cumprod[steps - 1]) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("num_timesteps", [21, 100, 1000, 4000])
def test_linear_betas_scale_inversely_with_the_number_of_steps(num_timesteps: int) -> None:
    betas = linear_schedule(num_timesteps).betas
    assert betas.dtype == torch.float64
    expected = np.linspace(0.1 / num_timesteps, 20 / num_timesteps, num_timesteps)
    np.testing.assert_allclose(betas.numpy(), expected, rtol=1e-12)


# Products of 1 - beta with betas = linspace(√0.00085, √0.012, 1000)², in 50 decimal digits.
@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 0.99915), (500, 0.277669650456), (1000, 0.00466009851308)]
)
def test_stable_diffusions_schedule_has_the_known_values(steps: int, expected: float) -> None:
    """To 12 digits; and the linear one is another."""
    kept = scaled_linear_schedule().alphas_cumprod[steps - 1]
    assert float(kept) == pytest.approx(expected, rel=1e-11)
    assert abs(float(SCHEDULE.alphas_cumprod[steps - 1]) / expected - 1) > 1e-4


@pytest.mark.parametrize("num_timesteps", [13, 100, 1000])
def test_its_betas_scale_inversely_with_the_number_of_steps(num_timesteps: int) -> None:
    betas = scaled_linear_schedule(num_timesteps).betas.numpy()
    roots = np.linspace(math.sqrt(0.85 / num_timesteps), math.sqrt(12 / num_timesteps), len(betas))
    np.testing.assert_allclose(betas, roots**2, rtol=1e-12)


def test_schedules_have_names(unchecked_types: None) -> None:
    assert torch.equal(make_schedule("linear", 50).betas, linear_schedule(50).betas)
    assert torch.equal(make_schedule("scaled_linear", 50).betas, scaled_linear_schedule(50).betas)
    with pytest.raises(UsageError, match="betas is 'cosine', expected 'linear' or 'scaled_linear'"):
        make_schedule("cosine", 50)  # type: ignore[arg-type]


@pytest.mark.parametrize("t", [1, 2, 77, 500, 999])
def test_posterior_is_bayes_rule(t: int) -> None:
    """q(x_{t-1} | x_t, x0) by multiplying two Gaussian densities in x_{t-1}."""
    betas = np.linspace(1e-4, 0.02, 1000)
    before = np.prod(1 - betas[:t])  # alphas_cumprod at t-1
    # x_t ~ N(sqrt(1-b) x_{t-1}, b) and x_{t-1} ~ N(sqrt(before) x0, 1 - before).
    precision = (1 - betas[t]) / betas[t] + 1 / (1 - before)
    x0, x_t = 0.3, -1.7
    mean = (
        math.sqrt(1 - betas[t]) * x_t / betas[t] + math.sqrt(before) * x0 / (1 - before)
    ) / precision
    at = SCHEDULE.step(t)
    assert at.posterior_x0_scale * x0 + at.posterior_x_t_scale * x_t == pytest.approx(mean, 1e-10)
    assert at.posterior_log_variance == pytest.approx(-math.log(precision), rel=1e-10)
    assert float(SCHEDULE.posterior_variance[t]) == pytest.approx(1 / precision, rel=1e-10)


def test_the_first_posterior_is_x0_and_its_log_variance_is_the_second_ones() -> None:
    at = SCHEDULE.step(0)
    assert (at.posterior_x0_scale, at.posterior_x_t_scale) == (pytest.approx(1, abs=1e-12), 0)
    assert float(SCHEDULE.posterior_variance[0]) == 0
    assert at.posterior_log_variance == SCHEDULE.step(1).posterior_log_variance
    assert at.log_beta == pytest.approx(math.log(1e-4), rel=1e-12)


def test_conversions_undo_each_other() -> None:
    x0, noise, t = noisy_batch()
    at = SCHEDULE.at(t, x0)
    x_t = q_sample(at, x0, noise)
    # At t = 999, x0 is 1/157 of x_t: float64's 1e-16 becomes about 1e-13.
    torch.testing.assert_close(predict_x0_from_noise(at, x_t, noise), x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(predict_noise_from_x0(at, x_t, x0), noise, rtol=0, atol=1e-12)


def test_q_sample_keeps_unit_variance_and_mixes_by_hand() -> None:
    x0, noise, t = noisy_batch()
    x_t = q_sample(SCHEDULE.at(t, x0), x0, noise)
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for sample, step in enumerate(t.tolist()):
        by_hand = math.sqrt(kept[step]) * x0[sample] + math.sqrt(1 - kept[step]) * noise[sample]
        torch.testing.assert_close(x_t[sample], by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
def test_gathered_and_single_step_coefficients_agree(index_dtype: torch.dtype) -> None:
    x0, _, t = noisy_batch()
    gathered = SCHEDULE.at(t.to(index_dtype), x0)
    for sample, step in enumerate(t.tolist()):
        assert [float(column[sample]) for column in gathered] == list(SCHEDULE.step(step))
    assert {column.shape for column in gathered} == {(5, 1, 1, 1)}


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_arithmetic_is_never_below_float32(dtype: torch.dtype, expected: torch.dtype) -> None:
    x0, noise, t = noisy_batch(torch.float64)
    x0, noise = x0.to(dtype), noise.to(dtype)
    assert q_sample(SCHEDULE.at(t, x0), x0, noise).dtype == expected


def test_float32_coefficients_are_the_rounded_float64_ones() -> None:
    x0, _, t = noisy_batch(torch.float32)
    for rounded, exact in zip(SCHEDULE.at(t, x0), SCHEDULE.at(t, x0.double())):
        assert torch.equal(rounded, exact.float())


def test_tables_are_made_once_and_can_be_made_in_inference_mode() -> None:
    schedule = linear_schedule(50)
    x0, t = torch.randn(2, 1, 2, 2), torch.tensor([3, 4])
    with torch.inference_mode():
        schedule.at(t, x0)
    table = schedule._table(x0.device, x0.dtype)
    weight = torch.ones(2, 1, 2, 2, requires_grad=True)
    (schedule.at(t, x0).x0_scale * weight).sum().backward()
    assert weight.grad is not None
    assert schedule._table(x0.device, x0.dtype) is table
    assert torch.equal(copy.deepcopy(schedule).at(t, x0).x0_scale, schedule.at(t, x0).x0_scale)


def test_schedules_survive_copy_and_pickle() -> None:
    for twin in (copy.deepcopy(SCHEDULE), pickle.loads(pickle.dumps(SCHEDULE))):
        assert torch.equal(twin.alphas_cumprod, SCHEDULE.alphas_cumprod)


def test_250_steps_are_dits() -> None:
    _, original = respace(SCHEDULE, 250)
    assert original[:4] == (0, 4, 8, 12)
    assert original[-3:] == (991, 995, 999)
    assert list(original) == np.linspace(0, 999, 250).round().astype(int).tolist()
    assert len(set(original)) == 250


def test_ties_are_decided_by_the_running_sum() -> None:
    # 999 / 20 = 49.95: the tenth position is 499.5 exactly, or a little less when summed.
    assert even_timesteps(1000, 21)[10] == 499
    assert round(10 * (999 / 20)) == 500


@given(st.integers(2, 1200), st.data())
def test_even_steps_are_distinct_ordered_and_span_the_schedule(total: int, data) -> None:  # type: ignore[no-untyped-def]
    count = data.draw(st.integers(2, total))
    steps = even_timesteps(total, count)
    assert len(steps) == count
    assert (steps[0], steps[-1]) == (0, total - 1)
    assert list(steps) == sorted(set(steps))


@given(st.integers(2, 400), st.data())
def test_strided_steps_are_the_first_stride_that_fits(total: int, data) -> None:  # type: ignore[no-untyped-def]
    count = data.draw(st.integers(2, total))
    fitting = [k for k in range(1, total) if len(range(0, total, k)) == count]  # [DiT] code
    if fitting:
        assert strided_timesteps(total, count) == tuple(range(0, total, fitting[0]))
    else:
        with pytest.raises(UsageError, match=rf"No integer stride makes {count} steps"):
            strided_timesteps(total, count)


@pytest.mark.parametrize(("steps", "spacing"), [(250, "even"), (37, "even"), (250, "stride")])
def test_respacing_keeps_the_noise_levels(steps: int, spacing: str) -> None:
    short, original = respace(SCHEDULE, steps, spacing=spacing)  # type: ignore[arg-type]
    kept = SCHEDULE.alphas_cumprod[list(original)]
    torch.testing.assert_close(short.alphas_cumprod, kept, rtol=1e-12, atol=0)
    assert float(short.betas[3]) == pytest.approx(float(1 - kept[3] / kept[2]), rel=1e-12)


def test_all_steps_respaced_is_the_schedule_itself() -> None:
    whole, original = respace(SCHEDULE, 1000)
    assert original == tuple(range(1000))
    torch.testing.assert_close(whole.betas, SCHEDULE.betas, rtol=1e-11, atol=0)


def test_impossible_strides_name_the_nearest_possible_ones() -> None:
    with pytest.raises(UsageError, match=r"nearest are 250 \(stride 4\) and 334 \(stride 3\)"):
        respace(SCHEDULE, 300, spacing="stride")


@pytest.mark.parametrize("steps", [-1, 0, 1, 1001])
def test_step_counts_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(UsageError, match="expected 2 to 1000"):
        respace(SCHEDULE, steps)


def test_too_few_linear_steps_are_refused() -> None:
    with pytest.raises(UsageError, match=r"num_timesteps=20.*at least 21"):
        linear_schedule(20)


def test_too_few_scaled_linear_steps_are_refused() -> None:
    with pytest.raises(UsageError, match=r"num_timesteps=12.*at least 13"):
        scaled_linear_schedule(12)


@pytest.mark.parametrize("betas", [[], [0.1], [0.1, 0.0], [0.1, 1.0], [0.1, math.nan]])
def test_bad_betas_are_refused(betas: list[float]) -> None:
    with pytest.raises(UsageError, match="at least 2 betas, each between 0 and 1"):
        NoiseSchedule.from_betas(torch.tensor(betas, dtype=torch.float64))


def test_unknown_spacings_are_refused(unchecked_types: None) -> None:
    with pytest.raises(UsageError, match=r"spacing='ddim'.*'even' or 'stride'"):
        respace(SCHEDULE, 10, spacing="ddim")  # type: ignore[arg-type]


def test_posterior_mean_uses_both_inputs() -> None:
    x0, noise, t = noisy_batch()
    at = SCHEDULE.at(t, x0)
    mean = posterior_mean(at, x0, noise)
    assert torch.allclose(mean[0], x0[0])
    expected = at.posterior_x0_scale * x0 + at.posterior_x_t_scale * noise
    torch.testing.assert_close(mean, expected)

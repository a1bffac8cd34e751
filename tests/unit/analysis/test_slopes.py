"""Slopes over width: the interval's coverage, its t quantile, and the verdict on bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mudit.analysis.slopes import Slope, fit_slope

WIDTHS = np.array([32.0, 64.0, 128.0, 256.0])


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.0, 0.49, 1.0])
def test_a_power_law_has_its_exponent_and_no_width(exponent) -> None:
    values = np.outer(3 * WIDTHS**exponent, [1.0, 0.2, 7.0])  # a seed's factor is no error
    slope = fit_slope(WIDTHS, values, alpha=0.05, checks=100)
    assert slope.value == pytest.approx(exponent, abs=1e-12)
    assert slope.high - slope.low < 1e-10


def test_the_interval_of_two_widths_is_the_paired_t_interval() -> None:
    values = np.exp(np.random.default_rng(0).normal(size=(2, 6)))
    slope = fit_slope(np.array([1.0, math.e]), values, alpha=0.05, checks=1)
    paired = stats.ttest_1samp(np.log(values[1]) - np.log(values[0]), 0.0)
    interval = paired.confidence_interval(0.95)
    assert (slope.low, slope.high) == pytest.approx((interval.low, interval.high))


def test_intervals_cover_as_often_as_they_say() -> None:
    # 4,000 draws at 90 %: the count is outside 3,500 .. 3,700 with a chance of 2e-7.
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(4000):
        noise = rng.normal(size=(4, 3)) + rng.normal(size=3) + rng.normal(size=(4, 1)) * 0
        slope = fit_slope(WIDTHS, np.exp(noise), alpha=0.1, checks=1)
        covered += slope.low <= 0 <= slope.high
    assert 3500 <= covered <= 3700


def test_more_checks_give_wider_intervals() -> None:
    values = np.exp(np.random.default_rng(2).normal(size=(4, 5)))
    widths = [
        (s := fit_slope(WIDTHS, values, alpha=0.05, checks=checks)).high - s.low
        for checks in (1, 10, 1000)
    ]
    assert widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize(
    ("low", "high", "bounds", "verdict"),
    [
        (-0.1, 0.1, (-0.2, 0.2), "inside"),
        (0.1, 0.3, (-0.2, 0.2), "open"),
        (0.25, 0.3, (-0.2, 0.2), "outside"),
        (-0.6, -0.4, (-0.2, 0.2), "outside"),
        (-0.6, -0.4, (-math.inf, 0.2), "inside"),
        (-0.6, 0.4, (-0.2, 0.2), "open"),
    ],
)
def test_verdict_on_bounds(low, high, bounds, verdict) -> None:
    assert Slope(value=(low + high) / 2, low=low, high=high).verdict(bounds) == verdict


@pytest.mark.parametrize(
    "values",
    [
        np.ones((4, 1)),
        np.ones((1, 4)),
        np.zeros((4, 2)),
        np.full((4, 2), np.nan),
        np.full((4, 2), np.inf),
    ],
)
def test_what_has_no_slope_is_refused(values) -> None:
    with pytest.raises(ValueError, match=r"got values|no logarithm"):
        fit_slope(WIDTHS[: len(values)], values, alpha=0.05, checks=1)

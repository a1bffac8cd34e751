from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mudit.errors import UsageError
from mudit.training import Hyperparameters
from mudit.tuning.space import (
    PAPER_SPACE,
    Choices,
    grid_points,
    parse_range,
    parse_space,
    point_key,
    random_points,
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("log2(-10, -8)", (2**-10, 2**-9, 2**-8)),
        ("log2(-8.5, -7.5, 0.5)", (2**-8.5, 2**-8, 2**-7.5)),
        ("log2(-3,-3)", (0.125,)),
        ("grid(0.1, 0.3, 0.1)", (0.1, 0.3)),
    ],
)
def test_grids(text, values) -> None:
    found = parse_range("lr", text)
    assert isinstance(found, Choices)
    assert found.values == pytest.approx(values)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("lr", "log2(3, 1)", "no value"),
        ("lr", "grid()", "no value"),
        ("lr", "uniform(2, 1)", "no value"),
        ("lr", "log_uniform(0, 1)", "no value"),
        ("lr", "2^-8..2^-6", "expected a range like"),
        ("lr", "log2(a, b)", "expected a range like"),
        ("lr", "grid(-1)", "> 0"),
        ("learning_rate", "grid(1)", "learning_rate"),
        ("beta2", "grid(1.5)", "beta2"),
    ],
)
def test_bad_ranges(name, text, message) -> None:
    with pytest.raises(UsageError, match=message):
        parse_range(name, text)


def test_empty_space() -> None:
    with pytest.raises(UsageError, match="nothing to tune"):
        parse_space({})


def test_grid_is_the_product() -> None:
    space = parse_space({"lr": "log2(-2, -1)", "phi.output": "grid(1, 2, 4)"})
    points = grid_points(space)
    assert len(points) == 6
    assert points[0] == {"lr": 0.25, "phi.output": 1.0}
    assert points[1] == {"lr": 0.25, "phi.output": 2.0}
    with pytest.raises(UsageError, match="random"):
        grid_points(parse_space({"lr": "uniform(0.1, 1)"}))


def test_random_draws_follow_their_law_and_seed() -> None:
    """The paper's four HPs (FACTS §3.3), 80 trials; more draws do not change the first ones."""
    space = parse_space(
        {
            "lr": "log_uniform(2.5e-5, 2.5e-3)",
            "clip": "log_uniform(0.01, 100)",
            "warmup_steps": "uniform(1, 20000)",
            "beta1": "grid(0.9, 0.95)",
        }
    )
    points = random_points(space, count=80, seed=1)
    assert points == random_points(space, count=2000, seed=1)[:80]
    assert points != random_points(space, count=80, seed=2)
    many = random_points(space, count=2000, seed=1)
    logs = np.log10([point["lr"] for point in many])
    assert math.log10(2.5e-5) <= logs.min() <= logs.max() <= math.log10(2.5e-3)
    # Means of 2,000 draws, uniform on [a, b]: standard error (b - a)/sqrt(12·2000), 5 of them.
    assert np.mean(logs) == pytest.approx(math.log10(2.5e-4), abs=5 * 2 / math.sqrt(24000))
    steps = np.mean([point["warmup_steps"] for point in many])
    assert steps == pytest.approx(10000.5, abs=5 * 2e4 / math.sqrt(24000))
    assert {point["beta1"] for point in many} == {0.9, 0.95}


def test_keys_are_readable_and_differ() -> None:
    assert point_key({"lr": 2**-8}).startswith("lr=2^-8_")
    keys = {point_key({"lr": 2**-8, "clip": clip}) for clip in (0.1, 0.1000001, 1.0)}
    assert len(keys) == 3
    assert not any(set(key) & set("/\\ :*?") for key in keys)


def test_the_papers_80_random_trials() -> None:
    """[muDiT] §5.2.2: ranges as printed; evenly in the logarithm, but for REPA's weight."""
    space = parse_space(PAPER_SPACE)
    points = random_points(space, count=4000, seed=0)
    assert points[:80] == random_points(space, count=80, seed=0)
    ranges = {
        "lr": (2.5e-5, 2.5e-3),
        "clip": (0.01, 100.0),
        "loss_weight.repa": (0.1, 1.0),
        "warmup_steps": (1.0, 20_000.0),
    }
    assert set(space) == set(ranges)
    for name, (low, high) in ranges.items():
        values = np.array([point[name] for point in points])
        assert low <= values.min() <= values.max() <= high
        even = stats.uniform(low, high - low)
        if name != "loss_weight.repa":
            even = stats.loguniform(low, high)
        assert stats.kstest(values, even.cdf).pvalue > 0.01
    hps = Hyperparameters().updated(points[0])
    assert hps.loss_weight["repa"] == points[0]["loss_weight.repa"]
    assert hps.warmup_steps == round(points[0]["warmup_steps"])

"""Advice on proxies: choices, costs, front and recommendation on grids with known basins."""

from __future__ import annotations

import math

import pytest

from analysis_basins import SIZES, grid
from mudit.analysis.basin import Run
from mudit.analysis.proxies import Task, advise

QUIET = {"noise": 1e-4, "luck": 1e-3}


def by_size(runs: list[Run]) -> dict[Task, list[Run]]:
    return {Task(size, 300): [run for run in runs if run.size == size] for size in SIZES}


def costs() -> dict[Task, float]:
    return {Task(size, 300): 6 * (size / 256) ** 2 for size in SIZES}


def test_without_drift_the_cheapest_proxy_is_enough() -> None:
    runs = grid(**QUIET, optimum=-6.0)
    found = advise(runs, by_size(runs), costs())
    assert [proxy.task.size for proxy in found.proxies] == list(SIZES)
    assert all(proxy.choices == (-6.0, -6.0, -6.0) for proxy in found.proxies)
    assert found.recommended == found.proxies[0]
    assert found.recommended.cost == pytest.approx(6 / 64)
    assert [proxy.on_front for proxy in found.proxies] == [True, False, False, False]
    assert found.gain == pytest.approx(0.02, abs=2e-3)


def test_with_drift_a_larger_proxy_is_needed() -> None:
    runs = grid(**QUIET, optimum=-8.0, drift=1.0, values=range(-11, -1), gain=0.05)
    found = advise(runs, by_size(runs), costs())
    assert [proxy.choices[0] for proxy in found.proxies] == [-8.0, -7.0, -6.0, -5.0]
    expected = [0.01 * d**2 / 0.05 for d in (3, 2, 1, 0)]
    assert [proxy.regret for proxy in found.proxies] == pytest.approx(expected, rel=0.05, abs=0.01)
    assert all(proxy.worst >= proxy.regret for proxy in found.proxies)
    # Only the target itself would do, and that is no proxy.
    assert [proxy.worst <= 0.1 for proxy in found.proxies] == [False, False, False, True]
    assert found.recommended is None
    assert all(proxy.on_front for proxy in found.proxies)


def test_an_unlucky_seed_rules_a_proxy_out() -> None:
    """Advice is for a user with one seed: the worst of them counts."""
    runs = grid(**QUIET, optimum=-6.0, curvature=0.05, gain=0.05)
    proxies = by_size(runs)
    small = Task(32, 300)
    proxies[small].append(Run(size=32, log2_hp=-8.0, seed=2, loss=0.0))
    found = advise(runs, proxies, costs())
    assert found.proxies[0].choices == (-6.0, -6.0, -8.0)
    assert found.proxies[0].regret == pytest.approx(0.05 * 4 / 0.05 / 3, rel=0.05)
    assert found.recommended.task.size == 64


def test_a_choice_that_diverges_at_the_target_costs_without_bound() -> None:
    runs = [
        Run(size=r.size, log2_hp=r.log2_hp, seed=r.seed, loss=math.nan)
        if r.size == 256 and r.log2_hp > -7
        else r
        for r in grid(**QUIET, optimum=-6.0, values=range(-12, -3), gain=0.1)
    ]
    found = advise(runs, by_size(runs), costs())
    assert [proxy.regret for proxy in found.proxies[:3]] == [math.inf] * 3
    assert found.recommended is None
    dead = [Run(size=8, log2_hp=x, seed=0, loss=math.nan) for x in (-6.0, -5.0)]
    lost = advise(runs, {Task(8, 300): dead}, {Task(8, 300): 0.01})
    assert lost.proxies[0].choices == (None,)
    assert lost.recommended is None


def test_a_grid_without_basins_cannot_judge() -> None:
    runs = grid(values=range(-7, -4))
    with pytest.raises(ValueError, match="basin of four values"):
        advise(runs, by_size(runs), costs())

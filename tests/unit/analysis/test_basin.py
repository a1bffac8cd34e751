"""Basins: closed forms, brute force and coverage as oracles; cliffs, windows and regret."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from analysis_basins import SIZES, grid
from mudit.analysis.basin import BasinFit, Run, _shared_out, linex
from mudit.analysis.regret import gain_per_doubling, regret


def slope_weights(sizes=SIZES):
    doublings = np.log2(np.array(sizes, float))
    centred = doublings - doublings.mean()
    return (centred / np.square(centred).sum()).tolist()


@pytest.mark.parametrize("k", [-1.5, -0.3, 0.0, 1e-5, 0.7, 2.0])
def test_linex_is_a_parabola_at_its_bottom_and_skewed_far_off(k) -> None:
    assert linex(0.0, k) == 0
    assert float(linex(1e-3, k)) == pytest.approx(1e-6, rel=1e-3)
    d = np.array([-2.0, -0.5, 0.5, 2.0])
    exact = d**2 if k == 0 else 2 * (np.exp(k * d) - k * d - 1) / k**2
    assert linex(d, k) == pytest.approx(exact, rel=2e-4)
    assert (linex(1.0, k) > linex(-1.0, k)) == (k > 0)


@pytest.mark.parametrize("skew", [0.0, 0.9, -0.6])
def test_a_basin_without_noise_is_found_again(skew) -> None:
    fit = BasinFit(grid(noise=1e-9, luck=0.02, skew=skew, drift=0.1))
    assert fit.skew == pytest.approx(skew, abs=1e-3)
    for number, basin in enumerate(fit.basins):
        assert basin.optimum.value == pytest.approx(-6.3 + 0.1 * number, abs=1e-3)
        assert basin.curvature == pytest.approx(0.01, rel=1e-2)
        assert basin.form == ("skewed" if skew else "symmetric")
    assert fit.contrast(slope_weights(), 0.98).value == pytest.approx(0.1, abs=1e-3)


def squares_by_hand(runs: list[Run], sizes, k: float, bottoms) -> float:
    """Least squares with c ≥ 0 and a block for each seed, by scipy's solver."""
    total = 0.0
    for size, bottom in zip(sizes, bottoms):
        rows = [run for run in runs if run.size == size]
        seeds = sorted({run.seed for run in rows})
        columns = [[float(linex(r.log2_hp - bottom, k))] for r in rows]
        columns = np.hstack([columns, [[float(r.seed == s) for s in seeds] for r in rows]])
        bounds = ([0.0] + [-np.inf] * len(seeds), np.inf)
        total += 2 * optimize.lsq_linear(columns, [r.loss for r in rows], bounds=bounds).cost
    return total


@pytest.mark.parametrize("seed", range(3))
def test_the_ends_of_an_optimum_leave_over_what_a_profile_interval_allows(seed) -> None:
    sizes = SIZES[:2]
    runs = grid(sizes=sizes, noise=0.003, skew=0.4, seed=seed)
    fit = BasinFit(runs)
    assert fit.radius > 2.9  # no run left out
    interval = fit.optimum(0, 0.95)

    def profile(bottom: float) -> float:
        return optimize.minimize(
            lambda free: squares_by_hand(runs, sizes, free[0], (bottom, free[1])),
            [fit.skew, -6.3],
            method="Nelder-Mead",
            options={"xatol": 1e-5, "fatol": 1e-12},
        ).fun

    best = optimize.minimize(
        lambda free: squares_by_hand(runs, sizes, free[0], free[1:]),
        [fit.skew, interval.value, -6.3],
        method="Nelder-Mead",
        options={"xatol": 1e-5, "fatol": 1e-12},
    ).fun
    freedom = len(runs) - 2 * (3 + 2) - 1  # blocks, m and c of each size; k
    allowed = stats.t.ppf(0.975, freedom) ** 2 * best / freedom
    assert fit.freedom == freedom
    assert fit.variance == pytest.approx(best / freedom, rel=1e-3)
    for end in (interval.low, interval.high):
        assert profile(end) - best == pytest.approx(allowed, rel=0.03)


def test_the_drift_of_quiet_basins_has_the_linearised_interval() -> None:
    runs = grid(noise=0.0005, drift=0.1)
    fit = BasinFit(runs)

    def residuals(free):
        k, rest = free[0], free[1:].reshape(4, 5)
        found = []
        for size, (m, c, *blocks) in zip(SIZES, rest):
            rows = [run for run in runs if run.size == size]
            found += [r.loss - c * float(linex(r.log2_hp - m, k)) - blocks[r.seed] for r in rows]
        return np.array(found)

    start = np.concatenate([[0.1], np.tile([-6.2, 0.01, 0.3, 0.3, 0.3], 4)])
    solved = optimize.least_squares(residuals, start, x_scale="jac", xtol=1e-14, ftol=1e-14)
    covariance = np.linalg.inv(solved.jac.T @ solved.jac) * fit.variance
    weights = np.zeros(len(start))
    weights[1::5] = slope_weights()
    error = math.sqrt(weights @ covariance @ weights)
    half = stats.t.ppf(0.99, fit.freedom) * error
    found = fit.contrast(slope_weights(), 0.98)
    assert found.value == pytest.approx(weights @ solved.x, abs=0.02 * half)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.03)


# By chance a right interval is outside these bounds in 0.1 % of test runs (Clopper-Pearson).
@pytest.mark.parametrize("kind", ["symmetric", "skewed", "cliff", "flat"])
def test_intervals_cover_the_truth(kind) -> None:
    """1,000 draws of each are in benchmarks/results/basin_coverage.md."""
    rng = np.random.default_rng(len(kind))
    draws, hits = 60, 0
    for number in range(draws):
        optimum = -6.5 + rng.uniform(-0.5, 0.5)
        options = {
            "symmetric": {},
            "skewed": {"skew": 0.8},
            "cliff": {"cliff": 0.3, "skew": 0.5, "values": range(-11, -4)},
            "flat": {"curvature": 0.0005},
        }[kind]
        runs = grid(sizes=SIZES[:3], optimum=optimum, seed=number, **options)
        interval = BasinFit(runs).optimum(0, 0.95)
        truth = optimum
        hits += interval.low <= truth <= interval.high
    low, high = stats.beta.ppf([0.0005, 0.9995], [hits, hits + 1], [draws - hits + 1, draws - hits])
    assert np.nan_to_num(low) <= 0.95 <= (1.0 if hits == draws else high)


def test_a_steep_cliff_lies_evenly_in_its_cell() -> None:
    fit = BasinFit(grid(values=range(-9, -1), optimum=-3.0, cliff=-1.5, noise=1e-4))
    for number, basin in enumerate(fit.basins):
        assert basin.cliffs == (None, (-5.0, -4.0))
        assert basin.form == "cliff"
        assert basin.problem is None
        assert fit.optimum(number, 0.95) == pytest.approx((-4.5, -4.975, -4.025), abs=1e-3)


def test_a_cliff_below_mirrors_one_above() -> None:
    runs = grid(skew=0.5, cliff=0.3, optimum=-6.5, values=range(-11, -4))
    mirrored = [
        Run(size=run.size, log2_hp=-run.log2_hp, seed=run.seed, loss=run.loss) for run in runs
    ]
    one, two = BasinFit(runs), BasinFit(mirrored)
    for number in range(len(SIZES)):
        a, b = one.optimum(number, 0.95), two.optimum(number, 0.95)
        assert a == pytest.approx((-b.value, -b.high, -b.low), abs=1e-6)


def test_a_noisy_flat_basin_has_an_interval_without_end() -> None:
    fit = BasinFit(grid(curvature=1e-6))
    assert all(basin.problem is not None for basin in fit.basins)
    drift = fit.contrast(slope_weights(), 0.98)
    assert drift.low == -math.inf
    assert drift.high == math.inf


def test_runs_too_far_for_any_basin_are_left_out() -> None:
    runs = grid(values=range(-10, -2), optimum=-6.0, noise=5e-4, luck=0.0, gain=0.0)
    level = [
        Run(size=r.size, log2_hp=r.log2_hp, seed=r.seed, loss=min(r.loss, 0.345)) for r in runs
    ]
    assert BasinFit(runs).radius == 4.0
    fit = BasinFit(level)
    assert fit.radius == 2.0
    assert fit.basins[0].window == (-8.0, -4.0)
    assert fit.optimum(0, 0.95).value == pytest.approx(-6.0, abs=0.1)


def test_where_no_basin_fits_the_misfit_is_the_noise() -> None:
    runs = grid(values=range(-8, -3), optimum=-6.0, noise=1e-5)
    zigzag = [
        Run(
            size=r.size,
            log2_hp=r.log2_hp,
            seed=r.seed,
            loss=r.loss + 0.004 * (-1) ** int(r.log2_hp),
        )
        for r in runs
    ]
    assert BasinFit(runs).variance == pytest.approx(1e-10, rel=0.5)
    fit = BasinFit(zigzag)
    assert fit.misfit < 1e-6
    assert fit.variance > 1e-6
    assert fit.optimum(0, 0.95).low < -6.05


def test_one_seed_that_diverges_makes_a_value_unstable() -> None:
    runs = grid(sizes=SIZES[:3])
    broken = [
        Run(size=r.size, log2_hp=r.log2_hp, seed=r.seed, loss=math.nan)
        if (r.size, r.log2_hp, r.seed) == (32, -5.0, 1)
        else r
        for r in runs
    ]
    basin = BasinFit(broken).basins[0]
    assert basin.cliffs == (None, (-6.0, -5.0))
    row = basin.tried[4]
    assert (row.log2_hp, row.diverged, len(row.losses)) == (-5.0, 1, 2)
    assert math.isnan(row.mean)


def test_a_run_that_gives_back_what_it_gained_counts_as_diverged() -> None:
    """Two of three seeds end near the loss of predicting nothing, 1, two octaves above the best."""
    quiet = [replace(run, initial=1.0) for run in grid(noise=1e-3, drift=0.0, seed=3)]
    unstable = max(run.log2_hp for run in quiet)
    failed = [
        replace(run, loss=0.9) if run.log2_hp == unstable and run.seed < 2 else run for run in quiet
    ]
    blind = BasinFit([replace(run, initial=None) for run in failed])
    seen = BasinFit(failed)
    assert blind.variance > 1000 * seen.variance
    for basin, truth in zip(seen.basins, BasinFit(quiet).basins, strict=True):
        assert basin.tried[-1].diverged == 2
        assert math.isnan(basin.tried[-1].mean)
        assert basin.cliffs[1] == (unstable - 1, unstable)
        assert basin.optimum.value == pytest.approx(truth.optimum.value, abs=0.1)
    # Below the best value a run with little gain has learnt too slowly: that is a basin's side.
    slow = [
        replace(run, loss=0.9) if run.log2_hp == min(r.log2_hp for r in quiet) else run
        for run in quiet
    ]
    assert all(basin.tried[0].diverged == 0 for basin in BasinFit(slow).basins)
    # At the threshold: half of the best run's gain is enough.
    best = min(run.loss for run in quiet if run.size == SIZES[0])
    for share, count in ((0.49, 1), (0.51, 0)):
        loss = 1 - share * (1 - best)
        runs = [
            replace(run, loss=loss) if (run.log2_hp, run.seed) == (unstable, 0) else run
            for run in quiet
            if run.size == SIZES[0]
        ]
        assert BasinFit(runs).basins[0].tried[-1].diverged == count


def test_unbalanced_seeds_do_not_shift_means() -> None:
    """A lucky extra seed at one value must not make that value the best."""
    runs = grid(sizes=(32,), noise=1e-6, luck=0.0)
    extra = [
        Run(size=32, log2_hp=x, seed=9, loss=next(r.loss for r in runs if r.log2_hp == x) - 0.2)
        for x in (-9.0, -8.0)
    ]
    basin = BasinFit([*runs, *extra]).basins[0]
    assert basin.best == -6.0
    assert [b.best for b in BasinFit(runs).basins] == [-6.0]


def test_regret_is_the_loss_over_a_doublings_gain() -> None:
    fit = BasinFit(grid(noise=1e-7, luck=0.0, drift=-0.2))
    assert gain_per_doubling(fit) == pytest.approx(0.02, rel=1e-3)
    found = regret(fit, 0, 0.95)
    assert found == pytest.approx((0.01 * 0.6**2 / 0.02,) * 3, rel=2e-2)
    assert regret(fit, 1, 0.95).value == pytest.approx(0.01 * 0.4**2 / 0.02, rel=1e-2)


def test_regret_covers_the_truth_from_above_and_below() -> None:
    truth, above, below, draws = 0.01 * 0.6**2 / 0.02, 0, 0, 40
    for seed in range(draws):
        found = regret(BasinFit(grid(drift=-0.2, noise=0.004, seed=seed)), 0, 0.95)
        above, below = above + (found.high < truth), below + (found.low > truth)
    # Right bounds miss more often than this in less than 0.1 % of test runs.
    most = stats.binom.ppf(0.9995, draws, 0.05)
    assert above <= most
    assert below <= most


def test_regret_without_gain_or_beyond_a_cliff_is_infinite() -> None:
    level = regret(BasinFit(grid(gain=-0.001, noise=1e-6, luck=0.0)), 0, 0.95)
    assert level == (math.inf, 0.0, math.inf)
    runs = grid(noise=1e-5, luck=0.0)
    stops = [
        Run(size=r.size, log2_hp=r.log2_hp, seed=r.seed, loss=math.nan)
        if r.size == 256 and r.log2_hp > -7.5
        else r
        for r in grid(noise=1e-5, luck=0.0, values=range(-12, -3))
    ]
    assert regret(BasinFit(runs), 0, 0.95).high < 0.01
    assert regret(BasinFit(stops), 0, 0.95) == (math.inf, math.inf, math.inf)
    with pytest.raises(ValueError, match="proxy is 3"):
        regret(BasinFit(runs), 3, 0.95)


def test_budgets_are_shared_out_as_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.normal(size=101)), np.sort(rng.normal(size=101))
    expected = [max(a[i] + b[n - i] for i in range(n + 1)) for n in range(101)]
    assert _shared_out(a, b) == pytest.approx(expected)

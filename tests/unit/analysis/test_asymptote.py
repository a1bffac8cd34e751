"""The loss of ever larger sizes: its noise is a solver's, its interval covers the truth."""

from __future__ import annotations

import numpy as np
from scipy import optimize, stats

from analysis_basins import SIZES, grid
from mudit.analysis.asymptote import asymptote, loss_covariance
from mudit.analysis.basin import BasinFit, Run, linex


def test_the_losses_covariance_is_the_solvers() -> None:
    sizes = SIZES[:3]
    runs = grid(sizes=sizes, noise=2e-4, luck=0.0, skew=0.4)
    fit = BasinFit(runs)
    kept = [
        r
        for r in runs
        if any(one.size == r.size and r.log2_hp in one.x.tolist() for one in fit.fitted)
    ]

    def residuals(free):
        k, rest = free[0], free[1:].reshape(3, 5)
        return np.array(
            [
                r.loss - c * float(linex(r.log2_hp - m, k)) - blocks[r.seed]
                for size, (m, c, *blocks) in zip(sizes, rest)
                for r in kept
                if r.size == size
            ]
        )

    start = np.concatenate([[0.4], np.tile([-6.3, 0.01, 0.3, 0.28, 0.26], 3)])
    solved = optimize.least_squares(residuals, start, x_scale="jac", xtol=1e-14, ftol=1e-14)
    covariance = np.linalg.inv(solved.jac.T @ solved.jac)
    weights = np.zeros((3, len(start)))
    for number in range(3):  # the loss at the bottom is the mean of the blocks
        weights[number, 3 + 5 * number : 6 + 5 * number] = 1 / 3
    assert np.allclose(loss_covariance(fit), weights @ covariance @ weights.T, rtol=0.02, atol=1e-3)


def test_the_interval_covers_the_limit_whatever_the_seeds_luck() -> None:
    """20 draws; by chance a right interval covers it in fewer than this in 0.1 % of test runs."""
    hits, draws = 0, 20
    for seed in range(draws):
        runs = [
            Run(size=r.size, log2_hp=r.log2_hp, seed=r.seed, loss=r.loss - 0.2 + r.size**-0.7)
            for r in grid(gain=0.0, luck=0.01, seed=seed)
        ]
        found = asymptote(BasinFit(runs))
        hits += found.low <= 0.1 <= found.high
    assert hits >= stats.binom.ppf(0.001, draws, 0.95)

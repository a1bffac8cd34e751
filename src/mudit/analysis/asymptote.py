"""The loss that ever larger sizes tend to, from the losses at the fitted optima."""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import block_diag
from scipy.special import stdtrit

from mudit.analysis.basin import Array, BasinFit, Interval, indicators, linex
from mudit.analysis.regret import luck

_SIZES = 3  # fewest
_ALPHAS = (0.05, 3.0)
_STEP = 1e-3  # of numerical derivatives


def asymptote(fit: BasinFit) -> Interval | None:
    """Loss at the optimum of an infinite size: A ≥ 0 of A + B·size^-α through the fitted losses.

    The interval is a 95 % profile interval over α in [0.05, 3], for the losses' noise and for the
    luck that seeds have at each size.
    """
    if len(fit.fitted) < _SIZES:
        return None
    sizes = np.array([float(one.size) for one in fit.fitted])
    losses = np.array([fit.line(i).loss for i in range(len(sizes))])
    whiten, allowance = _noise(fit)
    alphas = np.geomspace(*_ALPHAS, 200)
    for _ in range(4):  # the noise may tell α apart that lie closer than those tried
        found = [_power_law((sizes / sizes[-1]) ** -alpha, losses, whiten) for alpha in alphas]
        # Losses are not negative: a power law whose limit is leaves over what A = 0 does.
        left = np.array([squares + min(a, 0.0) ** 2 / unit for squares, a, unit in found])
        best, near = int(np.argmin(left)), np.flatnonzero(left <= left.min() + allowance)
        value = max(found[best][1], 0.0)
        if not math.isfinite(allowance):
            return Interval(value, 0.0, math.inf)
        if len(near) > len(alphas) / 2:
            break
        first, last = max(near[0] - 1, 0), min(near[-1] + 1, len(alphas) - 1)
        alphas = np.linspace(alphas[first], alphas[last], len(alphas))
    reach = [
        (a - math.sqrt(spare * unit), a + math.sqrt(spare * unit))
        for squares, a, unit in found
        if (spare := left.min() + allowance - squares) >= min(a, 0.0) ** 2 / unit
    ]
    low, high = min(low for low, _ in reach), max(high for _, high in reach)
    return Interval(value, max(low, 0.0), max(high, value))


def _noise(fit: BasinFit) -> tuple[Array, float]:
    """The matrix that makes the losses' errors independent with variance 1, and t² at 95 %.

    Degrees of freedom by Satterthwaite, of the noise's variance and the luck's.
    """
    if not fit.variance > 0:
        return np.eye(len(fit.fitted)), math.inf if math.isnan(fit.variance) else 0.0
    noise = fit.variance * loss_covariance(fit)
    of_gain, freedom = luck(fit)
    parts = [(float(np.diag(noise).mean()), fit.freedom)]
    if freedom:
        parts.append((fit.variance * of_gain / 2, freedom))
    total = sum(part for part, _ in parts)
    equivalent = total**2 / sum(part**2 / own for part, own in parts)
    covariance = noise + (total - parts[0][0]) * np.eye(len(noise))
    whiten: Array = np.linalg.inv(np.linalg.cholesky(covariance))
    return whiten, float(stdtrit(equivalent, 0.975)) ** 2


def loss_covariance(fit: BasinFit) -> Array:
    """Covariance of the losses at the optima by the fit's linearisation, in residual variances.

    Each size has seeds' blocks, a curvature and a bottom; all share the skewness.
    """
    lines = [fit.line(i) for i in range(len(fit.fitted))]
    most = max(line.c for line in lines) or 1.0
    own, shared, at_own, at_shared = [], [], [], []
    for one, line in zip(fit.fitted, lines):
        blocks = indicators(one.seed)
        g, by_m, by_k = _derivatives(one.x - line.m, fit.skew)
        own.append(np.column_stack([blocks, g, by_m]))
        shared.append(by_k * line.c / most)
        g, by_m, by_k = _derivatives(np.array([line.optimum - line.m]), fit.skew)
        level = np.full(blocks.shape[1], 1 / blocks.shape[1])
        at_own.append(np.concatenate([level, g, by_m])[None])
        at_shared.append(by_k * line.c / most)
    design = np.column_stack([block_diag(*own), np.concatenate(shared)])
    weights = np.column_stack([block_diag(*at_own), np.concatenate(at_shared)])
    found: Array = weights @ np.linalg.pinv(design.T @ design) @ weights.T
    return found


def _derivatives(d: Array, k: float) -> tuple[Array, Array, Array]:
    """g(d; k), and its derivatives by the bottom (up to sign) and by k."""
    by_d = (linex(d + _STEP, k) - linex(d - _STEP, k)) / (2 * _STEP)
    by_k = (linex(d, k + _STEP) - linex(d, k - _STEP)) / (2 * _STEP)
    return linex(d, k), by_d, by_k


def _power_law(x: Array, y: Array, whiten: Array) -> tuple[float, float, float]:
    """Squares left over by A + B·x in units of the noise, A, and A's variance."""
    columns = whiten @ np.column_stack([np.ones_like(x), x])
    inverse = np.linalg.inv(columns.T @ columns)
    coefficients = inverse @ columns.T @ (whiten @ y)
    squares = float(np.square(whiten @ y - columns @ coefficients).sum())
    return squares, float(coefficients[0]), float(inverse[0, 0])

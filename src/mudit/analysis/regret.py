"""What a wrong HP costs: loss lost at the largest size, in units of what a doubling gains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mudit.analysis.basin import Array, BasinFit, Interval, linex

_MOST_OPTIMA = 60  # of a size that are looked at
_MOST_REGRET = 1e4


def gain_per_doubling(fit: BasinFit) -> float:
    """Loss that the last doubling of the axis gained: (loss(n') - loss(n)) / log2(n / n').

    Losses are those at the fitted optima of the largest size n and the one before it, n'.
    """
    before, large = (fit.line(len(fit.fitted) + i) for i in (-2, -1))
    return (before.loss - large.loss) / _doublings(fit)


def regret(fit: BasinFit, proxy: int, confidence: float) -> Interval:
    """Loss lost at the largest size by using a smaller one's optimum, over `gain_per_doubling`.

    An optimum is carried only as far as the last value beside a cliff that did not diverge; if that
    diverges at the largest size, the regret is infinite. For given optima, loss and gain are linear
    in what else is fitted. So the squares that a regret of at least r costs follow from how far the
    loss falls short of r times the gain, in units of that difference's variance.

    Args:
        fit: The basins.
        proxy: Number of the smaller fitted size.
        confidence: Of each end by itself.

    Returns:
        Infinite where a doubling gains nothing, from 0 unless the optimum diverges.

    Raises:
        ValueError: There is no such smaller size.
    """
    last = len(fit.fitted) - 1
    if not 0 <= proxy < last:
        raise ValueError(f"proxy is {proxy}, expected 0 to {last - 1}")
    return _regret(fit, fit.line(proxy).optimum, confidence, proxy=proxy)


def regret_of(fit: BasinFit, log2_hp: float, confidence: float) -> Interval:
    """The same for an HP that is given, whoever chose it, e.g. the best one tried on a proxy.

    Raises:
        ValueError: Fewer than two sizes have a basin.
    """
    if len(fit.fitted) < 2:
        raise ValueError(f"{len(fit.fitted)} sizes have a basin, expected two or more")
    return _regret(fit, log2_hp, confidence, proxy=None)


def _regret(fit: BasinFit, log2_hp: float, confidence: float, *, proxy: int | None) -> Interval:
    last, gain = len(fit.fitted) - 1, gain_per_doubling(fit)
    allowance = fit.allowance(2 * confidence - 1)
    candidates = _candidates(fit, log2_hp, allowance, proxy=proxy)
    if gain <= 0 or fit.diverges(last, log2_hp):
        certain = all(np.isinf(one.lost).all() for one in candidates)
        return Interval(math.inf, math.inf if certain else 0.0, math.inf)
    value = max((fit.loss_at(last, log2_hp) - fit.line(last).loss) / gain, 0.0)
    budget = fit.least + allowance
    return Interval(value, _lowest(candidates, budget, value), _highest(candidates, budget))


class _Candidates(NamedTuple):
    """Losses and gains at one skewness, for likely optima of both sizes.

    Arrays have shape (optima of the largest size, optima of the proxy), or (optima of the largest,
    1). The loss is `c` · `lost`. For given optima, the gain is linear in c, with slope `gain_by_c`,
    and in noise that c does not share. Variances are in units of the residual variance.
    """

    squares: Array
    lost: Array
    c: Array
    gain: Array
    c_variance: Array
    gain_variance: float
    gain_by_c: Array

    def needed(self, ratio: float, sign: float) -> float:
        """Least squares left over with a regret of at least (sign 1) or at most (-1) `ratio`."""
        finite = np.isfinite(self.lost)
        lost = np.where(finite, self.lost, 0.0)
        short = sign * (ratio * self.gain - self.c * lost)
        spread = np.square(lost - ratio * self.gain_by_c) * self.c_variance
        spread = spread + ratio * ratio * self.gain_variance
        cost = np.square(np.maximum(short, 0)) / np.maximum(spread, 1e-300)
        cost = np.where(finite, cost, 0.0 if sign > 0 else np.inf)
        return float((self.squares + cost).min())


def _candidates(
    fit: BasinFit, log2_hp: float, allowance: float, *, proxy: int | None
) -> list[_Candidates]:
    last, doublings = len(fit.fitted) - 1, _doublings(fit)
    profiles, floors = fit.profiles, fit.profiles.floors
    noise = fit.fitted[last - 1].block_variance + fit.fitted[last].block_variance
    found = []
    for k, floor in enumerate(floors.sum(axis=0)):
        budget = fit.least + allowance - floor
        if budget < 0:
            continue
        skew, carried, base = profiles.skews[k], np.array([log2_hp]), np.array([floor])
        if proxy is not None:
            squares = profiles.squares[proxy][k]
            near = _thinned(squares - floors[proxy, k] <= budget)
            carried = np.clip(profiles.optima[proxy][k][near], *fit.fitted[proxy].stable)
            base = floor - floors[proxy, k] + squares[near]
        diverges = np.array([fit.diverges(last, float(x)) for x in carried])
        squares = profiles.squares[last][k] - floors[last, k]
        near = _thinned(squares <= budget)
        before, lines = fit.line(last - 1, k), fit.lines(last, k, profiles.optima[last][k][near])
        m, own, c, c_variance, _, mean_shape, loss = np.array(lines).T[:, :, None]
        at_own = linex(own - m, skew)
        lost = np.maximum(linex(carried - m, skew) - at_own, 0.0)
        found.append(
            _Candidates(
                squares=base + squares[near][:, None],
                lost=np.where(diverges, np.inf, lost),
                c=c,
                gain=(before.loss - loss) / doublings,
                c_variance=c_variance,
                gain_variance=(noise + luck(fit)[0]) / doublings**2,
                gain_by_c=(mean_shape - at_own) / doublings,
            )
        )
    return found


def _thinned(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    places = np.flatnonzero(mask)
    return places[:: max(1, len(places) // _MOST_OPTIMA)]


def luck(fit: BasinFit) -> tuple[float, int]:
    """Variance of a gain by the seeds' luck, in residual variances, and its degrees of freedom.

    From how much gains between neighbouring sizes differ over the seeds.
    """
    squares, freedom, fewest = 0.0, 0, math.inf
    for a, b in zip(fit.fitted, fit.fitted[1:]):
        common = np.intersect1d(a.seeds, b.seeds).tolist()
        if len(common) > 1:
            gains = np.array([a.y[a.seed == s].mean() - b.y[b.seed == s].mean() for s in common])
            squares += float(np.square(gains - gains.mean()).sum())
            freedom += len(common) - 1
            fewest = min(fewest, len(common))
    if not freedom or not fit.variance > 0:
        return 0.0, 0
    return squares / freedom / fewest / fit.variance, freedom


def _doublings(fit: BasinFit) -> float:
    return math.log2(fit.fitted[-1].size / fit.fitted[-2].size)


def _highest(candidates: Sequence[_Candidates], budget: float) -> float:
    def possible(ratio: float) -> bool:
        return any(one.needed(ratio, 1.0) <= budget for one in candidates)

    if possible(_MOST_REGRET):
        return math.inf
    low, high = 0.0, _MOST_REGRET
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if possible(middle) else (low, middle)
    return high


def _lowest(candidates: Sequence[_Candidates], budget: float, value: float) -> float:
    def possible(ratio: float) -> bool:
        return any(one.needed(ratio, -1.0) <= budget for one in candidates)

    low, high = 0.0, min(value, _MOST_REGRET)
    if possible(low):
        return low
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if possible(middle) else (middle, high)
    return low

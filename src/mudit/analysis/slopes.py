"""Growth over width: the slope of log value against log width, with a simultaneous interval.

Seeds are replicates and enter as blocks: log v(width, seed) = a(width) + b(seed) + error. The slope
is a contrast of the width means, so its error is that of what is left after both are taken out,
with (widths - 1)(seeds - 1) degrees of freedom. A curve that is no power law, and luck that a seed
has at all widths, do not widen the interval. Intervals of several checks hold together: each is
taken at confidence 1 - alpha / checks (Bonferroni).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

SlopeVerdict: TypeAlias = Literal["inside", "outside", "open"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Slope:
    """An exponent of growth.

    Attributes:
        value: Least-squares slope of the logarithm against log width.
        low: Lower end of the simultaneous interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def verdict(self, bounds: tuple[float, float]) -> SlopeVerdict:
        """Whether the interval lies inside `bounds`, wholly outside, or across an end."""
        lower, upper = bounds
        if lower <= self.low and self.high <= upper:
            return "inside"
        return "outside" if self.high < lower or self.low > upper else "open"


def fit_slope(
    widths: NDArray[np.float64], values: NDArray[np.float64], *, alpha: float, checks: int
) -> Slope:
    """The slope of log values over log widths.

    Args:
        widths: Shape (widths,), at least two different ones.
        values: Positive, shape (widths, seeds), at least two seeds.
        alpha: Chance that any of all intervals misses its slope.
        checks: How many intervals there are in all.

    Raises:
        ValueError: Fewer than two widths or seeds, or a value that is not positive and finite.
    """
    num_widths, num_seeds = values.shape
    if num_widths < 2 or num_seeds < 2 or len(widths) != num_widths:
        raise ValueError(f"got values of shape {values.shape}; expected ≥ 2 widths and ≥ 2 seeds")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("a value is not positive and finite, so it has no logarithm")
    logs, x = np.log(values), np.log(widths)
    contrast = (x - x.mean()) / np.square(x - x.mean()).sum()
    slope = float(contrast @ logs.mean(axis=1))
    residual = logs - logs.mean(axis=1, keepdims=True) - logs.mean(axis=0) + logs.mean()
    freedom = (num_widths - 1) * (num_seeds - 1)
    variance = np.square(residual).sum() / freedom
    error = math.sqrt(variance * np.square(contrast).sum() / num_seeds)
    half = float(stdtrit(freedom, 1 - alpha / (2 * checks))) * error
    return Slope(value=slope, low=slope - half, high=slope + half)

"""Curves of training runs: smoothing them, and comparing how fast they fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mudit.errors import UsageError

Numbers: TypeAlias = Sequence[float] | NDArray[np.floating] | NDArray[np.integer]


class StepsToMatch(NamedTuple):
    """Where one run reached another's loss.

    Attributes:
        step: Steps that the other run needed; fractional between two measurements.
        speed_up: The reference's steps over `step`; above 1 the other run was faster.
        loss: The reference's loss that was reached.
        reference_step: When the reference had that loss.
    """

    step: float
    speed_up: float
    loss: float
    reference_step: float


def smooth(values: Numbers, window: int) -> NDArray[np.float64]:
    """Centred running mean over `window` points.

    Near the start, where losses fall fast, the window is narrower, reaching a quarter of the way
    back: the mean of a steep curve lies above it. Near the end only the part of the window that
    exists is averaged. Values that are not finite are left out, and stay NaN in the result.

    Raises:
        UsageError: `window` is below 1.
    """
    if window < 1:
        raise UsageError(f"the smoothing window must be at least 1, got {window}")
    curve = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(curve)
    index = np.arange(len(curve))
    half = np.minimum(index // 4, (window - 1) // 2)
    end = np.minimum(index + half + 1, len(curve))
    sums = np.concatenate(([0.0], np.cumsum(np.where(finite, curve, 0.0))))
    counts = np.concatenate(([0], np.cumsum(finite)))
    total = sums[end] - sums[index - half]
    count = counts[end] - counts[index - half]
    return np.where(finite, total / np.maximum(count, 1), np.nan)


def steps_to_match(
    reference_steps: Numbers,
    reference_loss: Numbers,
    other_steps: Numbers,
    *,
    other_loss: Numbers,
    value: Literal["final", "best"] = "final",
) -> StepsToMatch | None:
    """The first step at which the other run is at or below the reference's loss.

    [muDiT] §4.3 compares runs so: 7M steps of DiT against 2.4M of DiT-μP, 2.9 times faster.
    Between two measurements the loss is taken to fall linearly. Smooth noisy curves first.

    Args:
        reference_steps: Steps of the reference's measurements, ascending.
        reference_loss: Its losses at those steps.
        other_steps: Steps of the other run's measurements, ascending.
        other_loss: Its losses at those steps.
        value: Whether the reference's last loss or its lowest one is to be reached.

    Returns:
        None if the other run never gets there, or the reference's loss is not finite.

    Raises:
        UsageError: Steps and losses differ in number, or there are none.
    """
    reference_step, goal = _goal(*_curve(reference_steps, reference_loss), value=value)
    steps, loss = _curve(other_steps, other_loss)
    reached = np.flatnonzero(loss <= goal)  # False for NaN on either side
    if not np.isfinite(goal) or len(reached) == 0:
        return None
    step = _crossing(steps, loss, int(reached[0]), goal=goal)
    speed_up = reference_step / step if step > 0 else float("inf")
    return StepsToMatch(step=step, speed_up=speed_up, loss=goal, reference_step=reference_step)


def _curve(steps: Numbers, loss: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) == 0:
        raise UsageError(
            f"a curve needs as many losses as steps and at least one, got {x.shape} steps "
            f"and {y.shape} losses"
        )
    return x, y


def _goal(
    steps: NDArray[np.float64], loss: NDArray[np.float64], *, value: Literal["final", "best"]
) -> tuple[float, float]:
    if value == "final" or not np.isfinite(loss).any():
        return float(steps[-1]), float(loss[-1])
    best = int(np.nanargmin(np.where(np.isfinite(loss), loss, np.nan)))
    return float(steps[best]), float(loss[best])


def _crossing(
    steps: NDArray[np.float64], loss: NDArray[np.float64], index: int, *, goal: float
) -> float:
    if index == 0 or not np.isfinite(loss[index - 1]) or loss[index] == goal:
        return float(steps[index])
    above, below = loss[index - 1], loss[index]
    fraction = (above - goal) / (above - below)
    return float(steps[index - 1] + fraction * (steps[index] - steps[index - 1]))

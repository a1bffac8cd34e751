"""The verdict on transfer: does the best value of an HP stay where it is along an axis?

From the basins of `mudit.analysis.basin` at sizes n_1 < ... < n_L (widths, batch sizes or steps):

- drift: least-squares slope of the optimum (log2 HP) over log2 size, octaves per doubling;
- reach: |drift| · log2(target / n_1), octaves that the optimum moves on the way to the target;
- regret: loss lost at n_L by using n_1's optimum, over what the axis' last doubling gained.

PASS: the 98 % interval of the drift lies inside ±0.25, the reach is at most 0.5 at that interval's
worse end, and the upper 95 % bound of the regret is at most 10 %. FAIL: one of them lies wholly
outside. INCONCLUSIVE: anything else, and whatever keeps an optimum from being known: an edge of the
grid, noise, fewer than three sizes or two seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from mudit.analysis.asymptote import asymptote
from mudit.analysis.basin import Basin, BasinFit, Interval, Run
from mudit.analysis.regret import gain_per_doubling, regret
from mudit.records import Verdict

DRIFT_BOUND = 0.25  # octaves per doubling
REACH_BOUND = 0.5  # octaves
REGRET_BOUND = 0.10  # of a doubling's gain
_SIZES, _SEEDS = 3, 2  # fewest

SuggestionKind: TypeAlias = Literal["wider", "finer", "seeds", "sizes"]


class Suggestion(NamedTuple):
    """What to run next.

    Attributes:
        kind: In a word.
        message: In a sentence.
        runs: (size, log2 HP, seed); empty if the study's config has to change.
    """

    kind: SuggestionKind
    message: str
    runs: tuple[tuple[int, float, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Transferability:
    """Whether an HP transfers along an axis.

    Attributes:
        verdict: PASS, FAIL or INCONCLUSIVE.
        reasons: Why, in sentences.
        suggestions: What would help an inconclusive one.
        basins: By size, ascending.
        target: The size that the HP is to be carried to.
        drift: Octaves per doubling with its 98 % interval; None without two fitted sizes.
        reach: Octaves to the target, at the worse end of the drift's interval.
        regret: In units of `gain`, with 95 % bounds to each side; None without two fitted sizes.
        gain: Loss gained by the last doubling.
        extrapolation_cost: Loss lost at the largest size by an HP that is off by `reach`, to the
            worse side, in units of `gain`; infinite where that diverged.
        asymptote: Loss at the optimum for ever larger sizes with its 95 % interval, if losses fall
            as A + B·size^-α, α in [0.05, 3] and A ≥ 0; None with fewer than three fitted sizes.
        noise: Standard deviation of a loss around its basin.
        freedom: Degrees of freedom of that.
        misfit: Level of the test of the basins' shape; None without one.
        skew: The basins' common skewness k.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    suggestions: tuple[Suggestion, ...]
    basins: tuple[Basin, ...]
    target: float
    drift: Interval | None
    reach: float | None
    regret: Interval | None
    gain: float | None
    extrapolation_cost: float | None
    asymptote: Interval | None
    noise: float
    freedom: int
    misfit: float | None
    skew: float


def judge(runs: Iterable[Run], *, target: float | None = None) -> Transferability:
    """The verdict on a grid of runs.

    Args:
        runs: All runs of one parametrization, diverged ones too.
        target: The size that the HP is to be carried to; None: the largest one.

    Raises:
        ValueError: There are no runs.
    """
    known = list(runs)
    if not known:
        raise ValueError("no runs to judge")
    fit = BasinFit(known)
    measured = _measured(fit, target or max(run.size for run in known))
    obstacles = _obstacles(fit, known)
    inside, outside, open_ = _criteria(measured)
    if obstacles:
        verdict: Verdict = "INCONCLUSIVE"
    elif outside:
        verdict = "FAIL"
    else:
        verdict = "INCONCLUSIVE" if open_ else "PASS"
    suggestions = _suggestions(fit, known, measured) if verdict == "INCONCLUSIVE" else ()
    return Transferability(
        verdict=verdict,
        reasons=tuple(obstacles) or tuple(outside or open_ or inside),
        suggestions=suggestions,
        basins=fit.basins,
        target=measured.target,
        drift=measured.drift,
        reach=measured.reach,
        regret=measured.regret,
        gain=measured.gain,
        extrapolation_cost=measured.extrapolation_cost,
        asymptote=asymptote(fit),
        noise=math.sqrt(fit.variance) if fit.variance >= 0 else math.nan,
        freedom=max(fit.freedom, 0),
        misfit=fit.misfit,
        skew=fit.skew,
    )


# --- numbers ------------------------------------------------------------------------------------


class _Measured(NamedTuple):
    target: float
    drift: Interval | None = None
    reach: float | None = None
    regret: Interval | None = None
    gain: float | None = None
    extrapolation_cost: float | None = None


def _measured(fit: BasinFit, target: float) -> _Measured:
    if len(fit.fitted) < 2:
        return _Measured(target)
    doublings = np.log2([float(one.size) for one in fit.fitted])
    centred = doublings - doublings.mean()
    drift = fit.contrast((centred / np.square(centred).sum()).tolist(), 0.98)
    way = math.log2(target / fit.fitted[0].size)
    reach = max(abs(drift.low), abs(drift.high)) * way
    gain = gain_per_doubling(fit)
    return _Measured(
        target,
        drift,
        reach,
        regret(fit, 0, 0.95),
        gain,
        _extrapolation_cost(fit, reach) / gain if gain > 0 else math.inf,
    )


def _extrapolation_cost(fit: BasinFit, octaves: float) -> float:
    """Loss lost at the largest size by an HP that many octaves off its optimum."""
    if math.isinf(octaves):
        return math.inf
    last = len(fit.fitted) - 1
    line = fit.line(last)
    sides = (line.optimum - octaves, line.optimum + octaves)
    return max(fit.loss_at(last, side) - line.loss for side in sides)


# --- the verdict --------------------------------------------------------------------------------


def _obstacles(fit: BasinFit, runs: Sequence[Run]) -> list[str]:
    """What keeps any verdict from being given, in sentences."""
    found = []
    sizes = sorted({run.size for run in runs})
    if len(sizes) < _SIZES:
        found.append(f"There are {len(sizes)} sizes; a drift needs {_SIZES}.")
    if len({run.seed for run in runs}) < _SEEDS:
        found.append("There is one seed, so nothing tells noise from drift.")
    for basin in fit.basins:
        if basin.problem is not None:
            found.append(f"Size {basin.size}: {_problem_text(basin)}")
    if not found and math.isnan(fit.variance):
        found.append("There are too few runs to tell noise from drift.")
    return found


def _problem_text(basin: Basin) -> str:
    if basin.problem == "all diverged":
        return "every value diverged in some seed."
    if basin.problem == "too few values":
        stable = sum(not math.isnan(row.mean) for row in basin.tried)
        return f"{stable} values did not diverge; a basin needs four."
    if basin.problem == "flat":
        return "the optimum's interval is wider than the grid: the noise hides the basin."
    side = "lowest" if basin.problem == "edge below" else "highest"
    return f"the best value, 2^{basin.best:g}, is the {side} one tried; the optimum may lie beyond."


def _criteria(measured: _Measured) -> tuple[list[str], list[str], list[str]]:
    """The three criteria in words: those met, those failed, those open."""
    inside: list[str] = []
    outside: list[str] = []
    open_: list[str] = []
    drift, found = measured.drift, measured.regret
    if drift is None or found is None or measured.reach is None:
        return inside, outside, ["There are fewer than two sizes with a basin."]
    text = (
        f"The optimum drifts by {_octaves(drift.value)} octaves per doubling (98 % interval "
        f"{_octaves(drift.low)} to {_octaves(drift.high)}; bound ±{DRIFT_BOUND})."
    )
    if drift.low >= -DRIFT_BOUND and drift.high <= DRIFT_BOUND:
        inside.append(text)
    else:
        wholly = drift.low > DRIFT_BOUND or drift.high < -DRIFT_BOUND
        (outside if wholly else open_).append(text)
    least = 0.0 if drift.low <= 0 <= drift.high else min(abs(drift.low), abs(drift.high))
    least *= measured.reach / max(abs(drift.low), abs(drift.high)) if measured.reach else 0.0
    known = math.isfinite(measured.reach)
    most = f"by at most {measured.reach:.2f}" if known else "by an unknown number of"
    text = (
        f"On the way to the target, {measured.target:g}, it moves {most} octaves "
        f"(bound {REACH_BOUND})."
    )
    if measured.reach <= REACH_BOUND:
        inside.append(text)
    else:
        (outside if least > REACH_BOUND else open_).append(text)
    text = (
        f"The smallest size's optimum costs {_percent(found.value)} of a doubling's gain at the "
        f"largest (95 % bounds {_percent(found.low)} and {_percent(found.high)}; bound "
        f"{_percent(REGRET_BOUND)})."
    )
    if found.high <= REGRET_BOUND:
        inside.append(text)
    else:
        (outside if found.low > REGRET_BOUND else open_).append(text)
    return inside, outside, open_


def _percent(share: float) -> str:
    if math.isinf(share):
        return "without bound"
    return f"{100 * share:.1f} %" if share < 10 else "more than 1000 %"


def _octaves(number: float) -> str:
    if math.isinf(number):
        return "−∞" if number < 0 else "∞"
    return f"{number:+.3f}".replace("-", "−")


# --- what to run next ---------------------------------------------------------------------------


def _suggestions(fit: BasinFit, runs: Sequence[Run], measured: _Measured) -> tuple[Suggestion, ...]:
    found: list[Suggestion] = []
    sizes = sorted({run.size for run in runs})
    if len(sizes) < _SIZES:
        found.append(
            Suggestion("sizes", f"Give {_SIZES} sizes or more, e.g. a doubling beyond.", ())
        )
    wider, finer = [], []
    for basin in fit.basins:
        added = _beyond(basin)
        wider += [(basin.size, x, seed) for x in added for seed in _seeds(runs, basin.size)]
        if not added:
            finer += _between(basin, _seeds(runs, basin.size))
    if wider:
        found.append(
            Suggestion("wider", _listed("Try values beyond the grid's edge", wider), tuple(wider))
        )
    seeds = len({run.seed for run in runs})
    if seeds < _SEEDS:
        more = _replicates(fit, runs, _SEEDS + 1 - seeds)
        found.append(Suggestion("seeds", "Train with two more seeds.", more))
    elif not wider and finer:
        text = _listed("Try values between those around the optimum", finer)
        found.append(Suggestion("finer", text, tuple(finer)))
    elif not wider and fit.fitted:
        count = _seeds_wanted(measured, seeds)
        more = _replicates(fit, runs, count)
        found.append(
            Suggestion("seeds", f"Train with {count} more seeds around the optimum.", more)
        )
    return tuple(found)


def _seeds(runs: Sequence[Run], size: int) -> list[int]:
    return sorted({run.seed for run in runs if run.size == size})


def _beyond(basin: Basin) -> list[float]:
    """Two values beyond the edge at which the best one stands."""
    tried = [row.log2_hp for row in basin.tried]
    step = min(np.diff(tried), default=1.0)
    below = basin.problem in ("edge below", "all diverged", "too few values")
    if basin.problem == "too few values" and basin.cliffs == (None, None):
        return [tried[0] - step, tried[-1] + step]
    if below:
        return [tried[0] - step, tried[0] - 2 * step]
    return [tried[-1] + step, tried[-1] + 2 * step] if basin.problem == "edge above" else []


def _between(basin: Basin, seeds: Sequence[int]) -> list[tuple[int, float, int]]:
    """The middles of the cells around the best value that are wider than half an octave."""
    tried = [row.log2_hp for row in basin.tried]
    if basin.best is None:
        return []
    at = tried.index(basin.best)
    near = tried[max(at - 2, 0) : at + 3]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(near) if b - a > 0.5 + 1e-9]
    return [(basin.size, x, seed) for x in middles for seed in seeds]


def _replicates(
    fit: BasinFit, runs: Sequence[Run], count: int
) -> tuple[tuple[int, float, int], ...]:
    """All values that the fit uses, or all there are, with `count` new seeds."""
    first = max(run.seed for run in runs) + 1
    used = {one.size: set(one.x.tolist()) for one in fit.fitted}
    points = {(run.size, run.log2_hp) for run in runs}
    return tuple(
        sorted(
            (size, x, first + number)
            for size, x in points
            if x in used.get(size, {x})
            for number in range(count)
        )
    )


def _seeds_wanted(measured: _Measured, seeds: int) -> int:
    """How many more bring the interval inside, as n^-1/2; at most as many again."""
    drift = measured.drift
    if drift is None or math.isinf(drift.high - drift.low):
        return seeds
    half = (drift.high - drift.low) / 2
    room = max(DRIFT_BOUND - abs(drift.value), 1e-3)
    return max(1, min(seeds, math.ceil(seeds * (half / room) ** 2) - seeds))


def _listed(text: str, runs: Sequence[tuple[int, float, int]]) -> str:
    by_size: dict[int, list[float]] = {}
    for size, x, _ in runs:
        by_size.setdefault(size, []).append(x)
    parts = [
        f"{size}: {', '.join(f'2^{x:g}' for x in sorted(set(xs)))}" for size, xs in by_size.items()
    ]
    return f"{text} ({'; '.join(parts)})."

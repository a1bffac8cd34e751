"""Where the best value of an HP lies: basins fitted to losses over log2 of the HP.

Near its bottom a basin is f(x) = a + c·g(x - m; k) with x = log2 HP and LINEX's

    g(d; k) = 2 (exp(k d) - k d - 1) / k²,        g(d; 0) = d²,

whose minimum 0 lies at d = 0 whatever the skewness k: for k > 0 it is steeper above than below. All
sizes of a study share k; each has its own optimum m, curvature c ≥ 0 and bottom a. Where a run
diverged beside the best value, a cliff ends the basin within that cell of the grid, at a place that
is uniform in it; the optimum is then the bottom or the cliff, whichever comes first.

Seeds are blocks: each adds its luck to all losses of its size. One residual variance is pooled over
all sizes: what basins and blocks leave over. Intervals are profile intervals: a value belongs to
one if the best fit that has it leaves at most t² times that variance more than the best fit of all,
t being Student's quantile. So an optimum that the data do not determine has an interval without
end; a linearised interval, or a bootstrap over two or three seeds, would have one.

A basin holds near its bottom alone. Points far from each size's best one are left out, the furthest
first, until what the basins leave over is no more than what seeds differ by (F test at 5 %); at
least four values of a size stay. If that is not enough, the misfit is taken for the noise.

A run above the best value that ends with less than half of what the best run gained over training
has failed, and counts as one that diverged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtrit

Array: TypeAlias = NDArray[np.float64]
Form: TypeAlias = Literal["symmetric", "skewed", "cliff"]
Problem: TypeAlias = Literal["edge below", "edge above", "flat", "too few values", "all diverged"]

_MOST_SKEW = 3.0
_SKEWS = 25  # values of k that are tried at a time
_CLOSEST = 1e-4
_MARGIN = 2.0  # octaves beyond the tried values
# Octaves from the best optimum at which profiles are computed, to each side; finer near it.
_OFFSETS: Array = np.concatenate([[0.0], np.geomspace(2e-3, 8.0, 28)])
# Further optima in the cell of a cliff, as shares of it; finer at its ends.
_CELL: Array = (1 - np.cos(np.pi * np.arange(33) / 32)) / 2
_FAILED = 0.5  # share of the best run's gain below which a run has failed
_LEAST = 4  # values that a basin is fitted to
_MISFIT = 0.05  # level of the F test
_SHARES = 100  # parts of an allowance of squares
_HUGE = 1e200


class Interval(NamedTuple):
    """An estimate with the ends of its interval; an end may be infinite."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training run, as an analysis sees it.

    Attributes:
        size: Width, batch size or number of steps.
        log2_hp: log2 of the HP.
        seed: Number of the replicate.
        loss: What runs are ranked by; NaN if it diverged.
        initial: Loss before training, for an HP whose larger values make training unstable; None:
            not known, or another HP.
    """

    size: int
    log2_hp: float
    seed: int
    loss: float
    initial: float | None = None


class Tried(NamedTuple):
    """The runs of one size at one value of the HP.

    Attributes:
        log2_hp: log2 of the HP.
        losses: Of the seeds that did not diverge.
        diverged: How many seeds did.
        mean: Mean loss, seeds' luck evened out; NaN if any diverged.
    """

    log2_hp: float
    losses: tuple[float, ...]
    diverged: int
    mean: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Basin:
    """One size's basin.

    Attributes:
        size: The size.
        tried: By value of the HP, ascending.
        best: log2 of the tried value with the lowest mean loss; None if all diverged.
        optimum: log2 of the fitted optimum, with its 95 % interval; None without a fit.
        bottom: log2 HP of the bottom; where a cliff comes before it, that is not the optimum.
        loss: The basin's loss at the optimum; before a cliff, at the last stable value.
        curvature: c, loss per octave².
        form: What the basin looks like.
        window: Lowest and highest log2 HP that the fit uses.
        cliffs: Ends of the cells in which a cliff lies, below and above; None where there is none.
        problem: Why the optimum is not known, if it is not.
    """

    size: int
    tried: tuple[Tried, ...]
    best: float | None
    optimum: Interval | None = None
    bottom: float | None = None
    loss: float | None = None
    curvature: float | None = None
    form: Form | None = None
    window: tuple[float, float] | None = None
    cliffs: tuple[tuple[float, float] | None, tuple[float, float] | None] = (None, None)
    problem: Problem | None = None


def linex(distance: Array | float, skew: Array | float) -> Array:
    """g(d; k) of the module's docstring, broadcast; loss over curvature, octaves²."""
    d, k = np.broadcast_arrays(np.asarray(distance, float), np.asarray(skew, float))
    product = np.clip(k * d, None, 50.0)
    small = np.abs(product) < 1e-3
    safe = np.where(k == 0, 1.0, k)
    series = d * d * (1 + product / 3)
    found: Array = np.where(small, series, 2 * (np.expm1(product) - product) / (safe * safe))
    return found


# --- one size -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Size:
    """One size's runs, and those of them that a fit uses."""

    size: int
    tried: tuple[Tried, ...]
    best: float | None
    cliffs: tuple[tuple[float, float] | None, tuple[float, float] | None]
    x: Array  # of all finite runs between the cliffs
    y: Array
    seed: NDArray[np.int64]

    def window(self, radius: float) -> _Size:
        """The same with runs within `radius` octaves of the best value alone."""
        assert self.best is not None
        near = np.abs(self.x - self.best) <= radius + 1e-9
        return _Size(
            self.size,
            self.tried,
            self.best,
            self.cliffs,
            self.x[near],
            self.y[near],
            self.seed[near],
        )

    @property
    def values(self) -> int:
        return len(np.unique(self.x))

    @cached_property
    def seeds(self) -> NDArray[np.int64]:
        return np.unique(self.seed)

    @cached_property
    def centre(self) -> Array:
        """The matrix that takes the blocks' means out, shape (runs, runs)."""
        same = self.seed[:, None] == self.seed[None, :]
        found: Array = np.eye(len(self.x)) - same / same.sum(axis=1)
        return found

    def pure_error(self) -> tuple[float, int]:
        """Squares that values and blocks leave over, and their degrees of freedom."""
        columns = np.column_stack([indicators(self.x), indicators(self.seed)])
        fitted, _, rank, _ = np.linalg.lstsq(columns, self.y, rcond=None)
        return float(np.square(self.y - columns @ fitted).sum()), len(self.y) - int(rank)

    @property
    def stable(self) -> tuple[float, float]:
        """How far an optimum may be carried: to the last stable value before a cliff."""
        below, above = self.cliffs
        return below[1] if below else -math.inf, above[0] if above else math.inf

    def block_mean(self, values: Array) -> float:
        """The mean over seeds of their means."""
        return float(np.mean([values[self.seed == seed].mean() for seed in self.seeds]))

    @property
    def block_variance(self) -> float:
        """Variance of `block_mean` of the losses, in units of the residual variance."""
        counts = np.array([(self.seed == seed).sum() for seed in self.seeds])
        return float((1 / counts).sum() / len(counts) ** 2)

    def optima(self, skews: Array, low: float, high: float) -> Array:
        """Optima to try between two, ascending, densest at the best; shape (skews, optima)."""
        grid = np.tile(np.linspace(low, high, 100), (len(skews), 1))
        best = np.zeros((len(skews), 1))
        for _ in range(3):
            places = self.curvatures(grid, skews)[0].argmin(axis=1)[:, None]
            best = np.take_along_axis(grid, places, axis=1)
            step = grid[:, 1:2] - grid[:, :1]
            grid = best + step * np.linspace(-1, 1, 31)
        further = [a + (b - a) * _CELL + 0 * best for a, b in filter(None, self.cliffs)]
        ends = np.array([low, high]) + 0 * best
        found = np.concatenate([best - _OFFSETS, best + _OFFSETS[1:], *further, ends], axis=1)
        return np.sort(np.clip(found, low, high), axis=1)

    def curvatures(self, optima: Array, skews: Array) -> tuple[Array, Array, Array]:
        """Squares left over, the best c ≥ 0 and its variance; shape (skews, optima), as `optima`.

        The variance is in units of the residual variance.
        """
        shape = linex(self.x - optima[..., None], skews[:, None, None]) @ self.centre
        y = self.centre @ self.y
        across, square = shape @ y, np.square(shape).sum(axis=-1)
        weight = 1 / np.maximum(square, 1 / _HUGE)
        c = np.clip(across, 0, None) * weight
        return y @ y - np.square(c) * square, c, weight


def indicators(values: NDArray[np.generic]) -> Array:
    """One column for each distinct value, ascending: 1 where it stands, else 0."""
    found: Array = (values[:, None] == np.unique(values)[None, :]).astype(float)
    return found


def _without_failed(runs: Sequence[Run]) -> list[Run]:
    """The runs; those above the best value that gave half of the training back have diverged.

    A network that has become unstable may settle at a finite loss, near that of predicting nothing.
    Its luck would be taken for the noise of all runs.
    """
    finite = [run for run in runs if math.isfinite(run.loss)]
    best = min(finite, key=lambda run: run.loss, default=None)
    return [
        replace(run, loss=math.nan)
        if best is not None
        and run.initial is not None
        and run.log2_hp > best.log2_hp
        and run.initial - run.loss < _FAILED * (run.initial - best.loss)
        else run
        for run in runs
    ]


def _size(size: int, runs: Sequence[Run]) -> _Size:
    values = sorted({run.log2_hp for run in runs})
    finite = [run for run in runs if math.isfinite(run.loss)]
    unstable = [v for v in values if any(r.log2_hp == v and r not in finite for r in runs)]
    stable = [run for run in finite if run.log2_hp not in unstable]
    means = _means(stable)
    tried = tuple(
        Tried(
            log2_hp=value,
            losses=tuple(run.loss for run in finite if run.log2_hp == value),
            diverged=sum(run.log2_hp == value and run not in finite for run in runs),
            mean=means.get(value, math.nan),
        )
        for value in values
    )
    if not means:
        empty = np.zeros(0)
        return _Size(size, tried, None, (None, None), empty, empty, empty.astype(np.int64))
    best = min(means, key=lambda value: means[value])
    below = max((value for value in unstable if value < best), default=-math.inf)
    above = min((value for value in unstable if value > best), default=math.inf)
    kept = [run for run in stable if below < run.log2_hp < above]
    inner = sorted({run.log2_hp for run in kept})
    return _Size(
        size,
        tried,
        best,
        (
            (below, inner[0]) if math.isfinite(below) else None,
            (inner[-1], above) if math.isfinite(above) else None,
        ),
        np.array([run.log2_hp for run in kept]),
        np.array([run.loss for run in kept]),
        np.array([run.seed for run in kept], dtype=np.int64),
    )


def _means(runs: Sequence[Run]) -> dict[float, float]:
    """Mean loss by value, as if every seed had run at every value."""
    if not runs:
        return {}
    x = np.array([run.log2_hp for run in runs])
    seed = np.array([run.seed for run in runs])
    values, seeds = indicators(x), indicators(seed)
    fitted = np.linalg.lstsq(
        np.column_stack([values, seeds]), np.array([run.loss for run in runs]), rcond=None
    )[0]
    level = fitted[values.shape[1] :].mean()
    return dict(zip(np.unique(x).tolist(), (fitted[: values.shape[1]] + level).tolist()))


# --- all sizes ----------------------------------------------------------------------------------


class Line(NamedTuple):
    """The basin of one size at given m and k.

    Attributes:
        m: Its bottom, log2 HP.
        optimum: The bottom, or the last value before a cliff that did not diverge.
        c: Curvature.
        c_variance: Its variance, in units of the residual variance.
        level: Loss at the bottom.
        mean_shape: Mean of g over the runs: raising c by 1 lowers the fitted `level` by so much.
        loss: At the optimum.
    """

    m: float
    optimum: float
    c: float
    c_variance: float
    level: float
    mean_shape: float
    loss: float


class Profiles(NamedTuple):
    """Squares left over by the best fits with given skewness and optimum.

    Attributes:
        skews: The tried k.
        optima: By size; shape (skews, optima), ascending.
        squares: The same shapes.
    """

    skews: Array
    optima: tuple[Array, ...]
    squares: tuple[Array, ...]

    @property
    def floors(self) -> Array:
        """The least of each size's squares; shape (sizes, skews)."""
        found = [squares.min(axis=1) for squares in self.squares]
        return np.array(found).reshape(len(found), len(self.skews))


class BasinFit:
    """The basins of all sizes of one axis, fitted together.

    Args:
        runs: All runs; at least one.

    Attributes:
        basins: By size, ascending, those without a fit too.
        fitted: The sizes with a fit, in order.
        skew: The common k.
        variance: Pooled residual variance of a loss; NaN without degrees of freedom.
        freedom: Its degrees of freedom.
        misfit: Level of the F test, None where there are no seeds for it; below 5 % no basin fits,
            and the variance is that of the misfit.
        radius: Octaves around each best value that are used.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        by_size: dict[int, list[Run]] = {}
        for run in runs:
            by_size.setdefault(run.size, []).append(run)
        everything = [_size(size, _without_failed(by_size[size])) for size in sorted(by_size)]
        tried = [run.log2_hp for rows in by_size.values() for run in rows]
        self._range = min(tried) - _MARGIN, max(tried) + _MARGIN
        wide = [one for one in everything if one.values >= _LEAST]
        self.fitted, self.profiles, self.radius, self.misfit = _fitted(wide, self._range)
        floors = self.profiles.floors.sum(axis=0)
        self.best_skew = int(np.argmin(floors))
        self.least = float(floors[self.best_skew])
        self.skew = float(self.profiles.skews[self.best_skew])
        self.freedom, self.variance = _freedom(self.fitted), math.nan
        if self.misfit is not None and self.misfit < _MISFIT:
            pure, freedom = _pure_error(self.fitted)
            self.freedom -= freedom
            self.variance = (self.least - pure) / self.freedom
        elif self.freedom > 0:
            self.variance = self.least / self.freedom
        self._bounded = [
            self._stopped(one, optima, squares)
            for one, optima, squares in zip(
                self.fitted, self.profiles.optima, self.profiles.squares
            )
        ]
        self.basins = tuple(self._basin(one) for one in everything)

    def allowance(self, confidence: float) -> float:
        """How much more squares than the best fit a fit may leave over, two-sided."""
        return (
            math.inf
            if math.isnan(self.variance)
            else _t(self.freedom, confidence) ** 2 * self.variance
        )

    # --- optima ----------------------------------------------------------------------------------

    def _stopped(self, one: _Size, optima: Array, squares: Array) -> Array:
        """The profile of the optimum, where a cliff may come before the bottom."""
        below, above = one.cliffs
        if above is not None:
            squares = self._cliff(squares, optima, above)
        if below is not None:
            mirrored = (-below[1], -below[0])
            squares = self._cliff(squares[:, ::-1], -optima[:, ::-1], mirrored)[:, ::-1]
        return squares

    def _cliff(self, squares: Array, optima: Array, cell: tuple[float, float]) -> Array:
        """The profile with a cliff above, somewhere in the cell, evenly.

        That it lies within u of the cell's length has probability u; Student's quantile of u turns
        that into the squares at which a fit is as improbable.
        """
        place = (optima - cell[0]) / (cell[1] - cell[0])
        inside = (place > 0) & (place < 1)
        beyond = np.minimum.accumulate(squares[:, ::-1], axis=1)[:, ::-1]
        t = stdtrit(max(self.freedom, 1), np.where(inside, place, 0.5))
        scale = 0.0 if math.isnan(self.variance) else self.variance
        stopped = np.where(inside, beyond + np.square(t) * scale, np.inf)
        return np.where(place >= 1, np.inf, np.minimum(squares, stopped))

    def optimum(self, index: int, confidence: float) -> Interval:
        """The optimum of fitted size number `index`, log2 HP."""
        return self.contrast([float(i == index) for i in range(len(self.fitted))], confidence)

    def contrast(self, weights: Sequence[float], confidence: float) -> Interval:
        """The sum of the fitted sizes' optima times these weights, e.g. those of a slope.

        An end is the furthest sum that the optima can reach on an allowance of squares left over,
        shared out among the sizes.

        Args:
            weights: One for each fitted size.
            confidence: Two-sided.

        Raises:
            ValueError: No size has a fit.
        """
        chosen = [
            (w, optima, squares)
            for w, optima, squares in zip(weights, self.profiles.optima, self._bounded, strict=True)
            if w != 0
        ]
        if not self.fitted:
            raise ValueError("no size has a basin")
        floors = np.sum([squares.min(axis=1) for squares in self._bounded], axis=0)
        best = int(np.argmin(floors))
        value = sum(w * _bottom(optima[best], squares[best]) for w, optima, squares in chosen)
        ends = [value, value]
        for k, floor in enumerate(floors):
            budget = float(floors[best] - floor) + self.allowance(confidence)
            if budget < 0:
                continue
            for side, sign in enumerate((-1.0, 1.0)):
                furthest: Array | None = None
                for w, optima, squares in chosen:
                    reached = _reach(optima[k], squares[k], budget, sign * w)
                    furthest = reached if furthest is None else _shared_out(furthest, reached)
                if furthest is not None:
                    ends[side] = sign * max(sign * ends[side], float(furthest[-1]))
        return Interval(float(value), float(ends[0]), float(ends[1]))

    # --- what a fit says of a size ---------------------------------------------------------------

    def line(self, index: int, k: int | None = None) -> Line:
        """The best fit of fitted size number `index`; with skewness number `k`, if given."""
        k = self.best_skew if k is None else k
        bottom = _bottom(self.profiles.optima[index][k], self.profiles.squares[index][k])
        return self.lines(index, k, np.array([bottom]))[0]

    def lines(self, index: int, k: int, optima: Array) -> list[Line]:
        """The best fits with skewness number `k` and these bottoms."""
        one, skew = self.fitted[index], float(self.profiles.skews[k])
        _, curvature, variance = one.curvatures(optima[None], np.array([skew]))
        low, high = one.stable
        mean_loss, lines = one.block_mean(one.y), []
        for m, c, v in zip(optima.tolist(), curvature[0].tolist(), variance[0].tolist()):
            mean = one.block_mean(linex(one.x - m, skew))
            optimum = min(max(m, low), high)
            level = mean_loss - c * mean
            loss = level + c * float(linex(optimum - m, skew))
            lines.append(
                Line(
                    m=m,
                    optimum=optimum,
                    c=c,
                    c_variance=v,
                    level=level,
                    mean_shape=mean,
                    loss=loss,
                )
            )
        return lines

    def loss_at(self, index: int, log2_hp: float) -> float:
        """The basin of fitted size number `index` at an HP; infinite beyond a cliff's cell."""
        if self.diverges(index, log2_hp):
            return math.inf
        line = self.line(index)
        return line.level + line.c * float(linex(log2_hp - line.m, self.skew))

    def diverges(self, index: int, log2_hp: float) -> bool:
        """Whether an HP lies beyond a value at which fitted size number `index` diverged."""
        below, above = self.fitted[index].cliffs
        return (above is not None and log2_hp >= above[1]) or (
            below is not None and log2_hp <= below[0]
        )

    def _basin(self, one: _Size) -> Basin:
        plain = Basin(size=one.size, tried=one.tried, best=one.best, cliffs=one.cliffs)
        sizes = [used.size for used in self.fitted]
        if one.best is None:
            return replace(plain, problem="all diverged")
        if one.size not in sizes:
            return replace(plain, problem="too few values")
        index = sizes.index(one.size)
        used, optimum, line = self.fitted[index], self.optimum(index, 0.95), self.line(index)
        stopped = abs(optimum.value - line.m) > 1e-3
        return replace(
            plain,
            optimum=optimum,
            bottom=line.m,
            loss=line.loss,
            curvature=line.c,
            form="cliff" if stopped else "symmetric" if self._symmetric() else "skewed",
            window=(float(used.x.min()), float(used.x.max())),
            problem=_problem(one, optimum),
        )

    def _symmetric(self) -> bool:
        """Whether k = 0 is in k's 95 % interval."""
        zero, squares = np.zeros(1), 0.0
        for one in self.fitted:
            squares += float(one.curvatures(one.optima(zero, *self._range), zero)[0].min())
        return squares <= self.least + self.allowance(0.95)


def _problem(one: _Size, optimum: Interval) -> Problem | None:
    stable = [row.log2_hp for row in one.tried if not math.isnan(row.mean)]
    below, above = one.cliffs
    if one.best == stable[0] and below is None:
        return "edge below"
    if one.best == stable[-1] and above is None:
        return "edge above"
    inside = one.tried[0].log2_hp <= optimum.low and optimum.high <= one.tried[-1].log2_hp
    return None if inside else "flat"


def _bottom(optima: Array, squares: Array) -> float:
    """Where a profile is lowest: the middle, where it is level."""
    return float(optima[squares <= squares.min()].mean())


def _reach(optima: Array, squares: Array, budget: float, weight: float) -> Array:
    """The largest weight · optimum for shares 0, 1/n, ..., 1 of a budget above the minimum."""
    excess = squares - squares.min()
    if weight < 0:
        optima, excess = optima[::-1], excess[::-1]
    # Root of the least excess at an optimum or beyond it: rises along the optima, about linearly.
    beyond = np.sqrt(np.minimum(np.minimum.accumulate(excess[::-1])[::-1], _HUGE))
    shares = np.sqrt(min(budget, _HUGE) * np.arange(_SHARES + 1) / _SHARES)
    last = np.searchsorted(beyond, shares, side="right") - 1
    after = np.minimum(last + 1, len(optima) - 1)
    rise = beyond[after] - beyond[last]
    part = np.where(rise > 0, (shares - beyond[last]) / np.where(rise > 0, rise, 1.0), 0.0)
    place = optima[last] + part * (optima[after] - optima[last])
    return np.where(last == len(optima) - 1, np.inf, weight * place)


def _shared_out(a: Array, b: Array) -> Array:
    """The best of a[i] + b[n - i], for each n."""
    found: Array = np.where(_RIGHT, a[None, :] + b[_LEFT], -np.inf).max(axis=1)
    return found


# Row n, column i: n - i, and whether that is a share.
_LEFT = np.clip(np.subtract.outer(np.arange(_SHARES + 1), np.arange(_SHARES + 1)), 0, None)
_RIGHT = np.tri(_SHARES + 1, dtype=bool)


# --- fitting ------------------------------------------------------------------------------------


def _fitted(
    sizes: Sequence[_Size], ends: tuple[float, float]
) -> tuple[list[_Size], Profiles, float, float | None]:
    """The sizes with the widest window that basins fit, the fit, its radius, the F test's level."""
    if not sizes:
        return [], Profiles(np.zeros(1), (), ()), 0.0, None
    distances = [np.abs(one.x - (one.best or 0.0)).round(6) for one in sizes]
    found: tuple[list[_Size], Profiles, float, float | None] | None = None
    for radius in np.unique(np.concatenate(distances))[::-1].tolist():
        kept = [one.window(radius) for one in sizes]
        if found is not None and min(one.values for one in kept) < _LEAST:
            break
        profiles = _profiles(kept, ends)
        found = kept, profiles, radius, _misfit(kept, float(profiles.floors.sum(axis=0).min()))
        if found[3] is None or found[3] >= _MISFIT:
            break
    assert found is not None
    return found


def _profiles(sizes: Sequence[_Size], ends: tuple[float, float]) -> Profiles:
    """The best fits by skewness and optimum, with skewnesses as close as the data tell apart."""
    skews, freedom = np.linspace(-_MOST_SKEW, _MOST_SKEW, _SKEWS), _freedom(sizes)
    while True:
        optima = tuple(one.optima(skews, *ends) for one in sizes)
        squares = tuple(one.curvatures(at, skews)[0] for one, at in zip(sizes, optima))
        found = Profiles(skews, optima, squares)
        floors = found.floors.sum(axis=0)
        if freedom < 1 or skews[1] - skews[0] < _CLOSEST:
            return found
        budget = floors.min() * (1 + _t(freedom, 0.999) ** 2 / freedom)
        near = np.flatnonzero(floors <= budget)
        first, last = max(near[0] - 1, 0), min(near[-1] + 1, _SKEWS - 1)
        if last - first > 0.75 * _SKEWS:
            return found
        skews = np.linspace(skews[first], skews[last], _SKEWS)


def _freedom(sizes: Sequence[_Size]) -> int:
    """Degrees of freedom that basins and blocks leave: each size has m and c, and all share k."""
    return sum(len(one.y) - len(one.seeds) - 2 for one in sizes) - 1


def _t(freedom: int, confidence: float) -> float:
    """Student's quantile, two-sided."""
    return float(stdtrit(freedom, 0.5 + confidence / 2))


def _pure_error(sizes: Sequence[_Size]) -> tuple[float, int]:
    parts = [one.pure_error() for one in sizes]
    return sum(squares for squares, _ in parts), sum(freedom for _, freedom in parts)


def _misfit(sizes: Sequence[_Size], left: float) -> float | None:
    """Level of the F test: what basins leave over, beyond what values and blocks do."""
    pure, freedom = _pure_error(sizes)
    extra = _freedom(sizes) - freedom
    if freedom < 1 or extra < 1 or pure <= 0:
        return None
    return float(fdtrc(extra, freedom, max(left - pure, 0.0) / extra / (pure / freedom)))

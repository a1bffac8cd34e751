"""Measurements of all widths and seeds as rows: one quantity, its slope over width, its verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mudit.analysis.slopes import Slope, fit_slope
from mudit.parametrization import Plan
from mudit.tuning.measurement import Key, Measurement, Quantity
from mudit.tuning.probes import LOGITS

BOUND = 0.2
CONTROL_SLOPE = 0.4
ALPHA = 0.05
# Below it, what training itself adds or takes along W₀ hides the decay.
_LEAST_DECAY = 0.3
# Below it, an RMS over a tensor is noise, whatever its learning rate.
_FEW_ENTRIES = 4
_FEATURES: tuple[Quantity, ...] = ("activation", "change")

RowVerdict: TypeAlias = Literal["PASS", "FAIL", "INCONCLUSIVE", "not judged"]
# By width and seed.
Table: TypeAlias = Mapping[tuple[int, int], Measurement]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckSettings:
    """What was run.

    Attributes:
        widths: Of the models, the least first.
        base_width: Of the plan.
        seeds: Replicates.
        late_seeds: Those that were trained on to the late probe.
        steps: Early steps.
        late_steps: Steps of the late probe; None: there was none.
        lr: Base learning rate (of the control, where the optimizer is the user's own).
        weight_decay: Base weight decay; likewise.
    """

    widths: tuple[int, ...]
    base_width: int
    seeds: tuple[int, ...]
    late_seeds: tuple[int, ...]
    steps: int
    late_steps: int | None
    lr: float
    weight_decay: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckRow:
    """One quantity over width.

    Attributes:
        quantity: What; see coordinate_check.
        name: The tensor's name (its module's, and its place in a tuple), or the parameter's.
        step: Steps taken.
        parameter: The parameter itself, or the one that made the tensor.
        slope: d log value / d log width; None where a value is zero or not finite.
        low: Lower end of the simultaneous interval.
        high: Upper end.
        bounds: Where the interval has to lie; None at an end without a bound.
        verdict: Of this row.
        values: By width, by seed.
    """

    quantity: Quantity
    name: str
    step: int
    parameter: str | None
    slope: float | None
    low: float | None
    high: float | None
    bounds: tuple[float | None, float | None]
    verdict: RowVerdict
    values: tuple[tuple[float, ...], ...]

    @property
    def excess(self) -> float:
        """How far the estimate lies outside its bounds; 0 inside."""
        lower, upper = self.bounds
        value = self.slope or 0.0
        above = value - upper if upper is not None else 0.0
        below = lower - value if lower is not None else 0.0
        return max(above, below, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlResult:
    """The feature that grows most under sp.

    Attributes:
        quantity: `activation` or `change`; None if nothing has a slope.
        name: The feature.
        slope: Its growth; infinite if training diverged at a greater width.
        rows: Everything that is judged under the plan.
    """

    quantity: Quantity | None
    name: str
    slope: float
    rows: tuple[CheckRow, ...]

    @property
    def grows(self) -> bool:
        """Whether it shows what the check is to tell apart."""
        return self.slope > CONTROL_SLOPE


@dataclass(frozen=True, kw_only=True, slots=True)
class _Series:
    """One quantity's values, shape (widths, seeds), and where its slope has to lie if judged."""

    key: Key
    parameter: str | None
    values: NDArray[np.float64]
    bounds: tuple[float, float] | None


def check_rows(
    table: Table, plan: Plan, settings: CheckSettings
) -> tuple[tuple[CheckRow, ...], tuple[str, ...]]:
    """Every quantity that is not zero everywhere, in the order of computation.

    Returns:
        The rows, and the names of the parameters whose decay cannot be seen.
    """
    series = [s for s in _series(table, plan, settings) if s.values.any()]
    unseen = [s for s in series if s.key.quantity == "decay" and not _decays(s)]
    series = [s for s in series if s not in unseen]
    checks = max(sum(s.bounds is not None for s in series), 1)
    rows = tuple(_row(s, settings.widths, checks) for s in series)
    return rows, tuple(s.key.name for s in unseen)


def control_result(table: Table, plan: Plan, settings: CheckSettings) -> ControlResult:
    """What sp does; its verdict is about features alone, since updates show sp trivially."""
    judged = [s for s in _series(table, plan, settings) if s.bounds is not None and s.values.any()]
    rows = tuple(
        _row(dataclasses.replace(s, bounds=None), settings.widths, len(judged)) for s in judged
    )
    features = [(row, _growth(row)) for row in rows if row.quantity in _FEATURES]
    if not features:
        return ControlResult(quantity=None, name="", slope=-math.inf, rows=rows)
    row, slope = max(features, key=lambda pair: pair[1])
    return ControlResult(quantity=row.quantity, name=row.name, slope=slope, rows=rows)


def _series(table: Table, plan: Plan, settings: CheckSettings) -> Iterator[_Series]:
    widths, seeds = settings.widths, settings.seeds
    first = table[widths[0], seeds[0]]
    free = _may_shrink(table, settings, plan)
    negligible = {name for found in table.values() for name in found.negligible}
    few = set(of_few_entries(plan))
    order = {name: place for place, name in enumerate(first.tensors)}
    whole = table[widths[0], (settings.late_seeds or seeds)[0]]
    for key in sorted(whole.values, key=lambda key: order.get(key.name, len(order))):
        which = settings.late_seeds if key.step == settings.late_steps else seeds
        rows = [[table[width, seed].values.get(key) for seed in which] for width in widths]
        if any(value is None for row in rows for value in row):
            continue
        facts = first.tensors.get(key.name)
        judged = _is_judged(key, settings) and key.name not in negligible | few
        lower = -math.inf if key.quantity == "activation" and key.name in free else -BOUND
        yield _Series(
            key=key,
            parameter=facts.parameter if facts else key.name,
            values=np.array(rows, dtype=np.float64),
            bounds=(lower, BOUND) if judged else None,
        )


def of_few_entries(plan: Plan) -> tuple[str, ...]:
    """Parameters that are too small for a slope: one entry may end up near where it began."""
    small = (row for row in plan.rows if math.prod(row.shape) < _FEW_ENTRIES)
    return tuple(row.name for row in small if row.trainable)


def _is_judged(key: Key, settings: CheckSettings) -> bool:
    if key.quantity in ("activation", "initial"):
        return key.step == 0
    if key.quantity == "decay":
        return True
    return key.quantity != "largest" and key.step == settings.steps


def _may_shrink(table: Table, settings: CheckSettings, plan: Plan) -> set[str]:
    """Features that may shrink at step 0; coordinate_check's docstring says why."""
    small, large = (
        table[width, settings.seeds[0]].tensors
        for width in (settings.widths[0], settings.widths[-1])
    )
    output = {row.name for row in plan.rows if row.role == "output"}
    free, passed = set(), False
    for name, facts in small.items():
        passed = passed or facts.parameter in output
        same = name in large and large[name].shape == facts.shape
        if passed or same or LOGITS in name:
            free.add(name)
    return free


def _row(series: _Series, widths: tuple[int, ...], checks: int) -> CheckRow:
    values = series.values
    slope: Slope | None = None
    if np.isfinite(values).all() and (values > 0).all():
        slope = fit_slope(np.array(widths, float), values, alpha=ALPHA, checks=checks)
    lower, upper = series.bounds or (-math.inf, math.inf)
    return CheckRow(
        quantity=series.key.quantity,
        name=series.key.name,
        step=series.key.step,
        parameter=series.parameter,
        slope=slope.value if slope else None,
        low=slope.low if slope else None,
        high=slope.high if slope else None,
        bounds=(lower if math.isfinite(lower) else None, upper if math.isfinite(upper) else None),
        verdict=_verdict(slope, series.bounds),
        values=tuple(map(tuple, values.tolist())),
    )


def _verdict(slope: Slope | None, bounds: tuple[float, float] | None) -> RowVerdict:
    if bounds is None:
        return "not judged"
    where = slope.verdict(bounds) if slope is not None else "open"
    return "PASS" if where == "inside" else "FAIL" if where == "outside" else "INCONCLUSIVE"


def _decays(series: _Series) -> bool:
    """Whether decay is there to be seen at some width; else nothing is said about it."""
    values = series.values
    return bool(np.isfinite(values).all() and values.min(axis=1).max() >= _LEAST_DECAY)


def _growth(row: CheckRow) -> float:
    """Its slope; infinite if it is finite at the least width and not at a greater one."""
    if row.slope is not None:
        return row.slope
    finite = [all(map(math.isfinite, values)) for values in row.values]
    return math.inf if finite[0] and not all(finite) else -math.inf

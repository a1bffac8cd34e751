"""The coordinate check: does training move every feature and every weight alike at all widths?

Small models of several widths are trained for a few steps, seed by seed, and probed on fixed data.
Under a correct parametrization nothing grows or shrinks with width:

    quantity      of                     what                                          judged at
    activation    every module's output  RMS                                           step 0
    change        every module's output  RMS of the difference from step 0             last step
    initial       every parameter        RMS of W₀, times r^(a + b) of rules.py        step 0
    update        weights and tables     ‖W - W₀‖ / sqrt(fan-out / fan-in), spectral   last step
    update_rms    every parameter        RMS of W - W₀, times r                        last step
    decay         what is not 0 at first -log of the share of W₀ that is left in W     late

so the slope of each one's logarithm against log width is 0, up to effects of finite width. PASS:
every slope's simultaneous interval lies inside ±0.2. FAIL: one lies wholly outside. INCONCLUSIVE:
otherwise, or where the check is blind. The sp control must be seen to grow by more than 0.4 in some
feature, or the check could not have told.

Features without a growing dimension, logits, and all that comes after an output weight may shrink
at step 0: a random output weight of size 1/n gives n^-1/2 by the law of large numbers, and training
takes over. Zero readouts and gates wake up within three steps, so models are checked as they are; a
parameter that did not move is named.

Attention logits are those of `F.scaled_dot_product_attention` and of softmaxes; adaLN's shifts,
scales and gates are the tensors of a module that returns a tuple.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np

from mudit.errors import UsageError
from mudit.parametrization import Plan
from mudit.program import Build
from mudit.records import Finding, finite
from mudit.training import cpu_threads
from mudit.tuning.check_rows import (
    BOUND,
    CONTROL_SLOPE,
    CheckRow,
    CheckSettings,
    ControlResult,
    Table,
    check_rows,
    control_result,
    of_few_entries,
)
from mudit.tuning.check_text import markdown
from mudit.tuning.diagnosis import idle_finding, slope_findings
from mudit.tuning.measurement import (
    Idle,
    Loss,
    MakeOptimizer,
    MakeScheduler,
    Measurement,
    Prepare,
    Training,
    default_optimizer,
    default_prepare,
    measure,
)

_CONTROL_SEEDS = 2
_FAULTS: tuple[Idle, ...] = ("frozen", "left out")


@dataclass(frozen=True, kw_only=True)
class CoordinateCheck:
    """What the check found.

    Attributes:
        verdict: PASS, FAIL or INCONCLUSIVE.
        findings: The root first; with parameter where one is at fault.
        notes: What was not judged, and why.
        settings: Widths, seeds, steps and base HPs.
        rows: Every quantity, in the order of computation.
        control: The sp control; None: not run.
        losses: Mean training loss by width, on each early step.
    """

    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    settings: CheckSettings
    rows: tuple[CheckRow, ...]
    control: ControlResult | None
    losses: tuple[tuple[float, ...], ...]

    def to_json(self) -> str:
        """All of it as JSON text; numbers that are not finite become strings."""
        fields = {"bound": BOUND} | dataclasses.asdict(self)
        return json.dumps(finite(fields), indent=1, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write `to_json()` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def to_markdown(self) -> str:
        """Verdict, findings, and for each quantity the slopes nearest to their bounds."""
        return markdown(
            self.verdict,
            self.findings,
            self.notes,
            settings=self.settings,
            rows=self.rows,
            control=self.control,
        )


def coordinate_check(
    build: Build,
    loss: Loss,
    *,
    plan: Plan,
    widths: Sequence[int] = (32, 64, 128, 256),
    steps: int = 8,
    seeds: int | Sequence[int] = 16,
    late_steps: int | None = None,
    late_seeds: int = 3,
    lr: float = 2**-8,
    weight_decay: float | None = None,
    eps: float = 1e-8,
    max_norm: float | None = None,
    prepare: Prepare = default_prepare,
    optimizer: MakeOptimizer | None = None,
    scheduler: MakeScheduler | None = None,
    control: bool = True,
    unused: Sequence[str] = (),
    threads: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> CoordinateCheck:
    """Train small models at several widths, and see whether anything grows or shrinks with width.

    Your own initialiser, optimizer and schedule are checked by giving `prepare`, `optimizer` and
    `scheduler`; without them, the plan's.

    Args:
        build: Makes the model at a width.
        loss: Of a model, on a batch that is drawn from the generator alone. The same generator
            gives the same batch.
        plan: A plan of the model, at any width; its options and base width say how each width is
            parametrized (`plan.at`).
        widths: At least two, three or more to be useful.
        steps: Optimizer steps of the early check; at least 3 where a readout or gate starts at 0.
        seeds: How many seeds, or which; at least two.
        late_steps: Train the first `late_seeds` of them on, and look at the weight decay. 150 or
            more: earlier, decay is too small to be seen.
        late_seeds: How many; at least two.
        lr: Base learning rate.
        weight_decay: Base weight decay; by default one that takes half of the initial values away
            by the late probe, and 0 without one.
        eps: Adam's base ε.
        max_norm: Clip the plan's gradient norm.
        prepare: Gives a freshly built model its initial values in place.
        optimizer: Makes the optimizer of a model at the plan's width.
        scheduler: Makes a schedule for it, stepped after each step.
        control: Also run sp, with the plan's own optimizer, to see that the check can tell.
        unused: Patterns of parameters that the loss does not use.
        threads: CPU threads; small models are slower on more, and the last bits depend on it.
        on_progress: Told how many of how many models are done.

    Returns:
        Verdict, findings and slopes; the same to the bit for the same arguments.

    Raises:
        UsageError: An argument is out of range.
        ParametrizationError: The plan does not fit the model.
    """
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    widths = tuple(sorted(set(widths)))
    _require(widths, numbers, steps, late_steps, late_seeds)
    if weight_decay is None:
        weight_decay = math.log(2) / (lr * late_steps) if late_steps else 0.0
    own = default_optimizer(lr=lr, weight_decay=weight_decay, eps=eps)
    early = Training(
        loss=loss,
        probes=_probes(steps),
        prepare=prepare,
        optimizer=optimizer or own,
        scheduler=scheduler,
        max_norm=max_norm,
    )
    late = numbers[:late_seeds] if late_steps else ()
    trainings = {
        seed: dataclasses.replace(early, probes=(*early.probes, late_steps or 0), late=True)
        if seed in late
        else early
        for seed in numbers
    }
    runner = _Runner(build, plan, widths, on_progress)
    runner.total = len(widths) * (len(numbers) + (min(_CONTROL_SEEDS, len(numbers)) * control))
    with cpu_threads(threads):
        table = runner.run(plan, trainings)
    settings = CheckSettings(
        widths=widths,
        base_width=plan.base_width,
        seeds=numbers,
        late_seeds=late,
        steps=steps,
        late_steps=late_steps,
        lr=lr,
        weight_decay=weight_decay,
    )
    baseline = None
    if control:
        standard = dataclasses.replace(
            early, prepare=default_prepare, optimizer=own, scheduler=None
        )
        few = numbers[:_CONTROL_SEEDS]
        with cpu_threads(threads):
            measured = runner.run(_sp(plan), dict.fromkeys(few, standard))
        theirs = dataclasses.replace(settings, seeds=few, late_seeds=(), late_steps=None)
        baseline = control_result(measured, plan, theirs)
    return _judged(table, plan, baseline, unused=tuple(unused), settings=settings)


def _require(
    widths: tuple[int, ...],
    seeds: tuple[int, ...],
    steps: int,
    late_steps: int | None,
    late_seeds: int,
) -> None:
    expected = [
        (len(widths) >= 2 and widths[0] > 0, "widths", widths, "at least two positive ones"),
        (len(set(seeds)) == len(seeds) >= 2, "seeds", seeds, "at least two different ones"),
        (steps >= 1, "steps", steps, "at least 1"),
        (late_steps is None or late_steps > steps, "late_steps", late_steps, "more than steps"),
        (late_seeds >= 2, "late_seeds", late_seeds, "at least 2"),
    ]
    for good, name, got, words in expected:
        if not good:
            raise UsageError(f"coordinate_check: {name} is {got}, expected {words}.")


def _probes(steps: int) -> tuple[int, ...]:
    """The first steps and the middle are for the record; the last is judged."""
    return tuple(sorted({0, 1, steps // 2, steps}))


def _sp(plan: Plan) -> Plan:
    """The control's plan: the same options and model, under sp."""
    options = dataclasses.replace(plan.options, parametrization="sp")
    return dataclasses.replace(plan, options=options)


class _Runner:
    """Trains models, and counts them."""

    def __init__(
        self,
        build: Build,
        plan: Plan,
        widths: tuple[int, ...],
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._build, self._widths, self._on_progress = build, widths, on_progress
        self._done = self.total = 0

    def run(self, plan: Plan, trainings: Mapping[int, Training]) -> Table:
        """Measurements by width and seed."""
        found: dict[tuple[int, int], Measurement] = {}
        for width in self._widths:
            at = plan.at(width)
            for seed, training in trainings.items():
                found[width, seed] = measure(self._build, at, training, seed=seed)
                self._done += 1
                if self._on_progress is not None:
                    self._on_progress(self._done, self.total)
        return found


# --- verdict ------------------------------------------------------------------------------------


def _judged(
    table: Table,
    plan: Plan,
    control: ControlResult | None,
    *,
    unused: tuple[str, ...],
    settings: CheckSettings,
) -> CoordinateCheck:
    rows, unseen = check_rows(table, plan, settings)
    idle = _idle(table, unused)
    failed = [
        *_diverged(table, settings.widths),
        *(idle_finding(name, why, settings.steps) for name, why in idle if why in _FAULTS),
        *slope_findings(rows, plan),
    ]
    unclear = [
        *(idle_finding(name, why, settings.steps) for name, why in idle if why not in _FAULTS),
        *(() if failed else _open(rows)),
        *_flat_control(control),
    ]
    return CoordinateCheck(
        verdict="FAIL" if failed else "INCONCLUSIVE" if unclear else "PASS",
        findings=(*failed, *unclear),
        notes=tuple(_notes(table, plan, unseen, settings)),
        settings=settings,
        rows=rows,
        control=control,
        losses=_mean_losses(table, settings),
    )


def _idle(table: Table, unused: tuple[str, ...]) -> list[tuple[str, Idle]]:
    """Parameters that stayed where they were at some width, at all of its seeds."""
    found: dict[str, Idle] = {}
    for width in {width for width, _ in table}:
        runs = [run.idle for (at, _), run in table.items() if at == width]
        for name in runs[0]:
            if all(name in run for run in runs):
                found[name] = runs[0][name]
    return [
        (name, why)
        for name, why in sorted(found.items())
        if not any(fnmatchcase(name, pattern) for pattern in unused)
    ]


def _diverged(table: Table, widths: tuple[int, ...]) -> Iterator[Finding]:
    for width in widths:
        runs = [run for (at, _), run in table.items() if at == width]
        if any(not math.isfinite(loss) for run in runs for loss in run.losses):
            yield Finding(
                message=f"training diverged at width {width}: lower lr, or look at the first row "
                "that grows."
            )


def _open(rows: Iterable[CheckRow]) -> Iterator[Finding]:
    found = [row for row in rows if row.verdict == "INCONCLUSIVE"]
    if not found:
        return
    worst = max(found, key=lambda row: (row.high or math.inf) - (row.low or -math.inf))
    wide = [r for r in found if r.slope is None or r.excess > 0 or _half(r) > BOUND / 2]
    advice = "more seeds" if wide else "greater widths, where effects of finite width are smaller"
    interval = (
        f"{worst.slope:+.2f}, interval {worst.low:+.2f} to {worst.high:+.2f}"
        if worst.slope is not None
        else "a value is zero or not finite, so it has no slope"
    )
    yield Finding(
        message=f"{len(found)} slopes are neither inside ±{BOUND} nor wholly outside, e.g. "
        f"{worst.quantity} of {worst.name} ({interval}). Add {advice}."
    )


def _half(row: CheckRow) -> float:
    return math.inf if row.high is None or row.low is None else (row.high - row.low) / 2


def _flat_control(control: ControlResult | None) -> Iterator[Finding]:
    if control is not None and not control.grows:
        yield Finding(
            message=f"the check cannot tell: under sp no feature grows faster than "
            f"n^{control.slope:.2f} ({control.name}), expected above n^{CONTROL_SLOPE}. Take more "
            "steps, a greater lr, or widths further apart."
        )


def _notes(
    table: Table, plan: Plan, unseen: Sequence[str], settings: CheckSettings
) -> Iterator[str]:
    for name in sorted({name for run in table.values() for name in run.negligible}):
        yield f"{name} is not judged: its gradient is rounding (a key bias has none, for one)."
    for name in of_few_entries(plan):
        yield f"{name} is not judged: it has too few entries. `mudit.audit` looks at its lr."
    if settings.late_steps is None:
        yield "weight decay was not looked at: that takes a late probe (late_steps)."
    elif unseen:
        yield (
            f"decay cannot be seen in {len(unseen)} parameters (there is none, or training dwarfs "
            f"the initial values): {', '.join(unseen)}."
        )


def _mean_losses(table: Table, settings: CheckSettings) -> tuple[tuple[float, ...], ...]:
    by_width = [
        np.mean([table[width, seed].losses[: settings.steps] for seed in settings.seeds], axis=0)
        for width in settings.widths
    ]
    return tuple(tuple(map(float, losses)) for losses in by_width)

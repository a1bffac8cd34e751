"""Ending trials early: which of them are not worth going on with, by Optuna's pruners.

A decision depends on nothing but the trials' records: their losses on the validation bank at fixed
steps, the rungs. So any worker on any machine that sees the study's folder can take it, and
deleting the storage changes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mudit.errors import UsageError
from mudit.records import ValidationRecord, from_row

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

PruningMethod: TypeAlias = Literal["none", "halving", "asha", "median"]


@dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """When a trial of the search is ended before its time.

    Rungs lie at first_rung, and at its product with each power of reduction_factor that is less
    than the proxy's steps. On each the validation bank is evaluated once more.

    Attributes:
        method: `none`; `halving` (all trials pause at a rung, and the best 1/reduction_factor of
            them go on); `asha` (asynchronous [ASHA]: a trial goes on if it is among the best
            1/reduction_factor of those that have come to the rung so far, or the best, and is ended
            otherwise); `median` (it goes on unless it is worse than the median of the finished
            trials there).
        reduction_factor: The share that goes on, and the ratio of rungs.
        first_rung: Steps; 0: an eighth of the proxy's.
        startup_trials: With `median`: so many trials finish before any is ended.
    """

    method: PruningMethod = "none"
    reduction_factor: int = 2
    first_rung: int = 0
    startup_trials: int = 3

    def __post_init__(self) -> None:
        for name, least in (("reduction_factor", 2), ("first_rung", 0), ("startup_trials", 1)):
            if getattr(self, name) < least:
                raise UsageError(
                    f"search.pruning.{name} is {getattr(self, name)}, expected at least {least}."
                )

    def rungs(self, steps: int) -> tuple[int, ...]:
        """The steps at which a trial of so many steps may be ended.

        Raises:
            UsageError: There are none.
        """
        if self.method == "none":
            return ()
        rung = self.first_rung or math.ceil(steps / 8)
        if rung >= steps:
            raise UsageError(
                f"search.pruning.first_rung is {rung}, but a trial has only {steps} steps: no "
                "trial would be ended early."
            )
        found = []
        while rung < steps:
            found.append(rung)
            rung *= self.reduction_factor
        return tuple(found)

    def most_steps(self, trials: int, steps: int) -> int:
        """Steps of all trials together, of so many steps each, if none diverges.

        With `halving`, where a rung's best go on and no others, just as many; else at most.
        """
        if self.method != "halving":
            return trials * steps
        total, before = 0, 0
        for rung in (*self.rungs(steps), steps):
            total += trials * (rung - before)
            trials, before = max(1, trials // self.reduction_factor), rung
        return total

    def least_steps(self, trials: int, steps: int) -> int:
        """The same, at least."""
        if self.method == "halving":
            return self.most_steps(trials, steps)
        return steps + (trials - 1) * [*self.rungs(steps), steps][0]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a trial has shown so far.

    Attributes:
        losses: Denoising loss on the validation bank, by step.
        state: How it stands; a diverged trial has `failed`.
        score: Its loss after all of its steps.
    """

    losses: dict[int, float] = field(default_factory=dict)
    state: Literal["running", "complete", "pruned", "failed"] = "running"
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class PruningRule:
    """Whether a trial is worth going on with.

    Attributes:
        config: The method.
        rungs: Steps at which it is asked.
        siblings: Glob pattern of the folders of the search's trials, which lie side by side.
    """

    config: PruningConfig
    rungs: tuple[int, ...]
    siblings: str

    def stops(self, folder: Path, step: int, loss: float) -> bool:
        """Whether to end the trial in a folder, which has this loss at a rung."""
        own = read_curve(folder)
        own.losses[step] = loss
        others = [path for path in folder.parent.glob(self.siblings) if path.name != folder.name]
        return prunes(self.config, self.rungs, own, [read_curve(path) for path in others])


def read_curve(folder: Path) -> Curve:
    """What the trial in a folder has shown so far, whether or not it still runs."""
    losses: dict[int, float] = {}
    path = folder / "records.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        # Another process may be at the last line.
        if '"validation"' in line and line.endswith("}"):
            row = from_row(json.loads(line))
            if isinstance(row, ValidationRecord) and row.weights == "raw":
                losses[row.step] = row.denoising
    end = folder / "trial.json"
    if not end.exists():
        return Curve(losses=losses)
    fields = json.loads(end.read_text(encoding="utf-8"))
    if fields["status"] == "complete":
        return Curve(losses=losses, state="complete", score=fields["score"])
    return Curve(losses=losses, state="pruned" if fields["status"] == "pruned" else "failed")


def prunes(
    config: PruningConfig, rungs: Sequence[int], own: Curve, others: Iterable[Curve]
) -> bool:
    """Whether Optuna's pruner ends a trial at the last step that its curve has.

    Args:
        config: The method.
        rungs: The steps at which it is asked.
        own: The trial's curve; ends at a rung.
        others: Those of the other trials of the search.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    for curve in others:
        state = TrialState[_STATES[curve.state]]
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=curve.score if state == TrialState.COMPLETE else None,
                intermediate_values=curve.losses,
                system_attrs=_rungs_done(rungs, curve.losses),
            )
        )
    now = max(own.losses)
    before = {step: loss for step, loss in own.losses.items() if step < now}
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING,
            intermediate_values=own.losses,
            system_attrs=_rungs_done(rungs, before),
        )
    )
    found: bool = _pruner(config, rungs[0]).prune(study, study.get_trials(deepcopy=False)[-1])
    return found


_STATES = {"running": "RUNNING", "complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


def promoted(config: PruningConfig, rungs: Sequence[int], trials: Sequence[Curve]) -> list[bool]:
    """Which trials go on from the last of some rungs, all of them having come to it or diverged.

    Args:
        config: The method's.
        rungs: The rungs up to the one at which they are compared.
        trials: Curves of those that have gone on so far; what comes after the rung does not count.
    """
    curves = [_until(curve, rungs) for curve in trials]
    return [
        rungs[-1] in own.losses
        and not prunes(config, rungs, own, [*curves[:number], *curves[number + 1 :]])
        for number, own in enumerate(curves)
    ]


def _until(curve: Curve, rungs: Sequence[int]) -> Curve:
    losses = {rung: curve.losses[rung] for rung in rungs if rung in curve.losses}
    return Curve(losses=losses, state="failed" if curve.state == "failed" else "running")


def _rungs_done(rungs: Sequence[int], losses: Mapping[int, float]) -> dict[str, float]:
    """What SuccessiveHalvingPruner leaves in a trial whose rungs it has been asked about."""
    reached = [losses[rung] for rung in rungs if rung in losses]
    return {f"completed_rung_{number}": loss for number, loss in enumerate(reached)}


def _pruner(config: PruningConfig, first_rung: int) -> BasePruner:
    from optuna.pruners import MedianPruner, SuccessiveHalvingPruner

    if config.method in ("halving", "asha"):
        return SuccessiveHalvingPruner(first_rung, reduction_factor=config.reduction_factor)
    return MedianPruner(n_startup_trials=config.startup_trials)

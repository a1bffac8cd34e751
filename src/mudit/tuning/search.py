"""Search on the proxy: which points are tried, each trained once, and the best of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mudit.data import Splits
from mudit.errors import DataError, MuditError
from mudit.parametrization import Parametrization
from mudit.records import TrialRecord
from mudit.training import (
    end_paused,
    flops_of_step,
    read_trial,
    rung_file,
    stream_seed,
    write_text,
)
from mudit.tuning.config import StudyConfig, run_config
from mudit.tuning.ledger import Bounds, distributions
from mudit.tuning.pool import Job, OnTick
from mudit.tuning.pruning import Curve, PruningRule, promoted, read_curve
from mudit.tuning.queue import run_queue
from mudit.tuning.space import Interval, Point, Range, point_key, random_points

if TYPE_CHECKING:
    import optuna


class Spending(NamedTuple):
    """What a search costs, in FLOPs of training.

    Attributes:
        so_far: Of the trials that have ended, whichever command trained them.
        most: Of all, if those that have not ended take all of their steps, or those that halving
            leaves them.
    """

    so_far: float
    most: float


class NoBestPoint(MuditError):
    """Every trial diverged: the search is inconclusive.

    Attributes:
        trials: How each ended.
    """

    exit_code = 4

    def __init__(self, message: str, trials: tuple[TrialRecord, ...]) -> None:
        super().__init__(message)
        self.trials = trials


def search(
    config: StudyConfig,
    splits: Splits,
    *,
    parametrization: Parametrization,
    on_tick: OnTick,
    on_end: Callable[[TrialRecord], None],
    should_stop: Callable[[], bool],
    on_notice: Callable[[str], None],
) -> tuple[TrialRecord, ...]:
    """Train the search's points on the proxy, or what is left of them.

    The Optuna study `search-mup` or `search-sp` lives in the study's folder or in its storage. Any
    number of commands work on it; a finished trial is never run again, an interrupted one goes on
    from its checkpoint.

    Args:
        config: The study; its data are resolved.
        splits: Its data.
        parametrization: `mup`, or `sp` for the control's search.
        on_tick: Told of progress.
        on_end: Told how each trial ended.
        should_stop: Asked now and then.
        on_notice: Told of what the user should know.

    Returns:
        How each trial ended, in the order of the points.

    Raises:
        EnvironmentFailure: The storage cannot be read or written.
        Interrupted: `should_stop` said so.
    """
    run = partial(
        run_queue,
        folder=Path(config.folder),
        bounds=_bounds(config),
        workers=config.workers,
        on_tick=on_tick,
        on_end=on_end,
        should_stop=should_stop,
        on_notice=on_notice,
        cluster=config.cluster(),
    )
    trials, name = Trials(config, splits, parametrization), f"search-{parametrization}"
    if config.search.pruning.method == "halving":
        _halve(config, trials.known(), lambda jobs, stage: run(jobs, name=name + stage))
    else:
        run(trials, name=name)
    jobs = trial_jobs(config, splits, parametrization)
    return tuple(read_trial(job.folder / "trial.json") for job in jobs)


def _halve(
    config: StudyConfig, jobs: Sequence[Job], run: Callable[[Sequence[Job], str], object]
) -> None:
    """Train all to the first rung, the best of them to the second, and so on.

    Who goes on depends on the trials' records alone, so all commands agree, and whichever of them
    comes to it first lets the others end.
    """
    pruning, alive = config.search.pruning, list(jobs)
    rungs = pruning.rungs(config.proxy.steps)
    for number, rung in enumerate(rungs):
        run([replace(job, until=rung) for job in alive], f"-{rung}")
        goes_on = promoted(pruning, rungs[: number + 1], [read_curve(job.folder) for job in alive])
        for job, good in zip(alive, goes_on):
            if not good and not (job.folder / "trial.json").exists():
                end_paused(job.folder, rung)
        alive = [job for job, good in zip(alive, goes_on) if good]
    if alive:  # else all have diverged
        run(alive, "")


class Trials:
    """The training runs of a search: a queue's source.

    Points that are proposed one by one are kept in the study's folder, `points_mup.json`; each
    depends on nothing but the trials' records and its own number, so that neither the number of
    commands nor the storage has a say in it, only which trials have ended by then.

    Args:
        config: The study; its data are resolved.
        splits: Its data.
        parametrization: `mup`, or `sp` for the control's search.
    """

    def __init__(
        self, config: StudyConfig, splits: Splits, parametrization: Parametrization
    ) -> None:
        self._config = config
        self._splits = splits
        self._parametrization = parametrization
        self._path = Path(config.folder) / f"points_{parametrization}.json"
        self._jobs: dict[str, Job] = {}
        if config.search.method != "tpe":
            for point in _in_queue(config):
                self._add(point)

    def known(self) -> list[Job]:
        """Those that there are so far."""
        if self._config.search.method == "tpe" and not self.is_complete:
            for point in _read_points(self._path)[len(self._jobs) :]:
                self._add(point)
        return list(self._jobs.values())

    @property
    def is_complete(self) -> bool:
        """Whether there will be no more."""
        return len(self._jobs) >= self._config.trials

    def another(self) -> Job | None:
        """One more, proposed from how the others have gone."""
        jobs = self.known()
        if self.is_complete:
            return None
        results = [(job.point, read_curve(job.folder)) for job in jobs]
        seed = stream_seed(self._config.seed, "search", len(jobs))
        job = self._add(propose(self._config.space(), results, seed=seed))
        points = [other.point for other in self._jobs.values()]
        write_text(self._path, json.dumps(points, indent=1) + "\n")
        return job

    def _add(self, point: Point) -> Job:
        job = trial_job(self._config, self._splits, self._parametrization, point)
        self._jobs.setdefault(job.key, job)
        return job


def _in_queue(config: StudyConfig) -> list[Point]:
    """The points in the order in which they are tried.

    Shuffled if a trial may be ended by those before it: along a grid, each would be better than all
    before it for half of the way.
    """
    points = config.points()
    if config.search.pruning.method in ("none", "halving"):
        return points
    rng = np.random.default_rng([stream_seed(config.seed, "search"), 1])
    return [points[index] for index in rng.permutation(len(points))]


def _read_points(path: Path) -> list[Point]:
    if not path.exists():
        return []
    try:
        points: list[Point] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path} is damaged ({error}). Delete the study's folder to begin anew."
        ) from None
    return points


def trial_jobs(config: StudyConfig, splits: Splits, parametrization: Parametrization) -> list[Job]:
    """The search's training runs so far, one for each distinct point, in order."""
    jobs = {job.key: job for job in Trials(config, splits, parametrization).known()}
    if config.search.method == "tpe":
        return list(jobs.values())
    keys = dict.fromkeys(_key(parametrization, point) for point in config.points())
    return [jobs[key] for key in keys]


def trial_job(
    config: StudyConfig, splits: Splits, parametrization: Parametrization, point: Point
) -> Job:
    """The training run of a point."""
    key, pruning = _key(parametrization, point), config.search.pruning
    rungs = pruning.rungs(config.proxy.steps)
    return Job(
        key=key,
        point=point,
        role="proxy",
        config=run_config(
            config,
            splits,
            config.proxy,
            hps=config.hps.updated(point),
            parametrization=parametrization,
            rungs=rungs,
        ),
        folder=Path(config.folder) / key,
        pruning=PruningRule(config=pruning, rungs=rungs, siblings=f"{parametrization}_*")
        if pruning.method in ("asha", "median")
        else None,
    )


def example_job(config: StudyConfig, splits: Splits, parametrization: Parametrization) -> Job:
    """A training run of the search's size, to see what it costs and whether it can be built."""
    (point,) = random_points(config.space(), count=1, seed=0)
    return trial_job(config, splits, parametrization, point)


def _key(parametrization: Parametrization, point: Point) -> str:
    return f"{parametrization}_{point_key(point)}"


def propose(
    space: Mapping[str, Range], results: Sequence[tuple[Point, Curve]], *, seed: int
) -> Point:
    """The next point of a TPE search.

    The first ten are drawn at random. Trials under way count as bad ones ("constant liar"), so that
    workers do not crowd in one place; trials that were ended early count by how far they came.

    Args:
        space: The range of each HP.
        results: The points before it, and what is known of them.
        seed: Of this proposal.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(found) for name, found in space.items()}
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=len(space) > 1)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for point, curve in results:
        state, value = _TPE_STATES[curve.state], curve.score
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState[state],
                params=point,
                distributions=distributions,
                value=math.inf if curve.state == "failed" else value,
                intermediate_values=curve.losses if state == "PRUNED" else None,
            )
        )
    return {name: float(value) for name, value in study.ask(distributions).params.items()}


# A diverged trial is infinitely bad, not failed: TPE leaves failed ones out.
_TPE_STATES = {
    "running": "RUNNING",
    "complete": "COMPLETE",
    "failed": "COMPLETE",
    "pruned": "PRUNED",
}


def _distribution(found: Range) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(found, Interval):
        return FloatDistribution(found.low, found.high, log=found.log)
    return CategoricalDistribution(found.values)


def spending(
    config: StudyConfig, jobs: Sequence[Job], finals: Sequence[Job] | None = None
) -> Spending:
    """What the search of these trials has cost, and will have cost at most; its finals included.

    Args:
        config: The study.
        jobs: The trials so far, at least one.
        finals: The finals' runs; None: it is not known yet which they will be.
    """
    run = jobs[0].config
    each = flops_of_step(run) * run.steps
    spent, most = 0.0, 0.0
    rungs = config.search.pruning.rungs(run.steps)
    for job in jobs:
        if (path := job.folder / "trial.json").exists():
            flops = read_trial(path).train_flops
            spent, most = spent + flops, most + flops
            continue
        paused = [path for rung in rungs if (path := rung_file(job.folder, rung)).exists()]
        spent += read_trial(paused[-1]).train_flops if paused else 0.0
        most += each
    most += each * (config.trials - len(jobs))
    # Fewer than what is left in full where the rule says how many go on.
    promised = flops_of_step(run) * config.search.pruning.most_steps(config.trials, run.steps)
    most = max(spent, min(most, promised))
    of_final = flops_of_step(run) * config.search.finals.steps
    if finals is None:
        return Spending(spent, most + of_final * config.search.finals.most_runs)
    ended = [read_trial(job.folder / "trial.json") for job in finals if job.ended]
    spent_on_finals = sum(record.train_flops for record in ended)
    left = len(finals) - len(ended)
    return Spending(spent + spent_on_finals, most + spent_on_finals + of_final * left)


def best_trial(trials: tuple[TrialRecord, ...]) -> TrialRecord:
    """The trial with the lowest denoising loss on the bank; the first of equals.

    Raises:
        NoBestPoint: All diverged, or were ended before they could.
    """
    finished = [trial for trial in trials if trial.score is not None]
    if not finished:
        pruned = sum(trial.status == "pruned" for trial in trials)
        ended = f" or were ended early ({pruned})" if pruned else ""
        raise NoBestPoint(
            f"all {len(trials)} trials diverged{ended}, so there is no best point to carry to the "
            "target. Search smaller learning rates, e.g. --search.space.lr 'log2(-14, -8)', or "
            "clip gradients (--hps.clip 1), in another folder (--folder).",
            trials,
        )
    return min(finished, key=lambda trial: trial.score or 0.0)


def importance(config: StudyConfig, trials: tuple[TrialRecord, ...]) -> dict[str, float] | None:
    """Share of the score's variance that each searched HP explains (fANOVA), summing to 1.

    [muDiT] §5.2.2 ranks HPs so by eye. None with fewer than two HPs or four finished trials, or if
    all scores are equal.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    bounds = _bounds(config)
    space = distributions(bounds)
    finished = [trial for trial in trials if trial.score is not None]
    if len(space) < 2 or len(finished) < 4 or len({trial.score for trial in finished}) < 2:
        return None
    study = optuna.create_study(direction="minimize")
    for trial in finished:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: _within(bounds[name], trial.hps[name]) for name in space},
                distributions=space,
                value=trial.score,
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def _within(bounds: tuple[float, float, bool], value: float) -> float:
    """The value, in bounds: whole-number HPs were rounded."""
    return min(max(value, bounds[0]), bounds[1])


def _bounds(config: StudyConfig) -> Bounds:
    return {name: found.bounds for name, found in config.space().items()}

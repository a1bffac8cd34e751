"""Search on the proxy: every point trained once, kept in an Optuna study, the best one found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mudit.data import Splits
from mudit.errors import EnvironmentFailure, MuditError
from mudit.parametrization import Parametrization
from mudit.records import TrialRecord
from mudit.training import read_trial
from mudit.tuning.config import StudyConfig, run_config
from mudit.tuning.pool import Job, OnTick, run_jobs
from mudit.tuning.space import Point, parse_space, point_key

if TYPE_CHECKING:
    import optuna

_STORAGE = "optuna.db"


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
) -> tuple[TrialRecord, ...]:
    """Train every point of the space on the proxy, or what is left of them.

    The Optuna study `search-mup` or `search-sp` lives in the study's folder; a finished trial is
    never run again, an interrupted one goes on from its checkpoint.

    Args:
        config: The study; its data are resolved.
        splits: Its data.
        parametrization: `mup`, or `sp` for the control's search.
        on_tick: Told of progress.
        on_end: Told how each trial ended.
        should_stop: Asked now and then.

    Returns:
        How each trial ended, in the order of the points.

    Raises:
        EnvironmentFailure: The storage cannot be read or written.
        Interrupted: `should_stop` said so.
    """
    with _storage_errors(Path(config.folder) / _STORAGE):
        return _search(config, splits, parametrization, on_tick, on_end, should_stop)


def _search(
    config: StudyConfig,
    splits: Splits,
    parametrization: Parametrization,
    on_tick: OnTick,
    on_end: Callable[[TrialRecord], None],
    should_stop: Callable[[], bool],
) -> tuple[TrialRecord, ...]:
    jobs = trial_jobs(config, splits, parametrization)
    study = open_study(Path(config.folder), parametrization)
    _enqueue(study, config.points(), jobs)
    by_key = {job.key: job for job in jobs}
    asked: dict[str, int] = {}
    done: dict[str, TrialRecord] = {}
    for record in run_jobs(
        _waiting(study, config, by_key, asked),
        workers=config.workers,
        on_tick=on_tick,
        should_stop=should_stop,
    ):
        study.tell(asked[record.key], _value(record))
        done[record.key] = record
        on_end(record)
    return tuple(
        done.get(job.key) or read_trial(job.folder / "trial.json") for job in by_key.values()
    )


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise EnvironmentFailure(
            f"the search's storage {path} failed: {cause}. If the disk is full, make room and "
            "repeat the command; if the file is damaged, delete it: finished trials are kept in "
            "their own folders and are not run again."
        ) from error


def trial_jobs(config: StudyConfig, splits: Splits, parametrization: Parametrization) -> list[Job]:
    """The search's training runs, one for each distinct point, in order."""
    jobs: dict[str, Job] = {}
    for point in config.points():
        key = f"{parametrization}_{point_key(point)}"
        jobs[key] = Job(
            key=key,
            role="proxy",
            config=run_config(
                config,
                splits,
                config.proxy,
                hps=config.hps.updated(point),
                parametrization=parametrization,
            ),
            folder=Path(config.folder) / key,
        )
    return list(jobs.values())


def best_trial(trials: tuple[TrialRecord, ...]) -> TrialRecord:
    """The trial with the lowest denoising loss on the bank; the first of equals.

    Raises:
        NoBestPoint: All diverged.
    """
    finished = [trial for trial in trials if trial.score is not None]
    if not finished:
        raise NoBestPoint(
            f"all {len(trials)} trials diverged, so there is no best point to carry to the target. "
            "Search smaller learning rates, e.g. --search.space.lr 'log2(-14, -8)', or clip "
            "gradients (--hps.clip 1), in another folder (--folder).",
            trials,
        )
    return min(finished, key=lambda trial: trial.score or 0.0)


def open_study(folder: Path, parametrization: Parametrization) -> optuna.Study:
    """The Optuna study of a search, in SQLite in the study's folder."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=f"sqlite:///{(folder / _STORAGE).resolve()}",
        study_name=f"search-{parametrization}",
        direction="minimize",
        load_if_exists=True,
    )


def importance(config: StudyConfig, trials: tuple[TrialRecord, ...]) -> dict[str, float] | None:
    """Share of the score's variance that each searched HP explains (fANOVA), summing to 1.

    [muDiT] §5.2.2 ranks HPs so by eye. None with fewer than two HPs or four finished trials, or if
    all scores are equal.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = _distributions(config)
    bounds = {name: found.bounds for name, found in parse_space(config.search.space).items()}
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


def _distributions(config: StudyConfig) -> dict[str, optuna.distributions.BaseDistribution]:
    """The ranges as Optuna knows them; points are enqueued, so only their bounds matter."""
    from optuna.distributions import FloatDistribution

    bounds = {name: found.bounds for name, found in parse_space(config.search.space).items()}
    return {
        name: FloatDistribution(low, high, log=log) for name, (low, high, log) in bounds.items()
    }


def _enqueue(study: optuna.Study, points: list[Point], jobs: list[Job]) -> None:
    """Make sure that each point is finished or waiting, once.

    The study's folder is locked, so a trial that is marked as running is one whose parent died; its
    worker may still be leaving, and holds the trial's folder until then.
    """
    from optuna.trial import TrialState

    known = set()
    ended = {job.key for job in jobs if (job.folder / "trial.json").exists()}
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state == TrialState.WAITING or trial.user_attrs.get("key") in ended:
            known.add(trial.user_attrs["key"])
    for job, point in zip(jobs, {point_key(point): point for point in points}.values()):
        if job.key not in known:
            study.enqueue_trial(point, user_attrs={"key": job.key})


def _waiting(
    study: optuna.Study, config: StudyConfig, jobs: dict[str, Job], asked: dict[str, int]
) -> Iterator[Job]:
    """The jobs that are left, each marked as running when it is taken."""
    from optuna.trial import TrialState

    space = _distributions(config)
    for _ in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        trial = study.ask(space)
        key = trial.user_attrs["key"]
        asked[key] = trial.number
        yield jobs[key]


def _value(record: TrialRecord) -> float:
    """What Optuna is told: a diverged trial is infinitely bad, not failed."""
    return math.inf if record.score is None else record.score

"""A study's training runs as a queue in an Optuna study: each run once, whoever does it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mudit.errors import EnvironmentFailure
from mudit.records import TrialRecord
from mudit.training import read_trial
from mudit.tuning.pool import Job, OnTick, run_jobs

if TYPE_CHECKING:
    import optuna

# Of each HP that differs: lowest and highest value, and whether its scale is logarithmic.
Bounds: TypeAlias = Mapping[str, tuple[float, float, bool]]

_STORAGE = "optuna.db"


def run_queue(
    jobs: Sequence[Job],
    *,
    folder: Path,
    name: str,
    bounds: Bounds,
    workers: int,
    on_tick: OnTick,
    on_end: Callable[[TrialRecord], None],
    should_stop: Callable[[], bool],
) -> tuple[TrialRecord, ...]:
    """Do all jobs, or what is left of them.

    A finished run is never done again, an interrupted one goes on from its checkpoint.

    Args:
        jobs: The runs, with keys of their own; done in this order.
        folder: The study's.
        name: The Optuna study's name.
        bounds: Of the HPs in the jobs' points.
        workers: Processes.
        on_tick: Told of progress.
        on_end: Told how each run ended.
        should_stop: Asked now and then.

    Returns:
        How each run ended, in the order of the jobs.

    Raises:
        EnvironmentFailure: The storage cannot be read or written.
        Interrupted: `should_stop` said so.
    """
    with _storage_errors(folder / _STORAGE):
        study = open_study(folder, name)
        _enqueue(study, jobs)
        by_key = {job.key: job for job in jobs}
        asked: dict[str, int] = {}
        done: dict[str, TrialRecord] = {}
        for record in run_jobs(
            _waiting(study, bounds, by_key, asked),
            workers=workers,
            on_tick=on_tick,
            should_stop=should_stop,
        ):
            study.tell(asked[record.key], _value(record))
            done[record.key] = record
            on_end(record)
    return tuple(done.get(job.key) or read_trial(job.folder / "trial.json") for job in jobs)


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


def open_study(folder: Path, name: str) -> optuna.Study:
    """The Optuna study of a queue, in SQLite in the study's folder."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=f"sqlite:///{(folder / _STORAGE).resolve()}",
        study_name=name,
        direction="minimize",
        load_if_exists=True,
    )


def distributions(bounds: Bounds) -> dict[str, optuna.distributions.BaseDistribution]:
    """The bounds as Optuna knows them; points are enqueued, so nothing else matters."""
    from optuna.distributions import FloatDistribution

    return {
        name: FloatDistribution(low, high, log=log) for name, (low, high, log) in bounds.items()
    }


def _enqueue(study: optuna.Study, jobs: Sequence[Job]) -> None:
    """Make sure that each job is finished or waiting, once.

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
    for job in jobs:
        if job.key not in known:
            study.enqueue_trial(job.point, user_attrs={"key": job.key})


def _waiting(
    study: optuna.Study, bounds: Bounds, jobs: Mapping[str, Job], asked: dict[str, int]
) -> Iterator[Job]:
    """The jobs that are left, each marked as running when it is taken."""
    from optuna.trial import TrialState

    space = distributions(bounds)
    for _ in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        trial = study.ask(space)
        key = trial.user_attrs["key"]
        asked[key] = trial.number
        yield jobs[key]


def _value(record: TrialRecord) -> float:
    """What Optuna is told: a diverged trial is infinitely bad, not failed."""
    return math.inf if record.score is None else record.score

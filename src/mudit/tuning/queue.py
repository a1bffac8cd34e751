"""A study's training runs as a queue that any number of commands work on: each run once."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mudit.errors import EnvironmentFailure, FolderBusyError, Interrupted
from mudit.records import TrialRecord
from mudit.training import exclusive, read_trial, train, write_text
from mudit.tuning.cluster import Cluster
from mudit.tuning.jobs import FixedJobs, JobSource
from mudit.tuning.ledger import (
    BEAT_SECONDS,
    MOST_LOSSES,
    VISIBLE_SECONDS,
    Bounds,
    Ledger,
    ownership,
)
from mudit.tuning.pool import (
    Ended,
    Event,
    Job,
    LocalPool,
    Lost,
    OnTick,
    Pool,
    Ticked,
    Work,
    train_job,
)
from mudit.tuning.ray_pool import RayPool, connected_ray
from mudit.tuning.storage import (
    PATIENCE_SECONDS,
    Outage,
    check_storage,
    close_study,
    open_study,
    storage_errors,
    storage_url,
)

if TYPE_CHECKING:
    import optuna

# How often what others do is looked at, in seconds.
_SETTLE_SECONDS = 4.0
_TAKE_SECONDS = 1.0

_QUEUE_ID = "queue_id"


def _silent(text: str) -> None:
    """Tell nobody."""


@contextmanager
def open_cluster(cluster: Cluster) -> Iterator[None]:
    """Make sure that a study's storage and launcher can be used; they stay connected meanwhile.

    Nothing is written.

    Raises:
        UsageError: The storage is not one that many processes can use.
        EnvironmentFailure: The storage does not answer, there is no Ray cluster or it does not have
            what a run needs, or an extra is not installed.
    """
    check_storage(cluster.storage)
    if cluster.launcher == "ray":
        with connected_ray(cluster.ray):
            yield
    else:
        yield


def run_queue(
    jobs: Sequence[Job] | JobSource,
    *,
    folder: Path,
    name: str,
    bounds: Bounds,
    workers: int,
    on_tick: OnTick,
    on_end: Callable[[TrialRecord], None],
    should_stop: Callable[[], bool],
    on_notice: Callable[[str], None] = _silent,
    cluster: Cluster | None = None,
    work: Work = train_job,
    patience_seconds: float = PATIENCE_SECONDS,
) -> tuple[TrialRecord, ...]:
    """Do all jobs, or what is left of them, with whatever other commands work on the same queue.

    A finished run is never done again, an interrupted one goes on from its checkpoint, by whichever
    command takes it up. Returns when all are finished.

    Args:
        jobs: The runs, with keys of their own, done in this order; or where they come from.
        folder: The study's; all commands see it.
        name: The queue's name in the study.
        bounds: Of the HPs in the jobs' points.
        workers: Runs under way at once, of this command.
        on_tick: Told of progress.
        on_end: Told how each run ended that this command did.
        should_stop: Asked now and then.
        on_notice: Told of what the user should know: the storage is away, a worker was killed.
        cluster: Where to schedule and to run; None: SQLite in the folder, processes here.
        work: What a worker does with a job; leaves a `trial.json`.
        patience_seconds: How long the storage may be away.

    Returns:
        How each run ended, in the order of the jobs.

    Raises:
        EnvironmentFailure: The storage is damaged or has been away for too long, or a run has
            killed its workers three times.
        Interrupted: `should_stop` said so; all runs of this command are saved.
        MuditError: Whatever the first run to fail raised; the others are saved.
    """
    cluster = cluster or Cluster()
    source = FixedJobs(jobs) if isinstance(jobs, Sequence) else jobs
    url = storage_url(folder, cluster.storage)
    with storage_errors(url), ownership(folder) as owner:
        if cluster.storage:  # one database holds many studies
            name = f"mudit-{_queue_id(folder)}-{name}"
        outage = Outage(url, on_notice, patience_seconds=patience_seconds)

        def opened() -> optuna.Study:
            with exclusive(folder, wait_seconds=60.0, should_stop=should_stop):
                return open_study(folder, name, cluster.storage)

        with ExitStack() as stack:
            study = outage.wait_for(opened, should_stop)
            stack.callback(close_study, study)
            pool = stack.enter_context(closing(_pool(cluster, workers, work)))
            ledger = Ledger(study, source, bounds=bounds, folder=folder, owner=owner)
            drive = _Drive(ledger, pool, outage, on_tick, on_end, on_notice)
            done = drive.until_finished(should_stop)
    return tuple(done.get(job.key) or _read_visible(job) for job in source.known())


def _pool(cluster: Cluster, workers: int, work: Work) -> Pool:
    if cluster.launcher == "ray":
        return RayPool(cluster.ray, workers, work)
    return LocalPool(workers, work)


def run_alone(
    job: Job,
    *,
    cluster: Cluster,
    on_tick: OnTick,
    should_stop: Callable[[], bool],
    on_notice: Callable[[str], None] = _silent,
) -> TrialRecord:
    """Do one job that needs no queue, or wait for the command that does it.

    On this machine it is done in this process, which has all of the job's threads.

    Raises:
        Interrupted: `should_stop` said so; the run is saved.
        MuditError: As `train`.
    """
    told = f"another command is at work on {job.key}; waiting for it"
    if cluster.launcher == "ray":
        return _run_alone_on_ray(job, cluster, on_tick, should_stop, on_notice, told)

    def tick(step: int, loss: float) -> None:
        on_tick(job.key, step, job.config.steps, loss)

    go = partial(
        train,
        job.config,
        job.folder,
        key=job.key,
        role=job.role,
        on_progress=tick,
        should_stop=should_stop,
    )
    try:
        return go(wait_seconds=1.0)
    except FolderBusyError:
        on_notice(told)
        return go(wait_seconds=float("inf"))


def _run_alone_on_ray(
    job: Job,
    cluster: Cluster,
    on_tick: OnTick,
    should_stop: Callable[[], bool],
    on_notice: Callable[[str], None],
    told: str,
) -> TrialRecord:
    losses = 0
    with closing(RayPool(cluster.ray, 1, train_job)) as pool:
        while (path := job.ended) is None:
            pool.start(job)
            while pool.running:
                if should_stop():
                    pool.stop()
                for event in pool.events(0.2):
                    if isinstance(event, Ticked):
                        on_tick(event.key, event.step, event.steps, event.loss)
                    elif isinstance(event, Ended):
                        return _read_visible(job)
                    elif isinstance(event, Lost):
                        losses += 1
                        on_notice(f"the worker of {job.key} was killed")
                    elif not isinstance(event.error, FolderBusyError):
                        raise event.error
                    elif told:
                        on_notice(told)
                        told = ""
            if should_stop():
                raise Interrupted("stopped; all runs are saved. Repeat the command to go on.")
            if losses >= MOST_LOSSES:
                raise EnvironmentFailure(
                    f"the worker of {job.key} was killed {losses} times, probably because memory "
                    "ran out. Repeat the command with more for each: what was checkpointed goes on."
                )
    return read_trial(path)


class _Drive:
    """One command's work on a queue."""

    def __init__(
        self,
        ledger: Ledger,
        pool: Pool,
        outage: Outage,
        on_tick: OnTick,
        on_end: Callable[[TrialRecord], None],
        on_notice: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._pool = pool
        self._outage = outage
        self._on_tick = on_tick
        self._on_end = on_end
        self._on_notice = on_notice
        self._done: dict[str, TrialRecord] = {}
        # What the storage has still to be told; kept while it is away.
        self._untold: deque[Callable[[], bool]] = deque()
        self._next_beat = self._next_settle = self._next_take = 0.0

    def until_finished(self, should_stop: Callable[[], bool]) -> dict[str, TrialRecord]:
        """Work until every run is finished; returns how this command's own ended."""
        try:
            while True:
                self._speak()
                self._fill()
                if not self._pool.running and self._ledger.is_finished(self._done.keys()):
                    break
                # Idle, it looks at the others' files and at the queue: not so often.
                for event in self._pool.events(0.2 if self._pool.running else 1.0):
                    self._heed(event)
                if should_stop():
                    raise Interrupted("stopped; all runs are saved. Repeat the command to go on.")
        except BaseException:
            self._abandon()
            raise
        self._speak()
        self._outage.ask(self._ledger.settle)  # what a killed command has finished but not told
        return self._done

    def _speak(self) -> None:
        """Tell the storage what there is to tell, and see what others have told it."""
        now = time.monotonic()
        self._tell()
        if now >= self._next_beat and self._outage.ask(self._ledger.beat):
            self._next_beat = now + BEAT_SECONDS
        if now >= self._next_settle and self._outage.ask(self._ledger.settle):
            self._next_settle = now + _SETTLE_SECONDS
        if self._outage.is_on:
            self._ledger.forget_silence()

    def _tell(self) -> None:
        while self._untold:
            action = self._untold[0]
            if not self._outage.ask(action):
                return
            self._untold.popleft()

    def _fill(self) -> None:
        """Take runs for the workers that are free."""
        while self._pool.has_room and time.monotonic() >= self._next_take:
            job = self._outage.ask(self._ledger.take)
            if job is None:
                self._next_take = time.monotonic() + _TAKE_SECONDS
                return
            self._pool.start(job)

    def _heed(self, event: Event) -> None:
        if isinstance(event, Ticked):
            self._on_tick(event.key, event.step, event.steps, event.loss)
            return
        self._next_take = 0.0
        if isinstance(event, Ended):
            self._done[event.key] = event.record
            self._untold.append(partial(self._ledger.finish, event.record))
            self._on_end(event.record)
        elif isinstance(event, Lost):
            self._on_notice(f"the worker of {event.key} was killed; another goes on with it")
            self._give_back(event.key, lost=True)
        elif isinstance(event.error, FolderBusyError):
            # A command that was thought to be gone is at work on it still.
            self._give_back(event.key)
        else:
            self._give_back(event.key)
            raise event.error

    def _give_back(self, key: str, *, lost: bool = False) -> None:
        self._untold.append(partial(self._ledger.give_back, key, lost=lost))
        self._next_settle = 0.0

    def _abandon(self) -> None:
        """Stop: save all runs and give them back, so that other commands take them up at once."""
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        self._pool.stop()
        while self._pool.running:
            for event in self._pool.events(0.2):
                if isinstance(event, Ended):
                    self._heed(event)
                elif not isinstance(event, Ticked):
                    self._give_back(event.key)
        # If that fails now, they are seen to have lost their owner later; what ends this command
        # is told instead.
        with suppress(EnvironmentFailure, StorageInternalError, SQLAlchemyError):
            self._tell()
            self._outage.ask(self._ledger.settle)


def _queue_id(folder: Path) -> str:
    """What tells the study in this folder from others in the same database."""
    path = folder / _QUEUE_ID
    with exclusive(folder, wait_seconds=60.0):
        if not path.exists():
            write_text(path, uuid.uuid4().hex[:12] + "\n")
        return path.read_text(encoding="utf-8").strip()


def _read_visible(job: Job) -> TrialRecord:
    """A finished run's record, once this machine sees it.

    Raises:
        EnvironmentFailure: It does not.
    """
    deadline = time.monotonic() + VISIBLE_SECONDS
    while (path := job.ended) is None:
        if time.monotonic() > deadline:
            raise EnvironmentFailure(
                f"{job.key} has ended on another machine, but its record in {job.folder} is not to "
                "be seen on this one. The study's folder must be on a file system that all "
                "machines share: choose one with --folder."
            )
        time.sleep(0.2)
    return read_trial(path)

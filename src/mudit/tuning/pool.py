"""Training runs in parallel: worker processes, one run at a time each, that stop when asked.

A worker that is killed costs its run's last steps and nothing else. For that each has a pipe of its
own: a queue or an event that all share has a lock, and who is killed holding it holds it for ever.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Protocol, TypeAlias

from mudit.errors import Interrupted
from mudit.records import TrialRecord
from mudit.training import RunConfig, rung_file, train
from mudit.training.trainer import OnProgress, RunRole
from mudit.tuning.pruning import PruningRule


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run to do.

    Attributes:
        key: Its name in the study.
        point: The HPs in which it differs from others, by dotted name.
        role: What it is for.
        config: The run.
        folder: Where it lives.
        pruning: Whether to end it at a rung of its config.
        until: A rung of its config at which it pauses; None: it goes on to its end.
    """

    key: str
    point: dict[str, float]
    role: RunRole
    config: RunConfig
    folder: Path
    pruning: PruningRule | None = None
    until: int | None = None

    @property
    def ended(self) -> Path | None:
        """The file that says how it ended, or that it pauses; None: it has not."""
        final = self.folder / "trial.json"
        if self.until is None or final.exists():
            return final if final.exists() else None
        paused = rung_file(self.folder, self.until)
        return paused if paused.exists() else None


# --- what a pool says -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ticked:
    """A run has taken `step` of its `steps` steps."""

    key: str
    step: int
    steps: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run has ended."""

    key: str
    record: TrialRecord


@dataclass(frozen=True, kw_only=True)
class Raised:
    """A run has raised; `Interrupted` if it was asked to stop."""

    key: str
    error: Exception


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A run's worker is gone without a word."""

    key: str


Event: TypeAlias = Ticked | Ended | Raised | Lost
OnTick: TypeAlias = Callable[[str, int, int, float], None]
# (job, told of progress, asked after every step) -> how it ended
Work: TypeAlias = Callable[[Job, OnProgress, Callable[[], bool]], TrialRecord]


class Pool(Protocol):
    """Does runs somewhere else."""

    @property
    def running(self) -> set[str]:
        """Keys of the runs that have been started and have not ended."""

    @property
    def has_room(self) -> bool:
        """Whether another can be started."""

    def start(self, job: Job) -> None:
        """Start a run."""

    def events(self, timeout_seconds: float) -> list[Event]:
        """What has happened since; waits for something to."""

    def stop(self) -> None:
        """Ask all runs to save and stop; `events` still says how each ended."""

    def close(self) -> None:
        """Let the workers go; runs that are still under way are saved first."""


def train_job(job: Job, on_progress: OnProgress, should_stop: Callable[[], bool]) -> TrialRecord:
    """Train, or go on training, a job's run in its folder."""
    return train(
        job.config,
        job.folder,
        key=job.key,
        role=job.role,
        on_progress=on_progress,
        should_stop=should_stop,
        prune=None if job.pruning is None else partial(job.pruning.stops, job.folder),
        until=job.until,
    )


# --- processes on this machine --------------------------------------------------------------------


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    key: str | None = None


class LocalPool:
    """Processes on this machine, started when they are first needed.

    Args:
        workers: How many.
        work: What they do.
    """

    def __init__(self, workers: int, work: Work = train_job) -> None:
        self._most = workers
        self._work = work
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    @property
    def running(self) -> set[str]:
        """Keys of the runs that have been started and have not ended."""
        return {worker.key for worker in self._workers if worker.key is not None}

    @property
    def has_room(self) -> bool:
        """Whether another can be started."""
        return len(self.running) < self._most

    def start(self, job: Job) -> None:
        """Start a run in an idle worker, or in a new one."""
        while True:
            worker = self._idle()
            try:
                worker.pipe.send(job)
            except OSError:  # it died idle
                self._drop(worker)
            else:
                worker.key = job.key
                return

    def _idle(self) -> _Worker:
        for worker in self._workers:
            if worker.key is None:
                return worker
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work))
        process.start()
        theirs.close()  # so that the pipe ends with the worker
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def _drop(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.join()
        self._workers.remove(worker)

    def events(self, timeout_seconds: float) -> list[Event]:
        """What has happened since; waits for something to."""
        by_pipe = {worker.pipe: worker for worker in self._workers}
        if not by_pipe:
            time.sleep(timeout_seconds)
        found: list[Event] = []
        for pipe in wait(list(by_pipe), timeout_seconds):
            assert isinstance(pipe, Connection)
            worker = by_pipe[pipe]
            try:
                while pipe.poll():
                    event: Event = pipe.recv()
                    found.append(event)
                    if not isinstance(event, Ticked):
                        worker.key = None
            except (EOFError, OSError):
                if worker.key is not None:
                    found.append(Lost(key=worker.key))
                self._drop(worker)
        return found

    def stop(self) -> None:
        """Ask all runs to save and stop; `events` still says how each ended."""
        for worker in self._workers:
            if worker.key is not None:
                with suppress(OSError):  # if it is dead, `events` will say so
                    worker.pipe.send(None)

    def close(self) -> None:
        """Let the workers go; runs that are still under way are saved first."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()


def _serve(pipe: Connection, work: Work) -> None:
    """A worker's life: jobs in, events out, until the pipe ends."""
    # Ctrl-C reaches the whole process group, and so does what a scheduler sends before it takes a
    # machine away; the parent decides, and tells by the pipe.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        while (job := pipe.recv()) is not None:
            pipe.send(_outcome(job, work, pipe))
    except (EOFError, OSError):
        pass  # the parent is gone; the run has been saved


def _outcome(job: Job, work: Work, pipe: Connection) -> Ended | Raised:
    def tick(step: int, loss: float) -> None:
        with suppress(OSError):  # if the parent is gone, `should_stop` will say so
            pipe.send(Ticked(key=job.key, step=step, steps=job.config.steps, loss=loss))

    # Anything that the parent sends during a run, and the pipe's end too, means: stop.
    return do_job(job, work, tick, should_stop=pipe.poll)


def do_job(
    job: Job, work: Work, tick: OnProgress, should_stop: Callable[[], bool]
) -> Ended | Raised:
    """How a job goes, as an event that can be sent to another process."""
    try:
        return Ended(key=job.key, record=work(job, tick, should_stop))
    except Exception as error:
        if not isinstance(error, Interrupted):
            error.add_note(f"in the worker of {job.key}:\n{traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"in the worker of {job.key}:\n{traceback.format_exc()}")
        return Raised(key=job.key, error=error)


# --- in the main process --------------------------------------------------------------------------


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a request that the yielded function reports.

    A second Ctrl-C interrupts at once; what was checkpointed stays.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

"""Training runs in parallel: worker processes, one run at a time each, that stop when asked."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType
from typing import TypeAlias

from mudit.errors import EnvironmentFailure, Interrupted
from mudit.records import TrialRecord
from mudit.training import RunConfig, train
from mudit.training.trainer import RunRole


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run to do.

    Attributes:
        key: Its name in the study.
        point: The HPs in which it differs from others, by dotted name.
        role: What it is for.
        config: The run.
        folder: Where it lives.
    """

    key: str
    point: dict[str, float]
    role: RunRole
    config: RunConfig
    folder: Path


# (key, steps taken, steps, last loss)
Tick: TypeAlias = tuple[str, int, int, float]
OnTick: TypeAlias = Callable[[str, int, int, float], None]


def run_jobs(
    jobs: Iterable[Job],
    *,
    workers: int,
    on_tick: OnTick,
    should_stop: Callable[[], bool],
) -> Iterator[TrialRecord]:
    """Do all jobs in `workers` processes; yields how each ended, as it ends.

    A job is taken from `jobs` when a worker is free for it.

    Raises:
        Interrupted: `should_stop` said so; all runs are saved.
        MuditError: Whatever the first run to fail raised; the others are saved.
    """
    context = multiprocessing.get_context("spawn")
    stop, ticks = context.Event(), context.SimpleQueue()
    queue, running = iter(jobs), set[Future[TrialRecord]]()
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(stop, ticks)
    ) as pool:
        try:
            while True:
                while len(running) < workers and (job := next(queue, None)) is not None:
                    running.add(pool.submit(_work, job))
                if not running:
                    break
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                while not ticks.empty():
                    on_tick(*ticks.get())
                for future in done:
                    yield future.result()
                if should_stop():
                    raise Interrupted("stopped; all runs are saved. Repeat the command to go on.")
        except BrokenProcessPool:
            raise EnvironmentFailure(
                "a worker process was killed, probably because memory ran out. Use fewer "
                "(--workers 1) and repeat the command: what was checkpointed goes on."
            ) from None
        finally:
            stop.set()  # what still runs is saved and stops; the pool waits for it


# --- in a worker process ------------------------------------------------------------------------

_stop: Event
_ticks: SimpleQueue[Tick]
_busy = threading.Lock()
_orphaned = threading.Event()


def _start_worker(stop: Event, ticks: SimpleQueue[Tick]) -> None:
    global _stop, _ticks
    _stop, _ticks = stop, ticks
    # Ctrl-C reaches the whole process group; the parent decides and tells by the event.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this process once its parent is gone and the run that it is at has been saved."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _orphaned.set()
    with _busy:
        os._exit(1)


def _work(job: Job) -> TrialRecord:
    steps = job.config.steps

    def tick(step: int, loss: float) -> None:
        if not _orphaned.is_set():  # nobody reads the pipe any more
            _ticks.put((job.key, step, steps, loss))

    with _busy:
        return train(
            job.config,
            job.folder,
            key=job.key,
            role=job.role,
            on_progress=tick,
            should_stop=lambda: _stop.is_set() or _orphaned.is_set(),
        )


# --- in the main process ------------------------------------------------------------------------


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

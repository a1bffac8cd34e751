"""Jobs that take no time, for the queue's tests, and a command that works on a queue of them.

`python quick_jobs.py FOLDER COUNT WORKERS HOW` is one command of many; a storage may follow.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mudit.records import TrialRecord
from mudit.training import write_text
from mudit.tuning import TaskConfig
from mudit.tuning.cluster import Cluster
from mudit.tuning.pool import Job, Work, stop_on_interrupt
from mudit.tuning.queue import run_queue

BOUNDS = {"lr": (1.0, 1000.0, False)}


def make_jobs(folder: Path, count: int) -> list[Job]:
    """Jobs that say their number as their score."""
    config: Any = TaskConfig(width=1, batch_size=1, steps=1)
    return [
        Job(
            key=f"job{number:03}",
            point={"lr": float(number + 1)},
            role="grid",
            config=config,
            folder=folder / f"job{number:03}",
        )
        for number in range(count)
    ]


def record_of(job: Job) -> TrialRecord:
    return TrialRecord(
        key=job.key, role="grid", parametrization="mup", width=1, parameters=1, batch_size=1,
        steps=1, seed=0, hps=job.point, status="complete", diverged_step=None,
        score=job.point["lr"], train_flops=1.0, seconds=0.0,
    )  # fmt: skip


def note(job: Job) -> int:
    """Write down that a worker is at the job; returns how often one has been."""
    log = job.folder.parent / "ran.log"
    with log.open("a") as file:
        file.write(f"{job.key} {os.getpid()}\n")
    return log.read_text().count(job.key)


def quick(
    job: Job, on_progress: Callable[[int, float], None], should_stop: Callable[[], bool]
) -> TrialRecord:
    """End at once."""
    note(job)
    on_progress(1, 0.5)
    job.folder.mkdir(exist_ok=True)
    record = record_of(job)
    write_text(job.folder / "trial.json", json.dumps(dataclasses.asdict(record)))
    return record


def unhurried(
    job: Job, on_progress: Callable[[int, float], None], should_stop: Callable[[], bool]
) -> TrialRecord:
    """End after a fifth of a second."""
    time.sleep(0.2)
    return quick(job, on_progress, should_stop)


def fragile(
    job: Job, on_progress: Callable[[int, float], None], should_stop: Callable[[], bool]
) -> TrialRecord:
    """Job 1 kills its worker the first time."""
    if job.key == "job001" and note(job) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return quick(job, on_progress, should_stop)


def deadly(
    job: Job, on_progress: Callable[[int, float], None], should_stop: Callable[[], bool]
) -> TrialRecord:
    """Job 1 kills its worker every time."""
    if job.key == "job001":
        note(job)
        os.kill(os.getpid(), signal.SIGKILL)
    return quick(job, on_progress, should_stop)


def ran(folder: Path) -> list[str]:
    """The keys of the jobs that workers were at, in order."""
    return [line.split()[0] for line in (folder / "ran.log").read_text().splitlines()]


def run(
    folder: Path,
    jobs: list[Job],
    work: Work = quick,
    *,
    workers: int = 2,
    cluster: Cluster | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_notice: Callable[[str], None] = lambda text: None,
) -> tuple[TrialRecord, ...]:
    """`run_queue` with what these jobs need."""
    return run_queue(
        jobs,
        folder=folder,
        name="quick",
        bounds=BOUNDS,
        workers=workers,
        on_tick=lambda key, step, steps, loss: None,
        on_end=lambda record: None,
        should_stop=should_stop,
        on_notice=on_notice,
        cluster=cluster,
        work=work,
    )


if __name__ == "__main__":
    import quick_jobs  # workers know the functions by this module's name

    where, count, workers, how, *storage = sys.argv[1:]
    with stop_on_interrupt() as should_stop:
        records = run(
            Path(where),
            make_jobs(Path(where), int(count)),
            getattr(quick_jobs, how),
            workers=int(workers),
            cluster=Cluster(storage=storage[0] if storage else ""),
            should_stop=should_stop,
            on_notice=lambda text: print(text, file=sys.stderr, flush=True),
        )
    print(len(records), "records")

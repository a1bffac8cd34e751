"""Sharing out runs: each once, none lost, whoever dies; on SQLite, with jobs that take no time."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from mudit.errors import EnvironmentFailure, Interrupted, UsageError
from mudit.training import exclusive, write_text
from mudit.tuning import ledger as ledgers
from mudit.tuning import storage as storages
from mudit.tuning.jobs import FixedJobs, JobSource
from mudit.tuning.ledger import Ledger, is_alive, ownership
from mudit.tuning.pool import Job
from mudit.tuning.storage import (
    Outage,
    check_storage,
    open_study,
    shown_storage,
    storage_url,
)
from quick_jobs import BOUNDS, deadly, fragile, make_jobs, quick, ran, record_of, run

ELSEWHERE = "another:1:00000000:abcdef"


def no_tick(step: int, loss: float) -> None:
    pass


def finish(job: Job) -> None:
    quick(job, no_tick, lambda: False)


def ledger(folder: Path, jobs: list[Job] | JobSource, owner: str = ELSEWHERE) -> Ledger:
    """A command's view of the queue; `ELSEWHERE` is on a machine that cannot be asked."""
    source = FixedJobs(jobs) if isinstance(jobs, list) else jobs
    return Ledger(open_study(folder, "quick"), source, bounds=BOUNDS, folder=folder, owner=owner)


def states(folder: Path) -> Counter[str]:
    return Counter(trial.state.name for trial in open_study(folder, "quick").get_trials())


# --- sharing out ----------------------------------------------------------------------------------


def test_commands_that_start_at_once_share_out_each_job_once(tmp_path) -> None:
    """Eight commands, each with a connection of its own, race from the empty folder on."""
    jobs = make_jobs(tmp_path, 40)
    start = threading.Barrier(8)

    def command(number: int) -> list[str]:
        start.wait()
        mine, taken = ledger(tmp_path, jobs, f"another:{number}:00000000:{number}"), []
        while not mine.settle():
            time.sleep(0.01)
        while (job := mine.take()) is not None:
            taken.append(job.key)
            finish(job)
            mine.finish(record_of(job))
        return taken

    with ThreadPoolExecutor(8) as commands:
        taken = [key for keys in commands.map(command, range(8)) for key in keys]
    assert sorted(taken) == [job.key for job in jobs]
    assert states(tmp_path) == {"COMPLETE": 40}


def test_taking_a_trial_is_atomic_on_sqlite_as_optuna_alone_is_not(tmp_path) -> None:
    """Another command writes RUNNING between the first's read of WAITING and its write."""
    open_study(tmp_path, "quick").enqueue_trial({})
    other = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)
    other.execute("PRAGMA busy_timeout = 0")
    refused: list[str] = []

    def between(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("UPDATE"):
            try:
                other.execute("UPDATE trials SET state = 'RUNNING'")
            except sqlite3.OperationalError as error:
                refused.append(str(error))

    bare = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    event.listen(bare.engine, "before_cursor_execute", between)
    assert bare.set_trial_state_values(1, TrialState.RUNNING), "both believe that it is theirs"
    assert refused == []
    other.execute("UPDATE trials SET state = 'WAITING'")
    ours = open_study(tmp_path, "quick")._storage._backend
    event.listen(ours.engine, "before_cursor_execute", between)
    assert ours.set_trial_state_values(1, TrialState.RUNNING)
    assert refused == ["database is locked"]
    assert not bare.set_trial_state_values(1, TrialState.RUNNING)
    other.close()


class Growing:
    """Jobs that are proposed one by one; how many there are is in a file."""

    def __init__(self, folder: Path, count: int) -> None:
        self._jobs, self._path = make_jobs(folder, count), folder / "count"

    def known(self) -> list[Job]:
        return self._jobs[: int(self._path.read_text()) if self._path.exists() else 0]

    @property
    def is_complete(self) -> bool:
        return len(self.known()) == len(self._jobs)

    def another(self) -> Job | None:
        if self.is_complete:
            return None
        write_text(self._path, str(len(self.known()) + 1))
        return self.known()[-1]


def test_proposed_jobs_are_shared_out_too(tmp_path) -> None:
    """Four commands of a queue that grows; what one has proposed, another may take."""
    start = threading.Barrier(4)

    def command(number: int) -> list[str]:
        start.wait()
        mine = ledger(tmp_path, Growing(tmp_path, 30), f"another:{number}:00000000:{number}")
        taken = []
        while not mine.is_finished(frozenset(taken)):
            if (job := mine.take()) is None:
                mine.settle()
                time.sleep(0.01)
                continue
            taken.append(job.key)
            finish(job)
            mine.finish(record_of(job))
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [key for keys in pool.map(command, range(4)) for key in keys]
    assert sorted(taken) == [job.key for job in make_jobs(tmp_path, 30)]
    assert states(tmp_path) == {"COMPLETE": 30}


def test_a_proposed_job_that_was_not_enqueued_is(tmp_path) -> None:
    """A command killed between proposing and enqueueing: the job is in the file alone."""
    source = Growing(tmp_path, 2)
    first = source.another()
    mine = ledger(tmp_path, Growing(tmp_path, 2))
    mine.settle()
    assert mine.take() == first
    second = mine.take()
    assert second is not None
    assert second.key == "job001"
    assert mine.take() is None


def test_jobs_are_enqueued_once_and_what_is_finished_never(tmp_path) -> None:
    jobs = make_jobs(tmp_path, 3)
    finish(jobs[1])
    for _ in range(3):
        assert ledger(tmp_path, jobs).settle()
    waiting = open_study(tmp_path, "quick").get_trials(states=(TrialState.WAITING,))
    assert [trial.user_attrs["key"] for trial in waiting] == ["job000", "job002"]


def test_a_trial_json_wins_over_the_storage(tmp_path) -> None:
    jobs = make_jobs(tmp_path, 2)
    first = ledger(tmp_path, jobs)
    first.settle()
    job = first.take()
    finish(job)
    first.finish(record_of(job))
    # It was finished by somebody who could not say so.
    finish(jobs[1])
    assert first.take() is None
    assert states(tmp_path) == {"COMPLETE": 2}
    # The user wants a run again, and deletes its end.
    (jobs[0].folder / "trial.json").unlink()
    again = ledger(tmp_path, jobs)
    again.settle()
    assert again.take() == jobs[0]


def test_another_command_holding_the_folder_is_not_waited_for(tmp_path) -> None:
    mine = ledger(tmp_path, make_jobs(tmp_path, 1))
    with exclusive(tmp_path):
        assert not mine.settle()
    assert mine.settle()


# --- owners that die ------------------------------------------------------------------------------


def test_a_killed_commands_runs_are_taken_up_at_once_on_its_machine(tmp_path) -> None:
    jobs = make_jobs(tmp_path, 1)
    with ownership(tmp_path) as owner, ownership(tmp_path) as other:
        dead, mine = ledger(tmp_path, jobs, owner), ledger(tmp_path, jobs, other)
        dead.settle()
        assert dead.take() == jobs[0]
        mine.settle()
        assert is_alive(tmp_path, owner)
        assert mine.take() is None
        # What the kernel does to a killed process's lock; the file stays.
        dead_file = tmp_path / ".owners" / owner.rpartition(":")[2]
        dead_file.unlink()
        dead_file.touch()
        assert not is_alive(tmp_path, owner)
        mine.settle()
        assert mine.take() == jobs[0]
    assert states(tmp_path) == {"FAIL": 1, "RUNNING": 1}


def test_silence_is_the_end_of_an_owner_on_another_machine(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ledgers, "GRACE_SECONDS", 0.3)
    jobs = make_jobs(tmp_path, 1)
    far = ledger(tmp_path, jobs)
    far.settle()
    assert far.take() == jobs[0]
    with ownership(tmp_path) as owner:
        mine = ledger(tmp_path, jobs, owner)
        for _ in range(4):  # it beats: it stays
            mine.settle()
            assert mine.take() is None
            time.sleep(0.15)
            far.beat()
        mine.settle()
        time.sleep(0.4)
        mine.forget_silence()  # the storage was away: nobody could beat
        mine.settle()
        assert mine.take() is None
        time.sleep(0.4)
        mine.settle()
        assert mine.take() == jobs[0]
        # The other was only slow. What it tells is taken for what it is: too late, but no error.
        assert far.beat()
        assert far.finish(record_of(jobs[0]))
        assert mine.finish(record_of(jobs[0]))
    assert states(tmp_path) == {"FAIL": 1, "COMPLETE": 1}


def test_a_trial_without_an_owner_is_taken_up(tmp_path, monkeypatch) -> None:
    """Its command died between taking it and signing it, or was of an older version."""
    monkeypatch.setattr(ledgers, "GRACE_SECONDS", 0.1)
    jobs = make_jobs(tmp_path, 1)
    mine = ledger(tmp_path, jobs)
    mine.settle()
    open_study(tmp_path, "quick").ask()
    mine.settle()
    time.sleep(0.2)
    mine.settle()
    assert mine.take() == jobs[0]


def test_a_run_that_kills_its_worker_three_times_is_given_up(tmp_path) -> None:
    jobs = make_jobs(tmp_path, 1)
    with ownership(tmp_path) as owner:
        mine = ledger(tmp_path, jobs, owner)
        for _ in range(3):
            assert mine.settle()
            mine.give_back(mine.take().key, lost=True)
        with pytest.raises(EnvironmentFailure, match=r"3 times at job000.*--workers 1"):
            mine.settle()
        # The same command again, with fewer workers: it gets its chances again.
        again = ledger(tmp_path, jobs, owner)
        again.settle()
        assert again.take() == jobs[0]


@pytest.mark.slow
def test_a_killed_worker_costs_only_its_own_run(tmp_path) -> None:
    notices: list[str] = []
    records = run(tmp_path, make_jobs(tmp_path, 12), fragile, on_notice=notices.append)
    assert [record.score for record in records] == list(range(1, 13))
    # Noted by `fragile` twice and by `quick` once; all others by `quick`, once.
    assert Counter(ran(tmp_path)) == {f"job{n:03}": 3 if n == 1 else 1 for n in range(12)}
    assert notices == ["the worker of job001 was killed; another goes on with it"]
    (tmp_path / "b").mkdir()
    with pytest.raises(EnvironmentFailure, match="3 times at job001"):
        run(tmp_path, make_jobs(tmp_path, 1) + make_jobs(tmp_path / "b", 2)[1:], deadly)


@pytest.mark.slow
def test_a_stopped_command_gives_its_runs_back(tmp_path) -> None:
    jobs, asked = make_jobs(tmp_path, 4), threading.Event()
    with pytest.raises(Interrupted, match="Repeat the command"):
        run(tmp_path, jobs, quick, should_stop=lambda: asked.is_set() or asked.set() or True)
    assert set(states(tmp_path)) <= {"WAITING", "FAIL", "COMPLETE"}
    assert not list((tmp_path / ".owners").iterdir())
    assert len(run(tmp_path, jobs)) == 4


# --- outages --------------------------------------------------------------------------------------


def locked() -> None:
    raise OperationalError("SELECT", {}, sqlite3.OperationalError("database is locked"))


def test_an_outage_is_told_once_and_waited_for(tmp_path) -> None:
    notices: list[str] = []
    outage = Outage(storage_url(tmp_path, ""), notices.append)
    failures = 3

    def action() -> str:
        nonlocal failures
        if failures:
            failures -= 1
            locked()
        return "answer"

    assert outage.ask(action) is None
    assert outage.is_on
    assert notices == [], "one failure is a hiccup"
    assert outage.wait_for(action, lambda: False) == "answer"
    assert not outage.is_on
    assert [notice.split()[-1] for notice in notices] == ["waiting", "again"]


def test_an_outage_ends_in_an_error_after_a_while_or_when_asked_to_stop(tmp_path) -> None:
    outage = Outage(storage_url(tmp_path, ""), lambda text: None, patience_seconds=0.3)
    with pytest.raises(EnvironmentFailure, match=r"has not answered.*saved.*repeat the command"):
        outage.wait_for(locked, lambda: False)
    with pytest.raises(Interrupted):
        Outage(storage_url(tmp_path, ""), lambda text: None).wait_for(locked, lambda: True)


def test_a_locked_sqlite_file_is_an_outage_and_a_damaged_one_is_not(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(storages, "_SQLITE_TIMEOUT_SECONDS", 0.1)
    notices: list[str] = []
    outage = Outage(storage_url(tmp_path, ""), notices.append)
    mine = ledger(tmp_path, make_jobs(tmp_path, 1))
    holder = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(1.5, holder.rollback)
    release.start()
    assert outage.wait_for(mine.settle, lambda: False)
    release.join()
    assert [notice.split()[-1] for notice in notices] == ["waiting", "again"]
    holder.close()
    (tmp_path / "optuna.db").write_bytes(b"not a database" * 100)
    with pytest.raises(EnvironmentFailure, match=r"optuna\.db.*delete it"):
        run(tmp_path, make_jobs(tmp_path, 1))


# --- what a user gives ----------------------------------------------------------------------------

SECRET = "sesame-open-sesame"
STORAGES = {
    "no URL": (f"{SECRET} and more", UsageError, ["postgresql://"]),
    "memory": ("sqlite:///:memory:", UsageError, ["in memory"]),
    "no folder": ("sqlite:////nowhere/at/all.db", EnvironmentFailure, ["/nowhere/at"]),
    "unknown": (f"oracool://u:{SECRET}@h/d", UsageError, ["oracool"]),
    "nobody there": (
        f"postgresql://u:{SECRET}@127.0.0.1:9/d?password={SECRET}",
        EnvironmentFailure,
        ["u:***@127.0.0.1:9/d", "does not answer"],
    ),
}


@pytest.mark.parametrize("case", STORAGES)
def test_a_storage_that_cannot_be_used_is_refused_without_its_password(case) -> None:
    storage, error, words = STORAGES[case]
    with pytest.raises(error) as caught:
        check_storage(storage)
    assert SECRET not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_a_storage_is_shown_without_its_secrets() -> None:
    shown = shown_storage(f"postgresql://u:{SECRET}@h:1/d?password={SECRET}&sslmode=require")
    assert shown == "postgresql+psycopg://u:***@h:1/d"


def test_a_storage_that_can_be_used_is_not_touched(tmp_path) -> None:
    check_storage("")
    check_storage(f"sqlite:///{tmp_path}/new.db")
    (tmp_path / "other.db").write_text("something else altogether")
    with pytest.raises(EnvironmentFailure, match="not an SQLite file"):
        check_storage(f"sqlite:///{tmp_path}/other.db")
    assert [path.name for path in tmp_path.iterdir()] == ["other.db"]


def test_folders_with_braces_have_a_storage(tmp_path) -> None:
    """Optuna takes braces in a URL for a template."""
    folder = tmp_path / "{lr}"
    folder.mkdir()
    open_study(folder, "a").enqueue_trial({})
    assert len(open_study(folder, "a").get_trials()) == 1


def test_a_lock_is_believed_on_its_own_machine_only(tmp_path) -> None:
    assert is_alive(tmp_path, ELSEWHERE) is None
    with ownership(tmp_path) as owner:
        name = owner.rpartition(":")[2]
        with (tmp_path / ".owners" / name).open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert is_alive(tmp_path, owner) is False

"""Many commands on one study, on SQLite and on PostgreSQL; they are killed, it is stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import event

from mudit.errors import EnvironmentFailure
from mudit.tuning import SamplingConfig, StudyConfig, TaskConfig, transfer
from mudit.tuning.storage import Outage, close_study, open_study, storage_url
from quick_jobs import make_jobs, ran
from servers import PASSWORD, command, finish

pytestmark = pytest.mark.slow

QUICK = Path(__file__).parents[1] / "quick_jobs.py"

RUN = """
import sys
from pathlib import Path
from mudit.cli.progress import Terminal
from mudit.training import read_config
from mudit.tuning import StudyConfig, transfer
if __name__ == "__main__":
    with Terminal() as terminal:
        transfer(read_config(StudyConfig, Path(sys.argv[1])), listener=terminal)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request) -> str:
    """Of a study: in its folder, or a new database on a server."""
    if request.param == "sqlite":
        return ""
    return request.getfixturevalue("postgres").new_database()


def trials(folder: Path, storage: str, name: str) -> list[optuna.trial.FrozenTrial]:
    if storage:
        name = f"mudit-{(folder / 'queue_id').read_text().strip()}-{name}"
    opened = open_study(folder, name, storage)
    found = opened.get_trials()
    close_study(opened)
    return found


def states(folder: Path, storage: str, name: str = "quick") -> Counter[str]:
    return Counter(trial.state.name for trial in trials(folder, storage, name))


def test_eight_workers_do_200_trials_each_once(tmp_path, storage) -> None:
    """Four commands of two workers each, started at once on an empty storage."""
    argv = [QUICK, tmp_path, 200, 2, "quick", *([storage] if storage else [])]
    commands = [command(*argv) for _ in range(4)]
    for process in commands:
        assert finish(process) == ""
    keys = [job.key for job in make_jobs(tmp_path, 200)]
    assert sorted(ran(tmp_path)) == keys
    assert states(tmp_path, storage) == {"COMPLETE": 200}
    for number, key in enumerate(keys):
        assert json.loads((tmp_path / key / "trial.json").read_text())["score"] == number + 1


def test_a_killed_commands_jobs_are_done_by_the_others(tmp_path, storage) -> None:
    argv = [QUICK, tmp_path, 40, 2, "unhurried", *([storage] if storage else [])]
    killed, other = command(*argv), command(*argv)
    wait_for(lambda: (tmp_path / "ran.log").exists() and len(ran(tmp_path)) > 6, killed, other)
    killed.kill()
    killed.communicate()
    finish(other)
    # A job that was done is not done again; one that was under way may be.
    assert set(ran(tmp_path)) == {job.key for job in make_jobs(tmp_path, 40)}
    assert len(ran(tmp_path)) <= 40 + 2
    assert states(tmp_path, storage)["COMPLETE"] == 40


def wait_for(condition, *processes: subprocess.Popen[str], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_storage_away_for_a_while(tmp_path, postgres) -> None:
    """Stopped as by a crash for 12 seconds, in mid-run: the commands wait and go on."""
    argv = [QUICK, tmp_path, 60, 2, "unhurried", postgres.new_database()]
    commands = [command(*argv), command(*argv)]
    wait_for(lambda: (tmp_path / "ran.log").exists() and len(ran(tmp_path)) > 6, *commands)
    postgres.stop()
    try:
        time.sleep(12)
        during = len(ran(tmp_path))
    finally:
        postgres.start()
    told = [finish(process) for process in commands]
    assert during < 60
    assert sorted(ran(tmp_path)) == [job.key for job in make_jobs(tmp_path, 60)]
    for text in told:
        assert text.count("does not answer; waiting") == 1
        assert text.count("the storage answers again") == 1
        assert PASSWORD not in text


def test_a_connection_cut_within_a_read(tmp_path, postgres) -> None:
    """Optuna asks again at once, in the same transaction: that fails in a way of its own."""
    url = postgres.new_database()
    opened = open_study(tmp_path, "cut", url)
    opened.enqueue_trial({"lr": 1.0})
    backend: Any = opened._storage
    cuts = []

    @event.listens_for(backend._backend.engine, "before_cursor_execute")
    def cut(connection, cursor, statement, *rest) -> None:
        if "FROM trial_intermediate_values" in statement and not cuts:
            cuts.append(statement)
            postgres.cut()

    outage = Outage(storage_url(tmp_path, url), lambda text: None)
    assert outage.ask(opened.get_trials) is None
    assert cuts
    assert outage.is_on
    assert len(outage.wait_for(opened.get_trials, lambda: False)) == 1
    close_study(opened)


# --- real training --------------------------------------------------------------------------------


@pytest.fixture
def long_study(study, tmp_path, storage) -> StudyConfig:
    """Two trials that take long enough to be killed at."""
    (tmp_path / "run.py").write_text(RUN)
    return dataclasses.replace(
        study,
        storage=storage,
        workers=2,
        proxy=TaskConfig(width=16, batch_size=16, steps=400),
        search=dataclasses.replace(study.search, space={"lr": "log2(-8, -7)"}),
        training=dataclasses.replace(study.training, checkpoint_steps=20),
        sampling=SamplingConfig(per_class=1, steps=2),
    )


def start(study: StudyConfig, tmp_path: Path) -> subprocess.Popen[str]:
    name = tmp_path / f"{Path(study.folder).name}.json"
    name.write_text(json.dumps(dataclasses.asdict(study)))
    return command(tmp_path / "run.py", name)


def steps_saved(folder: Path) -> dict[str, int]:
    """The step of each trial's newest checkpoint."""
    found = sorted(folder.glob("mup_*/checkpoint-*"))
    return {path.parent.name: int(path.name.removeprefix("checkpoint-")) for path in found}


def owned_by(process: subprocess.Popen[str], folder: Path, storage: str) -> int:
    """How many trials a command is at."""
    return sum(
        trial.state.name == "RUNNING" and f":{process.pid}:" in trial.user_attrs.get("owner", "")
        for trial in trials(folder, storage, "search-mup")
    )


def test_killed_commands_and_workers_cost_nothing_but_steps(long_study, tmp_path) -> None:
    """A command is killed, then a worker of the other: the study ends as if nothing had been."""
    folder, storage = Path(long_study.folder), long_study.storage
    both = [start(long_study, tmp_path), start(long_study, tmp_path)]
    owners = folder / ".owners"
    wait_for(lambda: owners.is_dir() and len(list(owners.iterdir())) == 2, *both)
    wait_for(lambda: len(steps_saved(folder)) == 2, *both)
    first, second = sorted(both, key=lambda process: -owned_by(process, folder, storage))
    assert owned_by(second, folder, storage) < 2
    first.kill()
    killed = time.monotonic()
    first.communicate()
    before = steps_saved(folder)
    wait_for(lambda: owned_by(second, folder, storage) == 2, second)
    assert time.monotonic() - killed < 60
    wait_for(lambda: any(steps_saved(folder).get(k, 0) > before[k] + 20 for k in before), second)
    os.kill(int(workers(second.pid)[0]), signal.SIGKILL)
    assert "was killed; another goes on with it" in finish(second)
    straight = dataclasses.replace(long_study, folder=str(tmp_path / "straight"), storage="")
    transfer(straight)
    twins = 0
    for path in (tmp_path / "straight").rglob("*"):
        if path.name in ("records.jsonl", "model.safetensors", "ema.safetensors"):
            twin = folder / path.relative_to(tmp_path / "straight")
            assert twin.read_bytes() == path.read_bytes(), twin
            twins += 1
    assert twins == 9


def workers(pid: int) -> list[str]:
    """Workers of a command; not multiprocessing's own resource tracker."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [c for c in found if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def test_two_commands_make_one_study(study, tmp_path, storage) -> None:
    study = dataclasses.replace(study, storage=storage)
    (tmp_path / "run.py").write_text(RUN)
    commands = [start(study, tmp_path), start(study, tmp_path)]
    told = [finish(process) for process in commands]
    folder = Path(study.folder)
    assert (folder / "report.html").exists()
    assert states(folder, storage, "search-mup") == {"COMPLETE": 3}
    for key in [path.name for path in folder.glob("mup_*")]:
        assert sum(text.count(f"{key}  validation loss") for text in told) == 1, told
    # Both name the target's result; one has trained it.
    rows = (folder / "target_mup" / "records.jsonl").read_text().splitlines()
    assert sum('"kind":"step"' in row for row in rows) == study.target.steps


# --- refused --------------------------------------------------------------------------------------


def test_a_storage_that_does_not_answer_is_refused_before_anything_is_written(
    study, tmp_path, postgres
) -> None:
    url = postgres.new_database()
    for wrong in (
        url.replace(PASSWORD, "not-the-password"),
        url + "0",
        url.replace("127.0.0.1", "no-such-host.invalid"),
    ):
        with pytest.raises(EnvironmentFailure, match="does not answer") as caught:
            transfer(dataclasses.replace(study, storage=wrong))
        assert PASSWORD not in str(caught.value)
        assert "not-the-password" not in str(caught.value)
        assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_studies_share_a_database(study, tmp_path, postgres) -> None:
    """Two folders, one database: each has queues of its own."""
    url = postgres.new_database()
    results = [
        transfer(dataclasses.replace(study, storage=url, folder=str(tmp_path / name), seed=seed))
        for name, seed in (("a", 0), ("b", 1))
    ]
    assert results[0].main.best.score != results[1].main.best.score
    for name in ("a", "b"):
        assert states(tmp_path / name, url, "search-mup") == {"COMPLETE": 3}
        assert PASSWORD not in (tmp_path / name / "config.json").read_text()
        assert PASSWORD not in (tmp_path / name / "report.html").read_text()


def test_the_reports_command_has_no_password(tmp_path, monkeypatch, capsys, postgres) -> None:
    from mudit.cli import main

    monkeypatch.chdir(tmp_path)
    options = [
        "--workers=1", "--threads=1", "--model.depth=1", "--model.head_dim=8",
        "--parametrization.base_width=16", "--proxy.width=16", "--proxy.batch_size=16",
        "--proxy.steps=2", "--target.width=32", "--target.batch_size=16", "--target.steps=2",
        "--training.bank_size=16", "--sampling.per_class=1", "--sampling.steps=2",
        "--search.space.lr=grid(0.005)", "--folder=s", f"--storage={postgres.new_database()}",
    ]  # fmt: skip
    assert main(["transfer", *options]) == 0
    assert main(["transfer", "--dry-run", *options]) == 0
    captured = capsys.readouterr()
    assert PASSWORD not in captured.out + captured.err
    page = Path("s/report.html").read_text()
    assert PASSWORD not in page
    assert "tester:***@127.0.0.1" in page


def test_sqlite_at_another_place(study, tmp_path) -> None:
    path = tmp_path / "shared.db"
    transfer(dataclasses.replace(study, storage=f"sqlite:///{path}"))
    assert not (Path(study.folder) / "optuna.db").exists()
    with sqlite3.connect(path) as connection:
        (count,) = connection.execute("SELECT count(*) FROM trials").fetchone()
    connection.close()
    assert count == 3

"""Trials as tasks on a real Ray cluster of two CPUs on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from quick_jobs import ran
from servers import command, environment, finish, free_port

pytestmark = [
    pytest.mark.slow,
    # Ray's own processes and files are closed when it is shut down, not before.
    pytest.mark.filterwarnings("ignore"),
]

SMALL = [
    "--workers=2", "--threads=1", "--model.depth=1", "--model.head_dim=8",
    "--parametrization.base_width=16", "--proxy.width=16", "--proxy.batch_size=16",
    "--proxy.steps=6", "--target.width=32", "--target.batch_size=16", "--target.steps=6",
    "--training.bank_size=16", "--sampling.per_class=1", "--sampling.steps=2",
    "--search.space.lr=log2(-8, -7)",
]  # fmt: skip
MUDIT = ["-c", "import sys; from mudit.cli import main; sys.exit(main())"]

ON_RAY = """
import sys
from pathlib import Path
import quick_jobs
from mudit.tuning.cluster import Cluster, RayConfig
from mudit.tuning.pool import stop_on_interrupt
from mudit.tuning.queue import open_cluster
folder, how, address = sys.argv[1:]
cluster = Cluster(launcher="ray", ray=RayConfig(address=address))
with open_cluster(cluster), stop_on_interrupt() as should_stop:
    quick_jobs.run(
        Path(folder), quick_jobs.make_jobs(Path(folder), 6), getattr(quick_jobs, how),
        cluster=cluster, should_stop=should_stop,
        on_notice=lambda text: print(text, file=sys.stderr),
    )
"""


def test_a_study_on_ray_is_the_study_in_processes(tmp_path, ray_address) -> None:
    on_ray = command(
        *MUDIT, "transfer", *SMALL, f"--folder={tmp_path / 'ray'}", "--launcher=ray",
        f"--ray.address={ray_address}",
    )  # fmt: skip
    finish(on_ray)
    here = command(*MUDIT, "transfer", *SMALL, f"--folder={tmp_path / 'here'}")
    finish(here)
    assert (tmp_path / "ray" / "report.html").exists()
    for path in (tmp_path / "here").rglob("*"):
        if path.name in ("records.jsonl", "model.safetensors", "ema.safetensors"):
            twin = tmp_path / "ray" / path.relative_to(tmp_path / "here")
            assert twin.read_bytes() == path.read_bytes(), twin


def test_a_killed_ray_worker_costs_only_its_run(tmp_path, ray_address) -> None:
    told = finish(command("-c", ON_RAY, tmp_path, "fragile", ray_address))
    assert "the worker of job001 was killed; another goes on with it" in told
    assert Counter(ran(tmp_path)) == {f"job{n:03}": 3 if n == 1 else 1 for n in range(6)}


def test_a_run_that_kills_three_ray_workers_is_given_up(tmp_path, ray_address) -> None:
    told = finish(command("-c", ON_RAY, tmp_path, "deadly", ray_address), code=1)
    assert "3 times at job001" in told


def test_ctrl_c_saves_what_runs_on_ray(tmp_path, ray_address) -> None:
    long = [option for option in SMALL if not option.startswith("--proxy.steps")]
    argv = [
        *MUDIT, "transfer", *long, "--proxy.steps=4000", f"--folder={tmp_path / 'ray'}",
        "--launcher=ray", f"--ray.address={ray_address}", "--training.checkpoint_steps=20",
    ]  # fmt: skip
    process = command(*argv)
    for _ in range(1200):
        if list((tmp_path / "ray").glob("mup_*/checkpoint-*")):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    told = finish(process, code=130)
    assert "Repeat the command" in told
    assert list((tmp_path / "ray").glob("mup_*/checkpoint-*"))
    assert not list((tmp_path / "ray").glob("mup_*/trial.json"))


def refused(tmp_path: Path, *options: str) -> str:
    process = command(
        *MUDIT, "transfer", *SMALL, f"--folder={tmp_path / 'study'}", "--launcher=ray", *options
    )
    told = finish(process, code=3)
    assert len(told.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    return told


def test_a_cluster_without_the_resources_is_refused(tmp_path, ray_address) -> None:
    told = refused(tmp_path, f"--ray.address={ray_address}", "--ray.gpus_per_trial=8")
    assert "8 GPUs" in told
    assert "2 CPUs and" in told


def test_no_cluster_at_the_address(tmp_path) -> None:
    port = free_port()
    assert f"no Ray cluster at 127.0.0.1:{port}" in refused(
        tmp_path, f"--ray.address=127.0.0.1:{port}"
    )


def test_a_missing_extra_is_named(tmp_path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no ray')")
    (tmp_path / "psycopg.py").write_text("raise ImportError('no psycopg')")
    env = environment() | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"}
    code = """
from mudit.errors import EnvironmentFailure
from mudit.tuning.cluster import Cluster
from mudit.tuning.queue import open_cluster
for cluster in (Cluster(launcher="ray"), Cluster(storage="postgresql://h/d")):
    try:
        with open_cluster(cluster):
            pass
    except EnvironmentFailure as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.count("pip install 'mudit[cluster]'") == 2, done.stdout + done.stderr

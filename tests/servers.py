"""Commands as processes, and a real PostgreSQL on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

PASSWORD = "sesame"
TESTS = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def environment() -> dict[str, str]:
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "OMP_NUM_THREADS": "1",
    }


started: list[subprocess.Popen[str]] = []


def command(*argv: object) -> subprocess.Popen[str]:
    """A Python process with the tests' modules and its output in pipes."""
    process = subprocess.Popen(
        [sys.executable, *map(str, argv)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    return process


def end_commands() -> None:
    """Kill what a test that failed has left."""
    while started:
        process = started.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def finish(process: subprocess.Popen[str], code: int = 0, *, seconds: float = 240) -> str:
    """What a command says on its error stream, once it has ended as it should."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == code, out + err
    return err


class Postgres:
    """A PostgreSQL of its own, in a temporary folder, that can be stopped and started.

    It refuses to run as root; then the user `postgres` of Debian's package runs it.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="mudit-postgres-"))
        self.databases = 0
        password = self._folder / "password"
        password.write_text(PASSWORD + "\n")
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres")
            shutil.chown(password, "postgres")
        self._run(
            "initdb", "--username=tester", "--auth=scram-sha-256", f"--pwfile={password}", "-D",
            self._folder / "data", "--no-sync",
        )  # fmt: skip

    def _run(self, program: str, *argv: object) -> None:
        words = [str(self._programs / program), *map(str, argv)]
        if os.geteuid() == 0:
            words = ["runuser", "-u", "postgres", "--", *words]
        done = subprocess.run(
            words, cwd=self._folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _control(self, *argv: object) -> None:
        self._run("pg_ctl", "-w", "-D", self._folder / "data", "-l", self._folder / "log", *argv)

    def start(self) -> None:
        options = f"-p {self._port} -h 127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._control("-o", options, "start")

    def stop(self) -> None:
        """As a crash: connections are cut."""
        self._control("-m", "immediate", "stop")

    def new_database(self) -> str:
        """The URL of an empty database."""
        self.databases += 1
        name = f"test{self.databases}"
        self._administer(f"CREATE DATABASE {name}")
        return f"postgresql://tester:{PASSWORD}@127.0.0.1:{self._port}/{name}"

    def cut(self) -> None:
        """Cut all connections to the newest database."""
        self._administer(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE datname = 'test{self.databases}'"
        )

    def _administer(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self._port, user="tester", password=PASSWORD, dbname="postgres",
            autocommit=True,
        ) as connection:  # fmt: skip
            connection.execute(statement)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def postgres_programs() -> Path | None:
    """Where Debian's package, or the path, has `initdb`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and (path := shutil.which("initdb")):
        found = [Path(path).resolve()]
    return found[-1].parent if found else None

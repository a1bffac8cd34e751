"""A real PostgreSQL and a real Ray, started for these tests on loopback."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest

from servers import Postgres, end_commands, environment, postgres_programs


@pytest.fixture(autouse=True)
def _no_command_is_left() -> Iterator[None]:
    yield
    end_commands()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    pytest.importorskip("psycopg")
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = Postgres(programs)
    server.start()
    yield server
    server.stop()
    server.remove()


CLUSTER = """
import os, sys, ray
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
         logging_level="ERROR", object_store_memory=100 * 2**20)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory) -> Iterator[str]:
    """A Ray cluster of two CPUs on this machine; gone when its standard input ends."""
    pytest.importorskip("ray")
    # Newer Rays let nobody in without a token, and would put one into the home folder.
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32))
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    address = process.stdout.readline().strip()
    assert address, "Ray did not start"
    yield address
    process.communicate("", timeout=60)
    del os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN_PATH"]

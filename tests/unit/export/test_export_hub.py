"""Upload to a hub: a small HTTP server of our own, and one that is not there."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from exports import run_config
from mudit.cli import main
from mudit.errors import EnvironmentFailure, UsageError
from mudit.export import export_run, push_folder


class Hub(ThreadingHTTPServer):
    """What the hub's API answers to an upload; it keeps what it was sent."""

    def __init__(self, refuses: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.refuses = refuses
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.files: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuses:
            return self._answer({"error": "no"}, self.server.refuses)
        if self.path.endswith("/repos/create"):
            self.server.created.append(json.loads(body))
            return self._answer({"url": f"{self.server.address}/ann/pets"})
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in asked
            ]
            return self._answer({"files": files})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content
            where = f"{self.server.address}/ann/pets/commit/1"
            return self._answer({"commitUrl": where, "commitOid": "1", "success": True})
        return self._answer({})  # validate-yaml

    def do_GET(self) -> None:
        known = {"id": "ann/pets", "sha": "1", "siblings": []}
        self._answer(known, self.server.refuses or 200)

    def _answer(self, values: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server
        server.shutdown()


def test_an_export_arrives_as_it_is(make_run, tmp_path: Path, hub: Hub, capsys) -> None:
    run, out = make_run(run_config("dit")), tmp_path / "out"
    argv = ["export", str(run), "--out", str(out), "--push-to-hub", "ann/pets"]
    assert main(argv) == 0, capsys.readouterr().err
    assert hub.created[0]["name"] == "pets"
    assert hub.created[0]["organization"] == "ann"
    assert hub.created[0].get("private", hub.created[0].get("visibility") == "private")
    assert hub.files == {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }
    printed = capsys.readouterr()
    assert "/ann/pets" in printed.out
    assert hub.tokens == {"Bearer hf_verysecret"}
    assert "verysecret" not in printed.out + printed.err
    assert not any(b"verysecret" in content for content in hub.files.values())
    assert 'snapshot_download("ann/pets")' in (out / "README.md").read_text()


def test_a_public_repository_is_asked_for(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "README.md").write_text("# Pets\n")
    push_folder(tmp_path, "ann/pets", public=True)
    assert not hub.created[0].get("private", hub.created[0].get("visibility") == "private")


def test_a_refusal_leaves_the_folder_whole(make_run, tmp_path: Path, hub: Hub) -> None:
    hub.refuses, out = 401, tmp_path / "out"
    with pytest.raises(EnvironmentFailure, match=r"is complete, but could not be pushed.*401"):
        export_run(make_run(run_config("dit")), out, push_to="ann/pets")
    assert (out / "model_index.json").exists()


def test_a_hub_that_is_not_there_leaves_the_folder_whole(make_run, tmp_path: Path, capsys) -> None:
    run, out = make_run(run_config("dit")), tmp_path / "out"
    assert main(["export", str(run), "--out", str(out), "--push_to_hub", "ann/pets"]) == 3
    said = capsys.readouterr().err
    assert f"{out} is complete, but could not be pushed to ann/pets" in said
    assert f"hf upload ann/pets {out}" in said
    assert "verysecret" not in said
    assert (out / "model_index.json").exists()


@pytest.mark.parametrize("name", ["pets", "ann/pets/more", "ann/--", "an n/pets"])
def test_a_name_that_is_none_is_refused_first(name: str, make_run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected USER/NAME"):
        export_run(make_run(run_config("dit")), tmp_path / "out", push_to=name)
    assert not (tmp_path / "out").exists()


def test_the_name_is_checked_by_a_process_that_has_imported_nothing(tmp_path: Path) -> None:
    argv = ["export", "run", "--out", str(tmp_path / "out"), "--push_to_hub", "ann/pets/more"]
    code = f"import sys; from mudit.cli import main; sys.exit(main({argv!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "expected USER/NAME" in done.stderr

"""Files that are whole or absent: written aside, flushed, renamed. A full disk is said so."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mudit.errors import EnvironmentFailure, FolderBusyError, Interrupted


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failed write into an error that says where, and that nothing is lost.

    Raises:
        EnvironmentFailure: The disk is full or the place cannot be written.
    """
    try:
        yield
    except EnvironmentFailure:
        raise
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error in its own
        number = getattr(error, "errno", None)
        full = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        what = "no space is left on the device" if full else str(error)
        raise EnvironmentFailure(
            f"could not write {path}: {what}. What was saved before is whole; make room or choose "
            "another folder, and repeat the command to go on from there."
        ) from error


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a path aside, flush it to disk and rename it to `path`.

    Raises:
        EnvironmentFailure: It could not be written; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        try:
            write(temporary)
            _sync(temporary)
            temporary.replace(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if temporary.is_file():
                temporary.unlink()
            raise


def write_text(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all."""

    def write(aside: Path) -> None:
        aside.write_text(text, encoding="utf-8")

    write_whole(path, write)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    For safetensors that others may read: its own `save_file` lets their owner alone.
    """

    def write(aside: Path) -> None:
        aside.write_bytes(content)

    write_whole(path, write)


@contextmanager
def exclusive(
    folder: Path,
    *,
    wait_seconds: float = 0.0,
    should_stop: Callable[[], bool] | None = None,
    option: str = "--folder",
) -> Iterator[None]:
    """Hold a folder; the lock goes with the process, however that ends.

    Args:
        folder: Made if absent.
        wait_seconds: How long to wait for a process that holds it; may be infinite.
        should_stop: Asked while it waits.
        option: Of the command line, that names the folder.

    Raises:
        FolderBusyError: Another process holds it.
        Interrupted: `should_stop` said so.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    deadline, pause = time.monotonic() + wait_seconds, 0.05
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise FolderBusyError(
                        f"another process is at work in {folder}. Wait for it or stop it, or "
                        f"choose another folder with {option}."
                    ) from None
                if should_stop is not None and should_stop():
                    raise Interrupted(
                        f"stopped while another process was at work in {folder}. Repeat the "
                        "command to go on."
                    ) from None
                time.sleep(pause)
                pause = min(2 * pause, 1.0)
        yield


def _sync(path: Path) -> None:
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

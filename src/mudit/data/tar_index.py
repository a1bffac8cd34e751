"""What was found in a tar file, kept in the cache folder: whole, or made again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from mudit.data.captioned import Malformed, Row

_VERSION = 2  # of the index


def cache_folder() -> Path:
    """What is fetched or worked out once: MUDIT_CACHE, else ~/.cache/mudit."""
    return Path(os.environ.get("MUDIT_CACHE") or Path.home() / ".cache" / "mudit")


def index_path(path: Path, split_name: Callable[[str], tuple[str, str]]) -> Path:
    """A changed tar file has another index: its size or time differs."""
    facts = path.stat()
    key = f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns} {split_name.__name__} {_VERSION}"
    name = hashlib.sha256(os.fsencode(key)).hexdigest()[:32]
    return cache_folder() / "indices" / f"{name}.jsonl"


def keeping(kept: Path, rows: Iterator[Row | Malformed]) -> Iterator[Row | Malformed]:
    """`rows`, written aside on the way; a cache that cannot be written is done without."""
    aside = kept.with_name(f".{kept.name}.{os.getpid()}")
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        lines: IO[bytes] | None = None
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            stack.callback(_gone, aside)
            lines = aside.open("wb")
            stack.callback(_closed, lines)
        for row in rows:
            if lines is not None:
                line = json.dumps(row[1:5] if isinstance(row, Row) else row).encode() + b"\n"
                digest.update(line)
                try:
                    lines.write(line)
                except OSError:
                    lines = None
            yield row
        if lines is not None:
            with contextlib.suppress(OSError):
                lines.write(_end(digest))
                lines.flush()
                os.fsync(lines.fileno())
                aside.replace(kept)


def _gone(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _closed(file: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a full disk's, once more
        file.close()


def _end(digest: hashlib._Hash) -> bytes:
    """An index's last line: what is before it is whole."""
    return f"{digest.hexdigest()}\n".encode()


def is_whole(kept: Path) -> bool:
    """Whether there is an index of which nothing is lost or changed; else the tar is read again."""
    digest, last = hashlib.sha256(), b""
    with contextlib.suppress(OSError), kept.open("rb") as lines:
        for line in lines:
            digest.update(last)
            last = line
    return last == _end(digest)


def kept_rows(kept: Path, file: str) -> Iterator[Row | Malformed]:
    """The rows of a whole index; `file` is the tar file, as rows name it."""
    with kept.open("rb") as lines:
        for line in lines:
            if line.startswith(b"["):  # not the last
                facts = json.loads(line)
                yield Row(file, *facts) if len(facts) == 4 else Malformed(*facts)

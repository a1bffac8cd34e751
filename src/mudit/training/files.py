"""A run's record files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from mudit.files import disk_errors
from mudit.records import Record, to_line


class RecordFile:
    """A JSONL file that grows, and can be cut back to where a checkpoint was taken.

    Args:
        path: The file; made if absent.
        size: Bytes to keep of it; what lies beyond was written after the last checkpoint.
    """

    def __init__(self, path: Path, *, size: int = 0) -> None:
        self.path = path
        with disk_errors(path):
            self._file: IO[bytes] = path.open("ab")
            self._file.truncate(size)
            self._file.seek(size)

    def write(self, records: list[Record]) -> None:
        """Append rows."""
        with disk_errors(self.path):
            self._file.write("".join(map(to_line, records)).encode())
            self._file.flush()

    def sync(self) -> int:
        """Flush to disk; returns the size in bytes."""
        with disk_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

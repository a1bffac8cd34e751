"""Samples on disk: batches while a job runs, one `.npz` at its end. Never all in memory.

The `.npz` is what the evaluator of [ADM] reads, and byte for byte what `np.savez` would write.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mudit.errors import DataError
from mudit.training import write_whole

_PART = re.compile(r"part-(\d+)-(\d+)\.npy")


class Parts:
    """The batches of an unfinished job, a file each: whole or absent.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def count(self) -> int:
        """How many samples are there, from the first on without a gap."""
        return max((stop for _, stop, _ in self._found()), default=0)

    def add(self, start: int, images: NDArray[np.uint8]) -> None:
        """Keep the images of samples `start` and on.

        Raises:
            EnvironmentFailure: They could not be written.
        """

        def write(aside: Path) -> None:
            with aside.open("wb") as file:
                np.save(file, images)

        name = f"part-{start:08}-{start + len(images):08}.npy"
        self.folder.mkdir(exist_ok=True)
        write_whole(self.folder / name, write)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """The batches in order.

        Raises:
            DataError: One is damaged.
        """
        for start, stop, path in self._found():
            try:
                images = np.load(path)
                if len(images) != stop - start:
                    raise ValueError(f"it holds {len(images)} images")
            except (OSError, ValueError, EOFError) as error:
                raise DataError(
                    f"{path} is damaged ({error}). Delete it and repeat the command: what is "
                    "missing is drawn again."
                ) from None
            yield images

    def drop(self) -> None:
        """Delete them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _found(self) -> list[tuple[int, int, Path]]:
        """Those that follow each other from sample 0 on."""
        named = ((_PART.fullmatch(path.name), path) for path in self.folder.glob("part-*.npy"))
        rows = sorted((int(m[1]), int(m[2]), path) for m, path in named if m)
        found, expected = [], 0
        for start, stop, path in rows:
            if start == expected:
                found.append((start, stop, path))
                expected = stop
        return found


class Stored(NamedTuple):
    """What an `.npz` holds.

    Attributes:
        images: uint8 of shape (N, H, W, 3), read from the disk where they are looked at.
        labels: Classes, or numbers of prompts, shape (N,).
        config: What made them, as JSON.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    config: str


def write_npz(path: Path, parts: Parts, labels: NDArray[np.int64], config: str) -> None:
    """Put the parts into one `.npz`: `arr_0` uint8 (N, H, W, 3), `labels` and `config`.

    Raises:
        DataError: A part is damaged.
        EnvironmentFailure: It could not be written; `path` is as it was.
    """
    write_whole(path, partial(_write_npz, parts, labels, config))


def _write_npz(parts: Parts, labels: NDArray[np.int64], config: str, path: Path) -> None:
    first = next(iter(parts))
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (len(labels), *first.shape[1:]),
    }
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for images in parts:
                file.write(images.tobytes())
        for name, array in (("labels", labels), ("config", np.array(config))):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def open_npz(path: Path) -> Stored:
    """The samples of an `.npz` of `write_npz`; the images stay on the disk.

    Raises:
        DataError: It is damaged, or somebody else's.
    """
    try:
        with np.load(path) as arrays:
            labels, config = arrays["labels"], str(arrays["config"])
        return Stored(_mapped(path, "arr_0.npy"), labels, config)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is there already and was not written by `mudit sample`, or is damaged "
            f"({error}). Choose another name with --out, or delete it."
        ) from None


def _mapped(path: Path, member: str) -> NDArray[np.uint8]:
    """An uncompressed member of an archive as a memory map: np.load would read all of it."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member} is compressed")
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        inside = file.tell()
    with path.open("rb") as raw:
        raw.seek(info.header_offset + 26)  # of a local header, 30 bytes: two lengths, names follow
        lengths = np.frombuffer(raw.read(4), dtype="<u2")
    offset = info.header_offset + 30 + int(lengths.sum()) + inside
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)

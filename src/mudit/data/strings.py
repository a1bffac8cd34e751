"""Many strings in little memory."""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mudit.errors import DataError
from mudit.files import write_bytes

_BLOCK = 1 << 14  # strings that are read at once on the way through
_KEY = "mudit"


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON can spell, and Python hold, half a pair of surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Strings(Sequence[str]):
    """A sequence of strings that grows, held as UTF-8 in one block: 8 bytes and the text for each.

    A tuple of ten million captions would take about a gigabyte more.

    Args:
        values: The strings.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._text, self._ends = bytearray(), array("q", [0])
        for value in values:
            self.append(value)

    def append(self, value: str) -> None:
        """One more."""
        self._text += value.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Strings: ...
    def __getitem__(self, index: int | slice) -> str | Strings:
        if isinstance(index, slice):
            return Strings(self[place] for place in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        part = self._text[self._ends[index] : self._ends[index + 1]]
        return part.decode("utf-8", "surrogateescape")

    def save(self, path: Path) -> None:
        """Write them to a file that `MappedStrings` reads."""
        tensors: dict[str, npt.NDArray[Any]] = {
            "text": np.frombuffer(bytes(self._text), dtype=np.uint8),
            "ends": np.array(self._ends, dtype=np.int64),
        }
        write_bytes(path, save(tensors, metadata={_KEY: texts_digest(self)}))


class RangedTexts(Sequence[str]):
    """Texts that are had a range at a time."""

    @abstractmethod
    def _range(self, start: int, stop: int) -> list[str]: ...

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            places = range(*index.indices(len(self)))
            if places.step == 1:
                return self._range(places.start, places.stop)
            return [self[place] for place in places]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self._range(index, index + 1)[0]


class MappedStrings(RangedTexts):
    """Strings in a file, memory-mapped: none is held in memory.

    Args:
        path: What `Strings.save` wrote.

    Attributes:
        digest: `texts_digest` of them.

    Raises:
        DataError: It is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Without __exit__: it is mapped for as long as it is used, and holds no open file.
            self._file: Any = safe_open(path, framework="np").__enter__()  # type: ignore[no-untyped-call]
            self.digest: str = self._file.metadata()[_KEY]
            self._text, self._ends = self._file.get_slice("text"), self._file.get_slice("ends")
            self._count: int = self._ends.get_shape()[0] - 1
        except (OSError, SafetensorError, TypeError, KeyError) as error:
            raise DataError(
                f"the texts in {path} cannot be read ({error}); expected what `mudit data` wrote. "
                "Delete the file and repeat the command that made it."
            ) from error

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            yield from self._range(start, min(len(self), start + _BLOCK))

    def _range(self, start: int, stop: int) -> list[str]:
        if stop <= start:
            return []
        ends = self._ends[start : stop + 1].tolist()
        first = ends[0]
        if ends[-1] == first:  # an empty slice of the text has no bytes to be sliced
            return [""] * (stop - start)
        text = self._text[first : ends[-1]].tobytes()
        return [
            text[a - first : b - first].decode("utf-8", "surrogateescape")
            for a, b in itertools.pairwise(ends)
        ]


def texts_digest(texts: Iterable[str]) -> str:
    """SHA-256 of texts in their order, hex."""
    if isinstance(texts, MappedStrings):
        return texts.digest
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(text).encode())
    return digest.hexdigest()

"""Many strings in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload


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

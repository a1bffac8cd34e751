"""Numbers among which some are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mudit.data.strings import RangedTexts

Numbers = npt.NDArray[np.int64]


class Gaps:
    """From the numbers of all things to those of what is left of them, and back.

    Args:
        gone: The numbers that are left out, in order; few of many.
    """

    def __init__(self, gone: Numbers | None = None) -> None:
        self.gone: Numbers = np.zeros(0, dtype=np.int64) if gone is None else gone
        # What was behind k of them has moved by k places.
        self._moved = self.gone - np.arange(len(self.gone))

    def closed(self, numbers: Numbers) -> Numbers:
        """Among what is left; of numbers that are."""
        return numbers - np.searchsorted(self.gone, numbers) if len(self.gone) else numbers

    def opened(self, numbers: Numbers) -> Numbers:
        """Among all; the inverse of `closed`."""
        if not len(self.gone):
            return numbers
        return numbers + np.searchsorted(self._moved, numbers, side="right")

    def left(self, values: Numbers) -> Numbers:
        """Of one value for each of all, those for what is left."""
        return np.delete(values, self.gone) if len(self.gone) else values


class TextsLeft(RangedTexts):
    """Texts of which some are left out.

    Args:
        texts: All.
        gaps: Which are.
    """

    def __init__(self, texts: Sequence[str], gaps: Gaps) -> None:
        self._texts, self._gaps = texts, gaps

    def __len__(self) -> int:
        return len(self._texts) - len(self._gaps.gone)

    def _range(self, start: int, stop: int) -> list[str]:
        places = self._gaps.opened(np.arange(start, stop, dtype=np.int64))
        return [self._texts[place] for place in places.tolist()]

    def __iter__(self) -> Iterator[str]:
        gone = set(self._gaps.gone.tolist())
        return (text for number, text in enumerate(self._texts) if number not in gone)

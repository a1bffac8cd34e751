"""CSV of which nothing is lost: a quote that never closes costs its own line, not the rest."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator


def csv_rows(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, str] | str]]:
    """The columns' names, then the rows, each with the number of the line where it begins.

    A line that is no CSV is one row, and reading goes on with the next line, although the quote
    that it leaves open may have run on over many. The first row has the names as keys.

    Args:
        lines: Of the file, with their ends as they are.

    Yields:
        What a row has in each column, empty where it ends before; or what is wrong with it.
    """
    columns: list[str] | None = None
    for number, record in _records(lines):
        if isinstance(record, str):
            yield number, record
        elif columns is None:
            columns = record
            yield number, dict.fromkeys(columns, "")
        elif len(record) > len(columns):
            yield (
                number,
                f"more fields ({len(record)}) than columns ({len(columns)}); quote texts that "
                "hold commas",
            )
        elif record:  # not a blank line
            yield number, dict.fromkeys(columns, "") | dict(zip(columns, record))


def _records(lines: Iterable[str]) -> Iterator[tuple[int, list[str] | str]]:
    coming, again, taken = iter(lines), deque[str](), list[str]()

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(coming, None)) is not None:
            taken.append(line)
            yield line

    number = 1
    while True:
        try:
            for record in csv.reader(feed(), strict=True):
                yield number, record
                number += len(taken)
                taken.clear()
            return
        except csv.Error as error:
            yield number, f"no CSV ({error}); close each quote, and double those within a text"
            number += 1
            again.extendleft(reversed(taken[1:]))
            taken.clear()

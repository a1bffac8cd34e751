"""The structure of a model, read off its parameters' names: repeated modules become one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from mudit.report.contents import PlanRowFacts

_RANGES = re.compile(r"\d+(–\d+)?(,\d+(–\d+)?)*")


class CollapsedRow(NamedTuple):
    """A plan row that stands for itself and its copies in repeated modules.

    Attributes:
        path: The name's components; those of repeated modules are ranges such as `0–5`.
        copies: How many rows it stands for.
        first: The first of them; all others differ in name and initial RMS at most.
        init_rms: Lowest and highest initial RMS among them; None where it is unknown.
    """

    path: tuple[str, ...]
    copies: int
    first: PlanRowFacts
    init_rms: tuple[float, float] | None

    @property
    def name(self) -> str:
        """`blocks.0–5.attn.qkv.weight`."""
        return ".".join(self.path)


def collapse(rows: Iterable[PlanRowFacts]) -> tuple[CollapsedRow, ...]:
    """Rows of modules that are numbered and otherwise alike, as one row each; order is kept."""
    entries = [
        CollapsedRow(tuple(row.name.split(".")), 1, row, _range(row.init_rms)) for row in rows
    ]
    return tuple(_collapse(entries, 0))


def without_common_prefix(rows: Sequence[CollapsedRow]) -> tuple[CollapsedRow, ...]:
    """Leading components that all names share, removed: they say nothing."""
    depth = 0
    while rows and all(len(row.path) > depth + 1 for row in rows):
        if len({row.path[depth] for row in rows}) > 1 or copies_of(rows[0].path[depth]):
            break
        depth += 1
    return tuple(row._replace(path=row.path[depth:]) for row in rows)


def _collapse(entries: list[CollapsedRow], depth: int) -> list[CollapsedRow]:
    """`entries` share their first `depth` components."""
    children: dict[str, list[CollapsedRow]] = {}
    for entry in entries:
        children.setdefault(entry.path[depth], []).append(entry)
    collapsed = {
        name: [row for row in rows if len(row.path) == depth + 1]
        + _collapse([row for row in rows if len(row.path) > depth + 1], depth + 1)
        for name, rows in children.items()
    }
    alike: dict[Hashable, list[str]] = {}
    for name, rows in collapsed.items():
        alike.setdefault(_signature(name, rows, depth), []).append(name)
    return [row for names in alike.values() for row in _merge(names, collapsed, depth)]


def _signature(name: str, rows: list[CollapsedRow], depth: int) -> Hashable:
    if not name.isdecimal():
        return name
    return tuple(
        (row.path[depth + 1 :], row.copies, dataclasses.replace(row.first, name="", init_rms=None))
        for row in rows
    )


def _merge(
    names: list[str], collapsed: dict[str, list[CollapsedRow]], depth: int
) -> list[CollapsedRow]:
    if len(names) == 1:
        return collapsed[names[0]]
    label = ranges([int(name) for name in names])
    return [
        CollapsedRow(
            (*copies[0].path[:depth], label, *copies[0].path[depth + 1 :]),
            sum(copy.copies for copy in copies),
            copies[0].first,
            _hull([copy.init_rms for copy in copies]),
        )
        for copies in zip(*(collapsed[name] for name in names), strict=True)
    ]


def copies_of(component: str) -> int:
    """How many modules a component of a path stands for: 4 for `0–3`, 1 for `3`, 0 for a name."""
    if not _RANGES.fullmatch(component):
        return 0
    spans = [part.split("–") for part in component.split(",")]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)


def ranges(numbers: Sequence[int]) -> str:
    """`0–3,5` for 0, 1, 2, 3, 5."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ",".join(str(low) if low == high else f"{low}–{high}" for low, high in runs)


def _range(value: float | None) -> tuple[float, float] | None:
    return None if value is None else (value, value)


def _hull(spans: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    known = [span for span in spans if span is not None]
    if len(known) < len(spans):
        return None
    return min(low for low, _ in known), max(high for _, high in known)

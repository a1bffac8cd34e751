"""A bar for work that counts up to a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def counting(what: str, of: str) -> Iterator[tuple[Console, Callable[[int, int], None]]]:
    """A bar on a terminal, nothing elsewhere.

    Args:
        what: Is done, e.g. `encoding`.
        of: What is counted, e.g. `images`.

    Yields:
        The console, and what to tell (done, in all).
    """
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn(of))
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(what, total=None)
        yield (
            console,
            lambda done, total: progress.update(task, completed=done, total=total),
        )

"""How long work looks on a terminal."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mudit.records import TrialRecord


class _Bars:
    """Bars on a terminal, nothing elsewhere.

    Warnings within, of captions that are cut off, say, are lines above the bars.
    """

    def __init__(self, console: Console | None, *columns: ProgressColumn) -> None:
        self.console = console or Console(stderr=True)
        self._tasks: dict[str, TaskID] = {}
        self._warnings = warnings.catch_warnings()
        self._progress = Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._warnings.__enter__()
        # Not the caller's filters: what is cut off is said once, and ends nothing.
        warnings.filterwarnings("default", message="the caption ")
        warnings.showwarning = lambda message, *_, **__: self.notice(str(message))
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        self._warnings.__exit__(kind, error, trace)

    def notice(self, text: str) -> None:
        """Something has happened that the user should know."""
        self.console.print(f"  {text}", style="yellow", highlight=False, markup=False)


class Terminal(_Bars):
    """A listener that draws a bar for each run, with its loss and time left, and a line at its end.

    Args:
        console: Where to draw; bars only if it is a terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            console,
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeRemainingColumn(),
        )

    def stage(self, text: str) -> None:
        """A new stage begins."""
        self.console.print(f"[bold]{text}[/bold]", highlight=False)

    def tick(self, key: str, step: int, steps: int, loss: float) -> None:
        """A run has taken `step` of its `steps` steps."""
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(key, total=steps, loss=loss)
        self._progress.update(self._tasks[key], completed=step, loss=loss)

    def ended(self, record: TrialRecord) -> None:
        """A run has ended."""
        if (task := self._tasks.pop(record.key, None)) is not None:
            self._progress.remove_task(task)
        if record.status == "pruned":
            # For good, or until halving knows who goes on: that takes all of a rung's trials.
            result = f"stopped after step {record.pruned_step}"
        elif record.score is None:
            result = f"diverged at step {record.diverged_step}"
        else:
            result = f"validation loss {record.score:.5f}"
        self.console.print(f"  {record.key}  {result}  ({record.seconds:.0f} s)", highlight=False)

    def spent(self, share: float, most: float) -> None:
        """What the search has cost so far, and will have cost at most."""
        text = f"  search so far: {share:.1%} of the target's FLOPs; at most {most:.1%}"
        self.console.print(text, style="dim", highlight=False)


class ImageBars(_Bars):
    """A bar for each model that is sampled, with images done, their speed and the time left.

    Args:
        console: Where to draw; bars only if it is a terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            console,
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            _Images(),
            TimeRemainingColumn(),
        )

    def tick(self, name: str, done: float, total: int) -> None:
        """Of `total` images of a run, `done` are drawn; a part of one counts."""
        if name not in self._tasks:
            # Those that an earlier command drew are no part of this one's speed.
            self._tasks[name] = self._progress.add_task(name, total=total, completed=int(done))
        self._progress.update(self._tasks[name], completed=done)


class CountBar(_Bars):
    """A bar for work that counts up to a number.

    Args:
        what: Is done, e.g. `encoding`.
        of: What is counted, e.g. `images`.
    """

    def __init__(self, what: str, of: str) -> None:
        super().__init__(
            None,
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(of),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task(what, total=None)

    def tick(self, done: int, total: int) -> None:
        """Of `total`, `done` are done."""
        self._progress.update(self._task, completed=done, total=total)


class _Images(ProgressColumn):
    def render(self, task: Task) -> Text:
        """`1,216/50,000 images, 34.5/s`."""
        speed = f", {task.speed:,.3g}/s" if task.speed else ""
        return Text(f"{int(task.completed):,}/{task.total or 0:,.0f} images{speed}")

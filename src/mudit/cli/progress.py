"""How long work looks on a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from mudit.records import TrialRecord


class Terminal:
    """A listener that draws a bar for each run, with its loss and time left, and a line at its end.

    Args:
        console: Where to draw; bars only if it is a terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Terminal:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def stage(self, text: str) -> None:
        """A new stage begins."""
        self.console.print(f"[bold]{text}[/bold]", highlight=False)

    def notice(self, text: str) -> None:
        """Something has happened that the user should know."""
        self.console.print(f"  {text}", style="yellow", highlight=False, markup=False)

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
            result = f"ended early, after step {record.pruned_step}"
        elif record.score is None:
            result = f"diverged at step {record.diverged_step}"
        else:
            result = f"validation loss {record.score:.5f}"
        self.console.print(f"  {record.key}  {result}  ({record.seconds:.0f} s)", highlight=False)

    def spent(self, share: float, most: float) -> None:
        """What the search has cost so far, and will have cost at most."""
        text = f"  search so far: {share:.1%} of the target's FLOPs; at most {most:.1%}"
        self.console.print(text, style="dim", highlight=False)

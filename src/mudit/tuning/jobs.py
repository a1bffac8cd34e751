"""Where a queue's runs come from: a list, or a search that proposes the next from the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mudit.tuning.pool import Job


class JobSource(Protocol):
    """The runs of a queue; the same for all commands that work on it."""

    def known(self) -> Sequence[Job]:
        """Those that there are so far, in order; other commands may have added some."""

    @property
    def is_complete(self) -> bool:
        """Whether there will be no more; as of the last call of `known` or `another`."""

    def another(self) -> Job | None:
        """One more, unless all are there; who asks holds the study's folder."""


class FixedJobs:
    """A list of runs.

    Args:
        jobs: The runs, with keys of their own.
    """

    is_complete = True

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = tuple(jobs)

    def known(self) -> Sequence[Job]:
        """All of them."""
        return self._jobs

    def another(self) -> Job | None:
        """None."""
        return None

"""Who is told how a study gets on."""

from __future__ import annotations

from typing import Protocol

from mudit.records import TrialRecord


class Listener(Protocol):
    """Who is told how a study gets on."""

    def stage(self, text: str) -> None:
        """A new stage begins."""

    def notice(self, text: str) -> None:
        """Something has happened that the user should know: the storage is away, say."""

    def tick(self, key: str, step: int, steps: int, loss: float) -> None:
        """A run has taken `step` of its `steps` steps."""

    def ended(self, record: TrialRecord) -> None:
        """A run has ended."""

    def spent(self, share: float, most: float) -> None:
        """What the search has cost so far, and will have cost at most, both as a share of the
        target's FLOPs.
        """


class Silent:
    """A listener that does nothing."""

    def stage(self, text: str) -> None:
        """Nothing."""

    def notice(self, text: str) -> None:
        """Nothing."""

    def tick(self, key: str, step: int, steps: int, loss: float) -> None:
        """Nothing."""

    def ended(self, record: TrialRecord) -> None:
        """Nothing."""

    def spent(self, share: float, most: float) -> None:
        """Nothing."""

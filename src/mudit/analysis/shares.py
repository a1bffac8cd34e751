"""Shares of draws, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import betaincinv


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """How many of some images were matched with their own caption.

    Attributes:
        right: Of them.
        images: How many were judged.
        names: Captions that each was to be matched with one of; 1 / names is chance.
    """

    right: int
    images: int
    names: int

    @property
    def share(self) -> float:
        """The share that is right."""
        return self.right / self.images

    @property
    def chance(self) -> float:
        """The share that guessing would get right."""
        return 1 / self.names

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share, 95 %, Clopper-Pearson; it takes the images to be independent."""
        return clopper_pearson(self.right, self.images)


def clopper_pearson(right: int, count: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share, of which `right` of `count` draws were seen."""
    tail = (1 - confidence) / 2
    low = betaincinv(right, count - right + 1, tail) if right else 0.0
    high = betaincinv(right + 1, count - right, 1 - tail) if right < count else 1.0
    return float(low), float(high)

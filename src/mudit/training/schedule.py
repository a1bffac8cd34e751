"""The learning rate over a run, as a factor on every group: ratios between groups stay as they
are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mudit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The shape of the schedule; warm-up is a base HP.

    Attributes:
        kind: `constant`, `cosine` (to `final`), or `wsd`: warm-up, stable, linear decay to `final`.
        decay_share: Share of the run in which `wsd` decays.
        final: The factor at the end of `cosine` and `wsd`.
    """

    kind: Literal["constant", "cosine", "wsd"] = "constant"
    decay_share: float = 0.2
    final: float = 0.0

    def __post_init__(self) -> None:
        for name in ("decay_share", "final"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"training.schedule.{name} is {getattr(self, name)}, expected in [0, 1]."
                )


def lr_factor(config: ScheduleConfig, step: int, *, steps: int, warmup_steps: int) -> float:
    """The factor for the update from `step` to `step` + 1.

    Args:
        config: The shape.
        step: Steps taken so far, 0 to steps - 1.
        steps: Steps of the run.
        warmup_steps: The k-th update of a warm-up of w uses k/w.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if config.kind == "cosine":
        progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
        return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))
    if config.kind == "wsd":
        decay_steps = round(config.decay_share * steps)
        remaining = (steps - step) / decay_steps if decay_steps else 1.0
        return config.final + (1 - config.final) * min(remaining, 1.0)
    return 1.0

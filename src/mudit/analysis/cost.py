"""What a search costs, in units of training the target once ([muDiT] Eq. 1)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mudit.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Training runs of one size; parameters x batch x steps is proportional to their FLOPs.

    Attributes:
        parameters: Trainable parameters, in any unit that the compared workloads share.
        batch_size: Images in a step; 1 if `steps` counts epochs or images.
        steps: Optimizer steps of one run.
        trials: How many such runs.
    """

    parameters: float
    batch_size: float
    steps: float
    trials: int = 1

    def __post_init__(self) -> None:
        sizes = (self.parameters, self.batch_size, self.steps)
        if not all(math.isfinite(size) and size > 0 for size in sizes) or self.trials < 0:
            raise UsageError(
                f"a workload needs positive sizes and a number of trials that is not negative, "
                f"got {self}"
            )

    @property
    def compute(self) -> float:
        """R·S·B·T: proportional to the FLOPs of all its runs."""
        return self.trials * self.parameters * self.batch_size * self.steps


def tuning_cost_ratio(
    trials: int,
    *,
    proxy_parameters: float,
    proxy_batch: float,
    proxy_steps: float,
    target_parameters: float,
    target_batch: float,
    target_steps: float,
) -> float:
    """Compute of `trials` proxy runs over that of one target run: R·S·B·T / (S·B·T).

    Source: [muDiT] Eq. (1). It counts every trial in full, diverged ones too, and takes a run's
    FLOPs to be proportional to its parameters; `measured_cost_ratio` assumes neither. With epochs
    of one dataset for steps, pass 1 for both batches.
    """
    proxy = Workload(
        parameters=proxy_parameters, batch_size=proxy_batch, steps=proxy_steps, trials=trials
    )
    target = Workload(parameters=target_parameters, batch_size=target_batch, steps=target_steps)
    return grouped_cost_ratio([proxy], target)


def grouped_cost_ratio(searches: Iterable[Workload], target: Workload) -> float:
    """Eq. (1) for trials of several sizes, e.g. 80 of 30K steps and 5 of 100K ([muDiT] E.4)."""
    return sum(search.compute for search in searches) / target.compute


def measured_cost_ratio(search_flops: Iterable[float], target_flops: float) -> float:
    """FLOPs that the trials really spent over those of the target's training.

    Raises:
        UsageError: The target spent nothing.
    """
    if not target_flops > 0:
        raise UsageError(f"the target's FLOPs must be positive, got {target_flops}")
    return math.fsum(search_flops) / target_flops

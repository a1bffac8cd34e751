"""Which proxy would have been enough: what each smaller task would have chosen, and its cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mudit.analysis.basin import BasinFit, Run
from mudit.analysis.regret import gain_per_doubling, regret_of
from mudit.analysis.transferability import REGRET_BOUND


class Task(NamedTuple):
    """What a proxy is, in the order of a study's axis.

    Attributes:
        size: Width, batch size or number of steps.
        steps: Steps after which its runs are looked at.
    """

    size: int
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxy:
    """What a search on one task would have come to, seed by seed.

    Attributes:
        task: The task.
        cost: FLOPs of a search with one seed over those of one training of the target.
        choices: log2 of the best value tried, by seed; None where all diverged.
        regret: Mean over seeds of what their choices lose at the target, in units of what the last
            doubling gained; infinite if a choice diverges there.
        worst: The largest of the seeds' upper 95 % bounds.
        on_front: Whether no other proxy is as cheap and as good, and better in one of the two.
    """

    task: Task
    cost: float
    choices: tuple[float | None, ...]
    regret: float
    worst: float
    on_front: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """Which proxy to take.

    Attributes:
        proxies: From the cheapest on.
        recommended: The cheapest one, other than the target itself, whose every seed's choice has
            an upper bound of regret within 10 % of a doubling's gain; None if there is none.
        gain: Loss that the last doubling gained; nothing can be advised where it is not positive.
    """

    proxies: tuple[Proxy, ...]
    recommended: Proxy | None
    gain: float


def advise(
    target: Sequence[Run], proxies: Mapping[Task, Sequence[Run]], costs: Mapping[Task, float]
) -> Advice:
    """Judge proxies by a finished grid.

    Args:
        target: All runs of the grid at their end; its largest size is the target.
        proxies: The runs of each proxy, with the losses that it would have seen; the target's own,
            for comparison, too.
        costs: Of each proxy's search with one seed, over one training of the target.

    Raises:
        ValueError: Fewer than two sizes of the grid have a basin.
    """
    fit = BasinFit(target)
    if len(fit.fitted) < 2 or fit.fitted[-1].size != max(run.size for run in target):
        raise ValueError("the largest size and one more need a basin of four values or more")
    bounds: dict[float, tuple[float, float]] = {}
    found = []
    for task, runs in proxies.items():
        choices = tuple(_choice(runs, seed) for seed in sorted({run.seed for run in runs}))
        for choice in choices:
            if choice is not None and choice not in bounds:
                interval = regret_of(fit, choice, 0.95)
                bounds[choice] = interval.value, interval.high
        lost = [(math.inf, math.inf) if x is None else bounds[x] for x in choices]
        found.append(
            Proxy(
                task=task,
                cost=costs[task],
                choices=choices,
                regret=sum(value for value, _ in lost) / len(lost),
                worst=max(high for _, high in lost),
            )
        )
    ordered = _with_front(sorted(found, key=lambda proxy: (proxy.cost, proxy.regret)))
    itself = max(task for task in proxies) if proxies else None
    smaller = [p for p in ordered if p.task != itself or p.task.size < fit.fitted[-1].size]
    good = [proxy for proxy in smaller if proxy.worst <= REGRET_BOUND]
    return Advice(
        proxies=ordered, recommended=good[0] if good else None, gain=gain_per_doubling(fit)
    )


def _choice(runs: Iterable[Run], seed: int) -> float | None:
    """The value that a search with this seed would have chosen."""
    finite = [run for run in runs if run.seed == seed and math.isfinite(run.loss)]
    return min(finite, key=lambda run: run.loss).log2_hp if finite else None


def _with_front(proxies: Sequence[Proxy]) -> tuple[Proxy, ...]:
    """The proxies, ascending in cost, with the Pareto front of cost and regret marked."""
    best, marked = math.inf, []
    for proxy in proxies:
        marked.append(replace(proxy, on_front=proxy.regret < best))
        best = min(best, proxy.regret)
    return tuple(marked)

"""Trials per hour of a search with two workers against one, on two cores.

The search stage of a small study on the digits (8 learning rates, proxy of width 48 and depth 4,
150 steps of batch 32 each) runs from the first to the last trial in a fresh folder, with workers=1
and workers=2 by turns. Worker start-up, checkpoints, validation and Optuna's storage are included,
as a user meets them; each worker has one CPU thread. The trials' scores must be equal, bit for bit,
whatever the number of workers.

Bar: two workers finish at least 1.7 times as many trials per hour.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from pathlib import Path

from machine import alternate, at_least, describe, publish, quick, table

from mudit.data import Splits
from mudit.records import TrialRecord
from mudit.training import TrainingConfig, open_splits
from mudit.tuning import SearchConfig, StudyConfig, TaskConfig
from mudit.tuning.config import resolved
from mudit.tuning.search import search

_BAR = 1.7
_ROUNDS = 6  # the fewest whose range is a 95 % interval of the median; four on a slow machine


def study(*, smoke: bool) -> tuple[StudyConfig, Splits]:
    """The study and its data."""
    config = StudyConfig(
        proxy=TaskConfig(width=48, batch_size=32, steps=10 if smoke else 150),
        search=SearchConfig(space={"lr": "log2(-9, -8)" if smoke else "log2(-12, -5)"}),
        training=TrainingConfig(device="cpu"),
        threads=1,
    )
    splits = open_splits(config.data)
    return resolved(config, splits), splits


def run_search(config: StudyConfig, splits: Splits, workers: int) -> tuple[TrialRecord, ...]:
    """The search stage in a folder of its own, which goes again."""
    with tempfile.TemporaryDirectory(prefix="mudit-bench-") as folder:
        here = dataclasses.replace(config, folder=str(Path(folder)), workers=workers)
        return search(
            here,
            splits,
            parametrization="mup",
            on_tick=lambda key, step, steps, loss: None,
            on_end=lambda record: None,
            should_stop=lambda: False,
        )


def main() -> None:
    smoke = quick(__doc__)
    machine = describe("mudit", "optuna")
    config, splits = study(smoke=smoke)
    trials = len(config.points())
    run_search(*study(smoke=True), workers=2)  # warms the file cache up
    scores: set[tuple[float | None, ...]] = set()

    def with_workers(workers: int) -> None:
        records = run_search(config, splits, workers)
        scores.add(tuple(record.score for record in records))

    found = alternate(
        lambda: with_workers(1),
        lambda: with_workers(2),
        rounds=1 if smoke else _ROUNDS,
        warm_up=0,
        least_rounds=4,
        limit_seconds=270,
    )
    rows = [_row("1", found.a, trials), _row("2", found.b, trials)]
    body = f"""
The search stage of a study on the digits, start-up of workers included, by turns. {trials} trials,
proxy of width {config.proxy.width} and depth {config.model.depth}, {config.proxy.steps} steps of
batch {config.proxy.batch_size}, one CPU thread per worker.

{table(["workers", ">search, s (median)", ">trials per hour"], rows)}
Two workers over one: **{found.ratio:.3f}** times the trials per hour (median of
{len(found.a)} rounds; interval {found.interval}). Bar: at least {_BAR}.
**{at_least(found, _BAR)}**

Scores of all searches, with one worker and with two, equal bit for bit:
{"yes" if len(scores) == 1 else "NO"}.
"""
    publish("throughput", title="Two workers against one", machine=machine, body=body, quick=smoke)


def _row(workers: str, seconds: tuple[float, ...], trials: int) -> list[str]:
    median = statistics.median(seconds)
    return [workers, f"{median:.1f}", f"{3600 * trials / median:.0f}"]


if __name__ == "__main__":  # the workers import this file too
    main()

"""What a search that ends trials early costs and loses, against the exhaustive grid.

For each data set ten grids over lr and the readout's multiplier, each with a seed and a validation
bank of its own, are trained in full, with the bank evaluated at the rungs. A pruned search of the
same seed is then played over these curves: a trial that is ended is the beginning of one that is
not, to the bit (tested). Its trials come in the order in which `mudit transfer` would train them;
under the rules that decide at arrival, one at a time. Bar: in nine repeats of ten it costs at most
35 % of the grid's FLOPs and its winner loses at most 10 % of what a doubling of width gains. Runs
are kept in runs/pruned_search, so that it can resume.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from machine import describe, publish, quick, table

from mudit.data import Splits
from mudit.records import TrialRecord
from mudit.training import open_splits, step_flops
from mudit.tuning import PruningConfig, SearchConfig, StudyConfig, TaskConfig
from mudit.tuning.config import resolved, run_config
from mudit.tuning.pool import Job
from mudit.tuning.pruning import Curve, promoted, prunes, read_curve
from mudit.tuning.queue import run_queue
from mudit.tuning.search import Trials
from mudit.tuning.space import Point, point_key

_FASHION = "/usr/share/datasets/fashion-mnist"
# An eighth of digits' 300 steps is too short a first rung: docs/log.md, 2026-11-28.
_DIGITS_STEPS, _FASHION_STEPS = 600, 300
_GAIN_REPEATS, _NEAR = (
    3,
    5,
)  # grids, and the best points of each, that are trained at twice the width
_MOST_FLOPS, _MOST_REGRET, _LEAST_SHARE = 0.35, 0.10, 0.9


class Outcome(NamedTuple):
    """What one pruned search came to.

    Attributes:
        share: Its FLOPs over the grid's, evaluations of the bank included.
        training: The same of training steps alone.
        lost: Loss of its winner less that of the grid's.
        same: Whether both have the same winner.
        winner: Its winner's point, by key.
        best: The grid's.
    """

    share: float
    training: float
    lost: float
    same: bool
    winner: str
    best: str


def studies(smoke: bool) -> dict[str, StudyConfig]:
    """A study on each data set; repeats differ in its seed."""
    base = StudyConfig(folder="", workers=2)
    base = dataclasses.replace(base, model=dataclasses.replace(base.model, depth=2))

    def search(lrs: str) -> SearchConfig:
        return SearchConfig(space={"lr": lrs, "phi.output": "log2(-2, 2, 2)"})

    lrs = "log2(-8, -7)" if smoke else "log2(-10, -4, 0.5)"
    proxy = TaskConfig(width=16, batch_size=8 if smoke else 64, steps=_DIGITS_STEPS)
    found = {"digits": dataclasses.replace(base, proxy=proxy, search=search(lrs))}
    if Path(_FASHION).is_dir() and not smoke:
        found["Fashion-MNIST"] = dataclasses.replace(
            base,
            data=dataclasses.replace(base.data, source=f"idx:{_FASHION}"),
            model=dataclasses.replace(base.model, patch_size=7),
            proxy=TaskConfig(width=48, batch_size=32, steps=_FASHION_STEPS),
            search=search("log2(-10, -4)"),
        )
    return found


def rules(steps: int) -> dict[str, PruningConfig]:
    """The rules that are compared on trials of so many steps."""
    ninth, sixteenth = steps // 9, steps // 16
    return {
        "halving (default)": PruningConfig(method="halving"),
        "halving, η = 3": PruningConfig(method="halving", reduction_factor=3, first_rung=ninth),
        "asha, η = 2": PruningConfig(method="asha"),
        "asha, η = 3": PruningConfig(method="asha", reduction_factor=3, first_rung=ninth),
        "asha, η = 4": PruningConfig(method="asha", reduction_factor=4, first_rung=sixteenth),
        "median": PruningConfig(method="median", reduction_factor=3, first_rung=ninth),
    }


def rungs(steps: int) -> tuple[int, ...]:
    """The steps that any rule asks at."""
    return tuple(sorted({rung for rule in rules(steps).values() for rung in rule.rungs(steps)}))


def grid_jobs(
    config: StudyConfig, splits: Splits, folder: Path, points: Sequence[Point], *, width: int
) -> list[Job]:
    """A grid in full, with the bank evaluated at all rungs."""
    task = dataclasses.replace(config.proxy, width=width)
    jobs = []
    for point in points:
        key = f"w{width}_s{config.seed}_{point_key(point)}"
        run = run_config(
            config, splits, task, hps=config.hps.updated(point), rungs=rungs(task.steps)
        )
        jobs.append(Job(key=key, point=point, role="grid", config=run, folder=folder / key))
    return jobs


def train(jobs: Sequence[Job], folder: Path) -> dict[str, TrialRecord]:
    """Train them, or what is left of them."""
    folder.mkdir(parents=True, exist_ok=True)
    ranges = {name: [job.point[name] for job in jobs] for name in jobs[0].point}
    records = run_queue(
        jobs,
        folder=folder,
        name="grid",
        bounds={name: (min(values), max(values), True) for name, values in ranges.items()},
        workers=2,
        on_tick=lambda key, step, steps, loss: None,
        on_end=lambda record: print(record.key, record.score, flush=True),
        should_stop=lambda: False,
    )
    return {record.key: record for record in records}


def play(
    config: StudyConfig, splits: Splits, rule: PruningConfig, curves: dict[str, Curve]
) -> Outcome:
    """A pruned search over the curves of a grid, by the points' keys."""
    steps = config.proxy.steps
    search = dataclasses.replace(config.search, pruning=rule)
    order = Trials(dataclasses.replace(config, search=search), splits, "mup").known()
    run, bank = order[0].config, min(config.training.bank_size, splits.validation.num_samples)
    step = step_flops(run.model, run.batch_size)
    evaluation = step / 3 * bank / run.batch_size  # a forward pass is a third of a step
    keys = [point_key(job.point) for job in order]
    played = _halved if rule.method == "halving" else _one_by_one
    reached = played(rule, rule.rungs(steps), [curves[key] for key in keys], steps)
    spent = trained = 0.0
    for taken in reached:
        trained += step * taken
        passed = sum(rung <= taken for rung in rule.rungs(steps))
        spent += step * taken + evaluation * (passed + (2 if taken == steps else 0))
    scores = {
        key: score
        for key, taken in zip(keys, reached)
        if taken == steps and (score := curves[key].score) is not None
    }
    whole = len(order) * (step * steps + 2 * evaluation)
    finished = {key: curve.score for key, curve in curves.items() if curve.score is not None}
    best, winner = min(finished, key=finished.__getitem__), min(scores, key=scores.__getitem__)
    return Outcome(
        share=spent / whole,
        training=trained / (len(order) * step * steps),
        lost=finished[winner] - finished[best],
        same=winner == best,
        winner=winner,
        best=best,
    )


def _halved(
    rule: PruningConfig, rungs: Sequence[int], curves: Sequence[Curve], steps: int
) -> list[int]:
    """Steps that each trial takes where all wait at each rung."""
    taken, alive = [steps] * len(curves), list(range(len(curves)))
    for count, rung in enumerate(rungs, start=1):
        goes_on = promoted(rule, rungs[:count], [curves[number] for number in alive])
        for number, good in zip(alive, goes_on):
            taken[number] = taken[number] if good else rung
        alive = [number for number, good in zip(alive, goes_on) if good]
    return taken


def _one_by_one(
    rule: PruningConfig, rungs: Sequence[int], curves: Sequence[Curve], steps: int
) -> list[int]:
    """Steps that each trial takes where one comes after the other, and none waits."""
    ended: list[Curve] = []
    taken = []
    for curve in curves:
        last = next(
            (
                rung
                for rung in rungs
                if rung not in curve.losses  # diverged before it
                or prunes(rule, rungs, _until(curve, rungs, rung), ended)
            ),
            None,
        )
        own = _until(curve, rungs, last or steps)
        if last is not None:
            own = dataclasses.replace(own, state="pruned")
        elif curve.score is not None:
            own = dataclasses.replace(own, state="complete", score=curve.score)
        ended.append(own)
        taken.append(last or steps)
    return taken


def _until(curve: Curve, at: Sequence[int], rung: int) -> Curve:
    return Curve(losses={k: v for k, v in curve.losses.items() if k in at and k <= rung})


def measure(
    name: str, config: StudyConfig, repeats: int, folder: Path
) -> tuple[list[tuple[str, ...]], str]:
    """The rows of a data set's table, and its gain in words."""
    splits = open_splits(config.data)
    config = resolved(config, splits)
    points = config.points()
    every = [dataclasses.replace(config, seed=seed) for seed in range(repeats)]
    width = config.proxy.width
    jobs = [grid_jobs(one, splits, folder, points, width=width) for one in every]
    small = train([job for part in jobs for job in part], folder)
    best = [min(small[job.key].score or np.inf for job in part) for part in jobs]
    # What a doubling gains: the best at twice the width, on the same bank.
    scores = np.array([[small[job.key].score or np.inf for job in part] for part in jobs])
    near = [points[index] for index in np.argsort(scores.mean(axis=0))[:_NEAR]]
    wide = [grid_jobs(one, splits, folder, near, width=2 * width) for one in every[:_GAIN_REPEATS]]
    large = train([job for part in wide for job in part], folder)
    gains = [
        best[number] - min(large[job.key].score or np.inf for job in part)
        for number, part in enumerate(wide)
    ]
    gain = float(np.mean(gains))
    # What a point is worth, the luck of a single run apart: its mean over all repeats.
    worth = {point_key(point): float(mean) for point, mean in zip(points, scores.mean(axis=0))}
    rows = []
    for label, rule in rules(config.proxy.steps).items():
        found = [
            play(one, splits, rule, {point_key(job.point): read_curve(job.folder) for job in part})
            for one, part in zip(every, jobs)
        ]
        regrets = [outcome.lost / gain for outcome in found]
        shares = [outcome.share for outcome in found]
        chosen = [(worth[one.winner] - worth[one.best]) / gain for one in found]
        good = sum(regret <= _MOST_REGRET for regret in regrets)
        both = sum(s <= _MOST_FLOPS and r <= _MOST_REGRET for s, r in zip(shares, regrets))
        rows.append(
            (
                name,
                label,
                f"{np.mean(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})",
                f"{np.mean([outcome.training for outcome in found]):.0%}",
                f"{sum(outcome.same for outcome in found)} of {repeats}",
                f"{good} of {repeats}",
                f"{max(regrets):.0%}",
                f"{both} of {repeats}",
                f"{sum(regret <= _MOST_REGRET for regret in chosen)} of {repeats}",
                "PASS" if both >= _LEAST_SHARE * repeats else "FAIL",
            )
        )
    words = (
        f"- {name}: width {width}, depth {config.model.depth}, {len(points)} points, "
        f"{config.proxy.steps} steps; grids' best loss {np.mean(best):.5f} ± {np.std(best):.5f}, "
        f"a doubling gains {gain:.5f} (of {len(gains)} repeats: {min(gains):.5f} to "
        f"{max(gains):.5f})\n"
    )
    return rows, words


def main() -> None:
    smoke = quick(__doc__)
    folder = Path(tempfile.mkdtemp()) if smoke else Path("runs/pruned_search")
    machine = describe("mudit", "optuna")
    rows: list[tuple[str, ...]] = []
    words = ""
    for name, config in studies(smoke).items():
        found, text = measure(name, config, 3 if smoke else 10, folder / name)
        rows += found
        words += text
    head = ("data", "rule", ">FLOPs of the grid's: mean (range)", ">of training alone",
            ">same winner", ">regret ≤ 10 %", ">worst regret", ">both",
            ">HPs' regret ≤ 10 %", "verdict")  # fmt: skip
    publish(
        "pruned_search",
        title="What ending trials early saves and loses",
        machine=machine,
        body=f"""
{words}
Bar: in nine repeats of ten at most 35 % of the grid's FLOPs, evaluations of the validation bank
included (a forward pass counted as a third of a step), and a regret of at most 10 % of what a
doubling of width gains.

{table(head, rows)}
""",
        quick=smoke,
    )


if __name__ == "__main__":
    main()

"""How often the intervals and verdicts of `mudit verify`'s analysis are right, on synthetic basins.

Each draw is a grid of runs whose optimum, drift and noise are known: four widths, losses of a LINEX
basin with Gaussian noise and seeds' luck, its place relative to the grid drawn anew. Bars:
intervals of optimum (95 %) and drift (98 %) cover the truth at their rate ± 2 points; with the true
drift at the bound, a PASS in at most 1 %. Where a cliff comes before the bottom, it is the optimum.
Finished cases are kept in `basin_coverage.jsonl`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, describe, publish, quick, table
from scipy import stats

from mudit.analysis.basin import BasinFit
from mudit.analysis.transferability import judge

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from analysis_basins import SIZES, grid

_DRAWS = 1000
_ROWS = RESULTS / "basin_coverage.jsonl"


@dataclass(frozen=True)
class Case:
    """A kind of basin.

    Attributes:
        name: What it is.
        options: Of `grid`, and the grid's `step` in octaves.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)


COVERAGE = (
    Case("symmetric"),
    Case("symmetric, two seeds", {"seeds": 2}),
    Case("symmetric, drifting", {"drift": 0.25}),
    Case("skewed", {"skew": 0.8}),
    Case("skewed the other way, half-octave grid", {"skew": -0.8, "step": 0.5}),
    Case("cliff above the bottom", {"skew": 0.5, "cliff": 0.4}),
    Case("cliff before the bottom", {"skew": 0.3, "cliff": -1.2}),
    Case("flat", {"curvature": 0.0005}),
)
# Three sizes, so that the reach is at its bound too; a large gain, so that regret decides nothing.
_BOUND = {"drift": 0.25, "sizes": SIZES[:3], "gain": 0.5}
AT_THE_BOUND = (
    Case("symmetric", _BOUND),
    Case("symmetric, noise c", {**_BOUND, "noise": 0.01}),
    Case("symmetric, two seeds", {**_BOUND, "drift": -0.25, "seeds": 2}),
    Case("skewed", {**_BOUND, "skew": 0.8}),
    Case("flat", {**_BOUND, "curvature": 0.0005}),
    Case("cliff above the bottom", {**_BOUND, "skew": 0.5, "cliff": 0.4, "step": 0.5}),
)
# Luck of half the noise, as in the study on Fashion-MNIST.
POWER = tuple(
    Case(
        f"noise {noise:.0%} of c, gain {gain:g} c, {seeds} seeds",
        {"noise": 0.01 * noise, "luck": 0.005 * noise, "gain": 0.01 * gain, "seeds": seeds},
    )
    for noise in (0.2, 0.5, 1.0)
    for gain in (1.5,)
    for seeds in (2, 3, 5)
)


def draws(case: Case, count: int) -> Iterator[tuple[list[Any], np.ndarray[Any, Any]]]:
    """Grids of the case, and the true optimum of each size."""
    for number in range(count):
        rng = np.random.default_rng(number)
        options = dict(case.options)
        step = options.pop("step", 1.0)
        optimum = -6.5 + rng.uniform(-0.5, 0.5)
        drift, cliff = options.get("drift", 0.0), options.get("cliff", np.inf)
        lowest = -12.0 if cliff < 1 else -9.0  # four values before a cliff
        runs = grid(
            optimum=optimum, values=np.arange(lowest, -3.9, step), seed=number + 7, **options
        )
        sizes = np.array(options.get("sizes", SIZES))
        bottoms = optimum + drift * np.log2(sizes / sizes[0])
        yield runs, bottoms + min(cliff, 0.0)


def coverage(case: Case, count: int) -> dict[str, int]:
    """How often intervals hold the truth."""
    optima = drifts = bounded = known = 0
    doublings = np.log2(np.array(SIZES) / SIZES[0])
    weights = (doublings - doublings.mean()) / np.square(doublings - doublings.mean()).sum()
    for runs, truth in draws(case, count):
        fit = BasinFit(runs)
        if len(fit.fitted) < len(SIZES):
            continue
        known += 1
        first, drift = fit.optimum(0, 0.95), fit.contrast(weights.tolist(), 0.98)
        optima += first.low <= truth[0] <= first.high
        drifts += drift.low <= weights @ truth <= drift.high
        bounded += np.isfinite(drift.high - drift.low)
    return {"known": known, "optima": optima, "drifts": drifts, "bounded": bounded}


def verdicts(case: Case, count: int) -> dict[str, int]:
    """How often each verdict is given."""
    found = [judge(runs).verdict for runs, _ in draws(case, count)]
    return {name: found.count(name) for name in ("PASS", "FAIL", "INCONCLUSIVE")}


def _share(hits: int, of: int) -> str:
    low, high = stats.beta.ppf([0.025, 0.975], [hits, hits + 1], [of - hits + 1, of - hits])
    low, high = np.nan_to_num(low), 1.0 if hits == of else high
    return f"{100 * hits / of:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    smoke = quick(__doc__)
    count = 5 if smoke else _DRAWS
    machine = describe("mudit", "scipy")
    kept = _ROWS.read_text(encoding="utf-8").splitlines() if _ROWS.exists() and not smoke else []
    rows = {row["key"]: row for row in map(json.loads, kept)}
    for kind, cases, measure in (
        ("coverage", COVERAGE, coverage),
        ("bound", AT_THE_BOUND, verdicts),
        ("power", POWER, verdicts),
    ):
        for case in cases:
            key = f"{kind}: {case.name}"
            if key in rows:
                continue
            rows[key] = {"key": key, **{k: int(v) for k, v in measure(case, count).items()}}
            print(rows[key], flush=True)
            if not smoke:
                with _ROWS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[key]) + "\n")
    publish(
        "basin_coverage",
        title="How often intervals and verdicts on transfer are right",
        machine=machine,
        body=_body(rows, count),
        quick=smoke,
    )


def _body(rows: dict[str, dict[str, Any]], count: int) -> str:
    covered = table(
        ("basin", "optimum in its 95 % interval", "drift in its 98 % interval", ">bounded"),
        (
            (
                case.name,
                _share(row["optima"], row["known"]),
                _share(row["drifts"], row["known"]),
                f"{100 * row['bounded'] / row['known']:.0f} %",
            )
            for case in COVERAGE
            for row in (rows[f"coverage: {case.name}"],)
        ),
    )
    judged = [
        table(
            ("basin", "PASS", "FAIL", "INCONCLUSIVE"),
            (
                (case.name, *(_share(rows[f"{kind}: {case.name}"][v], count) for v in _VERDICTS))
                for case in cases
            ),
        )
        for kind, cases in (("bound", AT_THE_BOUND), ("power", POWER))
    ]
    false = sum(rows[f"bound: {case.name}"]["PASS"] for case in AT_THE_BOUND)
    return f"""
{count} draws of each kind; four widths, 32 to 256; unless said, three seeds, octave grid, curvature
c = 0.01 per octave², noise 0.2 c, seeds' luck c, a doubling gains 2 c. Shares with their 95 %
intervals (Clopper-Pearson).

## Intervals

{covered}
## Verdicts with the true drift at the bound, 0.25 octave per doubling

A PASS is false here; bar: 1 % at most, which is what a 98 % interval leaves to each side if it
is exact. So half of all counts would be above the bar by chance; what can be asked of one is that
its interval holds 1 %. Regret decides nothing here, since a doubling gains 50 c. Of all cases but
the flat one, which never passes: {_share(false, count * (len(AT_THE_BOUND) - 1))}.

{judged[0]}
## Power: verdicts without drift, by noise and seeds; a doubling gains 1.5 c

{judged[1]}
"""


_VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE")


if __name__ == "__main__":
    main()

"""How often the coordinate check is wrong about models that are right.

    python benchmarks/false_alarms.py          (ten minutes on a free core; --quick: two checks)

Twenty checks at the defaults of `mudit check`, each with seeds of its own, the late probe included
in four of them; on a DiT that starts with open gates (`dit_mup`) and on one whose gates and readout
start at zero (`dit`). A check passes, is inconclusive, or raises a false alarm (FAIL).
"""

from __future__ import annotations

import math
import sys
import time

import torch
from machine import describe, publish, quick, table
from scipy.stats import beta

import mudit
from mudit.tuning.check_rows import CheckRow
from mudit.tuning.check_tasks import digits_task
from mudit.tuning.coordinate_check import CoordinateCheck, coordinate_check

_CHECKS = 20
_SEEDS = 16
_WIDTHS = (32, 64, 128, 256)
_LATE_STEPS = 150


def main() -> None:
    smoke = quick(__doc__)
    torch.set_num_threads(1)
    machine = describe("torch", "mudit")
    rows, alarms, passed, seconds = [], 0, 0, []
    count = 2 if smoke else _CHECKS
    for number in range(count):
        started = time.perf_counter()
        check = _check(number)
        seconds.append(time.perf_counter() - started)
        alarms += check.verdict == "FAIL"
        passed += check.verdict == "PASS"
        rows.append([number, _init(number), check.settings.late_steps or "–", *_facts(check)])
        print(*rows[-1], flush=True)
    upper = clopper_pearson(alarms, count)
    body = f"""
{count} checks of models that are right, {_SEEDS} fresh seeds each, widths
{", ".join(map(str, _WIDTHS))}.

- False alarms (FAIL): {alarms} of {count}; with 95 % confidence at most {upper:.1%} (one-sided
  Clopper-Pearson).
- PASS: {passed} of {count}; with 95 % confidence at least
  {1 - clopper_pearson(count - passed, count):.1%}.
- Seconds for a check, median: {sorted(seconds)[count // 2]:.0f}.

{table([">check", "init", ">late probe", "verdict", ">slopes", ">outermost end", "of"], rows)}"""
    publish("false_alarms", title="False alarms", machine=machine, body=body, quick=smoke)
    sys.exit(1 if alarms else 0)


def clopper_pearson(events: int, trials: int, confidence: float = 0.95) -> float:
    """One-sided upper bound of a probability."""
    if events == trials:
        return 1.0
    return float(beta.ppf(confidence, events + 1, trials - events))


def _init(number: int) -> str:
    return ("dit_mup", "dit")[number % 2]


def _check(number: int) -> CoordinateCheck:
    task = digits_task(init=_init(number))  # type: ignore[arg-type]
    return coordinate_check(
        task.build,
        task.loss,
        plan=mudit.plan(task.build, width=_WIDTHS[-1], base_width=_WIDTHS[0]),
        widths=_WIDTHS,
        seeds=range(1000 + number * _SEEDS, 1000 + (number + 1) * _SEEDS),
        late_steps=_LATE_STEPS if number % 10 < 2 else None,
    )


def _facts(check: CoordinateCheck) -> list[object]:
    judged = [row for row in check.rows if row.verdict != "not judged"]
    ends = [(_outermost(row), row) for row in judged]
    end, row = max(ends, key=lambda pair: pair[0])
    return [check.verdict, len(judged), f"{end:.3f}", f"{row.quantity} of {row.name}"]


def _outermost(row: CheckRow) -> float:
    """The end of the interval that is nearest to a bound, by size."""
    if row.low is None or row.high is None:
        return math.inf
    return row.high if row.bounds[0] is None else max(-row.low, row.high)


if __name__ == "__main__":
    main()

"""How long one waits at the start: `import mudit`, `mudit --help`, and the plan of DiT-XL/2.

Start-up is the wall time of a fresh process, the interpreter's own start included, after one
untimed run that fills the file cache. The plan is `mudit.plan` of DiT-XL/2 (width 1152,
base width 288) in a fresh process that has already imported torch and mudit.models: time of the
first call, and growth of the process's peak memory over its peak before the call.

Bars: `import mudit` and `mudit --help` below 1 s; the plan below 2 s, and no memory for weights:
less than a tenth of what the target's weights would take.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from machine import describe, publish, quick, table

_START_BAR = 1.0  # s
_PLAN_BAR = 2.0  # s
_MEMORY_BAR = 0.1  # share of the weights

# In a fresh process. VmHWM, because a child's ru_maxrss begins at its parent's on Linux.
_PLAN = """
import json, math, re, resource, sys, time
import torch
import mudit
from mudit.models import builder, preset

def peak_mib():
    try:
        with open("/proc/self/status") as status:
            return int(re.search(r"VmHWM:\\s*(\\d+)", status.read())[1]) / 1024
    except OSError:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

build = builder(preset("DiT-XL/2"))
before, start = peak_mib(), time.perf_counter()
plan = mudit.plan(build, width=1152, base_width=288)
seconds, after = time.perf_counter() - start, peak_mib()
parameters = sum(math.prod(row.shape) for row in plan.rows)
print(json.dumps({"seconds": seconds, "mib": after - before, "weights_mib": parameters / 2**18}))
"""


def fresh(command: Sequence[str], rounds: int) -> list[float]:
    """Wall times of a command in fresh processes, in seconds."""
    times = []
    for done in range(-1, rounds):  # the first is not counted
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if done >= 0:
            times.append(time.perf_counter() - start)
    return times


def start_rows(rounds: int) -> list[list[str]]:
    """The table of start-up times."""
    script = Path(sys.executable).with_name("mudit")
    main = "import sys; from mudit.cli import main; sys.exit(main())"
    help_command = [str(script)] if script.exists() else [sys.executable, "-c", main]
    commands = {
        "`python -c pass`": [sys.executable, "-c", "pass"],
        "`import mudit`": [sys.executable, "-c", "import mudit"],
        "`mudit --help`": [*help_command, "--help"],
    }
    rows = []
    for number, (name, command) in enumerate(commands.items()):
        times = fresh(command, rounds)
        median = statistics.median(times)
        verdict = "PASS" if median < _START_BAR else "FAIL"
        bar = [f"< {_START_BAR:g} s", verdict] if number else ["", "(for comparison)"]
        rows.append([name, f"{median:.3f}", f"{max(times):.3f}", *bar])
    return rows


def plan_rows(rounds: int) -> list[list[str]]:
    """The table of the plan's time and memory."""
    runs = []
    for _ in range(rounds):
        command = [sys.executable, "-c", _PLAN]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout))
    seconds, mib = ([run[key] for run in runs] for key in ("seconds", "mib"))
    weights = runs[0]["weights_mib"]
    median, growth = statistics.median(seconds), statistics.median(mib)
    return [
        [
            "time of the first call, s",
            f"{median:.3f}",
            f"{max(seconds):.3f}",
            f"< {_PLAN_BAR:g} s",
            "PASS" if median < _PLAN_BAR else "FAIL",
        ],
        [
            f"growth of peak memory, MiB (the weights: {weights:.0f})",
            f"{growth:.0f}",
            f"{max(mib):.0f}",
            f"< {_MEMORY_BAR * weights:.0f} MiB",
            "PASS" if growth < _MEMORY_BAR * weights else "FAIL",
        ],
    ]


def main() -> None:
    smoke = quick(__doc__)
    machine = describe("mudit")
    rounds = 3 if smoke else 15
    start = start_rows(rounds)
    plan = plan_rows(2 if smoke else 9)
    body = f"""
Wall time of a fresh process, in seconds, {rounds} runs each.

{table(["command", ">median", ">slowest", "bar", "verdict"], start)}
`mudit.plan` of DiT-XL/2 (width 1152, base width 288): the first call in a fresh process that has
imported torch, {2 if smoke else 9} processes.

{table(["measured", ">median", ">largest", "bar", "verdict"], plan)}"""
    publish("start_up", title="Start-up", machine=machine, body=body, quick=smoke)


if __name__ == "__main__":
    main()

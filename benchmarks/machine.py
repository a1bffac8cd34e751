"""What the benchmarks share: the machine in words, alternating timings, verdicts, result files.

Two programs are compared in one process by turns, A B A B ..., so that whatever else the machine
does falls on both. Each round gives one ratio, time of A over time of B; the median of the ratios
is the result. Its interval is made of order statistics: with n independent rounds, the true median
lies between the k-th smallest and the k-th largest ratio with probability 1 - 2·P(Bin(n, 1/2) < k),
whatever the ratios' distribution. Run alone, this file prints the machine.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeAlias

RESULTS = Path(__file__).parent / "results"
_CONFIDENCE = 0.95
_LEAST_CONFIDENCE = 0.85  # four rounds give 0.875; with fewer there is no verdict
_QUIET = 0.05  # share of the CPU that others may use

Verdict: TypeAlias = Literal["PASS", "PASS within noise", "FAIL", "INCONCLUSIVE"]

# --- the machine --------------------------------------------------------------------------------


def describe(*packages: str) -> str:
    """The machine and the versions as a Markdown list: no host names, paths or user names.

    Args:
        packages: Distributions to name the versions of, besides torch.
    """
    lines = [
        f"CPU: {_cpu_model()}, {_cores()} cores",
        f"memory: {_memory_gib()}",
        f"system: {_system()}",
        f"CPU that others used just before the run: {_others()}",
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {_version(name)}" for name in ("torch", *packages)),
    ]
    return "".join(f"- {line}\n" for line in lines)


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"{found[1]} ({platform.machine()})" if found else platform.machine()


def _cores() -> int:
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def _memory_gib() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    except (AttributeError, OSError, ValueError):
        return "unknown"


def _system() -> str:
    numbers = re.match(r"[\d.]*\d", platform.release())  # what follows may name a host's builder
    kernel = f"{platform.system()} {numbers[0] if numbers else ''}".strip()
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (KeyError, OSError):
        return kernel


def _others() -> str:
    """The share of the CPU in use while this process waits two seconds."""

    def ticks() -> tuple[int, int]:
        user, nice, system, idle, waiting, *rest = map(int, stat.read_text().split()[1:9])
        return idle + waiting, user + nice + system + idle + waiting + sum(rest)

    stat = Path("/proc/stat")
    if not stat.exists():
        return "unknown"
    idle, total = ticks()
    time.sleep(2)
    idle_after, total_after = ticks()
    share = 1 - (idle_after - idle) / (total_after - total)
    loud = " (**not a quiet machine: measure again**)" if share > _QUIET else ""
    return f"{100 * share:.0f} %{loud}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


# --- timing by turns ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Times of A and B, measured by turns, in seconds for one call.

    Attributes:
        a: Of A, one for each round.
        b: Of B, likewise.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Time of A over time of B, round by round."""
        return tuple(x / y for x, y in zip(self.a, self.b, strict=True))

    @property
    def ratio(self) -> float:
        """Median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def interval(self) -> Interval:
        """Where the true median ratio is."""
        return median_interval(self.ratios)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An interval for a median.

    Attributes:
        low: Lower end.
        high: Upper end.
        confidence: Its exact confidence.
    """

    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f} ({100 * self.confidence:.0f} %)"


def median_interval(values: Sequence[float], confidence: float = _CONFIDENCE) -> Interval:
    """The shortest symmetric order-statistic interval for the median of what `values` come from.

    Fewer than six values cannot give 95 %; then it is all of their range, with its own confidence.
    """
    ordered, n = sorted(values), len(values)
    k = 1
    while k < n // 2 and _symmetric_confidence(n, k + 1) >= confidence:
        k += 1
    return Interval(low=ordered[k - 1], high=ordered[n - k], confidence=_symmetric_confidence(n, k))


def _symmetric_confidence(n: int, k: int) -> float:
    tail: int = sum(math.comb(n, i) for i in range(k))
    return 1 - 2 * tail / (1 << n)


def alternate(
    a: Callable[[], object],
    b: Callable[[], object],
    *,
    rounds: int,
    calls: int = 1,
    warm_up: int = 2,
    least_rounds: int = 6,
    limit_seconds: float = math.inf,
    synchronize: Callable[[], object] = lambda: None,
) -> Comparison:
    """Time A and B by turns: A B A B ...

    Args:
        a: One call of A.
        b: One call of B.
        rounds: How many rounds, at most.
        calls: Calls of A, and of B, in one round; the round's time is their mean.
        warm_up: Untimed calls of each beforehand.
        least_rounds: So many even if they take longer than `limit_seconds`.
        limit_seconds: No round begins later than this.
        synchronize: Waits for the device, before and after each turn.
    """
    for _ in range(warm_up):
        a()
        b()
    times: tuple[list[float], list[float]] = ([], [])
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()  # as timeit does: a collection would fall on one of the two
    try:
        began = time.perf_counter()
        for done in range(rounds):
            if done >= least_rounds and time.perf_counter() - began > limit_seconds:
                break
            for program, seconds in zip((a, b), times, strict=True):
                synchronize()
                start = time.perf_counter()
                for _ in range(calls):
                    program()
                synchronize()
                seconds.append((time.perf_counter() - start) / calls)
    finally:
        if collecting:
            gc.enable()
    return Comparison(a=tuple(times[0]), b=tuple(times[1]))


# --- verdicts and files -------------------------------------------------------------------------


def at_most(found: Comparison, bar: float, *, noise: float = 0.0) -> Verdict:
    """Whether the median ratio is at most `bar`, as far as its interval tells.

    Args:
        found: The timings.
        bar: The largest good ratio.
        noise: For a bar that reads "within noise": how far above it the interval may reach. Wider
            noise than that leaves the question open.
    """
    interval = found.interval
    if interval.confidence < _LEAST_CONFIDENCE:
        return "INCONCLUSIVE"
    if interval.high <= bar:
        return "PASS"
    if interval.low > bar:
        return "FAIL"
    return "PASS within noise" if interval.high <= bar + noise else "INCONCLUSIVE"


def at_least(found: Comparison, bar: float) -> Verdict:
    """Whether the median ratio is at least `bar`, as far as its interval tells."""
    interval = found.interval
    if interval.confidence < _LEAST_CONFIDENCE:
        return "INCONCLUSIVE"
    if interval.low >= bar:
        return "PASS"
    return "FAIL" if interval.high < bar else "INCONCLUSIVE"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a header that begins with `>` is of a column of numbers."""
    titles = [title.removeprefix(">") for title in header]
    rules = ["--:" if title.startswith(">") else "---" for title in header]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in (titles, rules, *rows))


def milliseconds(seconds: Sequence[float]) -> str:
    """The median in ms, in four figures."""
    value = 1000 * statistics.median(seconds)
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def quick(description: str | None) -> bool:
    """Whether the command line says `--quick`: a smoke run that prints and writes nothing.

    Args:
        description: The script's module docstring, shown by `--help`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run: few rounds, print only, write nothing"
    )
    found: bool = parser.parse_args().quick
    return found


def publish(name: str, *, title: str, machine: str, body: str, quick: bool) -> None:
    """Print a result, and write it to `results/NAME.md` unless it is of a smoke run.

    Args:
        name: The script's name.
        title: Headline.
        machine: What `describe` gave before the run.
        body: Tables and verdicts.
        quick: Whether this was a smoke run, whose numbers mean nothing.
    """
    text = f"# {title}\n\n{body.strip()}\n\n## The machine\n\n{machine}"
    if quick:
        print(f"(--quick: a smoke run, not a measurement; nothing is written)\n\n{text}")
        return
    text += (
        f"- made by: `python benchmarks/{name}.py`, {time.strftime('%Y-%m-%d', time.gmtime())}\n"
    )
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    print(describe("mudit", "numpy", "diffusers"), end="")

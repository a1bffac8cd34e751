"""The search space: a range for each base HP, and the points to try.

Ranges are written as text, in a config or on the command line:

    log2(-10, -6)          2^-10, 2^-9, ..., 2^-6; a third number is the step in octaves
    grid(0.1, 0.3, 1)      these values
    uniform(0.1, 1)        any value between, evenly            (random search only)
    log_uniform(1e-5, 1e-3)  any value between, evenly in log   (random search only)
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from mudit.errors import UsageError
from mudit.training import check_name, check_value

Point: TypeAlias = dict[str, float]

# [muDiT] §5.2.2, for its MMDiT, by 80 random trials. The paper says "uniformly"; its best lr and
# clip lie at the geometric centres of their ranges, so the scales are taken to be logarithmic.
PAPER_SPACE: Mapping[str, str] = MappingProxyType(
    {
        "lr": "log_uniform(2.5e-5, 2.5e-3)",
        "clip": "log_uniform(0.01, 100)",
        "loss_weight.repa": "uniform(0.1, 1)",
        "warmup_steps": "log_uniform(1, 20000)",
    }
)

_RANGE = re.compile(r"(log2|grid|uniform|log_uniform)\(([^()]*)\)")
_MOST = 10_000  # points of one range
_FORMS = "log2(-10, -6), grid(0.1, 0.3, 1), uniform(0.1, 1) or log_uniform(1e-5, 1e-3)"


@dataclass(frozen=True, slots=True)
class Choices:
    """A finite, ordered set of values."""

    values: tuple[float, ...]

    def draw(self, rng: np.random.Generator) -> float:
        """One of them, evenly."""
        return self.values[int(rng.integers(len(self.values)))]

    @property
    def bounds(self) -> tuple[float, float, bool]:
        """Lowest, highest, and whether the scale is logarithmic."""
        return min(self.values), max(self.values), min(self.values) > 0


@dataclass(frozen=True, slots=True)
class Interval:
    """All values between two, even on a linear or a logarithmic scale."""

    low: float
    high: float
    log: bool

    def draw(self, rng: np.random.Generator) -> float:
        """A value."""
        if self.log:
            return float(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return float(rng.uniform(self.low, self.high))

    @property
    def bounds(self) -> tuple[float, float, bool]:
        """Lowest, highest, and whether the scale is logarithmic."""
        return self.low, self.high, self.log


Range: TypeAlias = Choices | Interval


def parse_range(name: str, text: str, *, option: str = "", bound: bool = True) -> Range:
    """The range of the base HP `name`.

    Args:
        name: The HP.
        text: The range.
        option: Where the text comes from, for errors; if not given, `search.space.NAME`.
        bound: Whether the values are the HP's own, and must be possible for it.

    Raises:
        UsageError: The HP or the form is unknown, the range is empty, or a value is impossible.
    """
    option = option or f"search.space.{name}"
    match = _RANGE.fullmatch(text.strip())
    try:
        numbers = [float(part) for part in match[2].split(",") if part.strip()] if match else []
    except ValueError:
        match = None
    check_name(name)
    if match is None:
        raise UsageError(f"{option} is {text!r}, expected a range like {_FORMS}.")
    found = _range(match[1], numbers)
    if found is None:
        raise UsageError(
            f"{option} is {text!r}, which holds no value, or too many: expected e.g. {_FORMS}."
        )
    values = found.values if isinstance(found, Choices) else (found.low, found.high)
    for value in values if bound else ():
        check_value(name, value)
    return found


def _range(form: str, numbers: Sequence[float]) -> Range | None:
    if form == "grid":
        return Choices(tuple(dict.fromkeys(numbers))) if numbers else None
    if form == "log2":
        low, high, step = [*numbers, 1.0][:3] if len(numbers) in (2, 3) else (1.0, 0.0, 1.0)
        if not (low <= high and step > 0):
            return None
        count = math.floor((high - low) / step + 1e-9) + 1
        if count > _MOST or max(abs(low), abs(high)) > 1000:
            return None
        return Choices(tuple(2.0 ** (low + step * index) for index in range(count)))
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        return None
    if form == "log_uniform" and numbers[0] <= 0:
        return None
    return Interval(numbers[0], numbers[1], log=form == "log_uniform")


def parse_space(space: Mapping[str, str]) -> dict[str, Range]:
    """All ranges.

    Raises:
        UsageError: There are none, or one is wrong.
    """
    if not space:
        raise UsageError(
            "search.space is empty: there is nothing to tune. Give at least one range, e.g. "
            "--search.space.lr 'log2(-10, -6)'."
        )
    return {name: parse_range(name, text) for name, text in space.items()}


def grid_points(space: Mapping[str, Range]) -> list[Point]:
    """Every combination, the last HP fastest.

    Raises:
        UsageError: A range is not finite.
    """
    for name, found in space.items():
        if isinstance(found, Interval):
            raise UsageError(
                f"search.space.{name} is an interval, which a grid cannot exhaust. Use "
                "--search.method random with --search.trials, or give values: log2(...), grid(...)."
            )
    values = [found.values for found in space.values() if isinstance(found, Choices)]
    return [dict(zip(space, combination)) for combination in itertools.product(*values)]


def random_points(space: Mapping[str, Range], *, count: int, seed: int) -> list[Point]:
    """`count` independent draws; the first k do not depend on how many are drawn."""
    rng = np.random.default_rng(seed)
    return [{name: found.draw(rng) for name, found in space.items()} for _ in range(count)]


def point_key(point: Point) -> str:
    """A short name of a point: readable, safe as a file name, different for different points."""
    exact = hashlib.sha256(json.dumps(sorted(point.items())).encode()).hexdigest()[:6]
    words = "_".join(f"{name}={_short(value)}" for name, value in list(point.items())[:3])
    return f"{words}_{exact}"


def _short(value: float) -> str:
    log2 = math.log2(value) if value > 0 else math.nan
    return f"2^{log2:.0f}" if log2.is_integer() else f"{value:.3g}"

"""What is known of one value of a program: where it comes from, its size over width, its bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Origin: TypeAlias = Literal["constant", "input", "weight", "data"]
Sizes: TypeAlias = tuple[tuple[int, ...], ...]  # by dimension, at each width
DimMap: TypeAlias = tuple[
    frozenset[int], ...
]  # by dimension of the result: dimensions of the source

_INFINITY = math.inf


@dataclass(frozen=True, slots=True)
class Bounds:
    """An interval that holds every entry of a value, whatever the weights."""

    low: float = -_INFINITY
    high: float = _INFINITY

    def hull(self, other: Bounds) -> Bounds:
        """The smallest interval around both."""
        return Bounds(min(self.low, other.low), max(self.high, other.high))

    @property
    def finite(self) -> bool:
        """Whether both ends are finite."""
        return self.low > -_INFINITY and self.high < _INFINITY


UNBOUNDED = Bounds()


@dataclass(frozen=True, slots=True)
class WeightView:
    """A value that is a parameter seen through views, casts and constant factors.

    Attributes:
        parameter: Canonical name.
        dims: For each dimension of the view, the parameter's dimensions that run along it.
        transformed: Whether a step that is not linear in it, entry by entry, came between.
        looked_up: The parameter's dimensions along which entries were looked up, if they were.
        at: The op that looked them up.
    """

    parameter: str
    dims: DimMap
    transformed: bool = False
    looked_up: frozenset[int] | None = None
    at: int = -1


@dataclass(frozen=True, slots=True)
class Product:
    """A value that is a contraction's result seen through views, and the weight behind it.

    Attributes:
        op: The contraction's op.
        parameter: The weight.
        rows: The weight's dimensions along the result's features.
    """

    op: int
    parameter: str
    rows: frozenset[int]


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a value.

    Attributes:
        origin: `constant`; `input`, a function of inputs and constants; `weight`, of parameters and
            constants; `data`, of both.
        exponent: The power of the width as which explicit sums and factors make it grow.
        bounds: An interval around its entries.
        guarded: Whether a positive constant was added or a positive minimum taken, as an eps is.
        weight: Set while the value is a view of a parameter.
        parts: By dimension that is a concatenation: the sizes of its pieces at each width.
        product: Set while the value is a view of a contraction with a weight.
        maximum_of: The value whose maximum this is.
        reached: Whether, along the dimensions of a maximum, some entry is at the upper bound.
        gain: Set while the value is a parameter times something, entry by entry: the use's place
            among all uses, and the parameter seen along the value's dimensions.
        readouts: Output weights of whose products this is a linear function.
    """

    origin: Origin
    exponent: float = 0.0
    bounds: Bounds = UNBOUNDED
    guarded: bool = False
    weight: WeightView | None = None
    parts: tuple[tuple[int, Sizes], ...] = ()
    product: Product | None = None
    maximum_of: int | None = None
    reached: bool = False
    gain: tuple[int, WeightView] | None = None
    readouts: frozenset[str] = frozenset()

    @property
    def learned(self) -> bool:
        """Whether it depends on parameters."""
        return self.origin in ("weight", "data")


def join(facts: Sequence[Fact]) -> Origin:
    """The origin of a function of several values."""
    origins = {fact.origin for fact in facts}
    if "data" in origins or {"input", "weight"} <= origins:
        return "data"
    if "weight" in origins:
        return "weight"
    return "input" if "input" in origins else "constant"


def hull(facts: Sequence[Fact], origin: Origin) -> Fact:
    """What holds for entries taken from any of several values."""
    bounds = facts[0].bounds
    for fact in facts[1:]:
        bounds = bounds.hull(fact.bounds)
    learned = [fact for fact in facts if fact.learned] or facts
    return Fact(
        origin,
        max(fact.exponent for fact in learned),
        bounds,
        all(fact.guarded for fact in facts),
        readouts=frozenset[str]().union(*(fact.readouts for fact in facts)),
    )


# --- dimensions -----------------------------------------------------------------------------------


def identity(rank: int) -> DimMap:
    """Each dimension is itself."""
    return tuple(frozenset({dim}) for dim in range(rank))


def aligned(source: Sizes, result: Sizes) -> DimMap:
    """Dimensions under broadcasting: aligned at the end; a stretched or new one has no source."""
    offset = len(result) - len(source)
    return tuple(
        frozenset({dim - offset})
        if dim >= offset and source[dim - offset] == result[dim]
        else frozenset()
        for dim in range(len(result))
    )


def regrouped(source: Sizes, result: Sizes) -> DimMap:
    """Dimensions under a view or reshape: groups with equal products at every width."""
    found: list[frozenset[int]] = []
    i = j = 0
    while j < len(result):
        rows, columns = [i] if i < len(source) else [], [j]
        i, j = i + 1, j + 1
        left = source[rows[0]] if rows else _ones(result)
        right = result[columns[0]]
        while left != right:
            # Numbers of elements are equal, so one side can always grow.
            if (left[-1] < right[-1] or j >= len(result)) and i < len(source):
                left = _times(left, source[i])
                rows.append(i)
                i += 1
            elif j < len(result):
                right = _times(right, result[j])
                columns.append(j)
                j += 1
            else:
                break
        for column in columns:
            trivial = all(size == 1 for size in result[column])
            found.append(frozenset() if trivial else frozenset(rows))
    return tuple(found)


def composed(outer: DimMap, inner: DimMap) -> DimMap:
    """First `inner`, then `outer`: for each dimension of the last result, the first source's."""
    return tuple(frozenset().union(*(inner[dim] for dim in dims)) for dims in outer)


def _ones(result: Sizes) -> tuple[int, ...]:
    return tuple(1 for _ in result[0])


def _times(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x * y for x, y in zip(a, b))


# --- bounds ---------------------------------------------------------------------------------------


def _monotone(function: Callable[[float], float]) -> Callable[[Bounds], Bounds]:
    return lambda b: Bounds(function(b.low), function(b.high))


def _safe_exp(x: float) -> float:
    return math.exp(x) if x < 700 else _INFINITY


def _absolute(b: Bounds) -> Bounds:
    low = 0.0 if b.low <= 0.0 <= b.high else min(abs(b.low), abs(b.high))
    return Bounds(low, max(abs(b.low), abs(b.high)))


def _square(b: Bounds) -> Bounds:
    b = _absolute(b)
    return Bounds(b.low**2, b.high**2)


def _inverse(b: Bounds) -> Bounds:
    if b.low > 0.0 or b.high < 0.0:
        ends = sorted((1.0 / b.low if b.low else _INFINITY, 1.0 / b.high if b.high else -_INFINITY))
        return Bounds(*ends)
    return Bounds(0.0, _INFINITY) if b.low == 0.0 else UNBOUNDED


def _root(b: Bounds) -> Bounds:
    return Bounds(math.sqrt(max(b.low, 0.0)), math.sqrt(b.high) if b.high >= 0.0 else 0.0)


UNARY_BOUNDS: dict[str, Callable[[Bounds], Bounds]] = {
    "relu": _monotone(lambda x: max(x, 0.0)),
    "abs": _absolute,
    "square": _square,
    "neg": lambda b: Bounds(-b.high, -b.low),
    "exp": _monotone(_safe_exp),
    "sqrt": _root,
    "rsqrt": lambda b: _inverse(_root(b)) if b.low >= 0.0 else UNBOUNDED,
    "reciprocal": _inverse,
    "softplus": lambda b: Bounds(math.log1p(_safe_exp(b.low)) if b.low < 30 else b.low, b.high + 1),
    "sigmoid": lambda _: Bounds(0.0, 1.0),
    "hardsigmoid": lambda _: Bounds(0.0, 1.0),
    "tanh": lambda _: Bounds(-1.0, 1.0),
    "sin": lambda _: Bounds(-1.0, 1.0),
    "cos": lambda _: Bounds(-1.0, 1.0),
    "erf": lambda _: Bounds(-1.0, 1.0),
    "silu": lambda _: Bounds(-0.2785, _INFINITY),
    "gelu": lambda _: Bounds(-0.1701, _INFINITY),
    "elu": lambda _: Bounds(-1.0, _INFINITY),
    "_softmax": lambda _: Bounds(0.0, 1.0),
    "_safe_softmax": lambda _: Bounds(0.0, 1.0),
    "leaky_relu": lambda b: b,
}


def added(a: Bounds, b: Bounds) -> Bounds:
    """A + b."""
    return Bounds(a.low + b.low, a.high + b.high)


def multiplied(a: Bounds, b: Bounds) -> Bounds:
    """A · b."""
    ends = [0.0 if 0.0 in (x, y) else x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Bounds(min(ends), max(ends))


def divided(a: Bounds, b: Bounds) -> Bounds:
    """A / b."""
    return multiplied(a, _inverse(b))

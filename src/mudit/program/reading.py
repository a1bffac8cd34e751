"""Reads a trace as an NE⊗OR⊤ program [muDiT] App. B.2: every op as Avg, MatMul, OuterNonlin, a
scalar step (Lemma B.1), or structure.

A value is a scalar (no dimension grows), a vector (one does) or, among parameters only, an initial
matrix (two do). Finite dimensions count as 1 (Assumption C.1). What an op is follows from which of
its dimensions grow and which of its operands is a parameter, never from a layer's class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch

from mudit.program import families as ops
from mudit.program.facts import (
    UNARY_BOUNDS,
    UNBOUNDED,
    Bounds,
    DimMap,
    Fact,
    Origin,
    Product,
    Sizes,
    WeightView,
    added,
    aligned,
    composed,
    divided,
    identity,
    join,
    multiplied,
    regrouped,
)
from mudit.program.tape import WRITE, Op, Ref, Source
from mudit.program.trace import Trace

Operator: TypeAlias = Literal["Avg", "MatMul", "OuterNonlin", "Scalar"]
Reason: TypeAlias = Literal["order", "lipschitz", "transformed", "tied"]
UseKind: TypeAlias = Literal["contracted", "multiplied", "added", "looked up", "joined"]

REASONS: dict[Reason, str] = {
    "order": "softmax, sort, top-k or another order-dependent step over a growing dimension",
    "lipschitz": "a step that is not pseudo-Lipschitz",
    "transformed": "a weight that is transformed before use",
    "tied": "a weight used in two ways that need different multipliers",
}
_TOLERANCE = 0.05  # of exponents, which are multiples of 1/2 in every model known


@dataclass(frozen=True, slots=True)
class Step:
    """One op of the program.

    Attributes:
        op: Its index on the tape.
        operators: The operators that it is, in order; empty for structure.
        what: Its family, in a word.
        pieces: Of a MatMul: how many n×n products it is, where inputs are a direct sum.
    """

    op: int
    operators: tuple[Operator, ...]
    what: str
    pieces: int = 1


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a weight that has a role of its own.

    Attributes:
        dim: The parameter's dimension.
        start: First index, at each width.
        stop: Last index and one, at each width.
        fan_in_grows: Whether this part is contracted over a growing dimension.
        fan_out_grows: Whether its result grows.
    """

    dim: int
    start: tuple[int, ...]
    stop: tuple[int, ...]
    fan_in_grows: bool
    fan_out_grows: bool


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a parameter.

    Attributes:
        parameter: Canonical name.
        kind: What is done with it.
        fan_in: The parameter's dimensions that are contracted or looked up.
        fan_in_grows: Whether one of them grows.
        fan_out_grows: Whether another one grows.
        op: The op's index on the tape.
        slices: Set where one weight stands over finite and growing features together.
    """

    parameter: str
    kind: UseKind
    fan_in: tuple[int, ...]
    fan_in_grows: bool
    fan_out_grows: bool
    op: int
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pass is no NE⊗OR⊤ program, or has no one μP.

    Attributes:
        reason: From the closed list `REASONS`.
        message: What was found, in words.
        op: The op's index on the tape.
        parameter: The parameter concerned, or None.
    """

    reason: Reason
    message: str
    op: int
    parameter: str | None = None


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something representable whose size is wrong for μP.

    Attributes:
        message: What was found, in words.
        op: The op's index on the tape.
        exponent: The power of the width by which it is off.
    """

    message: str
    op: int
    exponent: float


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number in the model's code that depends on width.

    Attributes:
        op: The op's index on the tape.
        values: Its value at each width.
        exponent: Its power of the width.
    """

    op: int
    values: tuple[float, ...]
    exponent: float


@dataclass(slots=True)
class Reading:
    """A trace, read.

    Attributes:
        trace: What was read.
        facts: Of each value.
        steps: Of each live op that depends on inputs or parameters, in order.
        uses: Of each parameter, in the order of use.
        refusals: Empty if the pass is an NE⊗OR⊤ program.
        flaws: Sizes that μP does not have.
        scalars: Numbers that depend on width.
        notes: What was assumed.
        unknown: Indices of ops on growing dimensions that have no rule here.
        final: Output weights whose products reach an output through linear steps alone.
    """

    trace: Trace
    facts: dict[int, Fact] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    flaws: list[Flaw] = field(default_factory=list)
    scalars: list[Scalar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    final: set[str] = field(default_factory=set)

    def source(self, op: int) -> Source:
        """The line of an op."""
        return self.trace.ops[op].source


def read(trace: Trace) -> Reading:
    """Type every value and every op that the outputs depend on."""
    return _Reader(trace).run()


def live_ops(trace: Trace) -> list[int]:
    """Indices of the ops that the outputs depend on, in order."""
    producer = {value: i for i, op in enumerate(trace.ops) for value in op.outputs}
    seen: set[int] = set()
    todo = [producer[v] for v in trace.tapes[0].outputs if v in producer]
    while todo:
        index = todo.pop()
        if index not in seen:
            seen.add(index)
            if _base(trace.ops[index].name) in ops.CONSTANTS:
                continue  # it takes its shape alone from its operand
            todo.extend(producer[v] for v in trace.ops[index].inputs if v in producer)
    return sorted(seen)


class _Reader:
    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.made = Reading(trace)
        self._index = 0  # of the op being read
        self._guessed: set[str] = set()

    # --- the pass ---------------------------------------------------------------------------------

    def run(self) -> Reading:
        for value, seen in enumerate(self.trace.values):
            if seen.origin != "op":
                self.made.facts[value] = self._leaf(value)
        for index in live_ops(self.trace):
            self._index = index
            self._read(self.trace.ops[index])
        for value in self.trace.tapes[0].outputs:
            self._arrive(value)
        return self.made

    def _leaf(self, value: int) -> Fact:
        seen = self.trace.values[value]
        if seen.origin == "parameter":
            sizes = self.trace.sizes[value]
            own = tuple(zip(*(self.trace.shapes[w][seen.name] for w in self.trace.widths)))
            dims = identity(len(sizes)) if sizes == own else regrouped(own, sizes)
            return Fact("weight", weight=WeightView(seen.name, dims))
        return Fact("input" if seen.origin == "input" else "constant")

    def _arrive(self, value: int) -> None:
        """A value that the model returns."""
        fact = self._fact(value)
        self.made.final |= fact.readouts
        if fact.weight is not None:
            self._use(fact.weight, "added")
        if fact.learned and abs(fact.exponent) > _TOLERANCE:
            self._flaw(fact.exponent, "an output of the model")

    def _read(self, op: Op) -> None:
        facts = [self._fact(value) for value in op.inputs]
        origin = join(facts)
        name = _base(op.name)
        if origin == "constant" or name in ops.CONSTANTS:
            for value in op.outputs:
                self.made.facts[value] = Fact("constant")
            return
        self._note_scalars(op, origin)
        handler = self._handler(name, op)
        handler(op, facts, origin)
        for value in op.outputs:
            if value not in self.made.facts:
                self.made.facts[value] = Fact(origin)

    def _handler(self, name: str, op: Op) -> Callable[[Op, list[Fact], Origin], None]:
        for names, handler in (
            (ops.VIEWS | ops.COPIES | ops.MOVES, self._structure),
            (ops.JOINS, self._join),
            (ops.PADS, self._pad),
            (ops.PRODUCTS, self._product),
            (ops.CONVOLUTIONS, self._convolution),
            (ops.LAYER_NORMS, self._layer_norm),
            (ops.BATCH_NORMS, self._batch_norm),
            (ops.AVERAGES, self._average),
            (ops.SPREADS, self._spread),
            (ops.NORMS, self._norm),
            (ops.LOOKUPS, self._lookup),
            (ops.STORES, self._store),
        ):
            if name in names:
                return handler
        if name == WRITE:
            return self._write
        if name == "native_group_norm" or name == "group_norm":
            return self._group_norm
        if "attention" in name:
            return self._attention
        if name.startswith(ops.SPATIAL):
            return self._spatial
        if name in ops.ORDERED and not (name in ("max", "min") and len(op.inputs) > 1):
            return self._ordered
        if name in ops.POINTWISE or _is_pointwise(op) or name in ("max", "min"):
            return self._pointwise
        return self._unheard

    # --- looking ----------------------------------------------------------------------------------

    def _fact(self, value: int) -> Fact:
        fact = self.made.facts.get(value)
        if fact is None:  # made by an op that is not live, e.g. only for its shape
            fact = self.made.facts[value] = Fact("constant")
        return fact

    def _grows(self, value: int) -> tuple[bool, ...]:
        return self.trace.grows[value]

    def _vector(self, *values: int) -> bool:
        return any(any(self._grows(value)) for value in values)

    def _sizes(self, value: int) -> Sizes:
        return self.trace.sizes[value]

    def _is_float(self, value: int) -> bool:
        return self.trace.values[value].is_float

    def _exponent(self, value: int) -> float:
        """A value's power of the width; a constant's is measured."""
        fact = self._fact(value)
        if fact.origin != "constant":
            return fact.exponent
        measured = self.trace.constant_exponent(value)
        if not self._is_float(value):
            return 0.0
        if not self._vector(value):
            return measured
        # A table's RMS wobbles with its length; only a plain power counts.
        nearest = round(2 * measured) / 2
        return nearest if abs(measured - nearest) < 0.12 else 0.0

    def _note_scalars(self, op: Op, origin: Origin) -> None:
        """Numbers among the arguments that depend on width, shapes and indices left aside."""
        if (
            origin == "input"
            or _base(op.name) in ops.VIEWS | ops.COPIES | ops.MOVES | ops.LAYER_NORMS
        ):
            return
        arguments: list[tuple[int | str, Any]] = [*enumerate(op.args), *op.kwargs.items()]
        for path, thing in arguments:
            if isinstance(thing, float):
                values = self.trace.numbers(self._index, path)
                if len(set(values)) > 1 and all(isinstance(v, float) for v in values):
                    power = self.trace.exponent(values)
                    self.made.scalars.append(Scalar(self._index, values, power))

    # --- saying -----------------------------------------------------------------------------------

    def _step(
        self, *operators: Operator, what: str, origin: Origin = "data", pieces: int = 1
    ) -> None:
        if origin != "constant":
            self.made.steps.append(Step(self._index, operators, what, pieces))

    def _entrywise(self, op: Op, what: str, origin: Origin) -> None:
        """OuterNonlin on vectors, Lemma B.1 on scalars."""
        vector = self._vector(*op.outputs)
        self._step("OuterNonlin" if vector else "Scalar", what=what, origin=origin)

    def _refuse(self, reason: Reason, message: str, parameter: str | None = None) -> None:
        self.made.refusals.append(Refusal(reason, message, self._index, parameter))

    def _flaw(self, exponent: float, what: str) -> None:
        self.made.flaws.append(
            Flaw(f"{what} grows as n^{exponent:.2g} with width", self._index, exponent)
        )

    def _assume(self, text: str) -> None:
        note = f"{text}, at {self.trace.ops[self._index].source}"
        if note not in self.made.notes:
            self.made.notes.append(note)

    def _must_be_level(self, op: Op, facts: Sequence[Fact], what: str) -> None:
        """A step that is not homogeneous meets values whose size depends on width."""
        for value, fact in zip(op.inputs, facts):
            if fact.learned and abs(fact.exponent) > _TOLERANCE and self._is_float(value):
                self._flaw(fact.exponent, f"the argument of {what}")

    def _make(self, op: Op, fact: Fact) -> None:
        for value in op.outputs:
            bounded = fact if self._is_float(value) else Fact(fact.origin, bounds=fact.bounds)
            self.made.facts[value] = bounded

    # --- uses of parameters -----------------------------------------------------------------------

    def _use(
        self,
        view: WeightView,
        kind: UseKind,
        contracted: Iterable[int] = (),
        slices: tuple[Slice, ...] = (),
        value: int | None = None,
    ) -> None:
        """Note a use; `contracted` are dimensions of the view (whose value is `value`)."""
        grows = self.trace.growing[view.parameter]
        if kind != "contracted" and view.looked_up is not None:
            self.made.uses.append(
                Use(
                    view.parameter,
                    "looked up",
                    tuple(sorted(view.looked_up)),
                    any(grows[dim] for dim in view.looked_up),
                    any(grow for dim, grow in enumerate(grows) if dim not in view.looked_up),
                    view.at,
                )
            )
            return
        if value is None:
            fan_in: set[int] = set()
            inside = outside = False
            outside = any(grows)
        else:
            seen = self._grows(value)
            over = set(contracted)
            inside = any(seen[dim] for dim in over)
            outside = any(seen[dim] for dim in range(len(seen)) if dim not in over)
            fan_in = {
                source
                for dim in over
                for source in view.dims[dim]
                if seen[dim] or not grows[source]
            }
            # A dimension that is split between the two sides counts where it grows.
            free = {s for d in range(len(seen)) if d not in over and seen[d] for s in view.dims[d]}
            fan_in -= {s for s in free if not any(seen[d] and s in view.dims[d] for d in over)}
        if view.transformed and kind == "contracted" and inside:
            self._refuse(
                "transformed",
                f"{view.parameter} is transformed before it is contracted over a growing "
                "dimension, so its multiplier cannot be folded into it",
                view.parameter,
            )
        self.made.uses.append(
            Use(view.parameter, kind, tuple(sorted(fan_in)), inside, outside, self._index, slices)
        )

    def _matrix(self, view: WeightView) -> bool:
        return sum(self.trace.growing[view.parameter]) > 1

    def _spend(self, op: Op, facts: Sequence[Fact], kind: UseKind) -> None:
        """All views of parameters among the operands are used entry by entry."""
        for fact in facts:
            if fact.weight is None:
                continue
            if self._matrix(fact.weight):
                self._refuse(
                    "transformed",
                    f"{fact.weight.parameter} goes through {op.name} before it is contracted",
                    fact.weight.parameter,
                )
            self._use(fact.weight, kind)

    # --- structure --------------------------------------------------------------------------------

    def _structure(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        name = _base(op.name)
        main = 1 if name == "copy" and len(facts) > 1 else 0
        source, fact = op.inputs[main], facts[main]
        if name == "complex" and len(facts) > 1:
            self._spend(op, facts, "joined")
            fact = replace(_hull(facts, origin), weight=None)
        for position, value in enumerate(op.outputs):
            dims = self._dim_map(op, source, value, position)
            self._check_slice(op, fact, source, value, position, dims)
            self.made.facts[value] = self._moved(fact, source, value, dims)
        if name == "glu":
            self._must_be_level(op, facts, "glu")
            self._entrywise(op, "pointwise", origin)
            return
        self._step(what="structure", origin=origin)

    def _moved(self, fact: Fact, source: int, value: int, dims: DimMap) -> Fact:
        weight = fact.weight
        if weight is not None:
            weight = replace(weight, dims=composed(dims, weight.dims))
        parts = []
        for dim, pieces in fact.parts:
            for target, sources in enumerate(dims):
                same = self._sizes(value)[target] == self._sizes(source)[dim]
                if sources == {dim} and same:
                    parts.append((target, pieces))
        return replace(fact, weight=weight, parts=tuple(parts))

    def _check_slice(
        self, op: Op, fact: Fact, source: int, value: int, position: int, dims: DimMap
    ) -> None:
        """Fixed entries of a growing dimension: a part of a direct sum, or a refusal."""
        name = _base(op.name)
        dim = self._sliced(op, source)
        if dim is None or not self._grows(source)[dim] or not fact.learned:
            return
        kept = name not in ("select", "unbind")
        if kept and self._grows(value)[dim]:
            return
        if self._is_piece(fact, dim, op, position):
            return
        if fact.weight is not None:
            return self._refuse(
                "order",
                f"{name} takes fixed entries of a growing dimension of {fact.weight.parameter}",
                fact.weight.parameter,
            )
        if fact.product is not None and name in ("split_with_sizes", "slice", "narrow"):
            return self._split_rows(op, fact.product, dim, source, position)
        self._refuse("order", f"{name} takes fixed entries of a growing dimension")
        return None

    def _sliced(self, op: Op, source: int) -> int | None:
        """The dimension along which an op takes entries out."""
        name = _base(op.name)
        place = {"select": 1, "unbind": 1, "slice": 1, "narrow": 1, "split": 2, "chunk": 2,
                 "split_with_sizes": 2, "tensor_split": 2}  # fmt: skip
        if name not in place:
            return None
        rank = len(self._sizes(source))
        return int(_argument(op, place[name], "dim", 0)) % rank

    def _is_piece(self, fact: Fact, dim: int, op: Op, position: int) -> bool:
        """Whether a slice is a whole piece of a concatenation."""
        pieces = dict(fact.parts).get(dim)
        if pieces is None:
            return False
        start, size = self._extent(op, position)
        ends = [(0,) * len(self.trace.widths)]
        for piece in pieces:
            ends.append(tuple(a + b for a, b in zip(ends[-1], piece)))
        return start in ends and tuple(a + b for a, b in zip(start, size)) in ends

    def _extent(self, op: Op, position: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Start and size of the `position`th result of a slicing op, at each width."""
        name = _base(op.name)
        dim = self._sliced(op, op.inputs[0])
        assert dim is not None
        sizes = (
            [self._sizes(v)[dim] for v in op.outputs] if name not in ("select", "unbind") else []
        )
        width = self.trace.widths
        if name in ("split", "split_with_sizes", "chunk", "tensor_split"):
            before = [(0,) * len(width), *sizes[:position]]
            return tuple(map(sum, zip(*before))), sizes[position]
        starts = self.trace.numbers(self._index, 2)
        total = self._sizes(op.inputs[0])[dim]
        start = tuple((s or 0) + (t if (s or 0) < 0 else 0) for s, t in zip(starts, total))
        return start, sizes[0] if sizes else (1,) * len(width)

    def _split_rows(self, op: Op, product: Product, dim: int, source: int, position: int) -> None:
        """Finite rows of a fused projection: an output weight beside hidden rows."""
        start, size = self._extent(op, position)
        rows = [r for r in product.rows if self.trace.growing[product.parameter][r]]
        for number, use in enumerate(self.made.uses):
            if use.parameter == product.parameter and use.op == product.op and rows:
                stop = tuple(a + b for a, b in zip(start, size))
                part = Slice(rows[0], start, stop, use.fan_in_grows, False)
                self.made.uses[number] = replace(use, slices=(*use.slices, part))
        self._step("OuterNonlin", "Avg", what="contraction")

    def _dim_map(self, op: Op, source: int, value: int, position: int) -> DimMap:
        """For each dimension of a structural op's result, the dimensions of its source."""
        name = _base(op.name)
        before, after = self._sizes(source), self._sizes(value)
        rank = len(before)
        if name in ops.VIEWS or name in ("unfold", "pixel_shuffle", "pixel_unshuffle"):
            return regrouped(before, after)
        if name == "t":
            return tuple(reversed(identity(rank)))
        if name in ("transpose", "swapaxes"):
            a, b = (int(_argument(op, i, f"dim{i - 1}", 0)) % rank for i in (1, 2))
            order = list(range(rank))
            order[a], order[b] = b, a
            return tuple(frozenset({dim}) for dim in order)
        if name == "permute":
            return tuple(frozenset({int(d) % rank}) for d in _argument(op, 1, "dims", ()))
        if name == "unsqueeze":
            at = int(_argument(op, 1, "dim", 0)) % (rank + 1)
            return (*identity(rank)[:at], frozenset(), *identity(rank)[at:])
        if name in ("select", "unbind"):
            at = int(_argument(op, 1, "dim", 0)) % rank
            return tuple(frozenset({d}) for d in range(rank) if d != at)
        if name == "squeeze":
            gone = _dims(_argument(op, 1, "dim", None), rank)
            keep = [d for d in range(rank) if not (d in gone and all(s == 1 for s in before[d]))]
            return tuple(frozenset({d}) for d in keep)
        if name in ("expand", "repeat", "expand_as", "copy"):
            offset = len(after) - rank
            stretched = name != "repeat"
            return tuple(
                frozenset()
                if d < offset or (stretched and before[d - offset] != after[d])
                else frozenset({d - offset})
                for d in range(len(after))
            )
        if len(after) == rank:
            return identity(rank)
        return (
            regrouped(before, after)
            if _same_count(before, after)
            else tuple(frozenset() for _ in after)
        )

    def _join(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        result = op.outputs[0]
        rank = len(self._sizes(result))
        dim = int(_argument(op, 1, "dim", 0)) % rank
        if all(fact.weight is not None or fact.origin == "constant" for fact in facts):
            pass  # tables side by side
        self._spend(op, facts, "joined")
        fact = _hull([f for f, v in zip(facts, op.inputs) if self._is_float(v)] or facts, origin)
        self._must_agree(op, facts, "cat")
        parts: tuple[tuple[int, Sizes], ...] = ()
        if _base(op.name) != "stack" and self._grows(result)[dim]:
            values = [v for v in op.inputs if len(self._sizes(v)) == rank]
            if len(values) > 1:
                parts = ((dim, self._pieces(values, facts, dim)),)
        self._make(op, replace(fact, weight=None, parts=parts, product=None, origin=origin))
        self._step(what="structure", origin=origin)

    def _pieces(self, values: Sequence[int], facts: Sequence[Fact], dim: int) -> Sizes:
        found: list[tuple[int, ...]] = []
        for value, fact in zip(values, facts):
            found.extend(dict(fact.parts).get(dim, (self._sizes(value)[dim],)))
        return tuple(found)

    def _pad(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        source, value = op.inputs[0], op.outputs[0]
        self._spend(op, facts, "joined")
        filled = facts[0].bounds.hull(Bounds(0.0, 0.0))
        number = _argument(op, 2, "value", 0.0)
        if isinstance(number, int | float):
            filled = facts[0].bounds.hull(Bounds(float(number), float(number)))
        parts = []
        for dim, (before, after) in enumerate(zip(self._sizes(source), self._sizes(value))):
            if self._grows(value)[dim] and before != after:
                parts.append((dim, (before, tuple(a - b for a, b in zip(after, before)))))
        made = replace(facts[0], weight=None, bounds=filled, parts=tuple(parts), product=None)
        self._make(op, made)
        self._step(what="structure", origin=origin)

    def _write(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        """A storage that was written to: the old entries and the new ones."""
        old, *new = facts
        self._spend(op, new, "joined")
        if old.weight is not None:
            self._spend(op, [old], "joined")
        self._make(op, replace(_hull(facts, origin), weight=None))
        self._step(what="structure", origin=origin)

    # --- entry by entry ---------------------------------------------------------------------------

    def _pointwise(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        name = _base(op.name)
        result = op.outputs[0]
        weights = [f for f in facts if f.weight is not None]
        others = [f for f in facts if f.weight is None and f.origin != "constant"]
        exponent = self._pointwise_exponent(op, facts)
        bounds = self._pointwise_bounds(op, facts)
        guarded = self._guards(op, facts)
        parts = self._pointwise_parts(op, facts)
        readouts = self._linear_readouts(name, facts)
        fact = Fact(origin, exponent, bounds, guarded, None, parts, readouts=readouts)
        if len(weights) == 1 and not others and self._keeps_view(op, weights[0]):
            view = weights[0].weight
            assert view is not None
            source = next(v for v, f in zip(op.inputs, facts) if f is weights[0])
            dims = composed(aligned(self._sizes(source), self._sizes(result)), view.dims)
            linear = name in ("mul", "div", "neg") and not _is_denominator(op, source)
            if not linear and self._matrix(view):
                self._refuse(
                    "transformed",
                    f"{view.parameter} goes through {op.name} before it is contracted",
                    view.parameter,
                )
            fact = replace(
                fact,
                weight=replace(view, dims=dims, transformed=view.transformed or not linear),
            )
        else:
            self._combine(op, facts, weights)
        self._check_lipschitz(op, facts)
        self._make(op, fact)
        self._entrywise(op, "pointwise", origin)

    def _keeps_view(self, op: Op, fact: Fact) -> bool:
        """A parameter and constants: still that parameter, scaled or transformed."""
        return self._is_float(op.outputs[0])

    def _combine(self, op: Op, facts: list[Fact], weights: list[Fact]) -> None:
        """Parameters meet other values, entry by entry: gains, biases and tables."""
        name = _base(op.name)
        for position, fact in enumerate(facts):
            if fact.weight is None:
                continue
            if self._matrix(fact.weight):
                rest = [f for i, f in enumerate(facts) if i != position]
                if name in ("mul", "div") and all(self._plain_scalar(f) for f in rest):
                    source = op.inputs[position]
                    self._scaled_matrix(op, fact, source)
                    continue
                self._refuse(
                    "transformed",
                    f"{fact.weight.parameter} goes through {op.name} with other values before it "
                    "is contracted",
                    fact.weight.parameter,
                )
            kind: UseKind = "multiplied" if name in ops.MULTIPLIES else "added"
            if name == "where" or name == "masked_fill":
                kind = "joined"
            self._use(fact.weight, kind)

    def _plain_scalar(self, fact: Fact) -> bool:
        """A parameter without growing dimensions, as it is: a learned factor."""
        view = fact.weight
        return (
            view is not None
            and not view.transformed
            and not any(self.trace.growing[view.parameter])
        )

    def _scaled_matrix(self, op: Op, fact: Fact, source: int) -> None:
        """A matrix times a learned scalar is the scalar times its product."""
        assert fact.weight is not None
        dims = aligned(self._sizes(source), self._sizes(op.outputs[0]))
        view = replace(fact.weight, dims=composed(dims, fact.weight.dims))
        self.made.facts[op.outputs[0]] = replace(fact, weight=view)

    def _pointwise_exponent(self, op: Op, facts: list[Fact]) -> float:
        name = _base(op.name)
        powers = [self._exponent(v) if self._is_float(v) else 0.0 for v in op.inputs]
        if name in ("mul", "div", "true_divide", "addcmul", "addcdiv"):
            return self._product_exponent(op, powers)
        if name == "pow":
            exponents = self.trace.numbers(self._index, 1)
            if all(isinstance(e, int | float) for e in exponents):
                return powers[0] * float(exponents[0])
        if name == "square":
            return 2 * powers[0]
        if name == "sqrt":
            return powers[0] / 2
        if name == "rsqrt":
            return -powers[0] / 2
        if name == "reciprocal":
            return -powers[0]
        if name in ops.HOMOGENEOUS:
            return powers[0]
        if name in ops.SUMS:
            return self._sum_exponent(op, facts, powers)
        self._must_be_level(op, facts, name)
        return 0.0

    def _product_exponent(self, op: Op, powers: list[float]) -> float:
        name = _base(op.name)
        if name in ("addcmul", "addcdiv"):
            sign = -1.0 if name == "addcdiv" else 1.0
            return max(powers[0], powers[1] + sign * powers[2])
        signs = (1.0, -1.0 if name in ("div", "true_divide") else 1.0)
        total = 0.0
        place = 0
        for position, sign in enumerate(signs):
            if position < len(op.args) and isinstance(op.args[position], Ref):
                total += sign * powers[place]
                place += 1
            else:
                total += sign * self.trace.exponent(self.trace.numbers(self._index, position))
        return total

    def _sum_exponent(self, op: Op, facts: list[Fact], powers: list[float]) -> float:
        name = _base(op.name)
        if name in ("add", "sub") and isinstance(op.args[1], Ref):
            powers = list(powers)  # alpha is the second operand's factor
            powers[-1] += self.trace.exponent(self.trace.numbers(self._index, "alpha"))
        if name == "where" and len(powers) == 3:
            powers, facts = powers[1:], facts[1:]
        learned = [p for p, f in zip(powers, facts) if f.learned]
        if learned and max(learned) - min(learned) > _TOLERANCE:
            self._flaw(
                max(learned) - min(learned),
                f"one operand of {name} over the other",
            )
        return max(learned) if learned else max(powers, default=0.0)

    def _must_agree(self, op: Op, facts: list[Fact], what: str) -> None:
        powers = [f.exponent for f in facts if f.learned]
        if powers and max(powers) - min(powers) > _TOLERANCE:
            self._flaw(max(powers) - min(powers), f"one operand of {what} over the other")

    def _pointwise_bounds(self, op: Op, facts: list[Fact]) -> Bounds:
        name = _base(op.name)
        if name in UNARY_BOUNDS and facts:
            return UNARY_BOUNDS[name](facts[0].bounds)
        operands = self._operand_bounds(op)
        if name in ("add", "sub", "rsub") and len(operands) == 2:
            a, b = operands if name != "rsub" else operands[::-1]
            if name != "add":
                b = Bounds(-b.high, -b.low)
            made = added(a, b)
            return Bounds(made.low, 0.0) if self._below_maximum(op, facts) else made
        if name == "mul" and len(operands) == 2:
            if len(op.inputs) == 2 and op.inputs[0] == op.inputs[1]:
                return UNARY_BOUNDS["square"](operands[0])
            return multiplied(*operands)
        if name == "div" and len(operands) == 2:
            return divided(*operands)
        if name == "pow":
            exponent = _argument(op, 1, "exponent", None)
            if isinstance(exponent, int | float) and float(exponent).is_integer():
                even = int(exponent) % 2 == 0
                if even and exponent > 0:
                    return Bounds(0.0, UNARY_BOUNDS["square"](facts[0].bounds).high)
            return Bounds(0.0) if facts[0].bounds.low >= 0.0 else UNBOUNDED
        if name in ("clamp", "clamp_min", "clamp_max", "maximum", "minimum"):
            return self._clamped(op, operands)
        return UNBOUNDED

    def _operand_bounds(self, op: Op) -> list[Bounds]:
        found = []
        for position, arg in enumerate(op.args[:2]):
            if isinstance(arg, Ref):
                found.append(self._known_bounds(arg.value))
            elif isinstance(arg, int | float):
                numbers = [float(x) for x in self.trace.numbers(self._index, position)]
                found.append(Bounds(min(numbers), max(numbers)))
        return found

    def _known_bounds(self, value: int) -> Bounds:
        fact = self._fact(value)
        if fact.origin == "constant" and not math.prod(self.trace.values[value].shape) > 1:
            sizes = [tape.sizes.get(value, math.nan) for tape in self.trace.tapes]
            if all(s == s for s in sizes):  # its sign is not recorded
                return Bounds(-max(sizes), max(sizes))
        return fact.bounds

    def _clamped(self, op: Op, operands: list[Bounds]) -> Bounds:
        name = _base(op.name)
        if name in ("maximum", "minimum") and len(operands) == 2:
            pick = max if name == "maximum" else min
            a, b = operands
            return Bounds(pick(a.low, b.low), pick(a.high, b.high))
        low = _argument(op, 1, "min", None) if name != "clamp_max" else None
        high = _argument(op, 2, "max", None) if name == "clamp" else None
        if name == "clamp_max":
            high = _argument(op, 1, "max", None)
        made = operands[0] if operands else UNBOUNDED
        if isinstance(low, int | float):
            made = Bounds(max(made.low, float(low)), max(made.high, float(low)))
        if isinstance(high, int | float):
            made = Bounds(min(made.low, float(high)), min(made.high, float(high)))
        return made

    def _below_maximum(self, op: Op, facts: list[Fact]) -> bool:
        """X - max(x), the first step of a softmax by hand."""
        return (
            _base(op.name) == "sub" and len(op.inputs) == 2 and facts[1].maximum_of == op.inputs[0]
        )

    def _guards(self, op: Op, facts: list[Fact]) -> bool:
        name = _base(op.name)
        if name in ("add", "clamp", "clamp_min", "maximum"):
            numbers = [a for a in (*op.args[1:], *op.kwargs.values()) if isinstance(a, int | float)]
            if name in ("add",) and isinstance(op.args[0], int | float):
                numbers.append(op.args[0])
            constants = [f for f in facts if f.origin == "constant"]
            return any(number > 0 for number in numbers if number is not True) or bool(constants)
        keeps = ("sqrt", "pow", "mul", "square", "rsqrt", "reciprocal", "exp", "where")
        return any(f.guarded for f in facts) if name in keeps else False

    def _pointwise_parts(self, op: Op, facts: list[Fact]) -> tuple[tuple[int, Sizes], ...]:
        result = op.outputs[0]
        for value, fact in zip(op.inputs, facts):
            if fact.parts and self._sizes(value) == self._sizes(result):
                return fact.parts
        return ()

    def _linear_readouts(self, name: str, facts: list[Fact]) -> frozenset[str]:
        """The readouts of which the result of an entry-by-entry step is a linear function."""
        found = frozenset[str]().union(*(fact.readouts for fact in facts))
        if name in ("add", "sub", "rsub", "where", "masked_fill", "neg"):
            return found
        if name in ("mul", "div") and sum(fact.learned for fact in facts) == 1:
            return found
        return frozenset()

    def _check_lipschitz(self, op: Op, facts: list[Fact]) -> None:
        name = _base(op.name)
        for value, fact in zip(op.inputs, facts):
            if not (fact.learned and self._vector(value) and self._is_float(value)):
                continue
            word = ops.WORDS.get(name, name)
            if name in ops.STEPS:
                self._refuse("lipschitz", f"{word} of a vector jumps")
            elif name in ops.NEEDS_CEILING and fact.bounds.high == math.inf:
                if fact.origin == "weight":
                    self._assume(f"{name} of a parameter, taken to stay bounded")
                else:
                    self._refuse("lipschitz", f"{name} of a vector without an upper bound")
            elif name in ops.NEEDS_FLOOR or _is_denominator(op, value) or _falls(op):
                self._check_floor(name, fact)

    def _check_floor(self, name: str, fact: Fact) -> None:
        if fact.bounds.low > 0.0 or fact.bounds.high < 0.0:
            return
        if fact.guarded:
            return self._assume(f"the argument of {name} is taken to stay away from zero")
        if fact.origin == "weight":
            return self._assume(f"{name} of a parameter, taken to stay away from zero")
        self._refuse("lipschitz", f"{name} of a vector that may come near zero")
        return None

    # --- over dimensions --------------------------------------------------------------------------

    def _over(self, op: Op, place: int | None) -> tuple[int, ...]:
        rank = len(self._sizes(op.inputs[0]))
        if place is None:
            return tuple(range(rank))
        last = -1 if _base(op.name) in ops.LAST_BY_DEFAULT else None
        given = _argument(op, place, "dim", _argument(op, place, "dims", last))
        return _dims(given, rank) or tuple(range(rank))

    def _growth(self, value: int, dims: Iterable[int]) -> float:
        """The power of the width as which the number of entries along `dims` grows."""
        counts = [1] * len(self.trace.widths)
        for dim in dims:
            counts = [a * b for a, b in zip(counts, self._sizes(value)[dim])]
        return self.trace.exponent(counts)

    def _average(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        over = self._over(op, 1)
        source, fact = op.inputs[0], facts[0]
        self._spend(op, facts, "added")
        growing = any(self._grows(source)[dim] for dim in over)
        exponent = fact.exponent
        if _base(op.name) in ("sum", "nansum"):
            exponent += self._growth(source, over)
        bounds = Bounds(0.0) if fact.bounds.low >= 0.0 else UNBOUNDED
        if fact.bounds.high <= 0.0:
            bounds = Bounds(-math.inf, 0.0)
        if _base(op.name) in ("mean", "nanmean"):
            bounds = fact.bounds
        self._make(op, Fact(origin, exponent, bounds, fact.guarded))
        if growing:
            self._step("Avg", what="average", origin=origin)
        else:
            self._entrywise(op, "average", origin)

    def _spread(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        over = self._over(op, 1)
        growing = any(self._grows(op.inputs[0])[dim] for dim in over)
        self._spend(op, facts, "added")
        name = _base(op.name)
        power = facts[0].exponent * (2 if name.startswith("var") else 1)
        self._make(op, Fact(origin, power, Bounds(0.0)))
        if growing:
            self._step("Avg", "OuterNonlin", "Avg", what="variance", origin=origin)
        else:
            self._entrywise(op, "variance", origin)

    def _norm(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        over = self._over(op, 2)
        source, fact = op.inputs[0], facts[0]
        order = _argument(op, 1, "ord", 2)
        growing = any(self._grows(source)[dim] for dim in over)
        self._spend(op, facts, "added")
        exponent = fact.exponent
        if growing:
            if not isinstance(order, int | float) or not 0 < order < math.inf:
                self._refuse("order", f"the norm of order {order} over a growing dimension")
            else:
                exponent += self._growth(source, over) / float(order)
        self._make(op, Fact(origin, exponent, Bounds(0.0)))
        if growing:
            self._step("OuterNonlin", "Avg", "Scalar", what="norm", origin=origin)
        else:
            self._entrywise(op, "norm", origin)

    def _ordered(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        name = _base(op.name)
        over = self._over(op, ops.ORDERED[name])
        source, fact = op.inputs[0], facts[0]
        if name in ("tril", "triu", "diag_embed"):
            over = tuple(range(len(self._sizes(source))))[-2:]
        self._spend(op, facts, "added")
        if any(self._grows(source)[dim] for dim in over) and fact.learned:
            self._refuse("order", f"{name} over a growing dimension")
        soft = "softmax" in name
        if soft and origin == "data" and abs(fact.exponent) > _TOLERANCE:
            self._flaw(fact.exponent, _logits(fact.exponent > _TOLERANCE))
        elif name in ("logsumexp", "prod"):
            self._must_be_level(op, facts, name)
        bounds = UNARY_BOUNDS["_softmax"](fact.bounds) if soft else _ordered_bounds(name, fact)
        power = 0.0 if soft else fact.exponent
        highest = source if name in ("amax", "max") else None
        self._make(op, Fact(origin, power, bounds, maximum_of=highest))
        if name == "flip" or name == "roll":
            return self._step(what="structure", origin=origin)
        self._entrywise(op, "softmax" if soft else "over tokens", origin)
        return None

    # --- normalisation ----------------------------------------------------------------------------

    def _layer_norm(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        source = op.inputs[0]
        shape = _argument(op, 1, "normalized_shape", ())
        rank = len(self._sizes(source))
        growing = any(self._grows(source)[dim] for dim in range(rank - len(shape), rank))
        self._gain_and_bias(op)
        if facts[0].weight is not None:
            self._spend(op, facts[:1], "added")
        self._make(op, Fact(origin))
        rms = "rms" in op.name
        self._normalisation(op, growing, origin, rms=rms)

    def _gain_and_bias(self, op: Op) -> None:
        for number, arg in enumerate(a for a in op.args[1:] if isinstance(a, Ref)):
            view = self._fact(arg.value).weight
            if view is not None:
                self._use(view, "multiplied" if number == 0 else "added")

    def _normalisation(self, op: Op, growing: bool, origin: Origin, *, rms: bool) -> None:
        if growing and rms:
            self._step("OuterNonlin", "Avg", "OuterNonlin", what="rms norm", origin=origin)
        elif growing:
            self._step("Avg", "OuterNonlin", "Avg", "OuterNonlin", what="layer norm", origin=origin)
        else:
            self._entrywise(op, "norm", origin)

    def _group_norm(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        channels = self._sizes(op.inputs[0])[1]
        groups = self.trace.numbers(self._index, 6 if "native" in op.name else 1)
        per_group = [c // g for c, g in zip(channels, groups)]
        self._gain_and_bias(op)
        self._make(op, Fact(origin))
        self._normalisation(op, len(set(per_group)) > 1, origin, rms=False)

    def _batch_norm(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        self._gain_and_bias(op)
        self._make(op, Fact(origin))
        self._entrywise(op, "batch norm", origin)

    # --- contractions -----------------------------------------------------------------------------

    def _product(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        name = _base(op.name)
        values = list(op.inputs)
        if name in ("addmm", "baddbmm", "addbmm", "addmv", "addr", "_addmm_activation"):
            self._bias(values.pop(0))
        bias = values[2] if name in ("linear", "_grouped_mm") and len(values) > 2 else None
        if name == "linear" and bias is not None:
            self._bias(bias)
        a, b = values[:2]
        ranks = len(self._sizes(a)), len(self._sizes(b))
        if name in ("addr", "outer", "ger"):
            over_a: tuple[int, ...] = ()
            over_b: tuple[int, ...] = ()
        elif name == "linear":
            over_a, over_b = (ranks[0] - 1,), (1,)
        elif name == "addbmm":
            over_a, over_b = (0, 2), (0, 1)
        else:
            over_a, over_b = (ranks[0] - 1,), (max(ranks[1] - 2, 0),)
        self._contract(op, a, over_a, b, over_b, origin)

    def _bias(self, value: int) -> None:
        view = self._fact(value).weight
        if view is not None:
            self._use(view, "added")

    def _convolution(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        a, b = op.inputs[:2]
        if len(op.inputs) > 2:
            self._bias(op.inputs[2])
        transposed = bool(_argument(op, 6, "transposed", False)) if len(op.args) > 6 else False
        rank = len(self._sizes(b))
        spatial = tuple(range(2, rank))
        kernel = [d for d in spatial if any(s > 1 for s in self._sizes(b)[d])]
        if self._fact(a).learned and any(self._grows(a)[d] for d in spatial if d < rank):
            self._refuse("order", "a convolution along a growing dimension")
        groups = self.trace.numbers(self._index, 8)
        over_b = (0 if transposed else 1, *spatial)
        if len(set(groups)) > 1 and transposed:
            over_b = spatial  # one kernel for each channel
        del kernel
        self._contract(op, a, (1,), b, over_b, origin, grouped=len(set(groups)) > 1)

    def _contract(
        self,
        op: Op,
        a: int,
        over_a: tuple[int, ...],
        b: int,
        over_b: tuple[int, ...],
        origin: Origin,
        *,
        grouped: bool = False,
    ) -> None:
        """A sum of products over `over_a` of one operand and `over_b` of the other."""
        fact_a, fact_b = self._fact(a), self._fact(b)
        weight, over_w, data, over_d = b, over_b, a, over_a
        if fact_b.weight is None or (
            fact_a.weight is not None
            and self._matrix(fact_a.weight)
            and not self._matrix(fact_b.weight)
        ):
            weight, over_w, data, over_d = a, over_a, b, over_b
        view = self._fact(weight).weight
        if view is None:
            return self._contract_values(op, a, over_a, b, over_b, origin)
        other = self._fact(data).weight
        if other is not None:
            if self._matrix(other) and self._matrix(view):
                self._refuse(
                    "transformed",
                    f"{other.parameter} is multiplied by {view.parameter} before either meets data",
                    view.parameter,
                )
            self._use(other, "added")
        self._contract_weight(op, weight, over_w, data, over_d, view, origin, grouped=grouped)
        return None

    def _contract_weight(
        self,
        op: Op,
        weight: int,
        over_w: tuple[int, ...],
        data: int,
        over_d: tuple[int, ...],
        view: WeightView,
        origin: Origin,
        *,
        grouped: bool,
    ) -> None:
        seen = self._grows(weight)
        fact = self._fact(data)
        inside = any(seen[d] for d in over_w)
        outside = any(seen[d] for d in range(len(seen)) if d not in over_w)
        slices = () if grouped else self._slices(fact, over_d, view, over_w, outside)
        self._use(view, "contracted", over_w, slices, weight)
        pieces = self._direct_sum(fact, over_d) if inside else 1
        power = self._fact(weight).exponent + fact.exponent
        rows = frozenset(
            s for d in range(len(seen)) if d not in over_w and seen[d] for s in view.dims[d]
        )
        product = Product(self._index, view.parameter, rows) if outside else None
        readouts = frozenset({view.parameter}) if inside and not outside else frozenset()
        self._make(op, Fact(origin, power, product=product, readouts=readouts))
        if inside and outside:
            more: tuple[Operator, ...] = ("OuterNonlin",) if pieces > 1 or slices else ()
            self._step("MatMul", *more, what="contraction", origin=origin, pieces=pieces)
        elif inside:
            self._step("OuterNonlin", "Avg", what="contraction", origin=origin)
        else:
            self._entrywise(op, "contraction", origin)

    def _direct_sum(self, fact: Fact, over: tuple[int, ...]) -> int:
        """How many growing pieces a contracted dimension is a concatenation of."""
        for dim, pieces in fact.parts:
            if dim in over:
                return sum(piece[-1] > piece[0] for piece in pieces) or 1
        return 1

    def _slices(
        self,
        fact: Fact,
        over_d: tuple[int, ...],
        view: WeightView,
        over_w: tuple[int, ...],
        outside: bool,
    ) -> tuple[Slice, ...]:
        """The parts of a weight over finite and growing features together."""
        for dim, pieces in fact.parts:
            growing = [piece[-1] > piece[0] for piece in pieces]
            if dim not in over_d or all(growing) or not any(growing):
                continue
            columns = [s for d in over_w for s in view.dims[d]]
            if len(columns) != 1:
                continue
            found: list[Slice] = []
            start = (0,) * len(self.trace.widths)
            for piece, grows in zip(pieces, growing):
                stop = tuple(x + y for x, y in zip(start, piece))
                if found and found[-1].fan_in_grows == grows:
                    found[-1] = replace(found[-1], stop=stop)
                else:
                    found.append(Slice(columns[0], start, stop, grows, outside))
                start = stop
            return tuple(found)
        return ()

    def _contract_values(
        self,
        op: Op,
        a: int,
        over_a: tuple[int, ...],
        b: int,
        over_b: tuple[int, ...],
        origin: Origin,
    ) -> None:
        """Two operands that are no parameters."""
        inside = any(self._grows(a)[d] for d in over_a)
        for value in (a, b):
            fixed = self._fact(value).origin == "constant"
            if inside and fixed and sum(self._grows(value)) > 1:
                self._refuse("order", "a fixed matrix over a growing dimension")
        fact_a, fact_b = self._fact(a), self._fact(b)
        power = self._exponent(a) + self._exponent(b) + self._growth(a, over_a)
        positive = fact_a.bounds.low >= 0.0 and fact_b.bounds.low >= 0.0
        bounds = Bounds(0.0) if positive else UNBOUNDED
        self._make(op, Fact(origin, power, bounds))
        if inside:
            self._step("OuterNonlin", "Avg", what="inner product", origin=origin)
        else:
            self._entrywise(op, "inner product", origin)

    # --- attention --------------------------------------------------------------------------------

    def _attention(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        query, key, value = (self._attended(op, i) for i in range(3))
        self._spend(op, facts, "joined")
        rank = len(self._sizes(query))
        head = rank - 1
        growing = self._grows(query)[head]
        if self._grows(key)[rank - 2]:
            self._refuse("order", "softmax over a growing dimension, in attention")
        scales = self.trace.numbers(self._index, "scale")
        if scales[0] is None and len(op.args) > 5 and "flex" in op.name:
            scales = self.trace.numbers(self._index, 5)
        if scales[0] is None:
            scales = tuple(size**-0.5 for size in self._sizes(query)[head])
        power = (
            self._fact(query).exponent
            + self._fact(key).exponent
            + self._growth(query, (head,))
            + self.trace.exponent(scales)
        )
        if abs(power) > _TOLERANCE and origin == "data":
            self._flaw(power, _logits(growing))
        self._make(op, Fact(origin, self._fact(value).exponent))
        vector = self._vector(*op.outputs)
        last: Operator = "OuterNonlin" if vector else "Scalar"
        if growing:
            self._step("OuterNonlin", "Avg", last, what="attention", origin=origin)
        else:
            self._step(last, what="attention", origin=origin)

    def _attended(self, op: Op, position: int) -> int:
        return op.args[position].value if position < len(op.args) else op.inputs[position]

    # --- looking up and storing -------------------------------------------------------------------

    def _lookup(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        name = _base(op.name)
        source, fact = op.inputs[0], facts[0]
        result = op.outputs[0]
        over = self._indexed(op, source)
        if fact.learned and any(self._grows(source)[dim] for dim in over):
            count_grows = self._vector(*op.inputs[1:])
            if not count_grows:
                self._refuse("order", f"{name} takes entries along a growing dimension")
            else:
                self._assume(f"{name} is taken to permute a growing dimension")
        view = fact.weight
        if view is not None:
            dims = self._kept(op, source, over)
            rows = frozenset().union(*(view.dims[dim] for dim in over))
            seen = (view.looked_up or frozenset()) | rows
            view = replace(view, dims=composed(dims, view.dims), looked_up=seen, at=self._index)
        self._make(op, replace(fact, origin=origin, weight=view, parts=(), product=None))
        self.made.facts[result] = replace(self.made.facts[result], weight=view)
        self._entrywise(op, "look-up", origin)

    def _kept(self, op: Op, source: int, over: tuple[int, ...]) -> DimMap:
        """For each dimension of a look-up's result, the dimensions of its source."""
        before, after = self._sizes(source), self._sizes(op.outputs[0])
        rank, name = len(before), _base(op.name)
        if name in ("embedding", "_embedding_bag"):
            return (*(frozenset[int]() for _ in after[1:]), frozenset({rank - 1}))
        if name in ("index_select", "gather", "take_along_dim"):
            return tuple(frozenset() if d in over else frozenset({d}) for d in range(rank))
        rest = [d for d in range(rank) if d not in over]
        new = len(after) - len(rest)
        first = over[0] if over and list(over) == list(range(over[0], over[-1] + 1)) else 0
        head = [frozenset({d}) for d in rest if d < first]
        tail = [frozenset({d}) for d in rest if d >= first]
        return (*head, *(frozenset[int]() for _ in range(new)), *tail)

    def _indexed(self, op: Op, source: int) -> tuple[int, ...]:
        """The dimensions along which a look-up takes entries."""
        name = _base(op.name)
        rank = len(self._sizes(source))
        if name in ("embedding", "_embedding_bag"):
            return (0,)
        if name in ("index_select", "gather", "take_along_dim"):
            place = 2 if name == "take_along_dim" else 1
            return _dims(_argument(op, place, "dim", 0), rank)
        if name == "take":
            return tuple(range(rank))
        found: list[int] = []
        dim = 0
        for index in _argument(op, 1, "indices", ()):
            if index is None:
                dim += 1
                continue
            seen = self.trace.values[index.value]
            spans = (
                1
                if seen.is_float or not self._is_mask(index.value, source, dim)
                else len(seen.shape)
            )
            found.extend(range(dim, dim + spans))
            dim += spans
        return tuple(found)

    def _is_mask(self, value: int, source: int, dim: int) -> bool:
        """Whether an index covers several dimensions, as a boolean mask does."""
        shape = self._sizes(value)
        return len(shape) > 1 and shape == self._sizes(source)[dim : dim + len(shape)]

    def _store(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        name = _base(op.name)
        source = op.inputs[0]
        rank = len(self._sizes(source))
        if "index_put" in name:
            over = self._indexed(op, source)
        elif name in ("masked_scatter", "put"):
            over = ()
        elif name == "diagonal_scatter":
            over = tuple(range(rank))[-2:]
        else:
            place = 2 if name in ("select_scatter", "slice_scatter") else 1
            over = _dims(_argument(op, place, "dim", 0), rank)
        if any(self._grows(source)[dim] for dim in over) and join(facts) in ("weight", "data"):
            if any(any(self._grows(v)) and not self._is_float(v) for v in op.inputs[1:]):
                self._assume(f"{name} is taken to permute a growing dimension")
            else:
                self._refuse("order", f"{name} into fixed entries of a growing dimension")
        self._spend(op, facts, "joined")
        self._make(op, replace(_hull(facts, origin), weight=None))
        self._entrywise(op, "store", origin)

    def _spatial(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        source, value = op.inputs[0], op.outputs[0]
        self._spend(op, facts, "joined")
        for dim, (before, after) in enumerate(zip(self._sizes(source), self._sizes(value))):
            if before != after and self._grows(source)[dim] and facts[0].learned:
                self._refuse("order", f"{op.name} along a growing dimension")
        self._make(op, replace(facts[0], origin=origin, weight=None, parts=(), product=None))
        self._entrywise(op, "over tokens", origin)

    def _unheard(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        """An op without a rule: finite ones are scalar steps, others are said to be unknown."""
        if self._vector(*op.inputs, *op.outputs) and join(facts) in ("weight", "data"):
            self.made.unknown.append(self._index)
        self._spend(op, facts, "joined")
        self._make(op, Fact(origin))
        self._entrywise(op, "other", origin)


# --- helpers --------------------------------------------------------------------------------------


def _base(name: str) -> str:
    """An op's name without the mark of its in-place variant."""
    return name[:-1] if name.endswith("_") and not name.startswith("__") else name


def _is_pointwise(op: Op) -> bool:
    return op.overload is not None and torch.Tag.pointwise in op.overload.tags


def _argument(op: Op, position: int, keyword: str, default: Any) -> Any:
    if keyword in op.kwargs:
        return op.kwargs[keyword]
    return op.args[position] if position < len(op.args) else default


def _dims(given: Any, rank: int) -> tuple[int, ...]:
    if given is None or isinstance(given, bool):
        return ()
    listed = given if isinstance(given, list | tuple) else (given,)
    return tuple(int(d) % rank for d in listed if isinstance(d, int)) if rank else ()


def _same_count(before: Sizes, after: Sizes) -> bool:
    return math.prod(s[0] for s in before) == math.prod(s[0] for s in after)


def _is_denominator(op: Op, value: int) -> bool:
    if _base(op.name) not in ("div", "true_divide", "addcdiv"):
        return False
    place = 2 if _base(op.name) == "addcdiv" else 1
    return place < len(op.args) and op.args[place] == Ref(value)


def _falls(op: Op) -> bool:
    """A negative power."""
    exponent = _argument(op, 1, "exponent", None)
    return _base(op.name) == "pow" and isinstance(exponent, int | float) and exponent < 0


def _ordered_bounds(name: str, fact: Fact) -> Bounds:
    if name in ("amax", "amin", "max", "min", "sort", "topk", "median", "flip", "roll", "tril",
                "triu", "kthvalue"):  # fmt: skip
        return fact.bounds
    if name in ("cumsum",):
        low = 0.0 if fact.bounds.low >= 0.0 else -math.inf
        return Bounds(low, 0.0 if fact.bounds.high <= 0.0 else math.inf)
    return UNBOUNDED


def _hull(facts: Sequence[Fact], origin: Origin) -> Fact:
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


def _logits(growing: bool) -> str:
    if growing:
        return "the size of the logits (over a growing head_dim d, μP needs 1/d, not 1/√d)"
    return "the size of the logits"

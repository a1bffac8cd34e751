"""Sums of products: of a weight and a vector, of two vectors, and attention."""

from __future__ import annotations

from dataclasses import replace

from mudit.program.facts import (
    UNBOUNDED,
    Bounds,
    Fact,
    Origin,
    Product,
    WeightView,
)
from mudit.program.outcome import (
    Operator,
    Slice,
)
from mudit.program.reader import TOLERANCE, Reader, argument, base, logits
from mudit.program.tape import Op


class Contractions(Reader):
    """Reads sums of products."""

    def _product(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        name = base(op.name)
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
        if view is None:
            return
        if self._matrix(view):
            self._refuse(
                "transformed",
                f"{view.parameter} is added to a product of others before it is contracted",
                view.parameter,
            )
        self._use(view, "added")

    def _convolution(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        a, b = op.inputs[:2]
        if len(op.inputs) > 2:
            self._bias(op.inputs[2])
        transposed = bool(argument(op, 6, "transposed", False)) if len(op.args) > 6 else False
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
        if inside:
            readouts = frozenset() if outside else frozenset({view.parameter})
        else:  # a weight of fixed size, as of a convolution of the output, leaves readouts linear
            readouts = frozenset() if outside else fact.readouts
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
        if inside and "weight" in (fact_a.origin, fact_b.origin):
            self._refuse(
                "transformed",
                "a value made of parameters alone is contracted over a growing dimension, and is "
                "no parameter any more",
            )
        power = self._exponent(a) + self._exponent(b) + self._growth(a, over_a)
        positive = fact_a.bounds.low >= 0.0 and fact_b.bounds.low >= 0.0
        bounds = Bounds(0.0) if positive else UNBOUNDED
        self._make(op, Fact(origin, power, bounds))
        if inside:
            self._step("OuterNonlin", "Avg", what="inner product", origin=origin)
        else:
            self._entrywise(op, "inner product", origin)

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
        if abs(power) > TOLERANCE and origin == "data":
            self._flaw(power, logits(growing))
        self._make(op, Fact(origin, self._fact(value).exponent))
        vector = self._vector(*op.outputs)
        last: Operator = "OuterNonlin" if vector else "Scalar"
        if growing:
            self._step("OuterNonlin", "Avg", last, what="attention", origin=origin)
        else:
            self._step(last, what="attention", origin=origin)

    def _attended(self, op: Op, position: int) -> int:
        return op.args[position].value if position < len(op.args) else op.inputs[position]

"""Views, joins and writes: ops that move entries and change none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mudit.program import families as ops
from mudit.program.facts import (
    Bounds,
    DimMap,
    Fact,
    Origin,
    Product,
    Sizes,
    composed,
    hull,
    identity,
    regrouped,
)
from mudit.program.outcome import (
    Slice,
)
from mudit.program.reader import Reader, argument, base, dims_of
from mudit.program.tape import Op


class Structure(Reader):
    """Reads structure."""

    def _structure(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        name = base(op.name)
        main = 1 if name == "copy" and len(facts) > 1 else 0
        source, fact = op.inputs[main], facts[main]
        if name == "complex" and len(facts) > 1:
            self._spend(op, facts, "joined")
            fact = replace(hull(facts, origin), weight=None)
        cast = name == "_to_copy" and self._is_float(source) and not self._is_float(op.outputs[0])
        if cast and fact.learned and self._vector(source):
            self._refuse("lipschitz", "a cast of a vector to whole numbers jumps")
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
        name = base(op.name)
        dim = self._sliced(op, source)
        if dim is None or not self._grows(source)[dim] or not fact.learned:
            return
        kept = name not in ("select", "unbind")
        if kept and (self._grows(value)[dim] or not any(self._sizes(value)[dim])):
            return
        if self._is_piece(fact, dim, op, position):
            return
        if fact.weight is not None:
            return self._refuse(
                "order",
                f"{name} takes fixed entries of a growing dimension of {fact.weight.parameter}",
                fact.weight.parameter,
            )
        if fact.product is not None and self._is_partition(op, dim):
            return self._split_rows(op, fact.product, dim, source, position)
        self._refuse("order", f"{name} takes fixed entries of a growing dimension")
        return None

    def _is_partition(self, op: Op, dim: int) -> bool:
        """Whether a slicing op, with those beside it, uses up the dimension: a fused projection."""
        if base(op.name) == "split_with_sizes":
            return True
        if base(op.name) not in ("slice", "narrow"):
            return False
        source = op.inputs[0]
        beside = [
            other
            for other in self.trace.ops
            if base(other.name) == base(op.name)
            and other.inputs[:1] == (source,)
            and self._sliced(other, source) == dim
        ]
        covered = zip(*(self._sizes(other.outputs[0])[dim] for other in beside))
        return tuple(map(sum, covered)) == self._sizes(source)[dim]

    def _sliced(self, op: Op, source: int) -> int | None:
        """The dimension along which an op takes entries out."""
        name = base(op.name)
        place = {"select": 1, "unbind": 1, "slice": 1, "narrow": 1, "split": 2, "chunk": 2,
                 "split_with_sizes": 2, "tensor_split": 2}  # fmt: skip
        if name not in place:
            return None
        rank = len(self._sizes(source))
        return int(argument(op, place[name], "dim", 0)) % rank

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
        name = base(op.name)
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
        name = base(op.name)
        before, after = self._sizes(source), self._sizes(value)
        rank = len(before)
        if name in ops.VIEWS or name in ("unfold", "pixel_shuffle", "pixel_unshuffle"):
            return regrouped(before, after)
        if name == "t":
            return tuple(reversed(identity(rank)))
        if name in ("transpose", "swapaxes"):
            a, b = (int(argument(op, i, f"dim{i - 1}", 0)) % rank for i in (1, 2))
            order = list(range(rank))
            order[a], order[b] = b, a
            return tuple(frozenset({dim}) for dim in order)
        if name == "permute":
            return tuple(frozenset({int(d) % rank}) for d in argument(op, 1, "dims", ()))
        if name == "unsqueeze":
            at = int(argument(op, 1, "dim", 0)) % (rank + 1)
            return (*identity(rank)[:at], frozenset(), *identity(rank)[at:])
        if name in ("select", "unbind"):
            at = int(argument(op, 1, "dim", 0)) % rank
            return tuple(frozenset({d}) for d in range(rank) if d != at)
        if name == "squeeze":
            gone = dims_of(argument(op, 1, "dim", None), rank)
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
        dim = int(argument(op, 1, "dim", 0)) % rank
        if all(fact.weight is not None or fact.origin == "constant" for fact in facts):
            pass  # tables side by side
        self._spend(op, facts, "joined")
        fact = hull([f for f, v in zip(facts, op.inputs) if self._is_float(v)] or facts, origin)
        self._must_agree(op, facts, "cat")
        parts: tuple[tuple[int, Sizes], ...] = ()
        if base(op.name) != "stack" and self._grows(result)[dim]:
            values = [v for v in op.inputs if len(self._sizes(v)) == rank]
            if len(values) > 1:
                parts = ((dim, self._pieces(values, facts, dim)),)
        self._make(op, replace(fact, weight=None, parts=parts, product=None, origin=origin))
        self._step(what="structure", origin=origin)

    def _pieces(self, values: Sequence[int], facts: Sequence[Fact], dim: int) -> Sizes:
        found: list[tuple[int, ...]] = []
        for value, fact in zip(values, facts):
            pieces = dict(fact.parts).get(dim, (self._sizes(value)[dim],))
            found.extend(piece for piece in pieces if any(piece))
        return tuple(found)

    def _pad(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        source, value = op.inputs[0], op.outputs[0]
        self._spend(op, facts, "joined")
        filled = facts[0].bounds.hull(Bounds(0.0, 0.0))
        number = argument(op, 2, "value", 0.0)
        if isinstance(number, int | float):
            filled = facts[0].bounds.hull(Bounds(float(number), float(number)))
        parts = []
        for dim, (before, after) in enumerate(zip(self._sizes(source), self._sizes(value))):
            if self._grows(value)[dim] and before != after:
                parts.append((dim, (before, tuple(a - b for a, b in zip(after, before)))))
        made = replace(facts[0], weight=None, bounds=filled, parts=tuple(parts), product=None)
        self._make(op, made)
        self._step(what="structure", origin=origin)

    def _fill(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        """All entries are one value."""
        self._spend(op, facts[1:], "joined")
        self._make(op, replace(facts[1], origin=origin, weight=None, parts=(), product=None))
        self._step(what="structure", origin=origin)

    def _write(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        """A storage that was written to: the old entries and the new ones."""
        old, *new = facts
        self._spend(op, new, "joined")
        if old.weight is not None:
            self._spend(op, [old], "joined")
        self._make(op, replace(hull(facts, origin), weight=None))
        self._step(what="structure", origin=origin)


def _same_count(before: Sizes, after: Sizes) -> bool:
    return math.prod(s[0] for s in before) == math.prod(s[0] for s in after)

"""Look-ups and stores by index, and pooling over tokens."""

from __future__ import annotations

from dataclasses import replace

from mudit.program.facts import (
    DimMap,
    Fact,
    Origin,
    composed,
    hull,
    join,
)
from mudit.program.reader import Reader, argument, base, dims_of
from mudit.program.tape import Op


class Lookups(Reader):
    """Reads look-ups and stores."""

    def _lookup(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        name = base(op.name)
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
        rank, name = len(before), base(op.name)
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
        name = base(op.name)
        rank = len(self._sizes(source))
        if name in ("embedding", "_embedding_bag"):
            return (0,)
        if name in ("index_select", "gather", "take_along_dim"):
            place = 2 if name == "take_along_dim" else 1
            return dims_of(argument(op, place, "dim", 0), rank)
        if name == "take":
            return tuple(range(rank))
        found: list[int] = []
        dim = 0
        for index in argument(op, 1, "indices", ()):
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
        name = base(op.name)
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
            over = dims_of(argument(op, place, "dim", 0), rank)
        if any(self._grows(source)[dim] for dim in over) and join(facts) in ("weight", "data"):
            if any(any(self._grows(v)) and not self._is_float(v) for v in op.inputs[1:]):
                self._assume(f"{name} is taken to permute a growing dimension")
            else:
                self._refuse("order", f"{name} into fixed entries of a growing dimension")
        self._spend(op, facts, "joined")
        self._make(op, replace(hull(facts, origin), weight=None))
        self._entrywise(op, "store", origin)

    def _spatial(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        source, value = op.inputs[0], op.outputs[0]
        self._spend(op, facts, "joined")
        for dim, (before, after) in enumerate(zip(self._sizes(source), self._sizes(value))):
            if before != after and self._grows(source)[dim] and facts[0].learned:
                self._refuse("order", f"{op.name} along a growing dimension")
        self._make(op, replace(facts[0], origin=origin, weight=None, parts=(), product=None))
        self._entrywise(op, "over tokens", origin)

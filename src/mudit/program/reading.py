"""Reads a trace as an NE⊗OR⊤ program [muDiT] App. B.2: every op as Avg, MatMul, OuterNonlin, a
scalar step (Lemma B.1), or structure.

A value is a scalar (no dimension grows), a vector (one does) or, among parameters only, an initial
matrix (two do). Finite dimensions count as 1 (Assumption C.1). What an op is follows from which of
its dimensions grow and which of its operands is a parameter, never from a layer's class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeAlias

import torch

from mudit.program import families as ops
from mudit.program.contractions import Contractions
from mudit.program.entrywise import Entrywise
from mudit.program.facts import Fact, Origin, WeightView, identity, join, regrouped
from mudit.program.lookups import Lookups
from mudit.program.outcome import Reading
from mudit.program.reader import TOLERANCE, base
from mudit.program.reductions import Reductions
from mudit.program.structure import Structure
from mudit.program.tape import WRITE, Op
from mudit.program.trace import Trace

_Handler: TypeAlias = Callable[[Op, list[Fact], Origin], None]


def read(trace: Trace) -> Reading:
    """Type every value and every op that the outputs depend on."""
    return _Program(trace).run()


def live_ops(trace: Trace) -> list[int]:
    """Indices of the ops that the outputs depend on, in order."""
    producer = {value: i for i, op in enumerate(trace.ops) for value in op.outputs}
    seen: set[int] = set()
    todo = [producer[v] for v in trace.tapes[0].outputs if v in producer]
    while todo:
        index = todo.pop()
        if index not in seen:
            seen.add(index)
            if _is_constant(trace.ops[index]):
                continue  # it takes its shape alone from its operand
            todo.extend(producer[v] for v in trace.ops[index].inputs if v in producer)
    return sorted(seen)


class _Program(Structure, Entrywise, Reductions, Contractions, Lookups):
    """Reads a whole trace."""

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
        if fact.learned and abs(fact.exponent) > TOLERANCE:
            self._flaw(fact.exponent, "an output of the model")

    def _read(self, op: Op) -> None:
        facts = [self._fact(value) for value in op.inputs]
        origin = join(facts)
        name = base(op.name)
        if origin == "constant" or _is_constant(op):
            for value in op.outputs:
                self.made.facts[value] = Fact("constant")
            return
        self._note_scalars(op, origin)
        handler = self._handler(name, op)
        handler(op, facts, origin)
        for value in op.outputs:
            if value not in self.made.facts:
                self.made.facts[value] = Fact(origin)

    def _handler(self, name: str, op: Op) -> _Handler:
        for names, handler in self._families:
            if name in names:
                return handler
        if "attention" in name:
            return self._attention
        if name.startswith("_weight_norm"):
            return self._weight_norm
        if name.startswith(ops.SPATIAL):
            return self._spatial
        if name in ops.ORDERED and not (name in ("max", "min") and len(op.inputs) > 1):
            return self._ordered
        if name in ops.POINTWISE or _is_pointwise(op):
            return self._pointwise
        return self._unheard

    @cached_property
    def _families(self) -> tuple[tuple[frozenset[str], _Handler], ...]:
        return (
            (frozenset(ops.VIEWS | ops.COPIES | ops.MOVES), self._structure),
            (frozenset(ops.JOINS), self._join),
            (frozenset(ops.PADS), self._pad),
            (frozenset(ops.PRODUCTS), self._product),
            (frozenset(ops.CONVOLUTIONS), self._convolution),
            (frozenset(ops.LAYER_NORMS), self._layer_norm),
            (frozenset(ops.GROUP_NORMS), self._group_norm),
            (frozenset(ops.BATCH_NORMS), self._batch_norm),
            (frozenset(ops.AVERAGES), self._average),
            (frozenset(ops.SPREADS), self._spread),
            (frozenset(ops.NORMS), self._norm),
            (frozenset(ops.LOOKUPS), self._lookup),
            (frozenset(ops.STORES), self._store),
            (frozenset({WRITE}), self._write),
            (frozenset({"fill"}), self._fill),
        )

    def _unheard(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        """An op without a rule: finite ones are scalar steps, others are said to be unknown."""
        if self._vector(*op.inputs, *op.outputs) and join(facts) in ("weight", "data"):
            self.made.unknown.append(self._index)
        for fact in facts:
            if fact.weight is not None:
                self._use(fact.weight, "joined")
        self._make(op, Fact(origin))
        self._entrywise(op, "other", origin)


def _is_constant(op: Op) -> bool:
    """Whether a result takes its shape alone from the operands."""
    filled = base(op.name) == "fill" and len(op.inputs) > 1
    return base(op.name) in ops.CONSTANTS and not filled


def _is_pointwise(op: Op) -> bool:
    return op.overload is not None and torch.Tag.pointwise in op.overload.tags

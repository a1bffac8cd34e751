"""The canonical form of a program: the operators as [muDiT] Appendix C writes them down.

Structure and biases are left out (Assumption C.1); adjacent entry-by-entry steps of one section are
one; a projection whose result is cut into k pieces is k MatMuls, and one over a concatenation of k
vectors is k MatMuls and their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from mudit.program.outcome import Operator, Reading


@dataclass(frozen=True, slots=True)
class CanonicalStep:
    """One operator of the canonical form.

    Attributes:
        operator: Which.
        section: Canonical path of the module that it belongs to, cut at the section's depth.
    """

    operator: Operator
    section: str


def canonical(reading: Reading, depth: int = 1) -> list[CanonicalStep]:
    """The canonical operators of a reading, in the order of the forward pass.

    Args:
        reading: What was read.
        depth: How many names of a module's path make a section; a number in a list of blocks
            belongs to the list's name.
    """
    steps: list[CanonicalStep] = []
    pieces = _Pieces(reading)
    for step in reading.steps:
        section = _section(reading.trace.ops[step.op].module, depth)
        for operator in step.operators:
            count = step.pieces * pieces.of(step.op) if operator == "MatMul" else 1
            steps.extend([CanonicalStep(operator, section)] * count)
    return _fused(steps)


def _fused(steps: Sequence[CanonicalStep]) -> list[CanonicalStep]:
    found: list[CanonicalStep] = []
    for step, group in groupby(steps):
        entrywise = step.operator in ("OuterNonlin", "Scalar")
        found.extend([step] if entrywise else list(group))
    return found


def _section(module: str, depth: int) -> str:
    parts = module.split(".")
    kept: list[str] = []
    for part in parts:
        if len([p for p in kept if not p.isdigit()]) >= depth and not part.isdigit():
            break
        kept.append(part)
    return ".".join(kept)


class _Pieces:
    """Into how many pieces the features of a projection's result are cut."""

    _CUTS = ("split", "split_with_sizes", "chunk", "unbind", "tensor_split")

    def __init__(self, reading: Reading) -> None:
        self._ops = reading.trace.ops
        self._facts = reading.facts
        self._sizes = reading.trace.sizes
        self._structure = {step.op for step in reading.steps if step.what == "structure"}
        self._readers: dict[int, list[int]] = {}
        live = {step.op for step in reading.steps}
        for index, op in enumerate(self._ops):
            if index in live:
                for value in op.inputs:
                    self._readers.setdefault(value, []).append(index)

    def of(self, index: int) -> int:
        todo = list(self._ops[index].outputs)
        shifted: set[int] = set()  # to whose pieces a table of vectors was added first
        while todo:
            value = todo.pop()
            readers = self._readers.get(value, [])
            for reader in readers:
                op = self._ops[reader]
                if self._adds_weight(reader, value):
                    shifted.update(op.outputs)
                elif not (
                    reader in self._structure and (self._is_product(value) or value in shifted)
                ):
                    continue
                elif op.name in self._CUTS:
                    return len(op.outputs)
                elif value in shifted:
                    shifted.update(op.outputs)
                todo.extend(op.outputs)
            slices = [r for r in readers if self._ops[r].name in ("select", "slice")]
            if len(slices) > 1:
                return len(slices)
        return 1

    def _is_product(self, value: int) -> bool:
        return self._facts[value].product is not None

    def _adds_weight(self, reader: int, value: int) -> bool:
        """Whether a table of vectors is added to pieces that the value already has."""
        op = self._ops[reader]
        if op.name != "add" or len(op.inputs) != 2 or not self._is_product(value):
            return False
        other = next(o for o in op.inputs if o != value or op.inputs[0] == op.inputs[1])
        grown = self._sizes[op.outputs[0]] != self._sizes[value]  # the pieces are the table's
        return self._facts[other].weight is not None and not grown

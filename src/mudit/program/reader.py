"""What every family of ops needs for being read: looking values up, and noting what is found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mudit.program import families as ops
from mudit.program.facts import (
    Fact,
    Origin,
    Sizes,
    WeightView,
)
from mudit.program.outcome import (
    Flaw,
    Operator,
    Reading,
    Reason,
    Refusal,
    Scalar,
    Slice,
    Step,
    Use,
    UseKind,
)
from mudit.program.tape import Op
from mudit.program.trace import Trace

TOLERANCE = 0.05  # of exponents, which are multiples of 1/2 in every model known


class Reader:
    """A trace, and what has been read of it so far."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.made = Reading(trace)
        self._index = 0  # of the op being read

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
        # The RMS of a table wobbles with its length; only a plain power counts.
        slack = 0.12 if self._vector(value) else 0.02
        nearest = round(2 * measured) / 2
        return nearest if abs(measured - nearest) < slack else 0.0

    def _note_scalars(self, op: Op, origin: Origin) -> None:
        """Numbers among the arguments that depend on width, shapes and indices left aside."""
        if (
            origin == "input"
            or base(op.name) in ops.VIEWS | ops.COPIES | ops.MOVES | ops.LAYER_NORMS
        ):
            return
        arguments: list[tuple[int | str, Any]] = [*enumerate(op.args), *op.kwargs.items()]
        for path, thing in arguments:
            if isinstance(thing, float):
                values = self.trace.numbers(self._index, path)
                if len(set(values)) > 1 and all(isinstance(v, float) for v in values):
                    power = self.trace.exponent(values)
                    self.made.scalars.append(Scalar(self._index, values, power))

    def _over(self, op: Op, place: int | None) -> tuple[int, ...]:
        rank = len(self._sizes(op.inputs[0]))
        if place is None:
            return tuple(range(rank))
        last = -1 if base(op.name) in ops.LAST_BY_DEFAULT else None
        given = argument(op, place, "dim", argument(op, place, "dims", last))
        return dims_of(given, rank) or tuple(range(rank))

    def _growth(self, value: int, dims: Iterable[int]) -> float:
        """The power of the width as which the number of entries along `dims` grows."""
        counts = [1] * len(self.trace.widths)
        for dim in dims:
            counts = [a * b for a, b in zip(counts, self._sizes(value)[dim])]
        return self.trace.exponent(counts)

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
            if fact.learned and abs(fact.exponent) > TOLERANCE and self._is_float(value):
                self._flaw(fact.exponent, f"the argument of {what}")

    def _make(self, op: Op, fact: Fact) -> None:
        for value in op.outputs:
            bounded = fact if self._is_float(value) else Fact(fact.origin, bounds=fact.bounds)
            self.made.facts[value] = bounded

    def _must_agree(self, op: Op, facts: list[Fact], what: str) -> None:
        powers = [f.exponent for f in facts if f.learned]
        if powers and max(powers) - min(powers) > TOLERANCE:
            self._flaw(max(powers) - min(powers), f"one operand of {what} over the other")

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
            # A dimension that a view was stretched along is none of the parameter's.
            seen = [
                grow and bool(sources)
                for grow, sources in zip(self._grows(value), view.dims, strict=True)
            ]
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
            self._check_shape(view, seen, over)
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

    def _check_shape(self, view: WeightView, seen: Sequence[bool], over: set[int]) -> None:
        """The view's growth must be the parameter's own, with fan-in and fan-out apart."""
        grows = self.trace.growing[view.parameter]
        sides: tuple[set[int], set[int]] = (set(), set())
        for dim, (grow, sources) in enumerate(zip(seen, view.dims, strict=True)):
            if not grow:
                continue
            sides[dim in over].update(s for s in sources if grows[s])
            if not any(grows[s] for s in sources):
                self._refuse(
                    "transformed",
                    f"a slice of {view.parameter} grows with width, and its shape does not",
                    view.parameter,
                )
        if shared := sides[0] & sides[1]:
            self._refuse(
                "transformed",
                f"dim {min(shared)} of {view.parameter} is fan-in and fan-out at once",
                view.parameter,
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


def base(name: str) -> str:
    """An op's name without the mark of its in-place variant."""
    name = name[:-1] if name.endswith("_") and not name.startswith("__") else name
    return name.removeprefix("unsafe_")


def argument(op: Op, position: int, keyword: str, default: Any) -> Any:
    """An op's argument, wherever it was given."""
    if keyword in op.kwargs:
        return op.kwargs[keyword]
    return op.args[position] if position < len(op.args) else default


def dims_of(given: Any, rank: int) -> tuple[int, ...]:
    """One or several dimensions, counted from the front."""
    if given is None or isinstance(given, bool):
        return ()
    listed = given if isinstance(given, list | tuple) else (given,)
    return tuple(int(d) % rank for d in listed if isinstance(d, int)) if rank else ()


def logits(growing: bool) -> str:
    """What a flaw in the size of attention logits is called."""
    if growing:
        return "the size of the logits (over a growing head_dim d, μP needs 1/d, not 1/√d)"
    return "the size of the logits"

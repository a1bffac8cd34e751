"""Entry-by-entry ops: OuterNonlin on vectors, scalar steps on scalars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mudit.program import families as ops
from mudit.program.facts import (
    UNARY_BOUNDS,
    UNBOUNDED,
    Bounds,
    Fact,
    Origin,
    Sizes,
    WeightView,
    added,
    aligned,
    composed,
    divided,
    multiplied,
)
from mudit.program.outcome import (
    UseKind,
)
from mudit.program.reader import TOLERANCE, Reader, argument, base
from mudit.program.tape import Op, Ref


class Entrywise(Reader):
    """Reads entry-by-entry ops."""

    def _pointwise(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        name = base(op.name)
        result = op.outputs[0]
        weights = [f for f in facts if f.weight is not None]
        others = [f for f in facts if f.weight is None and f.origin != "constant"]
        exponent = self._pointwise_exponent(op, facts)
        bounds = self._pointwise_bounds(op, facts)
        guarded = self._guards(op, facts)
        parts = self._pointwise_parts(op, facts)
        readouts = self._linear_readouts(name, facts)
        reached = self._below_maximum(op, facts) or (name == "exp" and facts[0].reached)
        fact = Fact(
            origin, exponent, bounds, guarded, None, parts, reached=reached, readouts=readouts
        )
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
            fact = replace(fact, gain=self._gain(op, facts))
        self._check_lipschitz(op, facts)
        self._make(op, fact)
        self._entrywise(op, "pointwise", origin)

    def _weight_norm(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        """Weight normalisation as one op: g·v/|v|."""
        direction, gain = facts[:2]
        self._spend(op, [gain], "multiplied")
        view = direction.weight
        if view is not None and self._matrix(view):
            self._spend(op, [direction], "added")
            view = None
        elif view is not None:
            view = replace(view, transformed=True)
        self._make(op, Fact(origin, weight=view))
        self._entrywise(op, "pointwise", origin)

    def _keeps_view(self, op: Op, fact: Fact) -> bool:
        """A parameter and constants: still that parameter, scaled or transformed."""
        return self._is_float(op.outputs[0])

    def _combine(self, op: Op, facts: list[Fact], weights: list[Fact]) -> None:
        """Parameters meet other values, entry by entry: gains, biases and tables."""
        name = base(op.name)
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

    def _gain(self, op: Op, facts: list[Fact]) -> tuple[int, WeightView] | None:
        """The parameter by which `mul` multiplies another value, just noted as used."""
        views = [(v, f.weight) for v, f in zip(op.inputs, facts) if f.weight is not None]
        if base(op.name) != "mul" or len(op.inputs) != 2 or len(views) != 1 or not self.made.uses:
            return None
        ((value, view),) = views
        dims = aligned(self._sizes(value), self._sizes(op.outputs[0]))
        return len(self.made.uses) - 1, replace(view, dims=composed(dims, view.dims))

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
        name = base(op.name)
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
        name = base(op.name)
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
        name = base(op.name)
        if name in ("add", "sub") and isinstance(op.args[1], Ref):
            powers = list(powers)  # alpha is the second operand's factor
            powers[-1] += self.trace.exponent(self.trace.numbers(self._index, "alpha"))
        if name == "where" and len(powers) == 3:
            powers, facts = powers[1:], facts[1:]
        learned = [p for p, f in zip(powers, facts) if f.learned]
        if learned and max(learned) - min(learned) > TOLERANCE:
            self._flaw(
                max(learned) - min(learned),
                f"one operand of {name} over the other",
            )
        return max(learned) if learned else max(powers, default=0.0)

    def _pointwise_bounds(self, op: Op, facts: list[Fact]) -> Bounds:
        name = base(op.name)
        if name in UNARY_BOUNDS and facts:
            return UNARY_BOUNDS[name](facts[0].bounds)
        if name in ("where", "masked_fill"):
            filled = self._operand_bounds(op, (1, 2) if name == "where" else (0, 2))
            return filled[0].hull(filled[1]) if len(filled) == 2 else UNBOUNDED
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
            exponent = argument(op, 1, "exponent", None)
            if isinstance(exponent, int | float) and float(exponent).is_integer():
                even = int(exponent) % 2 == 0
                if even and exponent > 0:
                    return Bounds(0.0, UNARY_BOUNDS["square"](facts[0].bounds).high)
            return Bounds(0.0) if facts[0].bounds.low >= 0.0 else UNBOUNDED
        if name in ("clamp", "clamp_min", "clamp_max", "maximum", "minimum"):
            return self._clamped(op, operands)
        return UNBOUNDED

    def _operand_bounds(self, op: Op, positions: Sequence[int] = (0, 1)) -> list[Bounds]:
        found = []
        for position in positions:
            arg = op.args[position] if position < len(op.args) else None
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
        name = base(op.name)
        if name in ("maximum", "minimum") and len(operands) == 2:
            pick = max if name == "maximum" else min
            a, b = operands
            return Bounds(pick(a.low, b.low), pick(a.high, b.high))
        low = argument(op, 1, "min", None) if name != "clamp_max" else None
        high = argument(op, 2, "max", None) if name == "clamp" else None
        if name == "clamp_max":
            high = argument(op, 1, "max", None)
        made = operands[0] if operands else UNBOUNDED
        if isinstance(low, int | float):
            made = Bounds(max(made.low, float(low)), max(made.high, float(low)))
        if isinstance(high, int | float):
            made = Bounds(min(made.low, float(high)), min(made.high, float(high)))
        return made

    def _below_maximum(self, op: Op, facts: list[Fact]) -> bool:
        """X - max(x), the first step of a softmax by hand."""
        return (
            base(op.name) == "sub" and len(op.inputs) == 2 and facts[1].maximum_of == op.inputs[0]
        )

    def _guards(self, op: Op, facts: list[Fact]) -> bool:
        name = base(op.name)
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
        name = base(op.name)
        for value, fact in zip(op.inputs, facts):
            if not (fact.learned and self._vector(value) and self._is_float(value)):
                continue
            word = ops.WORDS.get(name, name)
            stepped = name == "div" and op.kwargs.get("rounding_mode") is not None
            if name in ops.STEPS or stepped:
                self._refuse("lipschitz", f"{word} of a vector jumps")
            elif (name in ops.NEEDS_CEILING or _is_power_of(op, value)) and (
                fact.bounds.high == math.inf
            ):
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


def _is_denominator(op: Op, value: int) -> bool:
    if base(op.name) not in ("div", "true_divide", "addcdiv"):
        return False
    place = 2 if base(op.name) == "addcdiv" else 1
    return place < len(op.args) and op.args[place] == Ref(value)


def _is_power_of(op: Op, value: int) -> bool:
    """A number to the power of the value."""
    return base(op.name) == "pow" and op.args[1:2] == (Ref(value),)


def _falls(op: Op) -> bool:
    """A negative power."""
    exponent = argument(op, 1, "exponent", None)
    return base(op.name) == "pow" and isinstance(exponent, int | float) and exponent < 0

"""Reductions, normalisations and ordered ops: what runs along dimensions of one value."""

from __future__ import annotations

import math

from mudit.program import families as ops
from mudit.program.facts import (
    UNARY_BOUNDS,
    UNBOUNDED,
    Bounds,
    Fact,
    Origin,
    WeightView,
)
from mudit.program.reader import TOLERANCE, Reader, argument, base, logits
from mudit.program.tape import Op, Ref


class Reductions(Reader):
    """Reads what runs along dimensions of one value."""

    def _average(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        over = self._over(op, 1)
        source, fact = op.inputs[0], facts[0]
        self._spend(op, facts, "added")
        growing = any(self._grows(source)[dim] for dim in over)
        exponent = fact.exponent
        if base(op.name) in ("sum", "nansum"):
            contracted = growing and fact.gain is not None
            exponent += 0.0 if contracted else self._growth(source, over)
            if fact.gain is not None and contracted:
                self._contracted_gain(*fact.gain, over, source)
        bounds = Bounds(0.0) if fact.bounds.low >= 0.0 else UNBOUNDED
        if fact.reached and fact.bounds.low >= 0.0:
            bounds = Bounds(fact.bounds.high)  # the sum in a softmax by hand is at least exp(0)
        if fact.bounds.high <= 0.0:
            bounds = Bounds(-math.inf, 0.0)
        if base(op.name) in ("mean", "nanmean"):
            bounds = fact.bounds
        self._make(op, Fact(origin, exponent, bounds, fact.guarded))
        if growing:
            self._step("Avg", what="average", origin=origin)
        else:
            self._entrywise(op, "average", origin)

    def _contracted_gain(
        self, use: int, view: WeightView, over: tuple[int, ...], source: int
    ) -> None:
        """A parameter times a value, summed over a growing dimension: the parameter is a weight."""
        noted = len(self.made.uses)
        self._use(view, "contracted", over, (), source)
        self.made.uses[use : use + 1] = self.made.uses[noted:]
        del self.made.uses[noted:]

    def _spread(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        over = self._over(op, 1)
        growing = any(self._grows(op.inputs[0])[dim] for dim in over)
        self._spend(op, facts, "added")
        name = base(op.name)
        power = facts[0].exponent * (2 if name.startswith("var") else 1)
        self._make(op, Fact(origin, power, Bounds(0.0)))
        if growing:
            self._step("Avg", "OuterNonlin", "Avg", what="variance", origin=origin)
        else:
            self._entrywise(op, "variance", origin)

    def _norm(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        over = self._over(op, 2)
        source, fact = op.inputs[0], facts[0]
        order = argument(op, 1, "ord", 2)
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
        name = base(op.name)
        over = self._over(op, ops.ORDERED[name])
        source, fact = op.inputs[0], facts[0]
        if name in ("tril", "triu", "diag_embed"):
            over = tuple(range(len(self._sizes(source))))[-2:]
        self._spend(op, facts, "added")
        if any(self._grows(source)[dim] for dim in over) and fact.learned:
            self._refuse("order", f"{name} over a growing dimension")
        soft = "softmax" in name
        if soft and origin == "data" and abs(fact.exponent) > TOLERANCE:
            self._flaw(fact.exponent, logits(fact.exponent > TOLERANCE))
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

    def _layer_norm(self, op: Op, facts: list[Fact], origin: Origin) -> None:
        source = op.inputs[0]
        shape = argument(op, 1, "normalized_shape", ())
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


def _ordered_bounds(name: str, fact: Fact) -> Bounds:
    if name in ("amax", "amin", "max", "min", "sort", "topk", "median", "flip", "roll", "tril",
                "triu", "kthvalue"):  # fmt: skip
        return fact.bounds
    if name in ("cumsum",):
        low = 0.0 if fact.bounds.low >= 0.0 else -math.inf
        return Bounds(low, 0.0 if fact.bounds.high <= 0.0 else math.inf)
    return UNBOUNDED

"""What reading a trace yields: steps, uses of parameters, refusals and flaws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mudit.program.facts import (
    Fact,
)
from mudit.program.tape import Source
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

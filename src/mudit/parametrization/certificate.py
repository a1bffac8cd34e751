"""The certificate: that a forward pass is an NE⊗OR⊤ program, weight by weight and op by op.

By Theorem 3.1 and Lemma B.2 of [muDiT], a pass that is one has the μP of Table 5. Here the pass is
recorded at three widths, and every op is read as Avg, MatMul, OuterNonlin or a scalar step.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mudit.parametrization.initial import InitialScale, observe
from mudit.parametrization.rules import exponents
from mudit.program import (
    REASONS,
    Build,
    Device,
    Inputs,
    Kind,
    MeasuredRoles,
    Mismatch,
    Operator,
    Reading,
    Role,
    Trace,
    canonical,
    read,
    roles_from_reading,
    trace,
)
from mudit.records import Finding, Verdict

_FORMAT = 1
_CHANGE_IT = {
    "order": "μP has no rule for it: let the step run over tokens, heads or another finite "
    "dimension.",
    "lipschitz": "Replace the step by a smooth one, or guard it by an eps or a clamp.",
    "transformed": "Use the weight as it is, and put the transformation on the activations.",
    "tied": "Untie the two uses, or give each a layer of its own.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightPart:
    """A part of a weight that stands over finite and growing features together.

    Attributes:
        dim: The parameter's dimension that is divided.
        start: First index, at each width.
        stop: Last index and one, at each width.
        role: The part's role.
    """

    dim: int
    start: tuple[int, ...]
    stop: tuple[int, ...]
    role: Role


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightRow:
    """What the certificate says of one parameter.

    Attributes:
        name: Canonical name (the first, if the tensor is tied).
        aliases: Its other names.
        shape: Each dimension's size at the widths, as text; one number if it stays.
        role: None if the inputs did not reach it.
        kind: Likewise.
        fan_in: Its dimensions that are contracted or looked up.
        grows: Which of its dimensions grow.
        rule: Table 5's exponents (a, b, c) of 1/n: forward multiplier n^-a, initial scale n^-b,
            Adam's learning rate n^-c.
        parts: Set for a weight that is divided.
        initializer: Its initialiser in words, or that it is unknown.
        reason: Why it has this role, in words.
    """

    name: str
    aliases: tuple[str, ...]
    shape: str
    role: Role | None
    kind: Kind | None
    fan_in: tuple[int, ...]
    grows: tuple[bool, ...]
    rule: tuple[float, float, float] | None
    parts: tuple[WeightPart, ...]
    initializer: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OpRow:
    """What the certificate says of one op.

    Attributes:
        index: Its place on the tape.
        op: ATen's name.
        operators: What it is in the program; empty for structure.
        family: In a word.
        result: Shape of its first result; growing dimensions with their sizes at all widths.
        module: Canonical path of the module.
        source: The model's line.
    """

    index: int
    op: str
    operators: tuple[Operator, ...]
    family: str
    result: str
    module: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalarRow:
    """A number in the model's code that depends on width: its values, and its power of n."""

    op: str
    values: tuple[float, ...]
    exponent: float
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorRow:
    """One operator of the canonical form, and the module it belongs to."""

    operator: Operator
    section: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What `certify` found.

    Attributes:
        verdict: PASS: an NE⊗OR⊤ program of the right sizes. FAIL: one in which a value grows or
            shrinks with width where μP needs it level. REFUSED: none, for a reason from the closed
            list. INCONCLUSIVE: the passes at the widths are not one program, or an op has no rule.
        findings: What the verdict rests on, if it is not PASS.
        notes: What else a user must know: parameters that were not reached or whose initialiser is
            unknown, and assumptions.
        reasons: Keys of `mudit.program.REASONS`, of the refusals.
        model: The class's name.
        widths: The widths at which the pass was recorded.
        device: `cpu`, or `meta` for shapes alone.
        weights: A row for each distinct parameter.
        ops: A row for each op that the outputs depend on.
        scalars: A row for each number that depends on width.
        canonical: The operators as Appendix C writes them.
    """

    format: ClassVar[int] = _FORMAT
    verdict: Verdict
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    reasons: tuple[str, ...]
    model: str
    widths: tuple[int, ...]
    device: Device
    weights: tuple[WeightRow, ...]
    ops: tuple[OpRow, ...]
    scalars: tuple[ScalarRow, ...]
    canonical: tuple[OperatorRow, ...]
    measured: MeasuredRoles | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def roles(self) -> dict[str, Role]:
        """The role of each parameter that was reached, under each of its names."""
        return {
            name: row.role
            for row in self.weights
            if row.role is not None
            for name in (row.name, *row.aliases)
        }

    def to_json(self) -> str:
        """The certificate as JSON text."""
        fields = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "measured"
        }
        return json.dumps({"format": _FORMAT} | fields, indent=1, default=_plain) + "\n"

    def save(self, path: str | Path) -> None:
        """Write `to_json()` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def to_markdown(self, *, ops: bool = True) -> str:
        """The certificate for people; `ops=False` leaves the long table of ops out."""
        sections = [_head(self), _weight_table(self.weights)]
        if self.scalars:
            sections.append(_scalar_table(self.scalars))
        if ops:
            sections.append(_op_table(self.ops))
        return "\n".join(sections)


def certify(
    build: Build, inputs: Inputs, widths: Sequence[int], *, device: Device = "cpu"
) -> Certificate:
    """Read the forward pass of `build(width)` as an NE⊗OR⊤ program.

    The pass is recorded at all `widths` on small real CPU tensors, in evaluation mode; the ops must
    match one to one. Where they do not, widths of other residues are tried.

    Args:
        build: Makes the model at a width.
        inputs: Example inputs of `forward` at a width: a tuple, or a dict of keyword arguments.
        widths: What `build` takes; three, small, and not multiples of one another, so that no fixed
            size happens to be equal, e.g. (128, 192, 320).
        device: `meta` for a full-size model: shapes alone.

    Raises:
        ParametrizationError: `build` fails, ignores its width or does not spread it to all parts;
            the forward pass fails on the inputs.
        UsageError: Fewer than three widths.
    """
    found, met = trace(build, inputs, widths, device=device)
    if isinstance(found, Mismatch):
        return _parted(build, widths, device, found)
    reading = read(found)
    measured = roles_from_reading(reading)
    scales = observe(build, found.widths[0], estimate=False).scales
    findings = _findings(reading, measured)
    notes = _notes(reading, measured, scales)
    if met:
        text = f"the widths {tuple(widths)} are not one program ({met[0]}); {found.widths} are."
        notes = (Finding(message=text), *notes)
    reasons = tuple(dict.fromkeys(r.reason for r in (*reading.refusals, *measured.refusals)))
    return Certificate(
        verdict=_verdict(reading, measured),
        findings=findings,
        notes=notes,
        reasons=reasons,
        model=found.model,
        widths=found.widths,
        device=device,
        weights=_weight_rows(found, measured, scales),
        ops=_op_rows(reading),
        scalars=_scalar_rows(reading),
        canonical=tuple(
            OperatorRow(operator=step.operator, section=step.section) for step in canonical(reading)
        ),
        measured=measured,
    )


def _parted(build: Build, widths: Sequence[int], device: Device, where: Mismatch) -> Certificate:
    message = (
        f"{where}. The pass is not one program over width: it branches on a size or on its data. "
        "Give widths at which it takes one path (e.g. multiples that are all even, or divisible "
        "by three), inputs that do not decide the path, or take the branch out of the model."
    )
    return Certificate(
        verdict="INCONCLUSIVE",
        findings=(Finding(message=message),),
        notes=(),
        reasons=(),
        model=getattr(build, "__name__", "model"),
        widths=tuple(widths),
        device=device,
        weights=(),
        ops=(),
        scalars=(),
        canonical=(),
    )


def _verdict(reading: Reading, measured: MeasuredRoles) -> Verdict:
    if reading.refusals or measured.refusals:
        return "REFUSED"
    if reading.unknown or not measured.roles:
        return "INCONCLUSIVE"
    return "FAIL" if reading.flaws else "PASS"


def _findings(reading: Reading, measured: MeasuredRoles) -> tuple[Finding, ...]:
    found = [
        Finding(
            message=f"{REASONS[refusal.reason]}: {refusal.message}, at "
            f"{reading.source(refusal.op)}. {_CHANGE_IT[refusal.reason]}",
            parameter=refusal.parameter,
        )
        for refusal in (*reading.refusals, *measured.refusals)
    ]
    found += [
        Finding(
            message=f"{reading.trace.ops[op].name} at {reading.source(op)} has growing dimensions "
            "and no rule here, so what it does to them is not known. Write it in terms of other "
            "ops, or ask for a rule."
        )
        for op in reading.unknown
    ]
    if not measured.roles:
        found.append(
            Finding(
                message="no parameter reaches what the forward pass returns: it returns no tensor, "
                "or goes through numpy or lists. Return the output as a tensor."
            )
        )
    if found:
        return tuple(dict.fromkeys(found))  # sizes mean nothing where weights are not understood
    found += [
        Finding(
            message=f"{flaw.message}, at {reading.source(flaw.op)}: μP holds it level. Scale it by "
            f"n^{-flaw.exponent:.2g}."
        )
        for flaw in reading.flaws
    ]
    return tuple(dict.fromkeys(found))


def _notes(
    reading: Reading, measured: MeasuredRoles, scales: dict[str, InitialScale]
) -> tuple[Finding, ...]:
    found = [
        Finding(message="not reached by these inputs, so its role is not measured", parameter=name)
        for name in measured.unreached
    ]
    found += [
        Finding(message="its initialiser is unknown: give its scale, or set it", parameter=name)
        for name, scale in scales.items()
        if not scale.exact
    ]
    found += [
        Finding(
            message="stands over finite and growing features together, and its parts have roles of "
            "their own. An optimizer has one lr for it: the plan divides by the growth of all its "
            "fan-in",
            parameter=name,
        )
        for name in measured.parts
    ]
    found += [Finding(message=note) for note in reading.notes]
    if syncs := reading.trace.tapes[0].syncs:
        found.append(
            Finding(message=f"a value of the data is read back into Python, first at {syncs[0]}; "
                    "the certificate holds for the path that these inputs take")
        )  # fmt: skip
    return tuple(found)


def _weight_rows(
    found: Trace, measured: MeasuredRoles, scales: dict[str, InitialScale]
) -> tuple[WeightRow, ...]:
    rows = []
    for name, *aliases in found.tied:
        role = measured.roles.get(name)
        sizes = tuple(zip(*(found.shapes[width][name] for width in found.widths)))
        rows.append(
            WeightRow(
                name=name,
                aliases=tuple(aliases),
                shape=_shape(sizes),
                role=role.role if role else None,
                kind=role.kind if role else None,
                fan_in=role.fan_in if role else (),
                grows=found.growing[name],
                rule=exponents(role.role) if role else None,
                parts=tuple(
                    WeightPart(dim=part.dim, start=part.start, stop=part.stop, role=part_role)
                    for part, part_role in measured.parts.get(name, ())
                ),
                initializer=scales[name].law if scales[name].exact else "unknown",
                reason=role.reason if role else "not reached by these inputs",
            )
        )
    return tuple(rows)


def _op_rows(reading: Reading) -> tuple[OpRow, ...]:
    rows = []
    for step in reading.steps:
        op = reading.trace.ops[step.op]
        rows.append(
            OpRow(
                index=step.op,
                op=op.name,
                operators=step.operators,
                family=step.what,
                result=_shape(reading.trace.sizes[op.outputs[0]]) if op.outputs else "",
                module=op.module,
                source=str(op.source),
            )
        )
    return tuple(rows)


def _scalar_rows(reading: Reading) -> tuple[ScalarRow, ...]:
    return tuple(
        ScalarRow(
            op=reading.trace.ops[scalar.op].name,
            values=scalar.values,
            exponent=scalar.exponent,
            source=str(reading.source(scalar.op)),
        )
        for scalar in reading.scalars
    )


def _shape(sizes: tuple[tuple[int, ...], ...]) -> str:
    """E.g. `4×[16 24 40]`: a dimension of 4, and one that grows."""
    texts = [
        str(size[0]) if len(set(size)) == 1 else f"[{' '.join(map(str, size))}]" for size in sizes
    ]
    return "×".join(texts) or "1"


def _plain(thing: Any) -> Any:
    return dataclasses.asdict(thing)


# --- as text --------------------------------------------------------------------------------------


def _head(certificate: Certificate) -> str:
    counts = {
        role: sum(row.role == role for row in certificate.weights)
        for role in ("input", "hidden", "output", "scalar")
    }
    lines = [
        f"# {certificate.verdict}: {certificate.model}",
        "",
        f"Recorded at widths {', '.join(map(str, certificate.widths))} on {certificate.device}: "
        f"{len(certificate.ops)} ops; parameters by role: "
        + ", ".join(f"{count} {role}" for role, count in counts.items())
        + ".",
        "",
    ]
    for title, findings in (("Findings", certificate.findings), ("Notes", certificate.notes)):
        if findings:
            lines += [f"## {title}", "", *(f"- {_line(finding)}" for finding in findings), ""]
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    return f"{finding.parameter}: {finding.message}" if finding.parameter else finding.message


def _weight_table(rows: Sequence[WeightRow]) -> str:
    head = (
        "## Weights\n\nForward multiplier n^-a, initial scale n^-b, Adam's lr n^-c [muDiT] "
        "Table 5.\n\n| parameter | shape | role | kind | fan-in | a | b | c | initialiser | why |\n"
        "|---|---|---|---|---|--:|--:|--:|---|---|\n"
    )
    return head + "".join(_weight_line(row) for row in rows)


def _weight_line(row: WeightRow) -> str:
    fan_in = ", ".join(map(str, row.fan_in)) or "none"
    rule = [f"{x:g}" for x in row.rule] if row.rule else ["", "", ""]
    role: str = row.role or "not reached"
    if row.parts:
        role += " (" + ", ".join(
            f"{part.role} at {_range(part)}" for part in row.parts
        ) + ")"  # fmt: skip
    cells = [row.name, row.shape, role, row.kind or "", fan_in, *rule, row.initializer, row.reason]
    return "| " + " | ".join(cells) + " |\n"


def _range(part: WeightPart) -> str:
    return f"dim {part.dim}, {list(part.start)} to {list(part.stop)}"


def _scalar_table(rows: Sequence[ScalarRow]) -> str:
    lines = [
        f"| {row.op} | {', '.join(f'{v:.6g}' for v in row.values)} | {row.exponent:g} | "
        f"{row.source} |\n"
        for row in rows
    ]
    return (
        "## Numbers that depend on width\n\n"
        "| op | values | power of n | line |\n|---|---|--:|---|\n" + "".join(lines)
    )


def _op_table(rows: Sequence[OpRow]) -> str:
    lines = [
        f"| {row.index} | {row.op} | {', '.join(row.operators) or 'structure'} | {row.result} | "
        f"{row.module} | {row.source} |\n"
        for row in rows
    ]
    return (
        "## Ops\n\n| | op | operator | result | module | line |\n|--:|---|---|---|---|---|\n"
        + "".join(lines)
    )

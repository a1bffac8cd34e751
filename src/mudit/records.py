"""Frozen rows that runs write and analyses read, and their JSONL form. Standard library only.

`records.jsonl` of a trial holds `StepRecord` and `ValidationRecord` rows and is reproducible to the
bit; whatever depends on the clock goes to `timings.jsonl` as `TimingRecord` rows.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from mudit.errors import DataError

Verdict: TypeAlias = Literal["PASS", "FAIL", "INCONCLUSIVE", "REFUSED"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """One optimizer step.

    Attributes:
        step: Steps taken so far, this one included (the first is 1).
        loss: Mean training loss of the step's images.
        terms: The loss's terms, e.g. `denoising` and `variational_bound` (bits).
        grad_norm: The plan's global gradient norm before clipping.
        lr: Base learning rate after the schedule's factor.
        update_ratio: By role: norm of the update over norm of the weights; empty on steps where
            it was not measured.
    """

    kind: ClassVar[str] = "step"
    step: int
    loss: float
    terms: dict[str, float]
    grad_norm: float
    lr: float
    update_ratio: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationRecord:
    """The validation bank's losses after `step` steps.

    Attributes:
        step: Steps taken so far.
        weights: Which weights were used; trials are ranked by the raw ones.
        denoising: Mean denoising loss over the bank; what trials are ranked by.
        terms: Means of all terms of the loss.
    """

    kind: ClassVar[str] = "validation"
    step: int
    weights: Literal["raw", "ema"]
    denoising: float
    terms: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class TimingRecord:
    """How long the steps since the last such row took. Not reproducible."""

    kind: ClassVar[str] = "timing"
    step: int
    seconds: float
    images_per_second: float
    flops_per_second: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """How one training run ended.

    Attributes:
        key: The trial's name in its study, unique and file-system safe.
        role: What the run was for.
        parametrization: `mup` or `sp`.
        width: Width of the model.
        parameters: Trainable parameters.
        batch_size: Images in a step.
        steps: Steps asked for.
        seed: Seed of initialisation, data order and noise.
        hps: Base HPs by dotted name, e.g. `{"lr": 2**-8, "phi.output": 1.0}`.
        status: A diverged run is a result, not a failure; a pruned one was ended by the search.
        diverged_step: The step whose loss was not finite.
        score: The validation bank's denoising loss on the raw weights after all steps; None if
            diverged or pruned.
        train_flops: Measured FLOPs of the steps that were taken.
        seconds: Wall time of all its sittings.
        pruned_step: After how many steps it was ended, if it was.
    """

    kind: ClassVar[str] = "trial"
    key: str
    role: Literal["proxy", "target", "grid"]
    parametrization: str
    width: int
    parameters: int
    batch_size: int
    steps: int
    seed: int
    hps: dict[str, float]
    status: Literal["complete", "diverged", "pruned"]
    diverged_step: int | None
    score: float | None
    train_flops: float
    seconds: float
    pruned_step: int | None = None

    @property
    def steps_taken(self) -> int:
        """Steps of the whole run, less those that it was spared or did not survive to."""
        return self.diverged_step or self.pruned_step or self.steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that an audit, a guard or a check has to say.

    Attributes:
        message: What is wrong, what was expected, how to fix it.
        parameter: Canonical name of the parameter concerned, or None.
    """

    message: str
    parameter: str | None = None


Record: TypeAlias = StepRecord | ValidationRecord | TimingRecord | TrialRecord
_KINDS: dict[str, type[Any]] = {
    cls.kind: cls for cls in (StepRecord, ValidationRecord, TimingRecord, TrialRecord)
}


def to_line(record: Record) -> str:
    """One line of JSON, newline included; non-finite floats become the strings nan, inf, -inf."""
    row = {"kind": record.kind} | finite(dataclasses.asdict(record))
    return json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n"


def from_row(row: Mapping[str, Any]) -> Record:
    """The record that `to_line` wrote.

    Raises:
        DataError: The kind is unknown or fields are missing.
    """
    values = {key: _number(value) for key, value in row.items() if key != "kind"}
    try:
        record: Record = _KINDS[row["kind"]](**values)
    except (KeyError, TypeError) as error:
        raise DataError(f"not a record of this version of mudit: {dict(row)!r} ({error})") from None
    return record


def read_records(path: Path) -> Iterator[Record]:
    """The records of a JSONL file, in order.

    Raises:
        DataError: A line is not a record; the message names file and line.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield from_row(json.loads(line))
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number}: {error}. Delete the trial's folder to run it again."
                ) from None


def finite(value: Any) -> Any:
    """The value for JSON, which has no nan, inf and -inf: these become strings, at any depth."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _number(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    return float(value) if value in ("nan", "inf", "-inf") else value

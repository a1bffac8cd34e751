"""What the report of a verify study tells: plain facts, filled in by whoever ran it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mudit.analysis.transferability import Transferability
from mudit.errors import DataError
from mudit.report.contents import DataFacts, TrialCurve

Axis: TypeAlias = Literal["width", "batch", "steps"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyContents:
    """Everything that the report of one verify study says.

    Attributes:
        title: Headline of the page.
        command: The exact command that made the study.
        study_folder: Where its runs lie.
        created: When the page was made.
        versions: Of mudit and of what it stands on, by name.
        data: The dataset.
        model: What people call the model, e.g. `DiT`.
        optimizer: E.g. `adamw`.
        axis: What grows.
        hp: Dotted name of the base HP that was swept.
        seeds: Replicates of each run that the config asks for.
        base_width: Width at which the plan changes nothing.
        task: What the axis does not vary: two of width, batch and steps.
        main: What the runs under μP say.
        control: What the runs under sp say, if there are any.
        control_note: Why there is no control, in a sentence; empty if there is one.
        findings: Why the verdict is what it is, in sentences.
        suggestions: What to run next, in sentences; shown if the verdict is INCONCLUSIVE.
        pair: Runs under μP and under sp at the largest size, each with the value that is best at
            the smallest size under its parametrization: what carrying it there comes to.
        grid_flops: Measured FLOPs of all runs under μP.
        control_flops: Those under sp, runs shared with μP left out; None without a control.
        target_flops: FLOPs of one run at the target's size.
        config: The complete config as text.
        machine: What it ran on.
        notes: Remarks on this study, one sentence each.
    """

    title: str
    command: str
    study_folder: str
    created: str
    versions: dict[str, str]
    data: DataFacts
    model: str
    optimizer: str
    axis: Axis
    hp: str
    seeds: int
    base_width: int
    task: dict[Axis, int]
    main: Transferability
    grid_flops: float
    target_flops: float
    control: Transferability | None = None
    control_note: str = ""
    findings: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    pair: tuple[TrialCurve, TrialCurve] | None = None
    control_flops: float | None = None
    config: str = ""
    machine: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.axis in self.task:
            raise DataError(
                f"task is {self.task}, expected what the axis, {self.axis}, does not vary"
            )
        if self.pair is not None:
            found = tuple(run.record.parametrization for run in self.pair)
            if found != ("mup", "sp"):
                raise DataError(f"pair is of {found}, expected a run of mup and one of sp")

    @property
    def studies(self) -> tuple[tuple[str, Transferability], ...]:
        """`mup` and, if it was run, `sp`, with what their runs say."""
        control = () if self.control is None else (("sp", self.control),)
        return (("mup", self.main), *control)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that were trained, ascending."""
        return tuple(basin.size for basin in self.main.basins)

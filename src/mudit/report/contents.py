"""What a report tells: plain facts, filled in by whoever ran the study. No drawing, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mudit.analysis import Share, StepsToMatch, Workload, grouped_cost_ratio, measured_cost_ratio
from mudit.errors import DataError
from mudit.records import Finding, StepRecord, TrialRecord, ValidationRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeFacts:
    """How big a training task is.

    Attributes:
        width: Width of the model.
        parameters: Trainable parameters.
        batch_size: Images in a step.
        steps: Optimizer steps.
    """

    width: int
    parameters: int
    batch_size: int
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFacts:
    """The dataset.

    Attributes:
        name: What people call it.
        classes: Names of its classes; empty if it has none.
        counts: Number of images by split, e.g. `{"training": 1400, "held out": 397}`.
        image_shape: Height, width, channels; None if images differ.
    """

    name: str
    classes: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    image_shape: tuple[int, int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialCurve:
    """One training run: how it ended, and its records on the way there."""

    record: TrialRecord
    steps: tuple[StepRecord, ...] = ()
    validations: tuple[ValidationRecord, ...] = ()

    def validation(self, weights: str) -> tuple[ValidationRecord, ...]:
        """The validation rows of the `raw` or the `ema` weights."""
        return tuple(row for row in self.validations if row.weights == weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """The same study under another parametrization.

    Attributes:
        trials: Its search; empty if it shares the main study's one, as at the base width, where
            both parametrizations are the same.
        best_key: The chosen trial, of its own search or of the shared one; None if all diverged.
        target_run: None if nothing was carried over.
        parametrization: What the control is parametrized by.
        finals: Longer runs of its search's best points; empty also if it shares the main study's.
        finals_key: Which of these, own or shared, was carried over; None if there were none.
    """

    trials: tuple[TrialCurve, ...]
    best_key: str | None
    target_run: TrialCurve | None
    parametrization: str = "sp"
    finals: tuple[TrialCurve, ...] = ()
    finals_key: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRowFacts:
    """One parameter in the target's plan.

    Attributes:
        name: Canonical dotted name.
        role: `input`, `hidden`, `output` or `scalar`.
        kind: `weight`, `gain`, `bias` or `table`.
        shape: Shape at the target's width.
        base_shape: Shape at the base width.
        r: Fan-in over fan-in at the base width.
        init_rms: Initial root mean square about zero.
        lr_multiplier: On the base learning rate.
        weight_decay_multiplier: On the base weight decay.
        eps_multiplier: On Adam's eps.
        clip_multiplier: On the gradient in the global clipping norm.
        reason: Why it has this role, in words.
        trainable: A frozen parameter gets its initial scale only.
    """

    name: str
    role: str
    kind: str
    shape: tuple[int, ...]
    base_shape: tuple[int, ...]
    r: float
    init_rms: float | None
    lr_multiplier: float
    weight_decay_multiplier: float
    eps_multiplier: float
    clip_multiplier: float
    reason: str
    trainable: bool = True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampleGrid:
    """Images in rows of `columns`.

    Attributes:
        title: What they are, e.g. `μP target, width 256`.
        images: uint8 of shape (N, H, W, C), C being 1 or 3.
        labels: The class asked for, image by image; empty if there are none. One label all along
            a column (or a row) is written once at its head.
        columns: Images in a row.
    """

    title: str
    images: NDArray[np.uint8]
    labels: tuple[str, ...] = ()
    columns: int = 10

    def __post_init__(self) -> None:
        shape = self.images.shape
        if (
            self.images.dtype != np.uint8
            or len(shape) != 4
            or shape[3] not in (1, 3)
            or not shape[0]
        ):
            raise DataError(
                f"the images of {self.title!r} must be uint8 of shape (N, H, W, 1 or 3), "
                f"got {self.images.dtype} of shape {shape}"
            )
        if self.columns < 1 or len(self.labels) not in (0, shape[0]):
            raise DataError(
                f"{self.title!r} needs at least one column and a label per image or none, got "
                f"{self.columns} columns and {len(self.labels)} labels for {shape[0]} images"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How often a classifier of real images finds the class that a sample was asked for.

    Attributes:
        held_out_accuracy: The classifier's accuracy on real images that it has not seen.
        target_agreement: Share of the target's samples whose class it finds.
        images: How many samples of each model were judged.
        control_agreement: The same for the control's target.
        per_class: The target's agreement by class name.
        control_per_class: The control's.
        classifier: What it is, e.g. `nearest neighbour in pixels`; may be empty.
    """

    held_out_accuracy: float
    target_agreement: float
    images: int
    control_agreement: float | None = None
    per_class: dict[str, float] = field(default_factory=dict)
    control_per_class: dict[str, float] = field(default_factory=dict)
    classifier: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrieval:
    """How often a judge of real images matches a sample with its own prompt, among several names.

    Attributes:
        judge: What it is, in words.
        known: The judge on real images that it was fitted on, somewhat moved.
        target: The target's samples of captions of training images.
        control: The control target's.
        held_out: The judge on held-out real images; None where there is nothing to choose among.
        target_held_out: The target's samples of held-out captions; None if there are none.
        control_held_out: The control target's.
    """

    judge: str
    known: Share
    target: Share
    control: Share | None = None
    held_out: Share | None = None
    target_held_out: Share | None = None
    control_held_out: Share | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prompts:
    """What models made of the same prompts, and the real images of these.

    Attributes:
        prompts: The prompts.
        held_out: Whether each is a caption that no training image has.
        images: By title (`real`, or a parametrization), uint8 of shape (prompts, images of each,
            H, W, 1 or 3).
    """

    prompts: tuple[str, ...]
    held_out: tuple[bool, ...]
    images: dict[str, NDArray[np.uint8]]

    def __post_init__(self) -> None:
        for title, images in self.images.items():
            if (
                images.dtype != np.uint8
                or images.ndim != 5
                or len(images) != len(self.prompts)
                or images.shape[4] not in (1, 3)
            ):
                raise DataError(
                    f"the images of {title!r} must be uint8 of shape ({len(self.prompts)}, n, H, "
                    f"W, 1 or 3), got {images.dtype} of shape {images.shape}"
                )
        if len(self.held_out) != len(self.prompts) or not self.prompts:
            raise DataError("prompts need at least one, and for each whether it is held out")


@dataclass(frozen=True, kw_only=True, slots=True)
class CostFacts:
    """What the study cost; `cost_facts` computes it from the trials.

    Attributes:
        eq1_ratio: Search over one target training by [muDiT] Eq. (1).
        search_flops: Measured FLOPs of all trials.
        target_flops: Measured FLOPs of training the target once.
        measured_ratio: `search_flops` over `target_flops`.
        control_flops: Measured FLOPs of the control's search and target.
        spared_flops: Measured FLOPs that trials which were ended early would have taken besides.
    """

    eq1_ratio: float
    search_flops: float
    target_flops: float
    measured_ratio: float
    control_flops: float | None = None
    spared_flops: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyContents:
    """Everything that the report of one transfer study says.

    Attributes:
        title: Headline of the page.
        command: The exact command that made the study.
        study_folder: Where it lies.
        created: When, in ISO 8601.
        versions: Version by package.
        seed: Seed of the study.
        data: The dataset.
        model: What the model is called, e.g. `DiT`.
        optimizer: What the optimizer is called, e.g. `AdamW`.
        parametrization: `mup`, unless the study itself is a control.
        base_width: Width at which the plan changes nothing.
        proxy: Size of a trial.
        target: Size of the target's training.
        trials: The search.
        best_key: Key of the search's best trial; it is carried over, if there are no finals.
        finals: Longer runs of the search's best points.
        finals_key: Key of the one that was carried over; None if there are none.
        target_run: The target's training.
        cost: What it cost.
        plan_rows: The target's plan, in the order of the model's parameters.
        control: The same study under `sp`, if it was run.
        samples: Grids of samples, the target's first.
        real_images: Real images to compare them with.
        agreement: What a classifier makes of the samples.
        prompts: Of captioned data, in place of `samples` and `real_images`: prompt by prompt.
        retrieval: Of captioned data, in place of `agreement`: what a judge makes of the samples.
        importance: Share of each HP in the variance of the score; shown if more than one varies.
        match: When the target reached the control target's loss; the control is the reference.
        config: The complete config as text.
        machine: What it ran on.
        findings: What guards, audits and checks had to say.
        notes: Remarks on this study, one sentence each.
    """

    title: str
    command: str
    study_folder: str
    created: str
    versions: dict[str, str]
    seed: int
    data: DataFacts
    model: str
    optimizer: str
    base_width: int
    proxy: SizeFacts
    target: SizeFacts
    trials: tuple[TrialCurve, ...]
    best_key: str
    target_run: TrialCurve
    cost: CostFacts
    plan_rows: tuple[PlanRowFacts, ...]
    parametrization: str = "mup"
    finals: tuple[TrialCurve, ...] = ()
    finals_key: str | None = None
    control: Control | None = None
    samples: tuple[SampleGrid, ...] = ()
    real_images: SampleGrid | None = None
    agreement: Agreement | None = None
    prompts: Prompts | None = None
    retrieval: Retrieval | None = None
    importance: dict[str, float] | None = None
    match: StepsToMatch | None = None
    config: str = ""
    machine: str = ""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if chosen(self.trials, self.best_key) is None:
            raise DataError(_no_such_trial("best_key", self.best_key, self.trials))
        if self.finals and chosen(self.finals, self.finals_key) is None:
            raise DataError(_no_such_trial("finals_key", str(self.finals_key), self.finals))
        if self.control is not None and self.control.best_key is not None:
            searched = control_trials(self)
            if chosen(searched, self.control.best_key) is None:
                raise DataError(_no_such_trial("control.best_key", self.control.best_key, searched))

    @property
    def best(self) -> TrialCurve:
        """The search's best trial."""
        best = chosen(self.trials, self.best_key)
        assert best is not None
        return best

    @property
    def carried(self) -> TrialCurve:
        """The run whose base HPs were carried to the target."""
        return chosen(self.finals, self.finals_key) or self.best


def chosen(trials: Sequence[TrialCurve], key: str | None) -> TrialCurve | None:
    """The trial with this key, or None."""
    return next((trial for trial in trials if trial.record.key == key), None)


def control_trials(contents: StudyContents) -> tuple[TrialCurve, ...]:
    """The trials that the control chose from: its own, or the shared search."""
    if contents.control is None:
        return ()
    return contents.control.trials or contents.trials


def control_carried(contents: StudyContents) -> TrialCurve | None:
    """The run whose base HPs the control carried over; None if there was none."""
    control = contents.control
    if control is None:
        return None
    finals = control.finals or contents.finals
    return chosen(finals, control.finals_key) or chosen(control_trials(contents), control.best_key)


def all_runs(contents: StudyContents) -> tuple[TrialCurve, ...]:
    """Every run of the study and of its control, each once: trials, finals, target."""
    runs = (*contents.trials, *contents.finals, contents.target_run)
    control = contents.control
    if control is None:
        return runs
    target = () if control.target_run is None else (control.target_run,)
    return (*runs, *control.trials, *control.finals, *target)


def cost_facts(
    trials: Iterable[TrialRecord],
    target: TrialRecord,
    *,
    control: Iterable[TrialRecord] | None = None,
) -> CostFacts:
    """The cost of a study, from how its runs ended.

    Args:
        trials: The search, its finals included.
        target: The target's training.
        control: All runs of the control, its target included; shared ones left out.
    """
    trials = list(trials)
    flops = [trial.train_flops for trial in trials]
    return CostFacts(
        eq1_ratio=grouped_cost_ratio([_workload(trial) for trial in trials], _workload(target)),
        search_flops=sum(flops),
        target_flops=target.train_flops,
        measured_ratio=measured_cost_ratio(flops, target.train_flops),
        control_flops=None if control is None else sum(run.train_flops for run in control),
        spared_flops=sum(
            trial.train_flops * (trial.steps / trial.steps_taken - 1)
            for trial in trials
            if trial.status == "pruned"
        ),
    )


def _workload(record: TrialRecord) -> Workload:
    return Workload(
        parameters=record.parameters,
        batch_size=record.batch_size,
        steps=record.pruned_step or record.steps,
    )


def _no_such_trial(what: str, key: str, trials: Iterable[TrialCurve]) -> str:
    keys = ", ".join(trial.record.key for trial in trials) or "none"
    return f"{what} is {key!r}, which is no trial of this study; there are: {keys}"

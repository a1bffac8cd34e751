"""A study's records turned into the report's contents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mudit.analysis import StepsToMatch, smooth, steps_to_match
from mudit.data import Splits, latent_space
from mudit.evaluation import as_images, fit_classifier, pictures_of
from mudit.models import ARCHITECTURES
from mudit.parametrization import Plan, PlanRow, load_plan
from mudit.records import TrialRecord
from mudit.report import (
    Agreement,
    Control,
    PlanRowFacts,
    SampleGrid,
    SizeFacts,
    StudyContents,
    cost_facts,
    write_report,
)
from mudit.tuning.captioned import prompts_of, retrieval_of
from mudit.tuning.config import StudyConfig, TaskConfig
from mudit.tuning.drawn import as_tensors, judged_pictures, read_samples
from mudit.tuning.facts import data_facts, machine, trial_curve, versions
from mudit.tuning.search import best_trial, importance
from mudit.tuning.study import (
    Branch,
    FailedSearch,
    TransferResult,
    sampled_labels,
    shares_search,
)

_COLUMNS = 10  # images of a class in a grid


def write_study_report(
    config: StudyConfig,
    splits: Splits,
    main: Branch,
    control: Branch | FailedSearch | None,
    *,
    command: str,
) -> TransferResult:
    """Write `report.html` from what the study's folder holds.

    Args:
        config: The study.
        splits: Its data.
        main: Its μP branch.
        control: Its control, if any.
        command: The command that made it.
    """
    folder = Path(config.folder)
    contents = study_contents(config, splits, main, control, command=command)
    return TransferResult(
        config=config,
        main=main,
        control=control,
        report=write_report(contents, folder),
        agreement=_share(contents),
        cost_ratio=contents.cost.eq1_ratio,
        measured_ratio=contents.cost.measured_ratio,
        retrieval=contents.retrieval,
    )


def _share(contents: StudyContents) -> float | None:
    if contents.retrieval is not None:
        return contents.retrieval.target.share
    return None if contents.agreement is None else contents.agreement.target_agreement


def study_contents(
    config: StudyConfig,
    splits: Splits,
    main: Branch,
    control: Branch | FailedSearch | None,
    *,
    command: str,
) -> StudyContents:
    """Everything that the report says."""
    folder = Path(config.folder)
    captioned, has_control = splits.train.captioned, control is not None
    own_control_runs = None
    if control is not None:
        own_control_runs = [] if shares_search(config) else [*control.trials]
        if isinstance(control, Branch):
            own_control_runs += [] if shares_search(config) else [*control.finals]
            own_control_runs.append(control.target)
    return StudyContents(
        title=f"μTransfer on {splits.train.name}: width {config.proxy.width} → "
        f"{config.target.width}",
        command=command,
        study_folder=config.folder,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        seed=config.seed,
        data=data_facts(splits),
        model=ARCHITECTURES[config.model.architecture].model.__name__,
        optimizer=config.parametrization.optimizer,
        base_width=config.parametrization.base_width,
        proxy=_size(config.proxy, main.trials[0]),
        target=_size(config.target, main.target),
        trials=tuple(trial_curve(folder, trial) for trial in main.trials),
        best_key=best_trial(main.trials).key,
        finals=tuple(trial_curve(folder, trial) for trial in main.finals),
        finals_key=main.best.key if main.finals else None,
        target_run=trial_curve(folder, main.target),
        cost=cost_facts([*main.trials, *main.finals], main.target, control=own_control_runs),
        plan_rows=tuple(map(_plan_row, _target_plan(folder).rows)),
        control=None if control is None else _control(config, folder, control),
        samples=() if captioned else _sample_grids(config, splits, has_control),
        real_images=None if captioned else _real_images(config, splits),
        agreement=None if captioned else _agreement(config, splits, has_control),
        prompts=prompts_of(config, splits) if captioned else None,
        retrieval=retrieval_of(config, splits) if captioned else None,
        importance=importance(config, main.trials),
        match=_match(folder, main.target, control.target) if isinstance(control, Branch) else None,
        config=config.claim(),
        machine=machine(),
        notes=_notes(config, main, control),
    )


def _size(task: TaskConfig, record: TrialRecord) -> SizeFacts:
    return SizeFacts(
        width=task.width,
        parameters=record.parameters,
        batch_size=task.batch_size,
        steps=task.steps,
    )


def _control(config: StudyConfig, folder: Path, control: Branch | FailedSearch) -> Control:
    shared = shares_search(config)
    trials = () if shared else tuple(trial_curve(folder, trial) for trial in control.trials)
    if isinstance(control, FailedSearch):
        return Control(trials=trials, best_key=None, target_run=None)
    return Control(
        trials=trials,
        best_key=best_trial(control.trials).key,
        target_run=trial_curve(folder, control.target),
        finals=() if shared else tuple(trial_curve(folder, trial) for trial in control.finals),
        finals_key=control.best.key if control.finals else None,
    )


def _target_plan(folder: Path) -> Plan:
    return load_plan(folder / "target_mup" / "plan.json")


def _plan_row(row: PlanRow) -> PlanRowFacts:
    return PlanRowFacts(
        name=row.name,
        role=row.role,
        kind=row.kind,
        shape=row.shape,
        base_shape=row.base_shape,
        r=row.r,
        init_rms=row.init_rms,
        lr_multiplier=row.lr,
        weight_decay_multiplier=row.weight_decay,
        eps_multiplier=row.eps,
        clip_multiplier=row.clip,
        reason=row.reason,
        trainable=row.trainable,
    )


def _sample_grids(config: StudyConfig, splits: Splits, has_control: bool) -> tuple[SampleGrid, ...]:
    grids = []
    for parametrization, name in (("mup", "μP"), ("sp", "sp"))[: 1 + has_control]:
        if (found := read_samples(config, parametrization)) is not None:
            title = f"{name} target, width {config.target.width}"
            grids.append(_grid(title, *found, splits.train.class_names))
    return tuple(grids)


def _real_images(config: StudyConfig, splits: Splits) -> SampleGrid:
    """Held-out real images in the order of the samples.

    Of latents, what the VAE makes of their means: samples cannot be sharper.
    """
    dataset = splits.validation
    decoded = "" if latent_space(dataset) is None else ", encoded and decoded"
    _, labels = dataset.batch(np.arange(min(dataset.num_samples, 5000)))
    chosen = [
        np.flatnonzero(labels.numpy() == c)[:_COLUMNS] for c in sampled_labels(config, splits)
    ]
    pictures = pictures_of(dataset, config.data)
    images, labels = pictures.batch(np.concatenate(chosen).astype(np.int64))
    title, names = f"held-out real images{decoded}", dataset.class_names
    return _grid(title, as_images(images), labels.numpy(), names)


def _grid(
    title: str, images: NDArray[np.uint8], labels: NDArray[np.int64], names: Sequence[str]
) -> SampleGrid:
    """At most ten images of each class, a class in a row, where all classes have as many."""
    rows = [np.flatnonzero(labels == c)[:_COLUMNS] for c in np.unique(labels)]
    columns = min(len(row) for row in rows)
    index = np.concatenate([row[:columns] for row in rows])
    return SampleGrid(
        title=title,
        images=images[index],
        labels=tuple(names[label] for label in labels[index]),
        columns=columns,
    )


def _agreement(config: StudyConfig, splits: Splits, has_control: bool) -> Agreement | None:
    found = read_samples(config, "mup")
    if found is None or splits.train.num_classes < 2:
        return None
    train, held_out, most = judged_pictures(config, splits)
    classifier = fit_classifier(train, held_out, most=most)
    images, labels = as_tensors(found)
    other = read_samples(config, "sp") if has_control else None
    return Agreement(
        held_out_accuracy=classifier.held_out_accuracy,
        target_agreement=classifier.agreement(images, labels),
        images=len(labels),
        control_agreement=None if other is None else classifier.agreement(*as_tensors(other)),
        per_class=classifier.agreement_by_class(images, labels),
        control_per_class={}
        if other is None
        else classifier.agreement_by_class(*as_tensors(other)),
        classifier=classifier.description,
    )


def _match(folder: Path, target: TrialRecord, control: TrialRecord) -> StepsToMatch | None:
    """When the target's smoothed training loss reached the control's last."""
    curves = [
        [row for row in trial_curve(folder, record).steps if np.isfinite(row.loss)]
        for record in (control, target)
    ]
    if not all(curves) or control.status == "diverged":
        return None
    steps = [[row.step for row in rows] for rows in curves]
    losses = [
        smooth([row.terms["denoising"] for row in rows], max(1, len(rows) // 20)) for rows in curves
    ]
    return steps_to_match(steps[0], losses[0], steps[1], other_loss=losses[1])


def _notes(
    config: StudyConfig, main: Branch, control: Branch | FailedSearch | None
) -> tuple[str, ...]:
    notes = []
    if (space := config.data.latents) is not None:
        notes.append(
            f"The data are latents of {space.vae} (hash {space.vae_hash[:12]}). Samples are "
            "decoded by it; the real images shown are what it makes of their own latents."
        )
    if main.target.status == "diverged":
        notes.append(f"The target diverged at step {main.target.diverged_step}.")
    if control is not None and shares_search(config):
        notes.append(
            "The proxy has the base width, where sp and μP are the same model bit for bit, so one "
            "search serves both."
        )
    return tuple(notes)

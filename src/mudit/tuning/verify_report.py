"""A verify study's records turned into its report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from mudit.analysis.basin import Basin
from mudit.analysis.transferability import Transferability
from mudit.data import Splits
from mudit.models import ARCHITECTURES
from mudit.parametrization import Parametrization
from mudit.records import TrialRecord
from mudit.report import TrialCurve, VerifyContents, write_verify_report
from mudit.tuning.facts import data_facts, machine, trial_curve, versions
from mudit.tuning.grid import Axis, VerifyConfig, point_of


def write_grid_report(
    config: VerifyConfig,
    splits: Splits,
    main: Transferability,
    control: Transferability | None,
    *,
    records: Mapping[Parametrization, tuple[TrialRecord, ...]],
    control_note: str,
    target_flops: float,
    command: str,
) -> Path:
    """Write `report.html` and its figures into the study's folder; returns the page's path."""
    task: dict[Axis, int] = {
        "width": config.task.width,
        "batch": config.task.batch_size,
        "steps": config.task.steps,
    }
    del task[config.across]
    own = {record.key: record for record in records.get("sp", ())}
    shared = {record.key for record in records["mup"]}
    contents = VerifyContents(
        title=f"Does {config.hp} transfer across {config.across}? {splits.train.name}, "
        f"{config.across} {config.sizes[0]} to {config.sizes[-1]}",
        command=command,
        study_folder=config.folder,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        data=data_facts(splits),
        model=ARCHITECTURES[config.model.architecture].model.__name__,
        optimizer=config.parametrization.optimizer,
        axis=config.across,
        hp=config.hp,
        seeds=config.seeds,
        base_width=config.parametrization.base_width,
        task=task,
        main=main,
        control=control,
        control_note=control_note if control is None else "",
        findings=main.reasons,
        suggestions=tuple(suggestion.message for suggestion in main.suggestions),
        pair=_pair(config, main, control, records),
        grid_flops=sum(record.train_flops for record in records["mup"]),
        control_flops=None
        if control is None
        else sum(record.train_flops for key, record in own.items() if key not in shared),
        target_flops=target_flops,
        config=config.claim(),
        machine=machine(),
    )
    return write_verify_report(contents, Path(config.folder))


def _pair(
    config: VerifyConfig,
    main: Transferability,
    control: Transferability | None,
    records: Mapping[Parametrization, tuple[TrialRecord, ...]],
) -> tuple[TrialCurve, TrialCurve] | None:
    """At the largest size, what each parametrization's best value of the smallest comes to."""
    if control is None:
        return None
    mup = _carried(config, main.basins[0], records["mup"])
    sp = _carried(config, control.basins[0], records["sp"])
    if mup is None or sp is None or sp.parametrization != "sp":
        return None
    folder = Path(config.folder)
    return trial_curve(folder, mup), trial_curve(folder, sp)


def _carried(
    config: VerifyConfig, smallest: Basin, records: tuple[TrialRecord, ...]
) -> TrialRecord | None:
    """The first seed's run at the largest size with the smallest size's best tried value."""
    for record in records:
        point = point_of(config, record)
        if (
            smallest.best is not None
            and point.size == config.sizes[-1]
            and point.seed == 0
            and math.isclose(math.log2(point.value), smallest.best, abs_tol=1e-9)
        ):
            return record
    return None

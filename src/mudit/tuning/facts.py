"""What reports of every kind of study say about data, runs, versions and the machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import torch

from mudit.data import Splits
from mudit.records import StepRecord, TrialRecord, ValidationRecord, read_records
from mudit.report import DataFacts, TrialCurve


def data_facts(splits: Splits) -> DataFacts:
    """The dataset."""
    train = splits.train
    return DataFacts(
        name=train.name,
        classes=() if train.captioned else tuple(train.class_names),
        counts={
            "training": train.num_samples,
            "held out": splits.validation.num_samples,
            **({"different captions": train.num_classes} if train.captioned else {}),
            **({"malformed, left out": splits.skipped.count} if splits.skipped.count else {}),
        },
        image_shape=(train.size, train.size, train.channels),
    )


def trial_curve(folder: Path, record: TrialRecord) -> TrialCurve:
    """A run with its losses over its steps, from the folder of its study."""
    rows = list(read_records(folder / record.key / "records.jsonl"))
    return TrialCurve(
        record=record,
        steps=tuple(row for row in rows if isinstance(row, StepRecord)),
        validations=tuple(row for row in rows if isinstance(row, ValidationRecord)),
    )


def versions() -> dict[str, str]:
    """Of mudit and of what it stands on, by name."""
    packages = ("mudit", "torch", "numpy", "optuna", "scikit-learn")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def machine() -> str:
    """The machine in words."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.machine()}, {os.cpu_count()} cores, {sys.platform}{gpu}"

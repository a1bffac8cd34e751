"""A small study made up by hand, for the report's tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from mudit.records import StepRecord, TrialRecord, ValidationRecord
from mudit.report import (
    Agreement,
    Control,
    DataFacts,
    PlanRowFacts,
    SampleGrid,
    SizeFacts,
    StudyContents,
    TrialCurve,
    cost_facts,
)


def make_run(
    key: str,
    score: float | None,
    *,
    hps: dict[str, float] | None = None,
    parametrization: str = "mup",
    role: str = "proxy",
    width: int = 64,
    steps: int = 30,
) -> TrialCurve:
    """A run whose loss falls as 1/step; `score` None means that it diverged at step 7."""
    end = 7 if score is None else steps
    record = TrialRecord(
        key=key,
        role=role,
        parametrization=parametrization,
        width=width,
        parameters=width**2,
        batch_size=16,
        steps=steps,
        seed=0,
        hps=hps or {"lr": 2**-8},
        status="diverged" if score is None else "complete",
        diverged_step=7 if score is None else None,
        score=score,
        train_flops=float(width**2 * end),
        seconds=1.0,
    )
    rows = tuple(
        StepRecord(
            step=step,
            loss=1 / step + 0.5,
            terms={"denoising": 1 / step},
            grad_norm=1.0,
            lr=0.1,
            update_ratio={"hidden": 0.1 / step, "output": 0.2 / step} if step % 5 == 0 else {},
        )
        for step in range(1, end + 1)
    )
    validations = tuple(
        ValidationRecord(step=end, weights=weights, denoising=value, terms={})
        for weights, value in (("raw", score), ("ema", score and 0.9 * score))
        if value is not None
    )
    return TrialCurve(record=record, steps=rows, validations=validations)


def make_row(name: str, role: str = "hidden", kind: str = "weight", **changes) -> PlanRowFacts:
    """A plan row; hidden and output ones have r = 4."""
    grows = role in ("hidden", "output")
    row = PlanRowFacts(
        name=name,
        role=role,
        kind=kind,
        shape=(8, 4),
        base_shape=(2, 1),
        r=4.0 if grows else 1.0,
        init_rms=0.5,
        lr_multiplier=0.25 if grows else 1.0,
        weight_decay_multiplier=4.0 if grows else 1.0,
        eps_multiplier=1.0,
        clip_multiplier=1.0,
        reason="because",
        trainable=True,
    )
    return dataclasses.replace(row, **changes)


def make_grid(title: str, *, columns: int = 2) -> SampleGrid:
    """Two classes, two images each."""
    images = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8, 1)
    return SampleGrid(title=title, images=images, labels=("a", "b", "a", "b"), columns=columns)


def make_trials(parametrization: str = "mup", *, shift: float = 0.0) -> tuple[TrialCurve, ...]:
    """Learning rates 2⁻⁹, 2⁻⁸, 2⁻⁷ with the best in the middle, and 2⁻⁶ diverged."""
    scores = {-9: 0.5, -8: 0.4, -7: 0.45, -6: None}
    return tuple(
        make_run(
            f"{parametrization}-{exponent}",
            None if score is None else score + shift,
            hps={"lr": 2.0**exponent, "clip": 1.0},
            parametrization=parametrization,
        )
        for exponent, score in scores.items()
    )


def make_contents(**changes) -> StudyContents:
    """A complete study with its control."""
    trials, others = make_trials(), make_trials("sp", shift=0.01)
    target = make_run("target", 0.3, role="target", width=128, steps=60)
    sp_target = make_run(
        "sp-target", 0.33, role="target", width=128, steps=60, parametrization="sp"
    )
    control_runs = [run.record for run in (*others, sp_target)]
    contents = StudyContents(
        title="A study",
        command="mudit transfer --folder 'runs/a b'",
        study_folder="runs/a b",
        created="2026-01-02T03:04:05+00:00",
        versions={"mudit": "0.1.0", "torch": "2.11.0"},
        seed=17,
        data=DataFacts(name="shapes", classes=("a", "b"), counts={"training": 100}),
        model="DiT",
        optimizer="adamw",
        base_width=32,
        proxy=SizeFacts(width=64, parameters=64**2, batch_size=16, steps=30),
        target=SizeFacts(width=128, parameters=128**2, batch_size=16, steps=60),
        trials=trials,
        best_key="mup--8",
        target_run=target,
        cost=cost_facts([run.record for run in trials], target.record, control=control_runs),
        plan_rows=(
            make_row("embed.proj.weight", "input"),
            make_row("embed.proj.bias", "input", "bias"),
            *(make_row(f"blocks.{i}.attn.weight") for i in range(3)),
            make_row("final.weight", "output"),
            make_row("final.bias", "scalar", "bias"),
        ),
        control=Control(trials=others, best_key="sp--8", target_run=sp_target),
        samples=(make_grid("μP target"), make_grid("sp target")),
        real_images=make_grid("real"),
        agreement=Agreement(
            held_out_accuracy=0.98,
            target_agreement=0.9,
            images=50,
            control_agreement=0.8,
            per_class={"a": 0.95, "b": 0.85},
            control_per_class={"a": 0.8},
        ),
        config="width: 128",
    )
    return dataclasses.replace(contents, **changes)


@pytest.fixture(scope="session")
def study_contents() -> Callable[..., StudyContents]:
    """`make_contents`, with any field changed."""
    return make_contents


@pytest.fixture(scope="session")
def run_facts() -> Callable[..., TrialCurve]:
    """`make_run`."""
    return make_run


@pytest.fixture(scope="session")
def plan_row() -> Callable[..., PlanRowFacts]:
    """`make_row`."""
    return make_row

"""Training runs that are aligned with a frozen encoder's features."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mudit.errors import Interrupted, UsageError
from mudit.models import builder
from mudit.records import StepRecord, ValidationRecord, read_records
from mudit.training import (
    ENCODER_FILE,
    RepaConfig,
    RunConfig,
    cpu_threads,
    flops_of_step,
    load_trained,
    make_plan,
    open_splits,
    parameters_of,
    save_encoder,
    train,
)
from mudit.training.alignment import ClassifierEncoder, ClassifierNet, save_weights
from mudit.tuning import StudyConfig, transfer
from mudit.tuning.config import resolved, run_config


@pytest.fixture
def plain(study: StudyConfig) -> RunConfig:
    splits = open_splits(study.data)
    study = resolved(study, splits)
    return run_config(study, splits, study.target, hps=study.hps)


@pytest.fixture
def aligned(plain: RunConfig, tmp_path: Path) -> RunConfig:
    """With an untrained encoder beside it: any frozen features will do here."""
    torch.manual_seed(0)
    save_weights(ClassifierNet(1, 10), tmp_path / ENCODER_FILE)
    return dataclasses.replace(plain, repa=RepaConfig(encoder="classifier", hidden=24))


def weighted(run: RunConfig, weight: float) -> RunConfig:
    return dataclasses.replace(run, hps=run.hps.updated({"loss_weight.repa": weight}))


def steps(folder: Path) -> list[StepRecord]:
    rows = read_records(folder / "records.jsonl")
    return [row for row in rows if isinstance(row, StepRecord)]


def test_with_weight_zero_the_model_trains_as_without(plain, aligned, tmp_path) -> None:
    alone = train(plain, tmp_path / "plain")
    beside = train(weighted(aligned, 0), tmp_path / "aligned")
    assert beside.score == alone.score
    assert beside.parameters == alone.parameters, "the projector is not part of the model"
    assert parameters_of(aligned) == beside.parameters, "foreseen as counted"
    for name in ("model.safetensors", "ema.safetensors"):
        one, other = (load_file(tmp_path / folder / name) for folder in ("plain", "aligned"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_term_is_recorded_weighted_and_learnt(aligned, tmp_path) -> None:
    train(dataclasses.replace(aligned, steps=60), tmp_path / "run")
    rows = steps(tmp_path / "run")
    for row in rows:
        assert set(row.terms) == {"denoising", "variational_bound", "repa"}
        by_hand = row.terms["denoising"] + row.terms["variational_bound"] + 0.5 * row.terms["repa"]
        assert row.loss == pytest.approx(by_hand, rel=1e-5), "0.5 if no weight is given"
    repa = [row.terms["repa"] for row in rows]
    assert sum(repa[-5:]) / 5 < sum(repa[:5]) / 5 - 0.3, "the cosine grows"
    assert all(-1 <= value <= 1 for value in repa)


def test_trials_of_different_weights_are_ranked_by_the_denoising_term(aligned, tmp_path) -> None:
    for weight in (0.1, 1.0):
        folder = tmp_path / str(weight)
        record = train(weighted(aligned, weight), folder)
        rows = read_records(folder / "records.jsonl")
        raw = next(row for row in rows if isinstance(row, ValidationRecord))
        assert record.score == raw.denoising
        assert "repa" not in raw.terms


def test_a_stopped_aligned_run_goes_on_to_the_bit(aligned, tmp_path) -> None:
    straight = train(aligned, tmp_path / "straight")
    asked: list[None] = []

    def should_stop() -> bool:
        asked.append(None)
        return len(asked) == 8

    with pytest.raises(Interrupted):
        train(aligned, tmp_path / "stopped", should_stop=should_stop)
    assert train(aligned, tmp_path / "stopped").score == straight.score
    for name in ("records.jsonl", "model.safetensors", "ema.safetensors"):
        one, other = (tmp_path / folder / name for folder in ("straight", "stopped"))
        assert one.read_bytes() == other.read_bytes()


def test_what_is_kept_is_the_model_alone(aligned, tmp_path) -> None:
    train(aligned, tmp_path / "run")
    trained = load_trained(tmp_path / "run")
    vanilla = builder(aligned.model)(aligned.model.width)
    assert trained.model.state_dict().keys() == vanilla.state_dict().keys()


def test_plan_and_cost_count_the_projector(plain, aligned) -> None:
    rows = {row.name: row.role for row in make_plan(aligned).rows}
    assert rows["projector.0.weight"] == "output"
    assert {f"model.{row.name}" for row in make_plan(plain).rows} < rows.keys()
    width, out, tokens = aligned.model.width, ClassifierEncoder.size, aligned.model.num_tokens
    products = width * 24 + 24 * 24 + 24 * out
    # Three products of 2 FLOPs: forward, and gradients of weights and of inputs.
    expected = 3 * 2 * products * tokens * aligned.batch_size
    assert flops_of_step(aligned) - flops_of_step(plain) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("repa", "words"),
    [
        ({"encoder": "clip"}, r"repa\.encoder is 'clip', expected none, classifier or dinov2"),
        ({"encoder": "dinov2:"}, r"repa\.encoder"),
        ({"block": -1}, r"repa\.block is -1"),
        ({"hidden": 0}, r"repa\.hidden is 0"),
    ],
)
def test_a_wrong_alignment_is_refused(repa, words) -> None:
    with pytest.raises(UsageError, match=words):
        RepaConfig(**repa)


def test_what_does_not_fit_the_model_is_refused(aligned) -> None:
    with pytest.raises(UsageError, match=r"repa\.block is 9.*depth, 1"):
        dataclasses.replace(aligned, repa=RepaConfig(encoder="classifier", block=9))
    with pytest.raises(UsageError, match=r"loss_weight.*\['variational_bound'\]"):
        weighted(dataclasses.replace(aligned, repa=RepaConfig()), 0.5)


def test_the_block_is_at_the_papers_share_of_the_depth() -> None:
    assert [RepaConfig(encoder="classifier").block_of(depth) for depth in (28, 4, 1, 16)] == [
        8,
        2,
        1,
        5,
    ]
    assert RepaConfig(encoder="classifier", block=3).block_of(28) == 3


@pytest.mark.slow
def test_a_study_searches_the_weight_and_trains_its_encoder_once(study) -> None:
    study = dataclasses.replace(
        study,
        repa=RepaConfig(encoder="classifier", hidden=16),
        search=dataclasses.replace(
            study.search,
            method="random",
            trials=2,
            space={"lr": "log_uniform(1e-3, 1e-2)", "loss_weight.repa": "uniform(0.1, 1)"},
        ),
    )
    with cpu_threads(2):  # a process's own number has no say in the encoder's bits
        result = transfer(study)
    folder = Path(study.folder)
    assert [path.parent for path in folder.rglob(ENCODER_FILE)] == [folder]
    assert result.main.target.hps["loss_weight.repa"] == result.main.best.hps["loss_weight.repa"]
    once = (folder / ENCODER_FILE).read_bytes()
    with cpu_threads(1):
        save_encoder(open_splits(study.data).train, folder / "again", seed=study.seed)
    assert (folder / "again").read_bytes() == once

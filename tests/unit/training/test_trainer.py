"""Training runs: exact resume, divergence, what is written; on real digits."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from mudit.data import batch_indices
from mudit.diffusion import DDPM, SampleNoise
from mudit.errors import ConfigMismatchError, DataError, EnvironmentFailure, Interrupted
from mudit.records import StepRecord, ValidationRecord, read_records
from mudit.training import RunConfig, ValidationBank, make_plan, open_splits, read_config, train
from mudit.tuning import StudyConfig
from mudit.tuning.config import resolved, run_config


@pytest.fixture
def run(study: StudyConfig) -> RunConfig:
    splits = open_splits(study.data)
    study = resolved(study, splits)
    return run_config(study, splits, study.target, hps=study.hps)


def changed(run: RunConfig, **training) -> RunConfig:
    return dataclasses.replace(run, training=dataclasses.replace(run.training, **training))


RESULTS = ("records.jsonl", "model.safetensors", "ema.safetensors")


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def test_memory_that_does_not_suffice_is_explained(run, tmp_path) -> None:
    def full() -> bool:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    with pytest.raises(EnvironmentFailure, match=r"\(CUDA out of memory\).*training.accumulation"):
        train(run, tmp_path, should_stop=full)


@pytest.mark.parametrize("stop_after", [0, 3, 5, 6, 11, 18])
def test_a_stopped_run_goes_on_to_the_bit(run, tmp_path, stop_after) -> None:
    straight = train(run, tmp_path / "straight")
    asked = []

    def should_stop() -> bool:
        asked.append(None)
        return len(asked) == stop_after + 1

    with pytest.raises(Interrupted, match=f"after step {stop_after + 1} of 20"):
        train(run, tmp_path / "stopped", should_stop=should_stop)
    again = train(run, tmp_path / "stopped")
    assert results(tmp_path / "stopped") == results(tmp_path / "straight")
    assert again.score == straight.score
    assert not list((tmp_path / "stopped").glob("checkpoint-*"))
    assert train(run, tmp_path / "stopped") == again, "a finished run is not run again"


KILLED = """
import sys
from pathlib import Path
from mudit.training import RunConfig, read_config, train
train(read_config(RunConfig, Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_trained_model_draws_the_digits_that_it_is_asked_for(tmp_path) -> None:
    """The default proxy at its best lr: a classifier of real digits finds ≥ 80 % of 200 samples."""
    from mudit.evaluation import fit_classifier, generate
    from mudit.training import load_trained

    study = StudyConfig()
    splits = open_splits(study.data)
    hps = dataclasses.replace(study.hps, lr=2**-7)
    run = run_config(resolved(study, splits), splits, study.proxy, hps=hps)
    train(run, tmp_path / "run")
    _, model, conditioning = load_trained(tmp_path / "run")
    labels = torch.arange(10).repeat_interleave(20)
    options = {"steps": 50, "cfg_scale": study.sampling.cfg_scale}
    noise = SampleNoise.of(len(labels), seed=0)
    x = generate(model, conditioning, DDPM(run.objective), labels, noise=noise, **options)
    classifier = fit_classifier(splits.train, splits.validation)
    assert classifier.held_out_accuracy >= 0.97
    assert classifier.agreement(x, labels) >= 0.8


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_bit(run, tmp_path) -> None:
    """kill -9 at several moments, in the middle of steps, writes and checkpoints."""
    run = dataclasses.replace(changed(run, log_steps=3, checkpoint_steps=5), steps=120)
    (tmp_path / "run.json").write_text(run.to_json())
    train(run, tmp_path / "straight")
    folder, kills = tmp_path / "killed", 0
    for lines in (7, 31, 64, 90):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, tmp_path / "run.json", folder],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        records = folder / "records.jsonl"
        while process.poll() is None:
            if records.exists() and records.read_bytes().count(b"\n") >= lines:
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
            time.sleep(0.001)
    assert kills >= 3
    train(run, folder)
    assert results(folder) == results(tmp_path / "straight")


def test_records_do_not_depend_on_how_often_they_are_saved(run, tmp_path) -> None:
    train(run, tmp_path / "a")
    train(changed(run, checkpoint_steps=1), tmp_path / "b")
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_records(run, tmp_path) -> None:
    record = train(changed(run, validation_steps=8), tmp_path / "run", key="k", role="proxy")
    rows = list(read_records(tmp_path / "run" / "records.jsonl"))
    steps = [row for row in rows if isinstance(row, StepRecord)]
    assert [row.step for row in steps] == list(range(1, 21))
    assert all(row.loss == pytest.approx(sum(row.terms.values()), rel=1e-5) for row in steps)
    # A zero readout predicts no noise: the denoising loss is the noise's mean square, near 1.
    assert steps[0].terms["denoising"] == pytest.approx(1.0, abs=0.2)
    measured = [row.step for row in steps if row.update_ratio]
    assert measured == [4, 8, 12, 16, 20]
    assert set(steps[-1].update_ratio) == {"input", "hidden", "output", "scalar"}
    validations = [row for row in rows if isinstance(row, ValidationRecord)]
    assert [(row.step, row.weights) for row in validations] == [
        (8, "raw"),
        (16, "raw"),
        (20, "raw"),
        (20, "ema"),
    ]
    assert record.score == validations[2].denoising
    assert (record.key, record.role, record.status, record.width) == ("k", "proxy", "complete", 32)
    timings = (tmp_path / "run" / "timings.jsonl").read_text().splitlines()
    assert all(json.loads(line)["flops_per_second"] > 0 for line in timings)
    assert read_config(RunConfig, tmp_path / "run" / "config.json") == changed(
        run, validation_steps=8
    )


def test_a_non_finite_loss_is_a_result(run, tmp_path) -> None:
    wild = dataclasses.replace(run, hps=dataclasses.replace(run.hps, lr=1e18))
    record = train(wild, tmp_path / "run")
    assert record.status == "diverged"
    assert record.score is None
    assert 2 <= record.diverged_step <= 20
    rows = list(read_records(tmp_path / "run" / "records.jsonl"))
    assert [row.step for row in rows] == list(range(1, record.diverged_step))
    assert all(math.isfinite(row.loss) for row in rows)
    assert train(wild, tmp_path / "run") == record


def test_accumulation_gives_the_same_gradients(run, tmp_path) -> None:
    torch.manual_seed(0)
    whole = train(run, tmp_path / "a")
    parts = train(changed(run, accumulation=4), tmp_path / "b")
    assert parts.score == pytest.approx(whole.score, rel=1e-4)
    assert parts.score != whole.score


def test_clipping_uses_the_plans_norm(run, tmp_path) -> None:
    clipped = dataclasses.replace(run, hps=dataclasses.replace(run.hps, clip=1e-3))
    train(clipped, tmp_path / "a")
    train(run, tmp_path / "b")
    first, free = (
        [row for row in read_records(tmp_path / name / "records.jsonl")] for name in "ab"
    )
    assert first[0].grad_norm == free[0].grad_norm > 1e-3, "the norm is that before clipping"
    assert first[5].loss != free[5].loss


def test_bf16_and_sgd_run(run, tmp_path) -> None:
    train(changed(run, precision="bf16"), tmp_path / "a")
    sgd = dataclasses.replace(run.parametrization, optimizer="sgd")
    assert train(dataclasses.replace(run, parametrization=sgd), tmp_path / "b").score is not None


def test_tensorboard(run, tmp_path) -> None:
    pytest.importorskip("tensorboard", reason="extra `track`")
    train(changed(run, tensorboard=True), tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_missing_extra_is_named(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(EnvironmentFailure, match=r"mudit\[track\]"):
        train(changed(run, tensorboard=True), tmp_path / "run")


def test_the_plan_is_written_and_followed(run, tmp_path) -> None:
    from mudit import load_plan

    train(run, tmp_path / "run")
    assert load_plan(tmp_path / "run" / "plan.json") == make_plan(run)


# --- what goes wrong ----------------------------------------------------------------------------


def test_another_config_is_refused_with_the_difference(run, tmp_path) -> None:
    train(run, tmp_path / "run")
    other = dataclasses.replace(run, hps=dataclasses.replace(run.hps, lr=0.5))
    with pytest.raises(ConfigMismatchError, match=r"hps\.lr: 0\.00390625 there, 0\.5 here"):
        train(other, tmp_path / "run")


def test_changed_data_are_refused(run, tmp_path) -> None:
    other = dataclasses.replace(run, data=dataclasses.replace(run.data, fingerprint="0" * 64))
    with pytest.raises(DataError, match="digits"):
        train(other, tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk_loses_nothing(run, tmp_path, monkeypatch, error) -> None:
    train(run, tmp_path / "straight")
    from mudit.training import checkpoint

    real, calls = checkpoint.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 5:  # in the middle of the second checkpoint
            raise error
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(EnvironmentFailure, match=r"checkpoint-00000012: no space is left"):
        train(run, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == [
        "checkpoint-00000006"
    ]
    assert not list((tmp_path / "run").glob(".checkpoint*"))
    train(run, tmp_path / "run")
    assert results(tmp_path / "run") == results(tmp_path / "straight")


def test_damaged_checkpoint_is_named(run, tmp_path) -> None:
    with pytest.raises(Interrupted):
        train(run, tmp_path / "run", should_stop=lambda: True)
    (path,) = (tmp_path / "run").glob("checkpoint-*/model.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(EnvironmentFailure, match="checkpoint-00000001"):
        train(run, tmp_path / "run")


# --- the validation bank ------------------------------------------------------------------------


def test_the_bank_is_a_function_of_data_and_seed() -> None:
    validation = open_splits(_data()).validation
    objective = DDPM(_objective())
    first, second = (ValidationBank.draw(validation, objective, size=500, seed=3) for _ in range(2))
    assert torch.equal(first.noise, second.noise)
    assert torch.equal(first.x0, second.x0)
    other = ValidationBank.draw(validation, objective, size=500, seed=4)
    assert not torch.equal(first.noise, other.noise)
    # Stratified: one t from the middle of each of the 500 strata of two steps.
    assert torch.equal(first.t.sort().values, torch.arange(500) * 2 + 1)
    # All 359 held-out images are there before any is there twice.
    assert len(torch.unique(first.x0.flatten(1), dim=0)) >= 355


def test_bank_losses_do_not_depend_on_the_batch_size(run) -> None:
    validation = open_splits(_data()).validation
    objective = DDPM(_objective())
    bank = ValidationBank.draw(validation, objective, size=50, seed=0)
    model = make_plan(run).build()
    with torch.no_grad():
        model.final_layer.linear.weight.normal_(std=0.1)
    whole, parts = (bank.losses(model, objective, batch_size=size) for size in (50, 7))
    assert whole["denoising"] == pytest.approx(parts["denoising"], rel=1e-5)


@pytest.mark.parametrize("kind", ["flow", "vp_sde"])
def test_a_bank_of_continuous_times_covers_their_law(kind) -> None:
    """Its t are the quantiles of the law, each paired with an image at random."""
    from mudit.diffusion import ObjectiveConfig, make_objective

    objective = make_objective(ObjectiveConfig(kind=kind))
    bank = ValidationBank.draw(open_splits(_data()).validation, objective, size=200, seed=3)
    middles = (torch.arange(200) + 0.5) / 200
    torch.testing.assert_close(bank.t.sort().values, middles)
    assert not torch.equal(bank.t, bank.t.sort().values)
    losses = bank.losses(lambda x, t, y: torch.zeros_like(x), objective, batch_size=64)
    assert set(losses) == {"denoising"}


def test_order_depends_on_seed_and_step_alone() -> None:
    late = batch_indices(100, 16, 5, 40)
    for step in range(30):
        batch_indices(100, 16, 5, step)
    assert np.array_equal(late, batch_indices(100, 16, 5, 40))


def _data():
    from mudit.training import DataConfig

    return DataConfig()


def _objective():
    from mudit.diffusion import ObjectiveConfig

    return ObjectiveConfig()

"""A verify study end to end on digits: tiny models, seconds."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

import mudit
from mudit.analysis.transferability import Suggestion
from mudit.errors import ConfigMismatchError, DataError, UsageError
from mudit.records import StepRecord, read_records
from mudit.training import DataConfig, Hyperparameters, TrainingConfig, open_splits
from mudit.tuning import (
    ModelConfig,
    TaskConfig,
    VerifyConfig,
    advise_study,
    preview_grid,
    read_verdict,
    verify,
)
from mudit.tuning.grid import GridPoint, grid_jobs, grid_points_of, point_of, read_extension
from mudit.tuning.listener import Silent
from mudit.tuning.verify import new_points, parametrizations, run_grid

pytestmark = pytest.mark.slow


def tiny(folder: Path, **changes) -> VerifyConfig:
    config = VerifyConfig(
        folder=str(folder),
        sizes=(8, 16, 24),
        task=TaskConfig(width=8, batch_size=8, steps=3),
        values="log2(-9, -6)",
        seeds=2,
        model=ModelConfig(depth=1, head_dim=8, patch_size=4),
        training=TrainingConfig(bank_size=32, log_steps=1, validation_steps=1),
        workers=2,
    )
    small_base = dataclasses.replace(config.parametrization, base_width=8)
    return dataclasses.replace(config, parametrization=small_base, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[mudit.TransferVerdict, VerifyConfig]:
    config = tiny(tmp_path_factory.mktemp("verify") / "study")
    return verify(config, command="mudit verify --test"), config


def test_every_size_value_and_seed_is_trained_once(finished) -> None:
    found, config = finished
    points = [point_of(config, record) for record in found.records["mup"]]
    assert sorted(points) == sorted(
        GridPoint(size=size, value=2.0**x, seed=seed)
        for size in (8, 16, 24)
        for x in range(-9, -5)
        for seed in (0, 1)
    )
    folders = [path for path in Path(config.folder).iterdir() if (path / "trial.json").exists()]
    assert len(folders) == 24 + 16  # sp is μP at width 8, the base
    assert found.records["sp"][:8] == found.records["mup"][:8]
    assert all(r.parametrization == "sp" for r in found.records["sp"][8:])


def test_what_is_paired_is_shared(finished) -> None:
    """Runs of a seed see the same images, t and noise in the same order, and all the same bank."""
    _, config = finished
    configs = [json.loads(p.read_text()) for p in Path(config.folder).glob("*_s*/config.json")]
    assert {run["seed"] for run in configs} == {0, 1}
    assert {run["bank_seed"] for run in configs} == {0}
    first = {}
    for path in Path(config.folder).glob("mup_w8_s*"):
        row = next(r for r in read_records(path / "records.jsonl") if isinstance(r, StepRecord))
        first.setdefault(path.name[:9], set()).add(row.loss)
    # Zero gates and readout: before its first step a model predicts nothing, whatever its weights.
    assert {name: len(losses) for name, losses in first.items()} == {"mup_w8_s0": 1, "mup_w8_s1": 1}
    assert first["mup_w8_s0"] != first["mup_w8_s1"]


def test_the_verdict_is_written_and_says_what_to_run(finished) -> None:
    found, config = finished
    assert found.verdict == "INCONCLUSIVE"  # three steps: the more, the better
    saved = json.loads((Path(config.folder) / "verdict.json").read_text())
    assert saved["verdict"] == "INCONCLUSIVE"
    assert saved["mup"]["basins"][0]["best"] == -6.0
    assert saved["mup"]["basins"][0]["tried"][0]["log2_hp"] == -9.0
    assert saved["sp"]["target"] == 24
    text = (Path(config.folder) / "verdict.md").read_text()
    assert text.startswith("# Transfer of lr across width: INCONCLUSIVE")
    assert "Algorithm 1" in text
    assert "mudit verify --test" in text
    messages = [finding.message for finding in found.findings]
    assert any("highest one tried" in message for message in messages)
    assert any(message.startswith("Under sp the verdict is") for message in messages)
    assert messages[-1] == "`--extend` runs just that."
    assert found.to_markdown() in text


def test_again_trains_nothing_and_reading_gives_the_same(finished) -> None:
    found, config = finished
    before = {p: p.stat().st_mtime_ns for p in Path(config.folder).rglob("*.safetensors")}
    again = verify(config)
    assert again.main == found.main
    assert again.records == found.records
    assert read_verdict(Path(config.folder)).main == found.main
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_extending_runs_what_was_said_under_both(tmp_path) -> None:
    config = tiny(tmp_path / "study", values="grid(0.005, 0.01, 0.02)", seeds=1, workers=1)
    first = verify(config)
    asked = {run for suggestion in first.main.suggestions for run in suggestion.runs}
    assert asked
    found = verify(config, extend=True)
    for parametrization in ("mup", "sp"):
        points = {point_of(config, record) for record in found.records[parametrization]}
        expected = {(size, round(x, 6), seed) for size, x, seed in asked}
        assert expected <= {(p.size, round(math.log2(p.value), 6), p.seed) for p in points}
        assert len(points) == len(found.records[parametrization]) == 9 + len(asked)
    # New seeds train at the old values themselves, not at their rounded logarithms.
    assert {p.value for p in points if p.seed > 0} <= {p.value for p in points if p.seed == 0}
    assert len(read_extension(Path(config.folder))) == len(asked)
    assert verify(config).records == found.records  # without --extend: what is there


@pytest.mark.parametrize(
    ("hp", "values", "asked", "new"),
    [
        ("lr", "log2(-9, -8)", (-10.0, -9.0), {2**-10}),
        # Beyond the edge of a grid there may be no value; a half octave of few steps is none.
        ("beta1", "grid(0.5, 0.9)", (-0.05, 0.3, 1.0), {2**-0.05}),
        ("warmup_steps", "grid(1, 2)", (-1.0, 0.25, 2.0), {4.0}),
    ],
)
def test_an_extension_has_points_that_can_be_and_are_new(tmp_path, hp, values, asked, new) -> None:
    config = tiny(tmp_path, hp=hp, values=values)
    there = grid_points_of(config, [])
    wider = Suggestion("wider", "", tuple((8, x, 0) for x in asked))
    assert {point.value for point in new_points(config, [wider], there)} == new


def test_a_killed_grid_goes_on(tmp_path) -> None:
    class Stops(Exception):
        pass

    class Listener(Silent):
        def ended(self, record) -> None:
            raise Stops

    config = tiny(tmp_path / "study", sizes=(8, 16), seeds=1, control="none", workers=1)
    with pytest.raises(Stops):
        run_grid(config, listener=Listener())
    with pytest.raises(DataError, match="runs under mup are not finished"):
        read_verdict(Path(config.folder))
    assert len(verify(config).records["mup"]) == 8


@pytest.mark.parametrize(("across", "field"), [("batch", "batch_size"), ("steps", "steps")])
def test_other_axes_vary_one_thing(tmp_path, across, field) -> None:
    config = tiny(tmp_path, across=across, sizes=(4, 8, 16))
    splits = open_splits(config.data)
    points = grid_points_of(config, [])
    runs = [job.config for job in grid_jobs(config, splits, "mup", points)]
    assert [getattr(run, field) for run in runs[::8]] == [4, 8, 16]
    others = {"batch_size", "steps"} - {field}
    assert {tuple(getattr(run, name) for name in others) for run in runs} == {
        (config.task.batch_size,) if field == "steps" else (config.task.steps,)
    }
    assert {run.model.width for run in runs} == {8}
    # At base width sp is μP bit for bit: there is no control to run, and the study says so.
    assert parametrizations(config) == ("mup",)
    wide = dataclasses.replace(config, task=dataclasses.replace(config.task, width=16))
    assert parametrizations(wide) == ("mup", "sp")


def test_no_control_is_said(tmp_path) -> None:
    config = tiny(tmp_path / "study", across="steps", sizes=(2, 3), seeds=1, workers=1)
    found = verify(config)
    assert found.control is None
    assert any("cannot tell them apart" in finding.message for finding in found.findings)


def test_any_hp_can_be_varied(tmp_path) -> None:
    splits = open_splits(DataConfig())
    for hp in ("phi.output", "lr_multiplier.hidden", "sigma.input", "weight_decay", "clip",
               "loss_weight.variational_bound"):  # fmt: skip
        config = tiny(tmp_path, hp=hp, values="log2(-2, 1)")
        point = GridPoint(size=16, value=0.5, seed=1)
        (job,) = grid_jobs(config, splits, "mup", [point])
        assert job.config.hps.flat()[hp] == 0.5
        assert f"{hp}=2^-1" in job.key
    config = tiny(tmp_path, hp="warmup_steps", values="grid(1.2, 2, 2.4, 8)")
    assert config.grid() == (1.0, 2.0, 8.0)  # steps are whole


def test_the_preview_counts_runs_and_flops(tmp_path, finished) -> None:
    found, config = finished
    preview = preview_grid(dataclasses.replace(config, folder=str(tmp_path / "none")))
    assert preview.runs == {"mup": 24, "sp": 16}
    everything = {record.key: record for rows in found.records.values() for record in rows}
    assert preview.flops == pytest.approx(sum(r.train_flops for r in everything.values()))
    largest = max(record.train_flops for record in everything.values())
    assert preview.target_flops == pytest.approx(largest)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": "grid(0.01)"}, "one point: there is no optimum"),
        ({"values": "grid(0, 0.1)", "hp": "weight_decay"}, "finite set above zero"),
        ({"values": "log_uniform(0.1, 1)"}, "finite set above zero"),
        ({"values": "log2(-9"}, "values is 'log2"),
        ({"hp": "learning_rate"}, "no base HP is called 'learning_rate'"),
        ({"sizes": (8, 8, 16)}, "names a size twice"),
        ({"sizes": (8,)}, "at least two sizes"),
        ({"sizes": (0, 8)}, "at least two sizes"),
        ({"target": 16}, "at least the largest size, 24"),
        ({"seeds": 0}, "seeds is 0"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_a_wrong_config_is_refused(tmp_path, changes, message) -> None:
    with pytest.raises(UsageError, match=message):
        tiny(tmp_path, **changes)


def test_what_can_be_seen_beforehand_is_refused_and_nothing_is_written(tmp_path) -> None:
    folder = tmp_path / "study"
    with pytest.raises(UsageError, match=r"13.*8 and 16"):
        verify(tiny(folder, sizes=(8, 13, 24)))
    with pytest.raises(UsageError, match="batch_size is 5000"):
        verify(tiny(folder, across="batch", sizes=(8, 16, 5000)))
    objective = dataclasses.replace(tiny(folder).objective, learn_sigma=False)
    weights = Hyperparameters(loss_weight={"variational_bound": 0.5})
    with pytest.raises(UsageError, match="loss_weight"):
        verify(tiny(folder, objective=objective, hps=weights))
    assert not folder.exists()


def test_a_folder_belongs_to_one_config(finished) -> None:
    _, config = finished
    with pytest.raises(ConfigMismatchError, match="seeds: 2 there, 3 here"):
        verify(dataclasses.replace(config, seeds=3))
    with pytest.raises(ConfigMismatchError):
        mudit.transfer(mudit.StudyConfig(folder=config.folder))


def test_a_damaged_extension_is_named(tmp_path) -> None:
    (tmp_path / "extension.json").write_text("[{]")
    with pytest.raises(DataError, match=r"extension\.json is damaged"):
        read_extension(tmp_path)


def test_advice_judges_every_size_and_every_validated_step(finished) -> None:
    _, config = finished
    found = advise_study(Path(config.folder))
    tasks = {tuple(proxy.task) for proxy in found.advice.proxies}
    assert tasks == {(size, steps) for size in config.sizes for steps in (1, 2, 3)}
    whole = {proxy.task: proxy.cost for proxy in found.advice.proxies}
    assert whole[24, 3] == pytest.approx(4.0)  # four values at the target itself
    assert whole[24, 1] == pytest.approx(4.0 / 3)
    assert whole[8, 3] < whole[16, 3] < whole[24, 3]
    text = (Path(config.folder) / "advice.md").read_text()
    assert text.count("\n| ") == 1 + 9 + 1
    assert (Path(config.folder) / "figures" / "advice.png").stat().st_size > 10_000
    with pytest.raises(DataError, match="holds no study"):
        advise_study(Path(config.folder) / "figures")
    with pytest.raises(DataError, match="not that of a verify study"):
        advise_study(next(Path(config.folder).glob("mup_w8_s0*")))

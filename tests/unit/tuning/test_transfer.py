"""Algorithm 4 end to end on digits, its resumption and its control; seconds each."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest

from mudit import tuning
from mudit.errors import ConfigMismatchError, EnvironmentFailure, UsageError
from mudit.training import exclusive, open_splits
from mudit.tuning import NoBestPoint, StudyConfig, TaskConfig, preview, transfer
from mudit.tuning.queue import open_study
from mudit.tuning.search import best_trial, importance

pytestmark = pytest.mark.slow


def searched(config: StudyConfig, **space: str) -> StudyConfig:
    return dataclasses.replace(config, search=dataclasses.replace(config.search, space=space))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_study) -> tuple[tuning.TransferResult, StudyConfig]:
    config = small_study(tmp_path_factory.mktemp("finished") / "study")
    config = dataclasses.replace(config, control="sp", workers=2)
    return transfer(config, command="mudit transfer --test"), config


def test_search_best_target_report(finished) -> None:
    result, config = finished
    folder = Path(config.folder)
    trials = result.main.trials
    assert [trial.hps["lr"] for trial in trials] == [2**-8, 2**-7, 2**-6]
    assert result.main.best.score == min(trial.score for trial in trials)
    target = json.loads((folder / "target_mup" / "config.json").read_text())
    assert target["hps"]["lr"] == result.main.best.hps["lr"]
    assert target["model"]["num_heads"] * target["model"]["head_dim"] == 32
    # The base HP is carried over; what the optimizer gets is the plan's business.
    plan = json.loads((folder / "target_mup" / "plan.json").read_text())
    hidden = next(row for row in plan["rows"] if row["name"] == "blocks.0.attn.qkv.weight")
    assert hidden["lr"] == 0.5
    page = result.report.read_text()
    assert "mudit transfer --test" in page
    assert "data:image/png;base64," in page
    assert 0 <= result.agreement <= 1
    with np.load(folder / "samples" / "target_mup.npz") as arrays:
        assert arrays["arr_0"].shape == (20, 8, 8, 1)
        assert arrays["arr_0"].dtype == np.uint8


def test_control_shares_the_search_at_base_width_only(finished) -> None:
    result, config = finished
    assert result.control.trials == result.main.trials
    assert result.control.best == result.main.best
    assert result.control.target.score != result.main.target.score
    assert not list(Path(config.folder).glob("sp_*"))
    other = dataclasses.replace(
        config, parametrization=dataclasses.replace(config.parametrization, base_width=8)
    )
    assert tuning.study.shares_search(config)
    assert not tuning.study.shares_search(other)
    assert not tuning.study.shares_search(dataclasses.replace(config, control_init="dit"))


def test_optuna_has_every_trial_once_and_nothing_is_run_again(finished) -> None:
    result, config = finished
    study = open_study(Path(config.folder), "search-mup")
    states = [trial.state for trial in study.get_trials()]
    assert states == [optuna.trial.TrialState.COMPLETE] * 3
    before = {p: p.stat().st_mtime_ns for p in Path(config.folder).rglob("*.safetensors")}
    again = transfer(config)
    assert again.main == result.main
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(open_study(Path(config.folder), "search-mup").get_trials()) == 3


def test_cost_is_by_equation_1(finished) -> None:
    result, config = finished
    proxy, target = result.main.trials[0], result.main.target
    expected = 3 * proxy.parameters * 16 * 12 / (target.parameters * 16 * 20)
    assert result.cost_ratio == pytest.approx(expected)
    flops = sum(trial.train_flops for trial in result.main.trials) / target.train_flops
    assert result.measured_ratio == pytest.approx(flops)
    seen = preview(config)
    assert seen.cost_ratio == pytest.approx(result.cost_ratio)
    assert seen.search_flops / seen.target_flops == pytest.approx(flops)


def test_another_config_in_the_folder_is_refused(finished) -> None:
    _, config = finished
    with pytest.raises(ConfigMismatchError, match=r"seed: 0 there, 1 here"):
        transfer(dataclasses.replace(config, seed=1))
    # Workers do not change results, nor do blanks within a range.
    space = {name: text.replace(" ", "") for name, text in config.search.space.items()}
    assert space != config.search.space
    blanks = dataclasses.replace(config.search, space=space)
    transfer(dataclasses.replace(config, workers=1, search=blanks))


RUN = """
import sys, json
from pathlib import Path
from mudit.training import read_config
from mudit.tuning import StudyConfig, transfer
if __name__ == "__main__":
    transfer(read_config(StudyConfig, Path(sys.argv[1])))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_was_stopped_goes_on_to_the_bit(study, tmp_path, how) -> None:
    study = dataclasses.replace(
        study, workers=2, proxy=TaskConfig(width=16, batch_size=16, steps=60)
    )
    straight = dataclasses.replace(study, folder=str(tmp_path / "straight"))
    stopped = dataclasses.replace(study, folder=str(tmp_path / "stopped"))
    transfer(straight)
    (tmp_path / "run.json").write_text(json.dumps(dataclasses.asdict(stopped)))
    (tmp_path / "run.py").write_text(RUN)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path / "run.json"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "stopped").glob("mup_*/checkpoint-*")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert "Repeat the command to go on" in errors
    # Orphans of a killed parent hold their runs' folders until they leave; they are waited for.
    transfer(stopped)
    for path in (tmp_path / "straight").rglob("*"):
        if path.name in ("records.jsonl", "model.safetensors", "ema.safetensors"):
            twin = tmp_path / "stopped" / path.relative_to(tmp_path / "straight")
            assert twin.read_bytes() == path.read_bytes(), twin


def test_diverged_trials_are_results(study) -> None:
    study = searched(study, lr="grid(1e18, 0.005)")
    result = transfer(study)
    assert [trial.status for trial in result.main.trials] == ["diverged", "complete"]
    assert result.main.best.hps["lr"] == 0.005
    assert "diverged" in result.report.read_text()
    values = [trial.value for trial in open_study(Path(study.folder), "search-mup").get_trials()]
    assert values[0] == float("inf")


def test_a_damaged_storage_is_named_and_nothing_is_lost(study) -> None:
    study = searched(study, lr="grid(0.005)")
    first = transfer(study)
    storage = Path(study.folder) / "optuna.db"
    storage.write_bytes(b"not a database" * 100)
    with pytest.raises(EnvironmentFailure, match=r"optuna\.db.*delete it"):
        transfer(study)
    storage.unlink()
    assert transfer(study).main == first.main


def test_no_best_point(study) -> None:
    with pytest.raises(NoBestPoint, match="all 2 trials diverged") as caught:
        transfer(searched(study, lr="grid(1e18, 1e17)"))
    assert caught.value.exit_code == 4


def test_a_control_that_diverges_everywhere_does_not_end_the_study(study) -> None:
    """Under sp with another initialisation and base width, the control searches by itself."""
    study = dataclasses.replace(searched(study, lr="grid(0.005)"), control="sp", control_init="dit")
    folder = Path(study.folder)
    run = json.loads((_first_trial(study, folder) / "config.json").read_text())
    assert run["parametrization"]["parametrization"] == "sp"
    _diverge(folder)
    result = transfer(study)
    assert isinstance(result.control, tuning.FailedSearch)
    assert result.main.target.status == "complete"
    assert "all diverged" in result.report.read_text() or "diverged" in result.report.read_text()


def _first_trial(study: StudyConfig, folder: Path) -> Path:
    """Run the study once, so that its control's trial is there."""
    transfer(study)
    (path,) = folder.glob("sp_*")
    return path


def _diverge(folder: Path) -> None:
    """Turn the control's trial into a diverged one, and forget its target and samples."""
    import shutil

    (path,) = folder.glob("sp_*/trial.json")
    record = json.loads(path.read_text())
    record |= {"status": "diverged", "diverged_step": 3, "score": None}
    path.write_text(json.dumps(record))
    shutil.rmtree(folder / "target_sp")
    (folder / "samples" / "target_sp.npz").unlink()


def test_random_search_over_several_hps_and_importance(study) -> None:
    search = dataclasses.replace(
        study.search,
        method="random",
        trials=6,
        space={"lr": "log_uniform(1e-4, 3e-2)", "phi.output": "log_uniform(0.99, 1.01)"},
    )
    study = dataclasses.replace(study, search=search)
    result = transfer(study)
    assert len({trial.key for trial in result.main.trials}) == 6
    shares = importance(study, result.main.trials)
    assert sum(shares.values()) == pytest.approx(1.0)
    # φ between 0.99 and 1.01 hardly matters; lr over 2.5 decades does ([muDiT] §5.2.2).
    assert shares["lr"] > 0.6 > shares["phi.output"]
    assert best_trial(result.main.trials) == result.main.best


def test_what_can_be_seen_before_the_search_is_refused_before_it(
    study, tmp_path, monkeypatch
) -> None:
    wide = dataclasses.replace(study, target=TaskConfig(width=33, batch_size=16, steps=20))
    with pytest.raises(UsageError, match=r"33.*32 and 40"):
        transfer(wide)
    assert not Path(study.folder).exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="holds no study"):
        transfer(dataclasses.replace(study, folder=str(tmp_path / "photos")))
    monkeypatch.setattr(tuning.study, "LOCK_SECONDS", 0.5)
    with exclusive(Path(study.folder)), pytest.raises(UsageError, match="another process"):
        transfer(study)


def test_trials_are_ranked_by_the_banks_denoising_loss(finished) -> None:
    result, config = finished
    from mudit.records import ValidationRecord, read_records

    for trial in result.main.trials:
        rows = read_records(Path(config.folder) / trial.key / "records.jsonl")
        raw = [r for r in rows if isinstance(r, ValidationRecord) and r.weights == "raw"]
        assert trial.score == raw[-1].denoising


def test_all_four_cells_run(study) -> None:
    """(sp | mup) × (dit | dit_mup): the paper compares (sp, dit) with (mup, dit_mup)."""
    assert open_splits(study.data).train.num_classes == 10
    scores = {}
    for init, control_init in (("dit_mup", "dit"), ("dit", "dit_mup")):
        config = dataclasses.replace(
            study,
            folder=f"{study.folder}-{init}",
            model=dataclasses.replace(study.model, init=init),
            control="sp",
            control_init=control_init,
        )
        result = transfer(searched(config, lr="grid(0.005)"))
        scores["mup", init] = result.main.target.score
        scores["sp", control_init] = result.control.target.score
    assert len(set(scores.values())) == 4

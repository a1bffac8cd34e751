"""Longer runs of the search's best points, between the search and the target ([muDiT] E.4.2)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mudit.errors import UsageError
from mudit.records import TrialRecord
from mudit.training import open_splits
from mudit.tuning import (
    FinalsConfig,
    SearchConfig,
    StudyConfig,
    preview,
    read_branch,
    transfer,
)
from mudit.tuning.config import resolved
from mudit.tuning.finals import final_jobs, final_points
from mudit.tuning.search import spending, trial_jobs


def with_finals(config: StudyConfig, **finals) -> StudyConfig:
    search = dataclasses.replace(config.search, finals=FinalsConfig(**finals))
    return dataclasses.replace(config, search=search)


def trial(score: float | None, **hps: float) -> TrialRecord:
    return TrialRecord(
        key=str(hps), role="proxy", parametrization="mup", width=1, parameters=1, batch_size=1,
        steps=1, seed=0, hps={"clip": 0.0, **hps}, status="complete" if score else "diverged",
        diverged_step=None if score else 1, score=score, train_flops=1.0, seconds=1.0,
    )  # fmt: skip


def test_the_papers_finals() -> None:
    """Table 15: "the searched optimal HPs and five different base learning rates"."""
    config = StudyConfig(
        search=SearchConfig(
            method="random",
            trials=80,
            space={"lr": "log_uniform(2.5e-5, 2.5e-3)", "clip": "log_uniform(0.01, 100)"},
            finals=FinalsConfig(steps=100_000, factors={"lr": "grid(0.4, 0.8, 1, 1.6, 3.2)"}),
        )
    )
    trials = [trial(0.2, lr=1e-3, clip=3.0), trial(0.1, lr=2.5e-4, clip=1.0), trial(None, lr=1.0)]
    points = final_points(config, trials)
    assert [point["lr"] for point in points] == pytest.approx([1e-4, 2e-4, 2.5e-4, 4e-4, 8e-4])
    assert {point["clip"] for point in points} == {1.0}


def test_best_points_and_factors_are_combined_and_equal_ones_run_once() -> None:
    config = StudyConfig(
        search=SearchConfig(
            space={"lr": "grid(1, 2, 4)"},
            finals=FinalsConfig(
                steps=10, best=2, factors={"lr": "grid(1, 2)", "weight_decay": "grid(1)"}
            ),
        ),
    )
    trials = [
        trial(score, lr=lr, weight_decay=0.5) for score, lr in ((0.3, 1.0), (0.1, 2.0), (0.2, 4.0))
    ]
    points = final_points(config, trials)
    assert [point["lr"] for point in points] == [2, 4, 8]  # the best first; 4 = 2 × 2 once
    assert all(point["weight_decay"] == 0.5 for point in points)
    assert config.search.finals.most_runs == 4
    assert config.tuned == ("lr", "weight_decay")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factors": {"lr": "grid(1)"}}, "no finals.*finals.steps 2000"),
        ({"steps": 5, "factors": {"lr": "uniform(1, 2)"}}, "finite set of factors"),
        ({"steps": 5, "factors": {"lr": "grid(0, 1)"}}, "above zero"),
        ({"steps": 5, "factors": {"lrr": "grid(1)"}}, "no base HP is called 'lrr'"),
        ({"steps": 5, "factors": {"phi.output": "grid(1)"}}, "phi.output.*no value to multiply"),
        ({"steps": -1}, "at least 0"),
        ({"steps": 5, "best": 0}, "at least 1"),
    ],
)
def test_mistakes_are_named(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        with_finals(StudyConfig(), **options)


def test_cost_counts_finals_by_eq_1(study: StudyConfig) -> None:
    plain = preview(study)
    longer = preview(with_finals(study, steps=40, factors={"lr": "log2(-1, 0)"}))
    # Three trials of 12 steps; two finals of 40: both of one size.
    assert longer.cost_ratio == pytest.approx(plain.cost_ratio * (3 * 12 + 2 * 40) / (3 * 12))
    assert longer.search_flops == pytest.approx(plain.search_flops * (36 + 80) / 36)
    assert longer.least_flops == pytest.approx(plain.least_flops + plain.search_flops * 80 / 36)
    assert (plain.finals, longer.finals) == (0, 2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_study):
    config = small_study(tmp_path_factory.mktemp("finals") / "study")
    config = dataclasses.replace(
        with_finals(config, steps=18, best=2, factors={"weight_decay": "grid(1)"}), control="sp"
    )
    return transfer(config), config


@pytest.mark.slow
def test_the_winner_of_the_finals_is_carried(finished) -> None:
    result, config = finished
    main, folder = result.main, Path(config.folder)
    by_score = sorted(main.trials, key=lambda record: record.score)
    assert [final.hps["lr"] for final in main.finals] == [r.hps["lr"] for r in by_score[:2]]
    assert {final.steps for final in main.finals} == {18}
    assert main.best == min(main.finals, key=lambda record: record.score)
    target = json.loads((folder / "target_mup" / "config.json").read_text())
    assert target["hps"]["lr"] == main.best.hps["lr"]
    # The control shares search and finals at base width.
    assert (result.control.finals, result.control.best) == (main.finals, main.best)
    assert not list(folder.glob("*sp_lr*"))
    # Measured as foreseen.
    seen = preview(config)
    assert result.cost_ratio == pytest.approx(seen.cost_ratio)
    assert result.measured_ratio == pytest.approx(seen.search_flops / seen.target_flops)


@pytest.mark.slow
def test_the_report_tells_of_finals(finished) -> None:
    result, _ = finished
    page = result.report.read_text()
    assert "Confirm." in page
    assert "2 runs of 18 steps instead of 12" in page
    assert "Each final" in page
    assert result.main.finals[0].key in page


@pytest.mark.slow
def test_resumed_and_read_back(finished) -> None:
    result, config = finished
    folder = Path(config.folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/model.safetensors")}
    # One final has been lost, as by `kill -9` before its end.
    (folder / result.main.finals[1].key / "trial.json").unlink()
    again = transfer(config)
    assert again.main.best == result.main.best
    assert [final.score for final in again.main.finals] == [
        final.score for final in result.main.finals
    ]
    changed = {p.parent.name for p in before if p.stat().st_mtime_ns != before[p]}
    assert changed <= {result.main.finals[1].key}
    splits = open_splits(config.data)
    assert read_branch(config, splits, "mup") == again.main
    # Spent and foreseen agree once all has ended.
    known = resolved(config, splits)
    jobs = trial_jobs(known, splits, "mup")
    spent = spending(known, jobs, final_jobs(known, splits, "mup", again.main.trials))
    assert spent.so_far == spent.most == pytest.approx(preview(config).search_flops)
    assert spending(known, jobs).so_far < spending(known, jobs).most == pytest.approx(spent.most)


def test_a_control_with_a_search_of_its_own_has_finals_of_its_own(study: StudyConfig) -> None:
    config = with_finals(study, steps=14, factors={"lr": "grid(0.5, 1)"})
    config = dataclasses.replace(config, control_init="dit")
    splits = open_splits(config.data)
    jobs = final_jobs(config, splits, "sp", [trial(0.1, lr=2**-7)])
    assert [job.point for job in jobs] == [{"lr": 2**-8}, {"lr": 2**-7}]
    assert all(job.key.startswith("final_sp_lr=") for job in jobs)  # no sibling of `sp_*`
    for job in jobs:
        run = job.config
        assert (run.parametrization.parametrization, run.model.init) == ("sp", "dit")
        assert (run.steps, run.batch_size, run.model.width) == (14, 16, 16)
        assert run.hps.lr == job.point["lr"]
    assert final_jobs(study, splits, "sp", [trial(0.1, lr=2**-7)]) == []

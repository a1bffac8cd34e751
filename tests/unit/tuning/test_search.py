"""Which points a search tries, which trials it ends early, and what that costs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import optuna
import pytest

from mudit.errors import DataError, Interrupted, UsageError
from mudit.records import StepRecord, ValidationRecord, read_records
from mudit.training import open_splits, read_trial
from mudit.tuning import PruningConfig, SearchConfig, StudyConfig, TaskConfig, preview, transfer
from mudit.tuning.config import resolved
from mudit.tuning.listener import Silent
from mudit.tuning.pruning import Curve, prunes
from mudit.tuning.search import Trials, best_trial, propose, search, trial_jobs
from mudit.tuning.space import Choices, Interval
from mudit.tuning.study import join_study, read_branch

# --- which trials are ended -----------------------------------------------------------------------


def test_rungs() -> None:
    def rungs(steps: int, **options) -> tuple[int, ...]:
        return PruningConfig(**{"method": "halving", **options}).rungs(steps)

    assert rungs(300) == (34, 102)
    assert rungs(900, first_rung=100) == (100, 300)
    assert rungs(80, reduction_factor=4, first_rung=10, method="median") == (10, 40)
    assert rungs(4) == (1, 3)
    assert rungs(300, method="none") == ()
    with pytest.raises(UsageError, match="has only 100 steps"):
        rungs(100, first_rung=100)


@pytest.mark.parametrize("method", ["halving", "median"])
@pytest.mark.parametrize("seed", range(10))
def test_decisions_are_optunas(method: str, seed: int) -> None:
    """Trials one after the other, in a native Optuna study that reports and asks as usual."""
    config = PruningConfig(method=method, reduction_factor=3, first_rung=10, startup_trials=4)
    rungs, rng = config.rungs(200), np.random.default_rng(seed)
    curves = 1 + rng.normal(size=(25, 1)) + 0.4 * rng.normal(size=(25, len(rungs) + 1))
    pruner = {
        "halving": optuna.pruners.SuccessiveHalvingPruner(10, reduction_factor=3),
        "median": optuna.pruners.MedianPruner(n_startup_trials=4),
    }[method]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    native = optuna.create_study(pruner=pruner)
    ended: list[Curve] = []
    for curve in curves:
        trial, losses, state = native.ask(), {}, "complete"
        for rung, loss in zip(rungs, curve):
            trial.report(loss, rung)
            losses[rung] = loss
            stops = prunes(config, rungs, Curve(losses=dict(losses)), ended)
            assert stops == trial.should_prune()
            if stops:
                state = "pruned"
                break
        score = curve[-1] if state == "complete" else None
        ended.append(Curve(losses=losses, state=state, score=score))
        native.tell(
            trial, score, state=None if score is not None else optuna.trial.TrialState.PRUNED
        )
    assert {curve.state for curve in ended} == {"complete", "pruned"}


def test_a_nan_is_ended() -> None:
    config = PruningConfig(method="halving", first_rung=10)
    assert prunes(config, (10, 30), Curve(losses={10: float("nan")}), [Curve(losses={10: 1.0})])


def test_trials_under_way_compete() -> None:
    """Asynchronous halving counts whoever has come to the rung, ended or not."""
    config = PruningConfig(method="halving", first_rung=10)
    own, better = Curve(losses={10: 1.0}), Curve(losses={10: 0.5})
    assert not prunes(config, (10, 30), own, [])
    assert prunes(config, (10, 30), own, [better])
    assert not prunes(config, (10, 30), own, [Curve(losses={})])


@pytest.fixture
def pruned(study: StudyConfig) -> StudyConfig:
    """Nine learning rates, of which few are worth 18 steps."""
    return dataclasses.replace(
        study,
        proxy=TaskConfig(width=16, batch_size=16, steps=18),
        search=SearchConfig(
            space={"lr": "log2(-14, -6)"}, pruning=PruningConfig(method="halving", first_rung=2)
        ),
    )


def test_a_search_that_ends_trials(pruned: StudyConfig, tmp_path: Path) -> None:
    result = transfer(pruned)
    whole = dataclasses.replace(
        pruned,
        folder=str(tmp_path / "whole"),
        search=dataclasses.replace(pruned.search, pruning=PruningConfig()),
    )
    exhaustive = transfer(whole).main
    trials = result.main.trials
    assert [trial.hps["lr"] for trial in trials] == [2.0**k for k in range(-14, -5)]
    ended = [trial for trial in trials if trial.status == "pruned"]
    assert len(ended) >= 5
    assert {trial.pruned_step for trial in ended} <= {2, 6}
    assert result.main.best.hps == exhaustive.best.hps
    assert result.main.best.score == exhaustive.best.score
    # A trial that is ended is the beginning of the one that is not.
    for trial in ended:
        assert trial.score is None
        rows = list(read_records(Path(pruned.folder, trial.key, "records.jsonl")))
        rungs = [row.step for row in rows if isinstance(row, ValidationRecord)]
        assert rungs == [rung for rung in (2, 6) if rung <= trial.pruned_step]
        losses = [row.loss for row in rows if isinstance(row, StepRecord)]
        other = read_records(Path(whole.folder, trial.key, "records.jsonl"))
        same = [row.loss for row in other if isinstance(row, StepRecord)]
        assert losses == same[: trial.pruned_step]
        assert trial.train_flops == pytest.approx(
            exhaustive.trials[0].train_flops * trial.pruned_step / 18
        )
    # By hand: Eq. (1) with the steps that were taken.
    steps = sum(trial.steps_taken for trial in trials)
    small, large = trials[0].parameters, result.main.target.parameters
    assert result.cost_ratio == pytest.approx(steps * small / (20 * large))
    page = result.report.read_text()
    assert f"{len(ended)} ended early" in page
    assert "Upright strokes in the upper band were ended early" in page
    # Read back from the folder alone.
    again = read_branch(pruned, open_splits(pruned.data), "mup")
    assert again == result.main


def test_its_cost_before(pruned: StudyConfig) -> None:
    found = preview(pruned)
    assert found.trials == 9
    assert found.least_flops / found.search_flops == pytest.approx((18 + 8 * 2) / (9 * 18))
    none = dataclasses.replace(pruned.search, pruning=PruningConfig())
    whole = preview(dataclasses.replace(pruned, search=none))
    assert whole.least_flops == whole.search_flops == found.search_flops


class Costs(Silent):
    """A listener that keeps the costs."""

    def __init__(self) -> None:
        self.shares: list[tuple[float, float]] = []

    def spent(self, share: float, most: float) -> None:
        self.shares.append((share, most))


def test_its_cost_during_and_after(pruned: StudyConfig) -> None:
    costs = Costs()
    result = transfer(pruned, listener=costs)
    assert len(costs.shares) == 9
    spent, most = zip(*costs.shares)
    assert list(spent) == sorted(spent)
    assert list(most) == sorted(most, reverse=True)
    assert spent[-1] == most[-1] == pytest.approx(result.measured_ratio)
    before = preview(pruned)
    assert most[0] <= before.search_flops / before.target_flops


# --- TPE ------------------------------------------------------------------------------------------


def test_tpe_finds_a_bowls_bottom() -> None:
    """Of 40 points in a bowl, TPE's best lies nearer to the bottom than random search's."""
    space = {"lr": Interval(1e-5, 1e-1, log=True), "clip": Interval(0.01, 10.0, log=True)}

    def loss(point: dict[str, float]) -> float:
        return float(np.log(point["lr"] / 1e-3) ** 2 + np.log(point["clip"] / 1) ** 2)

    better = 0
    for seed in range(5):
        results: list[tuple[dict[str, float], Curve]] = []
        for number in range(40):
            point = propose(space, results, seed=1000 * seed + number)
            results.append((point, Curve(state="complete", score=loss(point))))
        rng = np.random.default_rng(seed)
        drawn = [{name: found.draw(rng) for name, found in space.items()} for _ in range(40)]
        better += min(curve.score for _, curve in results) < min(map(loss, drawn))
    assert better >= 4


def test_a_proposal_depends_on_the_results_alone() -> None:
    space = {"lr": Interval(1e-5, 1e-1, log=True), "clip": Choices((0.1, 1.0))}
    rng = np.random.default_rng(0)
    results = [
        ({name: found.draw(rng) for name, found in space.items()}, Curve(state="complete", score=s))
        for s in rng.normal(size=12)
    ]
    results.append((results[0][0], Curve(state="failed")))
    results.append((results[1][0], Curve(losses={10: 0.3}, state="pruned")))
    point = propose(space, results, seed=5)
    assert point == propose(space, results, seed=5)
    assert point != propose(space, results, seed=6)
    assert point["clip"] in (0.1, 1.0)
    busy = [*results, (point, Curve())]
    assert propose(space, busy, seed=5) != point


@pytest.fixture
def tpe(study: StudyConfig) -> StudyConfig:
    space = {"lr": "log_uniform(1e-4, 1e-1)", "clip": "grid(0.1, 1)"}
    return dataclasses.replace(study, search=SearchConfig(space=space, method="tpe", trials=13))


def test_a_tpe_search_goes_on_where_it_was(tpe: StudyConfig, tmp_path: Path) -> None:
    """Stopped, its storage deleted, gone on with: the points are those of one that was not."""
    straight = dataclasses.replace(tpe, folder=str(tmp_path / "straight"))
    expected = transfer(straight).main

    splits, ended = open_splits(tpe.data), []
    config = resolved(tpe, splits)
    join_study(Path(tpe.folder), config.claim())
    with pytest.raises(Interrupted):
        search(
            config, splits, parametrization="mup", should_stop=lambda: len(ended) >= 11,
            on_tick=lambda *args: None, on_end=ended.append, on_notice=lambda text: None,
        )  # fmt: skip
    assert 11 <= len(json.loads(Path(tpe.folder, "points_mup.json").read_text())) < 13
    Path(tpe.folder, "optuna.db").unlink()
    shutil.rmtree(Path(tpe.folder) / ".owners", ignore_errors=True)
    result = transfer(tpe).main
    assert [trial.hps for trial in result.trials] == [trial.hps for trial in expected.trials]
    assert len({trial.key for trial in result.trials}) == 13
    assert result.best == best_trial(result.trials)
    assert result.best.score == expected.best.score
    assert read_branch(tpe, splits, "mup") == result


def test_tpe_points_are_the_files(tpe: StudyConfig) -> None:
    splits = open_splits(tpe.data)
    source, other = Trials(tpe, splits, "mup"), Trials(tpe, splits, "mup")
    assert trial_jobs(tpe, splits, "mup") == []
    Path(tpe.folder).mkdir()
    first = source.another()
    assert [job.key for job in other.known()] == [first.key]
    second = other.another()
    assert [job.key for job in source.known()] == [first.key, second.key]
    while source.another():
        pass
    assert source.is_complete
    assert len(source.known()) == 13
    assert trial_jobs(tpe, splits, "mup") == source.known()
    Path(tpe.folder, "points_mup.json").write_text("[{")
    with pytest.raises(DataError, match=r"points_mup\.json is damaged"):
        trial_jobs(tpe, splits, "mup")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"method": "tpe", "space": {"lr": "log_uniform(1e-4, 1e-2)"}}, "search.trials is 0"),
        ({"method": "tpe", "trials": 5}, "no HP in search.space has an interval"),
        ({"method": "tpe", "trials": 5, "space": {}}, "search.space is empty"),
    ],
)
def test_a_tpe_search_that_cannot_be(study: StudyConfig, search, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(study, search=SearchConfig(**search))


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        ({"reduction_factor": 1}, "reduction_factor is 1, expected at least 2"),
        ({"first_rung": -1}, "first_rung is -1, expected at least 0"),
        ({"startup_trials": 0}, "startup_trials is 0, expected at least 1"),
        ({"method": "halving", "first_rung": 12}, "a trial has only 12 steps"),
    ],
)
def test_pruning_that_cannot_be(study: StudyConfig, pruning, message: str) -> None:
    def make() -> None:
        search = dataclasses.replace(study.search, pruning=PruningConfig(**pruning))
        dataclasses.replace(study, search=search)

    with pytest.raises(UsageError, match=message):
        make()


def test_pruned_trials_are_not_trained_again(pruned: StudyConfig) -> None:
    before = transfer(pruned).main.trials
    paths = [Path(pruned.folder, trial.key, "trial.json") for trial in before]
    times = [path.stat().st_mtime_ns for path in paths]
    assert transfer(pruned).main.trials == before
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert [read_trial(path) for path in paths] == list(before)

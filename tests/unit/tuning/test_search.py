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
from mudit.records import StepRecord, TrialRecord, ValidationRecord, read_records, to_line
from mudit.report.formats import flops
from mudit.training import open_splits, read_trial
from mudit.tuning import PruningConfig, SearchConfig, StudyConfig, TaskConfig, preview, transfer
from mudit.tuning.config import resolved
from mudit.tuning.listener import Silent
from mudit.tuning.pruning import Curve, promoted, prunes, read_curve
from mudit.tuning.search import Trials, best_trial, propose, search, trial_jobs
from mudit.tuning.space import Choices, Interval
from mudit.tuning.study import join_study, read_branch

# --- which trials are ended -----------------------------------------------------------------------


def test_rungs() -> None:
    def rungs(steps: int, **options) -> tuple[int, ...]:
        return PruningConfig(**{"method": "halving", **options}).rungs(steps)

    assert rungs(600) == (75, 150, 300)
    assert rungs(300, reduction_factor=4) == (38, 152)
    assert rungs(900, first_rung=100, reduction_factor=3) == (100, 300)
    assert rungs(80, reduction_factor=4, first_rung=10, method="median") == (10, 40)
    assert rungs(4) == (1, 2)
    assert rungs(300, method="none") == ()
    with pytest.raises(UsageError, match="has only 100 steps"):
        rungs(100, first_rung=100)


@pytest.mark.parametrize("method", ["asha", "median"])
@pytest.mark.parametrize("seed", range(10))
def test_decisions_are_optunas(method: str, seed: int) -> None:
    """Trials one after the other, in a native Optuna study that reports and asks as usual."""
    config = PruningConfig(method=method, reduction_factor=3, first_rung=10, startup_trials=4)
    rungs, rng = config.rungs(200), np.random.default_rng(seed)
    curves = 1 + rng.normal(size=(25, 1)) + 0.4 * rng.normal(size=(25, len(rungs) + 1))
    pruner = {
        "asha": optuna.pruners.SuccessiveHalvingPruner(10, reduction_factor=3),
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
    config = PruningConfig(method="asha", reduction_factor=3, first_rung=10)
    assert prunes(config, (10, 30), Curve(losses={10: float("nan")}), [Curve(losses={10: 1.0})])


def test_trials_under_way_compete() -> None:
    """Asynchronous halving counts whoever has come to the rung, ended or not."""
    config = PruningConfig(method="asha", reduction_factor=3, first_rung=10)
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
            space={"lr": "log2(-14, -6)"},
            pruning=PruningConfig(method="asha", reduction_factor=3, first_rung=2),
        ),
    )


@pytest.fixture
def halved(pruned: StudyConfig, tmp_path: Path) -> StudyConfig:
    """The same, comparing nine trials at step 2, three at step 6; one goes on to step 18."""
    pruning = dataclasses.replace(pruned.search.pruning, method="halving")
    search = dataclasses.replace(pruned.search, pruning=pruning)
    return dataclasses.replace(pruned, folder=str(tmp_path / "halved"), search=search)


class Costs(Silent):
    """A listener that keeps the costs."""

    def __init__(self) -> None:
        self.shares: list[tuple[float, float]] = []

    def spent(self, share: float, most: float) -> None:
        self.shares.append((share, most))


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_halving_promotes_the_best_of_all(tmp_path: Path, factor: int, seed: int) -> None:
    """Brute force: at each rung, the best of those that came there; ties do not occur."""
    config = PruningConfig(method="halving", reduction_factor=factor, first_rung=10)
    rungs, rng = config.rungs(170), np.random.default_rng(seed)
    alive, losses = list(range(20)), {}
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        losses[number] = dict(zip(rungs, rng.normal(size=len(rungs))))
    losses[3] = {}  # diverged before the first rung
    for count, rung in enumerate(rungs, start=1):
        for number in alive:
            rows = [
                ValidationRecord(step=step, weights="raw", denoising=float(loss), terms={})
                for step, loss in losses[number].items()
                if step <= rung
            ]
            lines = "".join(to_line(row) for row in rows)
            (tmp_path / str(number) / "records.jsonl").write_text(lines)
        trials = [read_curve(tmp_path / str(number)) for number in alive]
        goes_on = promoted(config, rungs[:count], trials)
        came = sorted((losses[n][rung], n) for n in alive if rung in losses[n])
        expected = {n for _, n in came[: max(1, len(came) // factor)]}
        alive = [number for number, good in zip(alive, goes_on) if good]
        assert set(alive) == expected


def test_a_search_by_halving(halved: StudyConfig, tmp_path: Path) -> None:
    costs, before = Costs(), preview(halved)
    result = transfer(halved, listener=costs)
    trials = result.main.trials
    assert sorted(trial.steps_taken for trial in trials) == [2] * 6 + [6] * 2 + [18]
    assert [trial.hps["lr"] for trial in trials] == [2.0**k for k in range(-14, -5)]
    whole = dataclasses.replace(
        halved,
        folder=str(tmp_path / "whole"),
        search=dataclasses.replace(halved.search, pruning=PruningConfig()),
    )
    # A trial that paused and went on, or ended there, is the one that never did, to the bit.
    for trial, other in zip(trials, transfer(whole).main.trials, strict=True):
        rows, same = (
            [
                row
                for row in read_records(Path(study.folder, trial.key, "records.jsonl"))
                if isinstance(row, StepRecord)
            ]
            for study in (halved, whole)
        )
        assert [row.loss for row in rows] == [row.loss for row in same[: trial.steps_taken]]
        assert trial.score in (None, other.score)
    assert result.main.best.score == min(trial.score for trial in trials if trial.score is not None)
    assert not list(Path(halved.folder).glob("mup_*/checkpoint-*")), "none is left behind"
    assert transfer(halved).main == result.main, "and nothing is trained again"
    steps = sum(trial.steps_taken for trial in trials)
    small, large = trials[0].parameters, result.main.target.parameters
    assert result.cost_ratio == pytest.approx(steps * small / (20 * large))
    # Halving's cost is known before, at every time, and kept to.
    assert steps == 9 * 2 + 3 * 4 + 12 == halved.search.pruning.most_steps(9, 18)
    assert before.least_flops == before.search_flops
    assert before.search_flops / before.target_flops == pytest.approx(result.measured_ratio)
    assert before.cost_ratio == pytest.approx(result.cost_ratio)
    for _, most in costs.shares:
        assert most == pytest.approx(result.measured_ratio)


def test_a_halving_that_is_stopped_goes_on(halved: StudyConfig, tmp_path: Path) -> None:
    """Stopped after each count of runs that have ended or paused, the storage thrown away."""
    expected = transfer(dataclasses.replace(halved, folder=str(tmp_path / "straight"))).main
    splits = open_splits(halved.data)
    config = resolved(halved, splits)
    join_study(Path(config.folder), config.claim())
    for stop in (3, 4, 2):
        ended: list[TrialRecord] = []
        with pytest.raises(Interrupted):
            search(
                config, splits, parametrization="mup", on_tick=lambda *args: None,
                should_stop=lambda stop=stop, ended=ended: len(ended) >= stop,
                on_end=ended.append, on_notice=lambda text: None,
            )  # fmt: skip
        Path(config.folder, "optuna.db").unlink()
        shutil.rmtree(Path(config.folder) / ".owners", ignore_errors=True)
    found = transfer(halved).main
    assert [t.hps for t in found.trials] == [t.hps for t in expected.trials]
    assert [t.steps_taken for t in found.trials] == [t.steps_taken for t in expected.trials]
    assert [t.score for t in found.trials] == [t.score for t in expected.trials]


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
    # A trial's size stands beside what all of its steps cost, not beside the mean of the shortened.
    row = page.partition("Each trial")[2].partition("</tr>")[0]
    assert flops(exhaustive.trials[0].train_flops) in row
    assert flops(sum(trial.train_flops for trial in trials) / 9) not in row
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
        (
            {
                "method": "tpe",
                "trials": 5,
                "space": {"lr": "log_uniform(1e-4, 1e-2)"},
                "pruning": PruningConfig(method="halving"),
            },
            "halving, which compares trials that begin together.*asha",
        ),
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

"""Search on the proxy: every point trained once, kept in an Optuna study, the best one found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mudit.data import Splits
from mudit.errors import MuditError
from mudit.parametrization import Parametrization
from mudit.records import TrialRecord
from mudit.tuning.config import StudyConfig, run_config
from mudit.tuning.ledger import Bounds, distributions
from mudit.tuning.pool import Job, OnTick
from mudit.tuning.queue import run_queue
from mudit.tuning.space import parse_space, point_key


class NoBestPoint(MuditError):
    """Every trial diverged: the search is inconclusive.

    Attributes:
        trials: How each ended.
    """

    exit_code = 4

    def __init__(self, message: str, trials: tuple[TrialRecord, ...]) -> None:
        super().__init__(message)
        self.trials = trials


def search(
    config: StudyConfig,
    splits: Splits,
    *,
    parametrization: Parametrization,
    on_tick: OnTick,
    on_end: Callable[[TrialRecord], None],
    should_stop: Callable[[], bool],
    on_notice: Callable[[str], None],
) -> tuple[TrialRecord, ...]:
    """Train every point of the space on the proxy, or what is left of them.

    The Optuna study `search-mup` or `search-sp` lives in the study's folder or in its storage. Any
    number of commands work on it; a finished trial is never run again, an interrupted one goes on
    from its checkpoint.

    Args:
        config: The study; its data are resolved.
        splits: Its data.
        parametrization: `mup`, or `sp` for the control's search.
        on_tick: Told of progress.
        on_end: Told how each trial ended.
        should_stop: Asked now and then.
        on_notice: Told of what the user should know.

    Returns:
        How each trial ended, in the order of the points.

    Raises:
        EnvironmentFailure: The storage cannot be read or written.
        Interrupted: `should_stop` said so.
    """
    return run_queue(
        trial_jobs(config, splits, parametrization),
        folder=Path(config.folder),
        name=f"search-{parametrization}",
        bounds=_bounds(config),
        workers=config.workers,
        on_tick=on_tick,
        on_end=on_end,
        should_stop=should_stop,
        on_notice=on_notice,
        cluster=config.cluster(),
    )


def trial_jobs(config: StudyConfig, splits: Splits, parametrization: Parametrization) -> list[Job]:
    """The search's training runs, one for each distinct point, in order."""
    jobs: dict[str, Job] = {}
    for point in config.points():
        key = f"{parametrization}_{point_key(point)}"
        jobs[key] = Job(
            key=key,
            point=point,
            role="proxy",
            config=run_config(
                config,
                splits,
                config.proxy,
                hps=config.hps.updated(point),
                parametrization=parametrization,
            ),
            folder=Path(config.folder) / key,
        )
    return list(jobs.values())


def best_trial(trials: tuple[TrialRecord, ...]) -> TrialRecord:
    """The trial with the lowest denoising loss on the bank; the first of equals.

    Raises:
        NoBestPoint: All diverged.
    """
    finished = [trial for trial in trials if trial.score is not None]
    if not finished:
        raise NoBestPoint(
            f"all {len(trials)} trials diverged, so there is no best point to carry to the target. "
            "Search smaller learning rates, e.g. --search.space.lr 'log2(-14, -8)', or clip "
            "gradients (--hps.clip 1), in another folder (--folder).",
            trials,
        )
    return min(finished, key=lambda trial: trial.score or 0.0)


def importance(config: StudyConfig, trials: tuple[TrialRecord, ...]) -> dict[str, float] | None:
    """Share of the score's variance that each searched HP explains (fANOVA), summing to 1.

    [muDiT] §5.2.2 ranks HPs so by eye. None with fewer than two HPs or four finished trials, or if
    all scores are equal.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    bounds = _bounds(config)
    space = distributions(bounds)
    finished = [trial for trial in trials if trial.score is not None]
    if len(space) < 2 or len(finished) < 4 or len({trial.score for trial in finished}) < 2:
        return None
    study = optuna.create_study(direction="minimize")
    for trial in finished:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: _within(bounds[name], trial.hps[name]) for name in space},
                distributions=space,
                value=trial.score,
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def _within(bounds: tuple[float, float, bool], value: float) -> float:
    """The value, in bounds: whole-number HPs were rounded."""
    return min(max(value, bounds[0]), bounds[1])


def _bounds(config: StudyConfig) -> Bounds:
    return {name: found.bounds for name, found in parse_space(config.search.space).items()}

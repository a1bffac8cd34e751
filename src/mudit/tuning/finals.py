"""The finals: the search's best points trained again, longer, and perhaps with others around them.

Source: [muDiT] E.4.2, which asks in this way whether the search's trials were long enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mudit.data import Splits
from mudit.parametrization import Parametrization
from mudit.records import TrialRecord
from mudit.training import read_trial
from mudit.tuning.config import StudyConfig, TaskConfig, run_config
from mudit.tuning.pool import Job, OnTick
from mudit.tuning.queue import run_queue
from mudit.tuning.search import best_trial
from mudit.tuning.space import Point, point_key


def final_points(config: StudyConfig, trials: Sequence[TrialRecord]) -> list[Point]:
    """What the finals train: the best trials' HPs, each with every combination of the factors.

    Args:
        config: The study.
        trials: Its search.

    Raises:
        NoBestPoint: All trials diverged.
    """
    best_trial(tuple(trials))
    scored = [trial for trial in trials if trial.score is not None]
    ranked = sorted(scored, key=lambda trial: trial.score or 0.0)
    finals = config.search.finals
    points = {}
    for trial in ranked[: finals.best]:
        chosen = {name: trial.hps[name] for name in config.tuned}
        for factors in finals.combinations():
            scaled = {name: chosen[name] * factor for name, factor in factors.items()}
            point = chosen | scaled
            points[point_key(point)] = point
    return list(points.values())


def final_task(config: StudyConfig) -> TaskConfig:
    """The task of a final: the proxy's, for longer."""
    return replace(config.proxy, steps=config.search.finals.steps)


def final_jobs(
    config: StudyConfig,
    splits: Splits,
    parametrization: Parametrization,
    trials: Sequence[TrialRecord],
) -> list[Job]:
    """The training runs of the finals; none if the study has none.

    Args:
        config: The study; its data are resolved.
        splits: Its data.
        parametrization: Of the search.
        trials: The search, finished.
    """
    if not config.search.finals.steps:
        return []
    jobs = []
    for point in final_points(config, trials):
        key = f"final_{parametrization}_{point_key(point)}"
        jobs.append(
            Job(
                key=key,
                point=point,
                role="proxy",
                config=run_config(
                    config,
                    splits,
                    final_task(config),
                    hps=config.hps.updated(point),
                    parametrization=parametrization,
                ),
                folder=Path(config.folder) / key,
            )
        )
    return jobs


def read_finals(jobs: Sequence[Job]) -> tuple[TrialRecord, ...]:
    """How the finals ended."""
    return tuple(read_trial(job.folder / "trial.json") for job in jobs)


def run_finals(
    config: StudyConfig,
    jobs: Sequence[Job],
    *,
    parametrization: Parametrization,
    on_tick: OnTick,
    on_end: Callable[[TrialRecord], None],
    should_stop: Callable[[], bool],
    on_notice: Callable[[str], None],
) -> tuple[TrialRecord, ...]:
    """Train the finals, or what is left of them; the arguments are as those of `search`.

    Returns:
        How each ended, in the order of `jobs`.
    """
    bounds = {}
    for name in config.tuned:
        values = [job.point[name] for job in jobs]
        bounds[name] = (min(values), max(values), min(values) > 0)
    return run_queue(
        jobs,
        folder=Path(config.folder),
        name=f"finals-{parametrization}",
        bounds=bounds,
        workers=config.workers,
        on_tick=on_tick,
        on_end=on_end,
        should_stop=should_stop,
        on_notice=on_notice,
        cluster=config.cluster(),
    )

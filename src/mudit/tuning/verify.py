"""Algorithms 1 to 3 of the paper with a verdict: do base HPs transfer along an axis?

A study is one folder:

    config.json            what defines it
    extension.json         the points that `--extend` has added
    optuna.db              the queues of runs, `grid-mup` and `grid-sp`
    mup_w64_s0_lr=2^-8_…/  a run (training.trainer says what is in it)
    verdict.json, verdict.md, report.html, figures/
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mudit.data import Splits
from mudit.errors import UsageError
from mudit.parametrization import Parametrization
from mudit.records import TrialRecord
from mudit.training import claim_folder, exclusive, make_plan, open_splits, resolve_device
from mudit.tuning.config import resolved
from mudit.tuning.grid import (
    GridPoint,
    VerifyConfig,
    grid_jobs,
    grid_points_of,
    read_extension,
    same_model,
)
from mudit.tuning.listener import Listener, Silent
from mudit.tuning.pool import stop_on_interrupt
from mudit.tuning.queue import run_queue
from mudit.tuning.study import refuse_foreign

Records = dict[Parametrization, tuple[TrialRecord, ...]]


def run_grid(config: VerifyConfig, *, listener: Listener | None = None) -> Records:
    """Train the grid, or what is left of it, under μP and, if asked for, sp.

    Args:
        config: The study.
        listener: Told of progress.

    Returns:
        The runs' records, by parametrization; sp's hold μP's where both are the same model, and
        are absent if they are all μP's.

    Raises:
        ConfigMismatchError: The folder holds a study of another config.
        DataError: The data are missing or damaged.
        EnvironmentFailure: The disk is full, say.
        Interrupted: Ctrl-C; the same command resumes.
    """
    listener = listener or Silent()
    folder = Path(config.folder)
    splits = open_splits(config.data)
    config = resolved(config, splits)
    _refuse(config, splits)
    refuse_foreign(folder)
    with exclusive(folder), stop_on_interrupt() as should_stop:
        claim_folder(folder, config.claim())
        points = grid_points_of(config, read_extension(folder))
        return {
            parametrization: _train(config, splits, parametrization, points, listener, should_stop)
            for parametrization in parametrizations(config)
        }


def parametrizations(config: VerifyConfig) -> tuple[Parametrization, ...]:
    """Those that are run; not sp, if it is μP's model at every size."""
    shared = all(same_model(config, size) for size in config.sizes)
    return ("mup", "sp") if config.control == "sp" and not shared else ("mup",)


def _refuse(config: VerifyConfig, splits: Splits) -> None:
    """What can be refused is refused before anything is trained or written."""
    resolve_device(config.training.device)
    if config.parametrization.parametrization != "mup":
        raise UsageError(
            "parametrization.parametrization is 'sp', but verify asks whether HPs transfer under "
            "μP; --control sp runs the same grid under sp beside it."
        )
    value = config.grid()[0]
    for parametrization in parametrizations(config):
        for size in config.sizes:
            point = GridPoint(size=size, value=value, seed=0)
            make_plan(grid_jobs(config, splits, parametrization, [point])[0].config)


def _train(
    config: VerifyConfig,
    splits: Splits,
    parametrization: Parametrization,
    points: list[GridPoint],
    listener: Listener,
    should_stop: Callable[[], bool],
) -> tuple[TrialRecord, ...]:
    jobs = grid_jobs(config, splits, parametrization, points)
    listener.stage(
        f"training {len(jobs)} runs under {parametrization}: {config.across} "
        f"{', '.join(map(str, config.sizes))}, {config.hp} at {len(config.grid())} values, "
        f"{config.seeds} seeds"
    )
    values = [point.value for point in points]
    return run_queue(
        jobs,
        folder=Path(config.folder),
        name=f"grid-{parametrization}",
        bounds={config.hp: (min(values), max(values), True)},
        workers=config.workers,
        on_tick=listener.tick,
        on_end=listener.ended,
        should_stop=should_stop,
    )

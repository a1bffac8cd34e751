"""μTransfer, Algorithm 4 of the paper: tune base HPs on a proxy, train the target with the best.

A study is one folder:

    config.json            what defines it
    optuna.db              the searches, `search-mup` and `search-sp`, if no storage is given
    queue_id               what tells the study from others, if a storage is given
    mup_lr=2^-8_3fa2b1/    a trial (training.trainer says what is in it)
    target_mup/            the target's training; `target_sp/` the control's
    samples/               what the trained models drew, `.npz` with `arr_0` and `labels`
    report.html, figures/  the report
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mudit.analysis import Workload, grouped_cost_ratio
from mudit.data import Splits
from mudit.diffusion import SampleNoise, make_objective
from mudit.errors import UsageError
from mudit.evaluation import as_images, generate
from mudit.parametrization import Parametrization, Plan
from mudit.records import TrialRecord
from mudit.training import (
    Hyperparameters,
    exclusive,
    flops_of_step,
    load_trained,
    make_plan,
    open_splits,
    resolve_device,
    stream_seed,
    train,
    write_whole,
)
from mudit.training.config import RunConfig
from mudit.tuning.config import StudyConfig, TaskConfig, resolved, run_config
from mudit.tuning.listener import Listener, Silent
from mudit.tuning.pool import Job, stop_on_interrupt
from mudit.tuning.queue import open_cluster, run_alone
from mudit.tuning.search import (
    NoBestPoint,
    best_trial,
    example_job,
    search,
    spending,
    trial_jobs,
)
from mudit.tuning.study import (
    Branch,
    FailedSearch,
    TransferResult,
    join_study,
    prepare_encoder,
    prepare_text,
    refuse_foreign,
    sampled_labels,
    shares_search,
)
from mudit.tuning.summary import write_study_report


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a study would do.

    Attributes:
        config: The complete config.
        plan: The target's plan.
        trials: Trials of the search.
        search_flops: FLOPs of the search, if no trial is ended early.
        least_flops: FLOPs of the search, if all but one are ended at the first rung.
        target_flops: FLOPs of the target's training.
        cost_ratio: `search_flops` over one target training, by Eq. (1).
    """

    config: StudyConfig
    plan: Plan
    trials: int
    search_flops: float
    least_flops: float
    target_flops: float
    cost_ratio: float


def preview(config: StudyConfig) -> Preview:
    """The config, plan and cost of a study, without running it.

    Raises:
        MuditError: As `transfer`, for what can be seen beforehand.
    """
    splits = open_splits(config.data)
    config = resolved(config, splits)
    resolve_device(config.training.device)
    sampled_labels(config, splits)
    trial = example_job(config, splits, "mup").config
    target = target_run_config(config, splits, config.hps, "mup")
    plan = make_plan(target)
    proxy = make_plan(trial)

    flops = flops_of_step(trial)

    def workload(task: TaskConfig, plan: Plan, trials: int = 1) -> Workload:
        sizes = [int(np.prod(row.shape)) for row in plan.rows if row.trainable]
        return Workload(
            parameters=sum(sizes), batch_size=task.batch_size, steps=task.steps, trials=trials
        )

    return Preview(
        config=config,
        plan=plan,
        trials=config.trials,
        search_flops=flops * trial.steps * config.trials,
        least_flops=flops * (trial.steps + [*trial.rungs, trial.steps][0] * (config.trials - 1)),
        target_flops=flops_of_step(target) * target.steps,
        cost_ratio=grouped_cost_ratio(
            [workload(config.proxy, proxy, config.trials)], workload(config.target, plan)
        ),
    )


def transfer(
    config: StudyConfig,
    *,
    command: str = "mudit.transfer(config)",
    listener: Listener | None = None,
) -> TransferResult:
    """Run a transfer study, or what is left of it.

    Any number of commands may run it at once, on one machine or on many that share its folder.

    Args:
        config: The study.
        command: What the report names as its origin.
        listener: Told of progress.

    Raises:
        ConfigMismatchError: The folder holds a study of another config.
        DataError: The data are missing or damaged.
        EnvironmentFailure: The disk is full, or the storage or the Ray cluster does not answer.
        Interrupted: Ctrl-C; the same command resumes.
        NoBestPoint: Every trial diverged.
    """
    listener = listener or Silent()
    folder = Path(config.folder)
    splits = open_splits(config.data)
    config = resolved(config, splits)
    if splits.skipped.count:
        listener.notice(str(splits.skipped))
    # What can be refused is refused before the search.
    resolve_device(_device_here(config))
    sampled_labels(config, splits)
    for parametrization in ("mup", "sp") if config.control == "sp" else ("mup",):
        make_plan(target_run_config(config, splits, config.hps, parametrization))
        make_plan(example_job(config, splits, parametrization).config)
    if config.parametrization.parametrization != "mup":
        raise UsageError(
            "parametrization.parametrization is 'sp', but a transfer carries base HPs by μP. Use "
            "--control sp to run the same budget under sp beside it, or `mudit train` for sp alone."
        )
    refuse_foreign(folder)
    with open_cluster(config.cluster()), stop_on_interrupt() as should_stop:
        join_study(folder, config.claim())
        prepare_encoder(config, splits, should_stop=should_stop)
        prepare_text(config, splits, should_stop=should_stop)
        main = _branch(config, splits, "mup", None, listener, should_stop)
        control: Branch | FailedSearch | None = None
        if config.control == "sp":
            try:
                control = _branch(config, splits, "sp", main.trials, listener, should_stop)
            except NoBestPoint as error:  # a result of the control, not the study's end
                listener.stage(f"the control ends here: {error}")
                control = FailedSearch(parametrization="sp", trials=error.trials)
        listener.stage("sampling the target")
        for branch in (main, control):
            if isinstance(branch, Branch) and branch.target.status == "complete":
                draw_samples(config, splits, branch.parametrization, should_stop=should_stop)
        listener.stage("writing the report")
        with exclusive(folder, wait_seconds=math.inf, should_stop=should_stop):
            return write_study_report(config, splits, main, control, command=command)


def train_target(config: StudyConfig, *, listener: Listener | None = None) -> TrialRecord:
    """Train the target task with the config's own base HPs, without a search.

    Raises:
        MuditError: As `transfer`.
    """
    listener = listener or Silent()
    folder = Path(config.folder)
    splits = open_splits(config.data)
    config = resolved(config, splits)
    if splits.skipped.count:
        listener.notice(str(splits.skipped))
    run = target_run_config(config, splits, config.hps, config.parametrization.parametrization)
    make_plan(run)
    refuse_foreign(folder)
    with stop_on_interrupt() as should_stop:
        listener.stage(f"training width {run.model.width}")
        record = train(
            run,
            folder,
            key=folder.name,
            role="target",
            on_progress=lambda step, loss: listener.tick(folder.name, step, run.steps, loss),
            should_stop=should_stop,
        )
    listener.ended(record)
    return record


def target_run_config(
    config: StudyConfig, splits: Splits, hps: Hyperparameters, parametrization: Parametrization
) -> RunConfig:
    """The config of the target's training."""
    return run_config(
        config,
        splits,
        config.target,
        hps=hps,
        parametrization=parametrization,
        threads=config.threads,
    )


def _device_here(config: StudyConfig) -> str:
    """The device of what this process computes; Ray's machines may have others."""
    return config.training.device if config.launcher == "local" else "auto"


def draw_samples(
    config: StudyConfig,
    splits: Splits,
    parametrization: Parametrization,
    *,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Sample the trained target's averaged weights into `samples/`, once."""
    path = Path(config.folder) / "samples" / f"target_{parametrization}.npz"
    if path.exists():
        return
    with exclusive(path.parent, wait_seconds=math.inf, should_stop=should_stop):
        if not path.exists():  # another command has drawn them meanwhile
            _draw_samples(config, splits, parametrization, path)


def _draw_samples(
    config: StudyConfig, splits: Splits, parametrization: Parametrization, path: Path
) -> None:
    options = config.sampling
    torch.set_num_threads(config.threads)
    chosen = sampled_labels(config, splits)
    names = splits.train.class_names
    trained = load_trained(
        Path(config.folder) / f"target_{parametrization}",
        device=_device_here(config),
        prompts=[names[label] for label in chosen] if splits.train.captioned else (),
    )
    labels = torch.arange(len(chosen)).repeat_interleave(options.per_class)
    x = generate(
        trained.model,
        trained.conditioning,
        make_objective(trained.config.objective),
        labels,
        noise=SampleNoise.of(len(labels), seed=stream_seed(config.seed, "sample")),
        steps=options.steps,
        method=options.method,
        cfg_scale=options.cfg_scale,
        cfg_channels=options.cfg_channels,
        cfg_interval=options.cfg_interval,
    )

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.savez(file, arr_0=as_images(x), labels=np.array(chosen)[labels.numpy()])

    write_whole(path, write)


def _branch(
    config: StudyConfig,
    splits: Splits,
    parametrization: Parametrization,
    shared: tuple[TrialRecord, ...] | None,
    listener: Listener,
    should_stop: Callable[[], bool],
) -> Branch:
    """Search and target under one parametrization; `shared`: the main search's trials."""
    if shared is not None and shares_search(config):
        trials = shared
    else:
        listener.stage(
            f"searching {config.trials} points under {parametrization} on the proxy, "
            f"width {config.proxy.width}"
        )
        target = target_run_config(config, splits, config.hps, parametrization)
        target_flops = flops_of_step(target) * target.steps

        def ended(record: TrialRecord) -> None:
            listener.ended(record)
            spent = spending(config, trial_jobs(config, splits, parametrization))
            listener.spent(spent.so_far / target_flops, spent.most / target_flops)

        trials = search(
            config,
            splits,
            parametrization=parametrization,
            on_tick=listener.tick,
            on_end=ended,
            should_stop=should_stop,
            on_notice=listener.notice,
        )
    best = best_trial(trials)
    hps = config.hps.updated({name: best.hps[name] for name in config.search.space})
    listener.stage(
        f"training the target under {parametrization}, width {config.target.width}, with "
        + ", ".join(f"{name} = {best.hps[name]:.4g}" for name in config.search.space)
    )
    key = f"target_{parametrization}"
    run = target_run_config(config, splits, hps, parametrization)
    trained = run_alone(
        Job(key=key, point={}, role="target", config=run, folder=Path(config.folder) / key),
        cluster=config.cluster(),
        on_tick=listener.tick,
        should_stop=should_stop,
        on_notice=listener.notice,
    )
    listener.ended(trained)
    return Branch(parametrization=parametrization, trials=trials, best=best, target=trained)

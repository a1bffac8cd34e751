"""μTransfer, Algorithm 4 of the paper: tune base HPs on a proxy, train the target with the best.

A study is one folder:

    config.json            what defines it
    optuna.db              the searches, `search-mup` and `search-sp`, if no storage is given
    queue_id               what tells the study from others, if a storage is given
    mup_lr=2^-8_3fa2b1/    a trial (training.trainer says what is in it)
    final_mup_lr=2^-8_…/   a longer run of one of the best points
    target_mup/            the target's training; `target_sp/` the control's
    samples/               what the trained models drew, `.npz` with `arr_0` and `labels`
    report.html, figures/  the report
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mudit.analysis import Workload, grouped_cost_ratio
from mudit.data import Splits
from mudit.diffusion import SampleNoise
from mudit.errors import UsageError
from mudit.evaluation import check_decoder, open_decoder, sampled_images
from mudit.parametrization import Parametrization, Plan
from mudit.records import TrialRecord
from mudit.training import (
    Hyperparameters,
    exclusive,
    flops_of_step,
    load_trained,
    make_plan,
    open_splits,
    parameters_of,
    resolve_device,
    stream_seed,
    train,
    write_whole,
)
from mudit.training.config import RunConfig
from mudit.tuning.config import StudyConfig, TaskConfig, resolved, run_config
from mudit.tuning.finals import final_jobs, run_finals
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
    check_sampling,
    join_study,
    prepare_encoder,
    prepare_text,
    refuse_foreign,
    sampled_labels,
    shares_search,
)
from mudit.tuning.summary import write_study_report


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """What a study would cost.

    Attributes:
        config: The complete config.
        trials: Trials of the search.
        finals: Longer runs of the best points, at most.
        proxy_parameters: Trainable parameters of the proxy, without a projector.
        target_parameters: The same of the target.
        search_flops: FLOPs of the search and of the finals: of halving, which ends just so many
            trials early; with another method if none is.
        least_flops: FLOPs of the same, if all that may be are ended at the first rung.
        target_flops: FLOPs of the target's training.
        cost_ratio: `search_flops` over one target training, by Eq. (1).
    """

    config: StudyConfig
    trials: int
    finals: int
    proxy_parameters: int
    target_parameters: int
    search_flops: float
    least_flops: float
    target_flops: float
    cost_ratio: float


@dataclass(frozen=True, kw_only=True)
class Preview(StudyCost):
    """What a study would do, and cost.

    Attributes:
        plan: The target's plan.
    """

    plan: Plan


def study_cost(config: StudyConfig, *, declared: Splits | None = None) -> StudyCost:
    """What a study would cost, without running it.

    Args:
        config: The study.
        declared: What is known of data that need not be there, nor the machine that trains; None:
            the data are opened, and the device must be there.

    Raises:
        MuditError: As `transfer`, for what can be seen beforehand.
    """
    config, splits = _foreseen(config, declared)
    check_sampling(config, splits)
    trial = example_job(config, splits, "mup").config
    target = target_run_config(config, splits, config.hps, "mup")
    flops, finals = flops_of_step(trial), config.search.finals
    finals_flops = flops * finals.steps * finals.most_runs
    small, large = parameters_of(trial), parameters_of(target)

    pruning, steps = config.search.pruning, config.proxy.steps
    most = pruning.most_steps(config.trials, steps)

    def workload(parameters: int, task: TaskConfig, steps: int) -> Workload:
        return Workload(parameters=parameters, batch_size=task.batch_size, steps=steps)

    searches = [workload(small, config.proxy, most)]
    if finals.most_runs:
        searches.append(workload(small, config.proxy, finals.steps * finals.most_runs))
    return StudyCost(
        config=config,
        trials=config.trials,
        finals=finals.most_runs,
        proxy_parameters=small,
        target_parameters=large,
        search_flops=flops * most + finals_flops,
        least_flops=flops * pruning.least_steps(config.trials, steps) + finals_flops,
        target_flops=flops_of_step(target) * target.steps,
        cost_ratio=grouped_cost_ratio(
            searches, workload(large, config.target, config.target.steps)
        ),
    )


def preview(config: StudyConfig, *, declared: Splits | None = None) -> Preview:
    """The config, plan and cost of a study, without running it; the arguments are `study_cost`'s.

    Raises:
        MuditError: As `transfer`, for what can be seen beforehand.
    """
    config, splits = _foreseen(config, declared)
    make_plan(example_job(config, splits, "mup").config)
    plan = make_plan(target_run_config(config, splits, config.hps, "mup"))
    cost = study_cost(config, declared=splits)
    return Preview(plan=plan, **{f.name: getattr(cost, f.name) for f in fields(cost)})


def _foreseen(config: StudyConfig, declared: Splits | None) -> tuple[StudyConfig, Splits]:
    """The config and its data, or what is known of them."""
    if declared is not None:
        return config, declared
    splits = open_splits(config.data)
    resolve_device(config.training.device)
    return resolved(config, splits), splits


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
    check_decoder(config.data)
    check_sampling(config, splits)
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
                control = _branch(config, splits, "sp", main, listener, should_stop)
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
    torch.set_num_threads(config.threads)
    chosen = sampled_labels(config, splits)
    names = splits.train.class_names
    trained = load_trained(
        Path(config.folder) / f"target_{parametrization}",
        device=_device_here(config),
        prompts=[names[label] for label in chosen] if splits.train.captioned else (),
    )
    decode = open_decoder(config.data, device=_device_here(config))
    labels = torch.arange(len(chosen)).repeat_interleave(config.sampling.per_class)
    noise = SampleNoise.of(len(labels), seed=stream_seed(config.seed, "sample"))
    images = sampled_images(trained, labels, config.sampling, noise=noise, decode=decode)

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.savez(file, arr_0=images, labels=np.array(chosen)[labels.numpy()])

    write_whole(path, write)


def _branch(
    config: StudyConfig,
    splits: Splits,
    parametrization: Parametrization,
    other: Branch | None,
    listener: Listener,
    should_stop: Callable[[], bool],
) -> Branch:
    """Search and target under one parametrization; `other`: the main branch."""
    if other is not None and shares_search(config):
        trials, finals, best = other.trials, other.finals, other.best
    else:
        trials, finals = _searched(config, splits, parametrization, listener, should_stop)
        best = best_trial(finals or trials)
    hps = config.hps.updated({name: best.hps[name] for name in config.tuned})
    listener.stage(
        f"training the target under {parametrization}, width {config.target.width}, with "
        + ", ".join(f"{name} = {best.hps[name]:.4g}" for name in config.tuned)
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
    return Branch(
        parametrization=parametrization, trials=trials, best=best, target=trained, finals=finals
    )


def _searched(
    config: StudyConfig,
    splits: Splits,
    parametrization: Parametrization,
    listener: Listener,
    should_stop: Callable[[], bool],
) -> tuple[tuple[TrialRecord, ...], tuple[TrialRecord, ...]]:
    """The search's trials, and its finals."""
    target = target_run_config(config, splits, config.hps, parametrization)
    target_flops = flops_of_step(target) * target.steps
    last: list[Job] | None = None

    def ended(record: TrialRecord) -> None:
        listener.ended(record)
        spent = spending(config, trial_jobs(config, splits, parametrization), last)
        listener.spent(spent.so_far / target_flops, spent.most / target_flops)

    told: dict[str, Any] = {
        "on_tick": listener.tick,
        "on_end": ended,
        "should_stop": should_stop,
        "on_notice": listener.notice,
    }
    listener.stage(
        f"searching {config.trials} points under {parametrization} on the proxy, "
        f"width {config.proxy.width}"
    )
    trials = search(config, splits, parametrization=parametrization, **told)
    last = final_jobs(config, splits, parametrization, trials)
    if not last:
        return trials, ()
    listener.stage(f"finals: {len(last)} runs of {config.search.finals.steps} steps")
    return trials, run_finals(config, last, parametrization=parametrization, **told)

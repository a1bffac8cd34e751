"""Algorithms 1 to 3 of the paper with a verdict: do base HPs transfer along an axis?

A study is one folder:

    config.json            what defines it
    extension.json         the points that `--extend` has added
    optuna.db              the queues of runs, `grid-mup` and `grid-sp`
    mup_w64_s0_lr=2^-8_…/  a run (training.trainer says what is in it)
    verdict.json, verdict.md, report.html, figures/
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mudit.analysis.basin import Run
from mudit.analysis.transferability import Suggestion, Transferability, judge
from mudit.data import Splits
from mudit.errors import DataError, UsageError
from mudit.parametrization import Parametrization
from mudit.records import Finding, StepRecord, TrialRecord, Verdict, finite, read_records
from mudit.training import (
    check_value,
    exclusive,
    flops_of_step,
    make_plan,
    open_splits,
    read_config,
    read_trial,
    resolve_device,
    write_text,
)
from mudit.tuning.config import resolved
from mudit.tuning.grid import (
    GridPoint,
    VerifyConfig,
    grid_jobs,
    grid_points_of,
    is_grid,
    point_of,
    read_extension,
    same_model,
    write_extension,
)
from mudit.tuning.listener import Listener, Silent
from mudit.tuning.pool import Job, stop_on_interrupt
from mudit.tuning.queue import open_cluster, run_queue
from mudit.tuning.study import (
    LOCK_SECONDS,
    join_study,
    prepare_encoder,
    prepare_text,
    refuse_foreign,
)
from mudit.tuning.verify_report import write_grid_report
from mudit.tuning.verify_text import markdown

# HPs whose larger values make training unstable.
_UNSTABLE = ("lr", "lr_multiplier", "phi", "sigma")

Records = dict[Parametrization, tuple[TrialRecord, ...]]


@dataclass(frozen=True, kw_only=True)
class TransferVerdict:
    """What a verify study came to.

    Attributes:
        config: The study.
        main: What the runs under μP say.
        control: What the runs under sp say, if there are any.
        findings: In sentences: reasons, what the control says, and what to run next.
        records: All runs, by parametrization.
    """

    config: VerifyConfig
    main: Transferability
    control: Transferability | None
    findings: tuple[Finding, ...]
    records: Records

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL or INCONCLUSIVE: that on μP."""
        return self.main.verdict

    def to_markdown(self) -> str:
        """Verdict, findings, and the numbers of each size."""
        return markdown(self.config, self.main, self.control, self.findings)

    def to_json(self) -> str:
        """Everything but the runs' records; they lie in the runs' folders."""
        fields = {
            "verdict": self.verdict,
            "config": dataclasses.asdict(self.config),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "mup": _fields(self.main),
            "sp": None if self.control is None else _fields(self.control),
        }
        return json.dumps(finite(fields), indent=1, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write `to_json()` to a file."""
        write_text(Path(path), self.to_json())


def _fields(found: Transferability) -> dict[str, object]:
    """As a dictionary; named tuples become dictionaries too."""

    def plain(value: object) -> object:
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return {key: plain(item) for key, item in value._asdict().items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    fields = plain(found)
    assert isinstance(fields, dict)
    return fields


@dataclass(frozen=True, kw_only=True)
class VerifyPreview:
    """What a verify study would do.

    Attributes:
        config: The complete config.
        runs: Training runs, by parametrization; runs that sp shares with μP count once.
        flops: Of all of them.
        target_flops: Of one run at the target's size.
    """

    config: VerifyConfig
    runs: dict[Parametrization, int]
    flops: float
    target_flops: float


def preview_grid(config: VerifyConfig, *, declared: Splits | None = None) -> VerifyPreview:
    """The config and cost of a verify study, without running it.

    Args:
        config: The study.
        declared: As in `preview`.

    Raises:
        MuditError: As `verify`, for what can be seen beforehand.
    """
    if declared is None:
        splits = open_splits(config.data)
        config = resolved(config, splits)
    else:
        splits = declared
    _refuse(config, splits, anywhere=declared is not None)
    points = grid_points_of(config, read_extension(Path(config.folder)))
    jobs = {
        job.key: (parametrization, job)
        for parametrization in reversed(parametrizations(config))
        for job in grid_jobs(config, splits, parametrization, points)
    }
    chosen = [parametrization for parametrization, _ in jobs.values()]
    by_model = {
        (job.config.model, job.config.batch_size): flops_of_step(job.config)
        for _, job in jobs.values()
    }
    return VerifyPreview(
        config=config,
        runs={name: chosen.count(name) for name in parametrizations(config)},
        flops=sum(
            by_model[job.config.model, job.config.batch_size] * job.config.steps
            for _, job in jobs.values()
        ),
        target_flops=_target_flops(config, splits),
    )


def verify(
    config: VerifyConfig,
    *,
    extend: bool = False,
    command: str = "mudit.verify(config)",
    listener: Listener | None = None,
) -> TransferVerdict:
    """Run a verify study, or what is left of it, and judge it.

    Args:
        config: The study.
        extend: If the verdict is INCONCLUSIVE, run what it says would help, and judge again. If
            only the control's is, extend for that; both always have the same grid.
        command: What the report names as its origin.
        listener: Told of progress.

    Raises:
        ConfigMismatchError: The folder holds a study of another config.
        DataError: The data are missing or damaged.
        EnvironmentFailure: The disk is full, say.
        Interrupted: Ctrl-C; the same command resumes.
    """
    listener = listener or Silent()
    found = _judged(config, run_grid(config, listener=listener))
    if extend:
        added = _extension(found)
        if added:
            listener.stage(f"extending the grid by {len(added)} points")
            folder = Path(config.folder)
            with exclusive(folder, wait_seconds=LOCK_SECONDS):
                # Other commands on this study have found the same, or will.
                write_extension(folder, sorted({*read_extension(folder), *added}))
            found = _judged(config, run_grid(config, listener=listener))
        else:
            listener.stage("there is nothing to extend the grid by")
    with exclusive(Path(config.folder), wait_seconds=LOCK_SECONDS):
        write_verdict(found, command=command)
    return found


def read_verdict(folder: Path) -> TransferVerdict:
    """Judge the finished study in a folder again.

    Raises:
        DataError: There is none, or it is not finished.
    """
    path = folder / "config.json"
    if not path.exists():
        raise DataError(f"{folder} holds no study: there is no config.json in it.")
    if not is_grid(folder):
        raise DataError(
            f"{path} is not that of a verify study, or damaged. Give a folder that `mudit verify` "
            "has made."
        )
    config = dataclasses.replace(read_config(VerifyConfig, path), folder=str(folder))
    splits = open_splits(config.data)
    points = grid_points_of(config, read_extension(folder))
    records: Records = {}
    for parametrization in parametrizations(config):
        paths = [
            job.folder / "trial.json" for job in grid_jobs(config, splits, parametrization, points)
        ]
        if missing := [path for path in paths if not path.exists()]:
            raise DataError(
                f"{len(missing)} of {len(paths)} runs under {parametrization} are not finished, "
                f"e.g. {missing[0].parent.name}. Repeat the command that began the study first."
            )
        records[parametrization] = tuple(map(read_trial, paths))
    return _judged(config, records)


def write_verdict(found: TransferVerdict, *, command: str) -> Path:
    """Write `verdict.json`, `verdict.md` and the report into the study's folder.

    Returns:
        The report's path.
    """
    config, folder = found.config, Path(found.config.folder)
    found.save(folder / "verdict.json")
    text = f"{found.to_markdown()}\nMade by: `{command}`\n"
    write_text(folder / "verdict.md", text)
    splits = open_splits(config.data)
    return write_grid_report(
        config,
        splits,
        found.main,
        found.control,
        records=found.records,
        control_note=_control_words(config, found.main, found.control),
        target_flops=_target_flops(config, splits),
        command=command,
    )


def _target_flops(config: VerifyConfig, splits: Splits) -> float:
    """Of one run at the target's size."""
    largest = GridPoint(size=config.target_size, value=config.grid()[0], seed=0)
    run = grid_jobs(config, splits, "mup", [largest])[0].config
    return flops_of_step(run) * run.steps


# --- judging ------------------------------------------------------------------------------------


def _judged(config: VerifyConfig, records: Records) -> TransferVerdict:
    main = judge(_runs(config, records["mup"]), target=config.target_size)
    control = None
    if "sp" in records:
        control = judge(_runs(config, records["sp"]), target=config.target_size)
    findings = [*main.reasons, _control_words(config, main, control)]
    findings += [suggestion.message for suggestion in main.suggestions]
    there = [point_of(config, record) for record in records["mup"]]
    if new_points(config, main.suggestions, there):
        findings.append("`--extend` runs just that.")
    elif any(suggestion.runs for suggestion in main.suggestions):
        findings.append(f"{config.hp} has no such values that are not there yet.")
    return TransferVerdict(
        config=config,
        main=main,
        control=control,
        findings=tuple(Finding(message=text) for text in findings if text),
        records=records,
    )


def _runs(config: VerifyConfig, records: tuple[TrialRecord, ...]) -> list[Run]:
    """The records as the analysis takes them."""
    runs = []
    for record in records:
        point = point_of(config, record)
        runs.append(
            Run(
                size=point.size,
                log2_hp=math.log2(point.value),
                seed=point.seed,
                loss=math.nan if record.score is None else record.score,
                initial=initial_loss(config, record),
            )
        )
    return runs


def initial_loss(config: VerifyConfig, record: TrialRecord) -> float | None:
    """A run's denoising loss in its first step, if larger values of the HP make runs unstable."""
    path = Path(config.folder) / record.key / "records.jsonl"
    if config.hp.partition(".")[0] not in _UNSTABLE or not path.exists():
        return None
    first = next((row for row in read_records(path) if isinstance(row, StepRecord)), None)
    return None if first is None else first.terms["denoising"]


def _control_words(
    config: VerifyConfig, main: Transferability, control: Transferability | None
) -> str:
    if control is None:
        if config.control == "none":
            return "No control was run, so this does not show what μP adds."
        return (
            "At base width sp and μP are the same model bit for bit, so there is no control: this "
            "study cannot tell them apart. Take another width or parametrization.base_width."
        )
    if control.verdict == "PASS" and main.verdict == "PASS":
        return "sp passes too: this study cannot tell the two apart."
    return f"Under sp the verdict is {control.verdict}: {control.reasons[0]}"


def _extension(found: TransferVerdict) -> list[GridPoint]:
    """The points that the suggestions name and that are not there yet."""
    judged = [found.main, *([found.control] if found.control is not None else [])]
    open_ = [one for one in judged if one.verdict == "INCONCLUSIVE"]
    if not open_:
        return []
    there = [point_of(found.config, record) for record in found.records["mup"]]
    return new_points(found.config, open_[0].suggestions, there)


def new_points(
    config: VerifyConfig, suggestions: Sequence[Suggestion], there: Iterable[GridPoint]
) -> list[GridPoint]:
    """The points that suggestions name, without those that are there and those that cannot be."""
    old = set(there)
    values = {math.log2(point.value): point.value for point in old}
    added = {
        GridPoint(size=size, value=values.get(x) or config.exact(2.0**x), seed=seed)
        for suggestion in suggestions
        for size, x, seed in suggestion.runs
    }
    return sorted(point for point in added - old if _can_be(config, point.value))


def _can_be(config: VerifyConfig, value: float) -> bool:
    """Whether the HP can have this value: beyond a grid's edge there may be none."""
    try:
        check_value(config.hp, value)
    except UsageError:
        return False
    return value > 0


# --- training -----------------------------------------------------------------------------------


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
    if splits.skipped.count:
        listener.notice(str(splits.skipped))
    _refuse(config, splits)
    refuse_foreign(folder)
    with open_cluster(config.cluster()), stop_on_interrupt() as should_stop:
        join_study(folder, config.claim())
        prepare_encoder(config, splits, should_stop=should_stop)
        prepare_text(config, splits, should_stop=should_stop)
        points = grid_points_of(config, read_extension(folder))
        done: dict[str, TrialRecord] = {}
        found: Records = {}
        for parametrization in parametrizations(config):
            jobs = grid_jobs(config, splits, parametrization, points)
            left = [job for job in jobs if job.key not in done]
            listener.stage(_stage(config, parametrization, points, len(left)))
            for record in _train(config, parametrization, left, listener, should_stop):
                done[record.key] = record
            found[parametrization] = tuple(done[job.key] for job in jobs)
        return found


def parametrizations(config: VerifyConfig) -> tuple[Parametrization, ...]:
    """Those that are run; not sp, if it is μP's model at every size."""
    shared = all(same_model(config, size) for size in config.sizes)
    return ("mup", "sp") if config.control == "sp" and not shared else ("mup",)


def _refuse(config: VerifyConfig, splits: Splits, *, anywhere: bool = False) -> None:
    """What can be refused is refused before anything is trained or written.

    `anywhere`: on whatever machine it may be trained; Ray's may have others, too.
    """
    if config.launcher == "local" and not anywhere:
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


def _stage(
    config: VerifyConfig, parametrization: Parametrization, points: list[GridPoint], runs: int
) -> str:
    seeds, values = {point.seed for point in points}, {point.value for point in points}
    return (
        f"training {runs} runs under {parametrization}: {config.across} "
        f"{', '.join(map(str, config.sizes))}, {config.hp} at {len(values)} values, "
        f"{len(seeds)} seeds"
    )


def _train(
    config: VerifyConfig,
    parametrization: Parametrization,
    jobs: list[Job],
    listener: Listener,
    should_stop: Callable[[], bool],
) -> tuple[TrialRecord, ...]:
    values = [job.point[config.hp] for job in jobs]
    return run_queue(
        jobs,
        folder=Path(config.folder),
        name=f"grid-{parametrization}",
        bounds={config.hp: (min(values), max(values), True)},
        workers=config.workers,
        on_tick=listener.tick,
        on_end=listener.ended,
        should_stop=should_stop,
        on_notice=listener.notice,
        cluster=config.cluster(),
    )

"""What a study holds and comes to, and how to read it back from its folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mudit.data import (
    ImageDataset,
    Splits,
    caption_groups,
    captions_of,
    images_of,
    is_finished,
    labels_of,
    permutation,
)
from mudit.errors import DataError, UsageError
from mudit.models import is_text_conditioned
from mudit.parametrization import Parametrization
from mudit.records import TrialRecord
from mudit.report import Retrieval
from mudit.training import (
    ENCODER_FILE,
    TEXT_FOLDER,
    are_stored,
    check_encoder,
    claim_folder,
    cpu_threads,
    exclusive,
    read_config,
    read_trial,
    save_encoder,
    save_text_features,
    stream_seed,
)
from mudit.tuning.config import ExperimentConfig, StudyConfig, model_config
from mudit.tuning.finals import final_jobs, read_finals
from mudit.tuning.search import NoBestPoint, best_trial, trial_jobs

# How long a command waits for another's turn with the folder: a claim, a list of runs, a report.
LOCK_SECONDS = 60.0

# What is in a folder that another command has begun a study in just now.
_BEGINNINGS = (".lock", ".config.json.tmp")


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One parametrization's half of a study.

    Attributes:
        parametrization: `mup`, or the control's `sp`.
        trials: Its search; the control's may be the main one's, where both are the same.
        best: The chosen trial; of the finals, if there are any.
        target: The target's training with its base HPs.
        finals: The longer runs of the search's best points.
    """

    parametrization: Parametrization
    trials: tuple[TrialRecord, ...]
    best: TrialRecord
    target: TrialRecord
    finals: tuple[TrialRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FailedSearch:
    """A control whose every trial diverged: it has no best point and no target.

    Attributes:
        parametrization: The control's.
        trials: Its search.
    """

    parametrization: Parametrization
    trials: tuple[TrialRecord, ...]


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """What a transfer study came to.

    Attributes:
        config: The study.
        main: Search and target under μP.
        control: The same under sp, if asked for.
        report: The report's path.
        agreement: Share of the target's samples that a classifier of real images gives the class
            that was asked for, or that a judge of captioned images matches with their own caption;
            None if the target diverged.
        retrieval: Of captioned data, what the judge makes of real images and of all samples.
        cost_ratio: The search over one target training, Eq. (1).
        measured_ratio: The same by measured FLOPs.
    """

    config: StudyConfig
    main: Branch
    control: Branch | FailedSearch | None
    report: Path
    agreement: float | None
    cost_ratio: float
    measured_ratio: float
    retrieval: Retrieval | None = None


def shares_search(config: StudyConfig) -> bool:
    """Whether the control's search is the main one: at base width sp and mup are the same."""
    same_width = config.proxy.width == config.parametrization.base_width
    return same_width and config.control_init in (None, config.model.init)


def read_branch(config: StudyConfig, splits: Splits, parametrization: Parametrization) -> Branch:
    """A finished branch of a study, from its folder.

    Raises:
        DataError: It has not been finished.
    """
    folder = Path(config.folder)
    shared = parametrization == "sp" and shares_search(config)
    of_search: Parametrization = "mup" if shared else parametrization
    jobs = trial_jobs(config, splits, of_search)
    paths = [job.folder / "trial.json" for job in jobs]
    target = folder / f"target_{parametrization}" / "trial.json"
    _require_finished(paths)
    trials = tuple(read_trial(path) for path in paths)
    last = final_jobs(config, splits, of_search, trials)
    _require_finished([job.folder / "trial.json" for job in last])
    finals = read_finals(last)
    best = best_trial(finals or trials)
    _require_finished([target])
    return Branch(
        parametrization=parametrization,
        trials=trials,
        best=best,
        target=read_trial(target),
        finals=finals,
    )


def read_control(config: StudyConfig, splits: Splits) -> Branch | FailedSearch | None:
    """The control of a finished study; None if it has none.

    Raises:
        DataError: It has not been finished.
    """
    if config.control != "sp":
        return None
    try:
        return read_branch(config, splits, "sp")
    except NoBestPoint as error:
        return FailedSearch(parametrization="sp", trials=error.trials)


def _require_finished(paths: list[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} is missing: the study is not finished. Run it again first.")


def read_study(folder: Path) -> StudyConfig:
    """The config of the study in a folder.

    Raises:
        DataError: There is none.
    """
    path = folder / "config.json"
    if not path.exists():
        raise DataError(f"{folder} holds no study: there is no config.json in it.")
    return dataclasses.replace(read_config(StudyConfig, path), folder=str(folder))


def join_study(folder: Path, claim: str) -> None:
    """Begin the study in a folder, or join the commands that are at work on it.

    Args:
        folder: The study's.
        claim: Its config, as `ExperimentConfig.claim` says it.

    Raises:
        ConfigMismatchError: The folder holds a study of another config; the message shows the
            difference.
        UsageError: The folder is full of something else.
    """
    refuse_foreign(folder)
    with exclusive(folder, wait_seconds=LOCK_SECONDS):
        claim_folder(folder, claim)


def check_sampling(config: StudyConfig, splits: Splits) -> None:
    """Refuse, before a study begins, samples that its data do not have.

    Raises:
        UsageError: Held-out captions are asked for, but the data have classes.
    """
    train, held_out = splits.train, config.sampling.held_out
    if held_out and not train.captioned:
        raise UsageError(
            f"sampling.held_out is {held_out}, but {train.name} has classes and no captions: all "
            "classes are trained on. Leave it at 0."
        )


def sampled_labels(config: StudyConfig, splits: Splits) -> list[int]:
    """The classes that samples are asked for, or the captions: training images', then held-out.

    Raises:
        UsageError: As `check_sampling`.
    """
    check_sampling(config, splits)
    train, options = splits.train, config.sampling
    if not train.captioned:
        return list(range(min(train.num_classes, options.classes)))
    return [
        int(label)
        for part, count in ((train, options.classes), (splits.validation, options.held_out))
        for label in _captions_of_groups(part, count, config.seed)
    ]


def _captions_of_groups(part: ImageDataset, count: int, seed: int) -> NDArray[np.int64]:
    """So many captions that images of a part have, each of another group, by the study's seed."""
    present = np.unique(labels_of(part))
    order = permutation(len(present), stream_seed(seed, "sample") % 2**32)
    _, first = np.unique(caption_groups(part)[present[order]], return_index=True)
    return present[order[np.sort(first)[:count]]]


def prepare_encoder(
    config: ExperimentConfig, splits: Splits, *, should_stop: Callable[[], bool] | None = None
) -> None:
    """Train the data's own classifier once for all runs of a study that aligns tokens with it.

    Another encoder is made sure of.

    Raises:
        DataError: The data have fewer than two classes, or are latents without their images.
        EnvironmentFailure: The encoder cannot be had.
        Interrupted: `should_stop` said so, while another command was at it.
    """
    check_encoder(config.repa.encoder)
    path = Path(config.folder) / ENCODER_FILE
    if config.repa.is_on:
        images_of(splits.train)  # refused before the search
    if config.repa.encoder != "classifier" or path.exists():
        return
    with exclusive(path.parent, wait_seconds=math.inf, should_stop=should_stop):
        if not path.exists():  # another command has trained it meanwhile
            # As trials: with another number, other bits of it would let other trials win.
            with cpu_threads(1):
                save_encoder(images_of(splits.train), path, seed=config.seed)


def prepare_text(
    config: ExperimentConfig, splits: Splits, *, should_stop: Callable[[], bool] | None = None
) -> None:
    """Encode the data's captions once for all runs of a study, or do what is left of it.

    Raises:
        EnvironmentFailure: The encoder cannot be had.
        Interrupted: `should_stop` said so, while another command was at it.
    """
    model = model_config(config, splits, 4 * config.model.head_dim, init=config.model.init)
    if not is_text_conditioned(model) or config.text.features:
        return
    captions, path = captions_of(splits.train), Path(config.folder) / TEXT_FOLDER
    if not are_stored(config.text, captions):
        return
    with exclusive(path.parent, wait_seconds=math.inf, should_stop=should_stop):
        if not is_finished(path):  # another command may have encoded them meanwhile
            save_text_features(
                config.text,
                captions,
                path,
                tokens=model.caption_tokens,
                bytes_dim=config.model.caption_dim,
            )


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder that is full of something else.

    Raises:
        UsageError: It is.
    """
    if folder.is_file():
        raise UsageError(f"--folder {folder} is a file, expected a folder or a new name.")
    if (
        folder.is_dir()
        and not (folder / "config.json").exists()
        and any(entry.name not in _BEGINNINGS for entry in folder.iterdir())
    ):
        raise UsageError(
            f"{folder} is not empty and holds no study. Choose another folder with --folder."
        )

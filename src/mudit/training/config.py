"""The complete config of one training run, frozen and validated; `config.json` in its folder.

Nothing is filled in later: what a run does follows from this file, the data and the program's
version.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from mudit.data import LatentSpace, StoredDtype
from mudit.diffusion import ObjectiveConfig, make_objective
from mudit.errors import ConfigMismatchError, UsageError
from mudit.models import ModelConfig
from mudit.parametrization import EpsRule, Optimizer, Parametrization, WeightDecayRule
from mudit.training.hyperparameters import Hyperparameters
from mudit.training.schedule import ScheduleConfig

# [REPA] §4: after the 8th of SiT-XL's 28 blocks.
_REPA_BLOCK, _REPA_DEPTH = 8, 28

# Letters of two lists that are shown in full where they differ.
_LONG = 160

Precision: TypeAlias = Literal["fp32", "tf32", "bf16"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images.

    Attributes:
        source: `digits`, `idx:FOLDER`, `folder:PATH`, `captions:PATH`, `shards:PATTERN`,
            `hf:NAME_OR_FOLDER` or `latents:FOLDER`.
        size: Side of the square images, where the source leaves it open; latents of images of
            another size are refused.
        flip: Horizontal flips; None: the source's habit.
        most_skipped: Share of the rows of captioned data that may be malformed and left out.
        vae: The VAE that latents should be of: the hub's name or the folder that they were encoded
            with, a folder with the same weights, or the first digits of its hash. Empty: any.
        fingerprint: Hash of the content; a run refuses data that has changed. Empty: not checked.
        latents: What the latents are; filled in, and a run refuses others. None: not checked.
    """

    source: str = "digits"
    size: int | None = None
    flip: bool | None = None
    most_skipped: float = 0.01
    vae: str = ""
    fingerprint: str = ""
    latents: LatentSpace | None = None


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How a text-conditioned model is told captions.

    Attributes:
        encoder: `bytes`, the built-in one, which knows no language; or `hf:NAME_OR_FOLDER`, an
            encoder of transformers (T5, CLIP, BERT and others), from the hub or a local folder.
        max_tokens: Where longer captions are cut off; 0: after the longest of the data.
        dtype: In which features are stored, `float32` or `float16`.
        features: A folder that `mudit data text` wrote: the encoder is not even loaded. Empty: they
            are made, in the study's folder.
    """

    encoder: str = "bytes"
    max_tokens: int = 0
    dtype: StoredDtype = "float32"
    features: str = ""

    def __post_init__(self) -> None:
        kind, _, name = self.encoder.partition(":")
        _require(
            self.encoder == "bytes" or (kind == "hf" and bool(name)),
            "text.encoder",
            repr(self.encoder),
            "bytes or hf:NAME_OR_FOLDER",
        )
        _require(self.max_tokens >= 0, "text.max_tokens", self.max_tokens, "≥ 0")


@dataclass(frozen=True, kw_only=True)
class ParametrizationConfig:
    """How base HPs become the run's own; see `mudit.plan`.

    Attributes:
        parametrization: `mup`, or `sp`, the control.
        base_width: The width at which nothing changes.
        optimizer: `adamw`, `adam` or `sgd`.
        wd: Weight-decay rule.
        eps_rule: Rule for Adam's eps.
        zero_readout: Zero the final readout's initial values.
    """

    parametrization: Parametrization = "mup"
    base_width: int = 32
    optimizer: Optimizer = "adamw"
    wd: WeightDecayRule = "independent"
    eps_rule: EpsRule = "constant"
    zero_readout: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train, apart from the base HPs.

    Attributes:
        schedule: The learning rate over the run, as a factor.
        label_dropout: Probability that an image trains the null label.
        accumulation: Micro-batches in a step.
        ema_half_life: Half-life of the weights' average, as a share of the run.
        ema_decay: Decay per step instead, e.g. 0.9999; None: use the half-life.
        precision: fp32; tf32 or bf16 (autocast) on a GPU.
        compile: Whether to use torch.compile.
        activation_checkpointing: Whether to keep only the blocks' inputs for the backward pass, and
            compute the rest again: less memory, a third more time.
        device: `cpu`, `cuda`, or `auto` for a GPU if there is one.
        log_steps: Steps between writes of records, measured updates and timings.
        checkpoint_steps: Steps between checkpoints.
        validation_steps: Steps between evaluations of the bank; 0: at the end only.
        bank_size: (image, t, noise) triples in the validation bank.
        tensorboard: Whether to write TensorBoard events too (extra `track`).
    """

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    label_dropout: float = 0.1
    accumulation: int = 1
    ema_half_life: float = 0.05
    ema_decay: float | None = None
    precision: Precision = "fp32"
    compile: bool = False
    activation_checkpointing: bool = False
    device: str = "auto"
    log_steps: int = 10
    checkpoint_steps: int = 200
    validation_steps: int = 0
    bank_size: int = 1024
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("accumulation", "log_steps", "checkpoint_steps", "bank_size"):
            _require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "≥ 1")
        _require(self.validation_steps >= 0, "training.validation_steps", self.validation_steps)
        _require(0 <= self.label_dropout <= 1, "training.label_dropout", self.label_dropout)
        _require(self.ema_half_life > 0, "training.ema_half_life", self.ema_half_life, "> 0")
        _require(
            re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device) is not None,
            "training.device",
            repr(self.device),
            "auto, cpu, cuda or cuda:N",
        )
        _require(
            self.ema_decay is None or 0 <= self.ema_decay < 1, "training.ema_decay", self.ema_decay
        )


@dataclass(frozen=True, kw_only=True)
class RepaConfig:
    """Whether and how the model's tokens are aligned with a frozen encoder's features ([REPA]).

    Attributes:
        encoder: `none`; `classifier`, a small one of the data set's own images, trained before the
            run; `dinov2:NAME_OR_FOLDER`, from the hub or a local folder.
        block: After which block, counted from 1; 0: at the same share of the depth as [REPA]'s
            8 of 28.
        hidden: Hidden size of the projector.
    """

    encoder: str = "none"
    block: int = 0
    hidden: int = 2048

    def __post_init__(self) -> None:
        kind, _, name = self.encoder.partition(":")
        known = self.encoder in ("none", "classifier") or (kind == "dinov2" and bool(name))
        _require(
            known, "repa.encoder", repr(self.encoder), "none, classifier or dinov2:NAME_OR_FOLDER"
        )
        _require(self.block >= 0, "repa.block", self.block, "≥ 0")
        _require(self.hidden >= 1, "repa.hidden", self.hidden, "≥ 1")

    @property
    def is_on(self) -> bool:
        """Whether anything is aligned."""
        return self.encoder != "none"

    def block_of(self, depth: int) -> int:
        """The block, in a model of `depth` blocks."""
        return self.block or math.ceil(depth * _REPA_BLOCK / _REPA_DEPTH)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that one training run depends on.

    Attributes:
        model: The model, at the run's own width.
        data: Which images.
        objective: The diffusion objective.
        parametrization: How base HPs become the run's own.
        hps: The base HPs.
        training: How to train.
        batch_size: Images in a step.
        steps: Optimizer steps.
        seed: Of initialisation, data order, noise and dropout.
        bank_seed: Of the validation bank, shared by all trials of a study.
        threads: CPU threads; the last bits of floating point depend on it.
        captions: What a text-conditioned model is told of each class; empty: the data's captions.
        text: How it is told.
        rungs: Steps after which the validation bank is evaluated and the run may be ended.
        repa: Alignment with a frozen encoder; the term `repa` of the loss.
    """

    model: ModelConfig
    data: DataConfig
    objective: ObjectiveConfig
    parametrization: ParametrizationConfig
    hps: Hyperparameters
    training: TrainingConfig
    batch_size: int
    steps: int
    seed: int = 0
    bank_seed: int = 0
    threads: int = 1
    captions: tuple[str, ...] = ()
    text: TextConfig = field(default_factory=TextConfig)
    rungs: tuple[int, ...] = ()
    repa: RepaConfig = field(default_factory=RepaConfig)

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "threads"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "≥ 1")
        parts = self.training.accumulation
        _require(
            self.batch_size % parts == 0,
            "batch_size",
            self.batch_size,
            f"a multiple of training.accumulation = {parts}",
        )
        objective = make_objective(self.objective)
        channels = objective.num_outputs(self.model.in_channels)
        _require(
            self.model.out_channels == channels,
            f"objective.learn_sigma (kind {self.objective.kind})",
            self.objective.learn_sigma,
            f"one that fits the model's {self.model.out_channels} output channels for "
            f"{self.model.in_channels} input channels; the objective has {channels}",
        )
        terms = set(self.term_names) - {"denoising"}
        _require(
            self.repa.block <= self.model.depth,
            "repa.block",
            self.repa.block,
            f"at most the model's depth, {self.model.depth}",
        )
        _require(
            set(self.hps.loss_weight) <= terms,
            "hps.loss_weight",
            self.hps.loss_weight,
            f"weights of terms that the loss has beside the denoising one: {sorted(terms)}",
        )

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms of the training loss, the denoising one first."""
        own = make_objective(self.objective).term_names
        return (*own, "repa") if self.repa.is_on else own

    def to_json(self) -> str:
        """The config as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def parse_config(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of a config dataclass from plain nested values.

    Raises:
        UsageError: A key is unknown, or a value has the wrong type.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=cls)
    try:
        parsed = parser.instantiate(parser.parse_object({"value": dict(values)}))
    except ArgumentError as error:
        raise UsageError(f"not a valid {cls.__name__}: {error}") from None
    value: T = parsed.value
    return value


def read_config(cls: type[T], path: Path) -> T:
    """A config dataclass from a JSON file.

    Raises:
        UsageError: The file is not valid.
    """
    try:
        return parse_config(cls, json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def claim_folder(folder: Path, text: str, *, option: str = "--folder") -> None:
    """Write `config.json` into a new folder, or make sure that an old one holds the same config.

    Args:
        folder: Made if absent.
        text: The config, as JSON.
        option: Of the command line, that names the folder.

    Raises:
        ConfigMismatchError: It holds another; the message shows the difference.
    """
    path = folder / "config.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(".config.json.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        return
    try:
        old = path.read_text(encoding="utf-8")
        json.loads(old)
    except ValueError:
        raise ConfigMismatchError(
            f"{path} is damaged. Delete {folder}, or choose another folder with {option}."
        ) from None
    refuse_other_config(folder, old, text, option=option)


def refuse_other_config(place: Path, old: str, new: str, *, option: str = "--folder") -> None:
    """Make sure that two configs, as JSON, are the same.

    Args:
        place: A folder or file that the old one made.
        old: The config there.
        new: The config here.
        option: Of the command line, that names the place.

    Raises:
        ConfigMismatchError: They differ; the message shows in what.
    """
    if differences := list(_differences("", json.loads(old), json.loads(new))):
        shown = "\n".join(f"  {line}" for line in differences[:12])
        raise ConfigMismatchError(
            f"{place} was made by another config, and mixing the two would make its results "
            f"meaningless. It differs in:\n{shown}\nRepeat the first command to resume it, choose "
            f"another name with {option}, or delete it."
        )


def _differences(key: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{key}.{name}" if key else name
            yield from _differences(inner, old.get(name), new.get(name))
    elif _spaceless(old) != _spaceless(new):
        there, here = json.dumps(old, ensure_ascii=False), json.dumps(new, ensure_ascii=False)
        if len(there) + len(here) > _LONG and isinstance(old, list) and isinstance(new, list):
            yield from _list_differences(key, old, new)
        else:
            yield f"{key}: {there} there, {here} here"


def _list_differences(key: str, old: list[Any], new: list[Any]) -> Iterator[str]:
    """Long lists, such as prompts: how many, and the first that differs."""
    if len(old) != len(new):
        yield f"{key}: {len(old)} of them there, {len(new)} here"
    for place, (one, other) in enumerate(zip(old, new)):
        if found := list(_differences(f"{key}[{place}]", one, other)):
            yield found[0]
            return


def _spaceless(value: Any) -> Any:
    """Ranges are text: `log2(-10, -4)` is `log2(-10,-4)`."""
    return "".join(value.split()) if isinstance(value, str) else value


def _require(condition: bool, name: str, value: object, expected: str = "in [0, 1]") -> None:
    if not condition:
        raise UsageError(f"{name} is {value}, expected {expected}.")

"""The configs of studies: what all have, and what a transfer study (Algorithm 4) has."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, TypeVar

from mudit.data import (
    DeclaredDataset,
    Splits,
    TextSizes,
    captions_of,
    check_batch_size,
    check_text,
    latent_space,
    open_text_encoder,
    stored_text_sizes,
    stored_tokens,
    text_facts,
)
from mudit.diffusion import ObjectiveConfig, check_steps
from mudit.errors import UsageError
from mudit.evaluation import SamplerConfig
from mudit.models import ModelConfig as CompleteModelConfig
from mudit.models import config_for, is_text_conditioned, scale_to_width
from mudit.parametrization import Parametrization
from mudit.training import (
    DataConfig,
    Hyperparameters,
    ParametrizationConfig,
    RepaConfig,
    RunConfig,
    TextConfig,
    TrainingConfig,
    stream_seed,
)
from mudit.tuning.cluster import Cluster, Launcher, RayConfig
from mudit.tuning.pruning import PruningConfig
from mudit.tuning.space import (
    Choices,
    Interval,
    Point,
    Range,
    grid_points,
    parse_range,
    parse_space,
    point_key,
    random_points,
)

Architecture: TypeAlias = Literal["dit", "uvit", "pixart", "mmdit"]
DEFAULT_ARCHITECTURE: Architecture = "dit"

# Where a study lives and who works on it do not change its results.
_NOT_CLAIMED = ("folder", "workers", "storage", "launcher", "ray")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model, apart from its width and from what the data decide.

    Attributes:
        architecture: `dit`, `uvit`, `pixart` or `mmdit`; the last two are told captions made from
            the classes' names. `uvit` and `mmdit` predict no variance: objective.learn_sigma false.
        depth: Number of blocks.
        head_dim: Channels of a head; heads scale with width.
        patch_size: Side of a patch, in pixels.
        mlp_ratio: Hidden over outer width of the MLP.
        init: The initialisation, apart from the parametrization: `ARCHITECTURE_mup` (for μP, as
            the paper's code does; default) or `ARCHITECTURE` (the original).
        caption_dim: Size of a token of text from the encoder `bytes`; others have their own.
        mlp: Of mmdit: `gelu`, or `swiglu` with three matrices of the same hidden size.
        conv: Of uvit: whether a convolution of 3×3 pixels ends the model.
    """

    architecture: Architecture = DEFAULT_ARCHITECTURE
    depth: int = 4
    head_dim: int = 16
    patch_size: int = 2
    mlp_ratio: float = 4.0
    init: str | None = None
    caption_dim: int = 64
    mlp: Literal["gelu", "swiglu"] = "gelu"
    conv: bool = True

    def __post_init__(self) -> None:
        for name, architecture in (("mlp", "mmdit"), ("conv", "uvit")):
            default = type(self).__dataclass_fields__[name].default
            if self.architecture != architecture and getattr(self, name) != default:
                raise UsageError(
                    f"model.{name} is {getattr(self, name)!r}, which only {architecture} has; "
                    f"expected {default!r} with {self.architecture}."
                )


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The size of a training task.

    Attributes:
        width: Width of the model, a multiple of its head_dim.
        batch_size: Images in a step.
        steps: Optimizer steps.
    """

    width: int
    batch_size: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class FinalsConfig:
    """Longer runs of the proxy between the search and the target.

    Source: [muDiT] E.4.2, which trains the best of 80 points of 30K steps again for 100K steps,
    with five learning rates around the best. Who wins there is carried to the target.

    Attributes:
        steps: Optimizer steps of each; 0: there are none.
        best: How many of the search's best points are trained again.
        factors: By HP, what its value in each of these points is multiplied by, e.g.
            `{"lr": "log2(-1, 1)"}`: all combinations; empty: the points as they are.
    """

    steps: int = 0
    best: int = 1
    factors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 0 or self.best < 1:
            raise UsageError(
                f"search.finals has steps {self.steps} and best {self.best}; expected steps of at "
                "least 0 (none) and best of at least 1."
            )
        if self.factors and not self.steps:
            raise UsageError(
                "search.finals.factors is given, but search.finals.steps is 0, so there are no "
                "finals. Say how long they train, e.g. --search.finals.steps 2000."
            )
        if self.steps:
            self.combinations()

    def combinations(self) -> list[Point]:
        """Every combination of factors, by HP.

        Raises:
            UsageError: A range is wrong, or not a finite set of factors above zero.
        """
        found = {
            name: parse_range(name, text, option=f"search.finals.factors.{name}", bound=False)
            for name, text in self.factors.items()
        }
        for name, factors in found.items():
            if not isinstance(factors, Choices) or min(factors.values) <= 0:
                raise UsageError(
                    f"search.finals.factors.{name} is {self.factors[name]!r}; expected a finite "
                    "set of factors above zero, e.g. log2(-1, 1) or grid(0.4, 1, 1.6)."
                )
        return grid_points(found)

    @property
    def most_runs(self) -> int:
        """How many there are at most: fewer, if points coincide or trials diverge."""
        return self.best * len(self.combinations()) if self.steps else 0


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Which base HPs to try on the proxy.

    Attributes:
        space: A range by HP, e.g. `{"lr": "log2(-10, -6)", "phi.output": "grid(0.5, 1, 2)"}`.
        method: `grid` (all combinations), `random` (`trials` draws), or `tpe` (`trials` points,
            each proposed by Optuna's Tree-structured Parzen Estimator from those before it).
        trials: Of a search that is no grid.
        pruning: Whether trials are ended early.
        finals: Longer runs of the best points, before the target is trained.
    """

    space: dict[str, str] = field(default_factory=lambda: {"lr": "log2(-9, -5)"})
    method: Literal["grid", "random", "tpe"] = "grid"
    trials: int = 0
    pruning: PruningConfig = field(default_factory=PruningConfig)
    finals: FinalsConfig = field(default_factory=FinalsConfig)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(SamplerConfig):
    """How the trained target is sampled, with its averaged weights.

    Attributes:
        per_class: Samples of each class or caption.
        classes: At most so many classes are sampled, the first ones; of captioned data so many
            captions of training images, each of another group.
        held_out: Of captioned data, so many captions of held-out images are sampled besides.
    """

    _group: ClassVar[str] = "sampling."

    per_class: int = 20
    classes: int = 10
    held_out: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("per_class", 1), ("classes", 1), ("held_out", 0)):
            if getattr(self, name) < least:
                raise UsageError(
                    f"sampling.{name} is {getattr(self, name)}, expected at least {least}."
                )


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """What every kind of study has: what is trained, on what, where, and by how many.

    Attributes:
        folder: Where the study lives; the same command resumes it.
        data: Which images.
        model: The model, apart from its width.
        objective: The diffusion objective.
        parametrization: How base HPs become a run's own.
        hps: The base HPs that are not varied.
        training: How to train.
        text: How a text-conditioned model is told captions.
        repa: Whether tokens are aligned with a frozen encoder's features.
        control: `sp` runs the same budget under the standard parametrization beside it.
        control_init: The control's initialisation, if not the model's; the paper compares
            (mup, dit_mup) with (sp, dit).
        seed: Of everything that is drawn.
        workers: Trials that this command trains at once: processes of one CPU thread, or Ray tasks.
        storage: URL of the database in which commands share out trials, e.g.
            postgresql://user@host/database; empty: SQLite in the folder, for one machine.
        launcher: `local` trains in processes on this machine, `ray` in tasks on a Ray cluster.
        ray: The Ray cluster.
    """

    folder: str
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    parametrization: ParametrizationConfig = field(default_factory=ParametrizationConfig)
    hps: Hyperparameters = field(default_factory=Hyperparameters)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    text: TextConfig = field(default_factory=TextConfig)
    repa: RepaConfig = field(default_factory=RepaConfig)
    control: Literal["none", "sp"] = "none"
    control_init: str | None = None
    seed: int = 0
    workers: int = 2
    storage: str = ""
    launcher: Launcher = "local"
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"workers is {self.workers}, expected at least 1.")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}, expected ≥ 0.")

    def cluster(self) -> Cluster:
        """Where the study's runs are scheduled and who does them."""
        return Cluster(storage=self.storage, launcher=self.launcher, ray=self.ray)

    def claim(self) -> str:
        """The config as JSON, without what does not change results."""
        fields = dataclasses.asdict(self)
        for name in _NOT_CLAIMED:
            del fields[name]
        return json.dumps(fields, indent=1) + "\n"


@dataclass(frozen=True, kw_only=True)
class StudyConfig(ExperimentConfig):
    """A transfer study: search on the proxy, train the target with the best, sample, report.

    Attributes:
        proxy: The small task that is searched.
        target: The big task that the best base HPs are carried to.
        search: Which base HPs to try.
        sampling: How the target is sampled.
        threads: CPU threads of the target's training.
    """

    folder: str = "runs/digits"
    proxy: TaskConfig = field(
        default_factory=lambda: TaskConfig(width=32, batch_size=64, steps=800)
    )
    target: TaskConfig = field(
        default_factory=lambda: TaskConfig(width=128, batch_size=64, steps=1200)
    )
    search: SearchConfig = field(default_factory=SearchConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    threads: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        method, trials = self.search.method, self.search.trials
        if method != "grid" and trials < 1:
            raise UsageError(
                f"search.method is {method}, but search.trials is {trials}: say how many points to "
                "try, e.g. --search.trials 20."
            )
        check_steps(
            self.sampling.steps, self.sampling.method, self.objective, name="sampling.steps"
        )
        self.search.pruning.rungs(self.proxy.steps)
        if lost := set(self.search.finals.factors) - {*self.search.space, *self.hps.flat()}:
            raise UsageError(
                f"search.finals.factors names {', '.join(sorted(lost))}, which has no value to "
                "multiply: it is not searched. Add it to search.space, or give it under hps."
            )
        if method == "tpe" and self.search.pruning.method == "halving":
            raise UsageError(
                "search.pruning.method is halving, which compares trials that begin together, but "
                "search.method tpe proposes one after the other. Use asha or median."
            )
        if method != "tpe":
            self.points()
        elif not any(isinstance(found, Interval) for found in self.space().values()):
            raise UsageError(
                "search.method is tpe, but no HP in search.space has an interval: a few values are "
                "tried with --search.method grid. Give e.g. --search.space.lr "
                "'log_uniform(1e-4, 1e-1)'."
            )

    def space(self) -> dict[str, Range]:
        """The range of each HP that is searched.

        Raises:
            UsageError: There is none, or one is wrong.
        """
        return parse_space(self.search.space)

    def points(self) -> list[Point]:
        """The base HPs that a grid or a random search tries, in order.

        Raises:
            UsageError: The space is empty or wrong.
        """
        if self.search.method == "grid":
            return grid_points(self.space())
        seed = stream_seed(self.seed, "search")
        return random_points(self.space(), count=self.search.trials, seed=seed)

    @property
    def tuned(self) -> tuple[str, ...]:
        """The HPs whose values are found on the proxy and carried to the target."""
        return tuple(dict.fromkeys([*self.search.space, *self.search.finals.factors]))

    @property
    def trials(self) -> int:
        """How many points the search tries, equal ones counted once."""
        if self.search.method == "tpe":
            return self.search.trials
        return len({point_key(point) for point in self.points()})


Experiment = TypeVar("Experiment", bound=ExperimentConfig)


def resolved(config: Experiment, splits: Splits) -> Experiment:
    """The config with the data's fingerprint in it, and with what its latents are."""
    data = dataclasses.replace(
        config.data, fingerprint=splits.fingerprint, latents=latent_space(splits.train)
    )
    return dataclasses.replace(config, data=data)


def model_config(
    config: ExperimentConfig, splits: Splits, width: int, *, init: str | None
) -> CompleteModelConfig:
    """The complete model at a width, with an initialisation; None: the one for μP.

    Raises:
        UsageError: The width is no multiple of head_dim, or the image of the patch.
    """
    dataset, model = splits.train, config.model
    text = (
        dataset.text
        if isinstance(dataset, DeclaredDataset) and dataset.text is not None
        else _text_sizes(config.text, model.caption_dim, captions_of(dataset))
    )
    sizes: CompleteModelConfig = config_for(
        model.architecture,
        init=init,
        learn_sigma=config.objective.learns_variance,
        depth=model.depth,
        num_heads=4,
        head_dim=model.head_dim,
        patch_size=model.patch_size,
        mlp_ratio=model.mlp_ratio,
        input_size=dataset.size,
        in_channels=dataset.channels,
        num_classes=None if dataset.captioned else dataset.num_classes,
        caption_dim=text.dim,
        caption_tokens=text.tokens,
        pooled_dim=text.pooled_dim,
        mlp=model.mlp,
        conv=model.conv,
    )
    return scale_to_width(sizes, width)


@functools.lru_cache(maxsize=8)
def _text_sizes(text: TextConfig, bytes_dim: int, captions: Sequence[str]) -> TextSizes:
    """Asked for each run of a study; tokenising all captions takes a while."""
    if text.features:
        folder = Path(text.features).expanduser()
        tokens = stored_tokens(folder, text.max_tokens)
        check_text(folder, text_facts(text.encoder, captions, tokens, text.dtype))
        return stored_text_sizes(folder)
    encoder = open_text_encoder(text.encoder, bytes_dim=bytes_dim)
    return encoder.sizes(captions, most_tokens=text.max_tokens)


def run_config(
    config: ExperimentConfig,
    splits: Splits,
    task: TaskConfig,
    *,
    hps: Hyperparameters,
    parametrization: Parametrization = "mup",
    seed: int | None = None,
    threads: int = 1,
    rungs: tuple[int, ...] = (),
) -> RunConfig:
    """The config of one training run of the study.

    Args:
        config: The study.
        splits: Its data.
        task: Proxy or target.
        hps: The run's base HPs.
        parametrization: `sp` for the control, which may have an initialisation of its own.
        seed: Of the run; None: the study's. All runs share the study's validation bank.
        threads: CPU threads.
        rungs: Steps at which it may be ended.

    Raises:
        UsageError: The model cannot have that width, or there are fewer images than in a batch.
    """
    seed = config.seed if seed is None else seed
    check_batch_size(splits.train.num_samples, task.batch_size)
    init = config.model.init
    if parametrization == "sp" and config.control_init is not None:
        init = config.control_init
    model = model_config(config, splits, task.width, init=init)
    return RunConfig(
        model=model,
        data=config.data,
        objective=config.objective,
        parametrization=dataclasses.replace(
            config.parametrization, parametrization=parametrization
        ),
        hps=hps,
        training=config.training,
        batch_size=task.batch_size,
        steps=task.steps,
        seed=seed,
        bank_seed=config.seed,
        threads=threads,
        captions=tuple(captions_of(splits.train))
        if is_text_conditioned(model) and not splits.train.captioned
        else (),
        text=config.text if is_text_conditioned(model) else TextConfig(),
        rungs=rungs,
        repa=config.repa,
    )

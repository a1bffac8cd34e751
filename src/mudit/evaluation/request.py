"""What samples are asked for: so many of each class or prompt, or so many in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mudit.data import check_prompts
from mudit.diffusion import check_steps
from mudit.errors import UsageError
from mudit.evaluation.generate import SamplerConfig
from mudit.models import DiTConfig, UViTConfig, is_text_conditioned
from mudit.training import RunConfig, stream_seed

DEFAULT_PER_CLASS = 10


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Which samples to draw, and how.

    Attributes:
        sampler: How they are drawn.
        prompts: Texts, for a model that is told texts; empty: the captions of the run's classes.
        classes: Classes; empty: all.
        per_class: Samples of each class or prompt, one class after the other; None: 10.
        num_samples: Instead, so many in all: classes drawn uniformly at random, as for the 50,000
            of [DiT]; prompts in turn.
        seed: Of the noise and of the classes. A sample's noise depends on it and on its number.
    """

    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    prompts: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    per_class: int | None = None
    num_samples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("per_class", "num_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1.")
        if self.per_class is not None and self.num_samples is not None:
            raise UsageError(
                f"per_class is {self.per_class} and num_samples is {self.num_samples}: the one "
                "says how many of each class, the other how many in all. Give one of them."
            )
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}, expected ≥ 0.")
        if self.prompts and self.classes:
            raise UsageError("there are both prompts and classes; give one of them.")
        if any(not prompt.strip() for prompt in self.prompts):
            raise UsageError(
                "one of the prompts is empty; expected texts. Take it out: what a model makes of "
                "no text is not asked for by an empty one."
            )
        check_prompts(self.prompts)


class Asked(NamedTuple):
    """What each sample of a run is asked for.

    Attributes:
        texts: What a text-conditioned model is told; empty for one that takes classes.
        from_run: Whether the texts are the run's own.
        labels: Of each sample the class, or the number of its text, shape (N,).
    """

    texts: tuple[str, ...]
    from_run: bool
    labels: NDArray[np.int64]

    def name(self, label: int) -> str:
        """The text, or the class in words."""
        return self.texts[label] if self.texts else f"class {label}"


def asked_of(config: SampleConfig, run: RunConfig, folder: Path) -> Asked:
    """What each sample of a run is asked for; refuses what its model cannot be.

    Raises:
        UsageError: Prompts for a model of classes, classes for one of texts, a class that does not
            exist, or a method or number of steps that does not suit the run's objective.
    """
    check_steps(
        config.sampler.steps, config.sampler.method, run.objective, name=f"steps for {folder}"
    )
    if is_text_conditioned(run.model):
        texts = _texts(config, run.captions, folder)
        return Asked(texts, not config.prompts, _labels(config, len(texts), is_text=True))
    if config.prompts:
        raise UsageError(
            f"{folder} holds a model that is told a class, not a text; ask for classes instead of "
            "prompts."
        )
    assert isinstance(run.model, DiTConfig | UViTConfig)
    if run.model.num_classes is None:
        raise UsageError(f"{folder} holds a model that is told nothing; it cannot be sampled here.")
    return Asked((), True, _labels(config, run.model.num_classes, is_text=False))


def _texts(config: SampleConfig, captions: Sequence[str], folder: Path) -> tuple[str, ...]:
    if config.prompts:
        return config.prompts
    if captions:
        return tuple(captions)
    wanted = "classes were asked for" if config.classes else "no prompts were given"
    raise UsageError(
        f"{folder} holds a model that was trained on captions, but {wanted}: give prompts, e.g. "
        "--prompts '[\"a red apple\"]' or --prompts FILE."
    )


def _labels(config: SampleConfig, count: int, *, is_text: bool) -> NDArray[np.int64]:
    wrong = [label for label in config.classes if not 0 <= label < count]
    if wrong:
        raise UsageError(f"classes run from 0 to {count - 1}, got {wrong[0]}.")
    choice = np.array(config.classes or range(count), dtype=np.int64)
    if config.num_samples is None:
        return choice.repeat(config.per_class or DEFAULT_PER_CLASS)
    if is_text:
        return np.resize(choice, config.num_samples)
    # Of one stream: a smaller number of samples has the same first classes.
    rng = np.random.Generator(np.random.Philox(stream_seed(config.seed, "sample", 1)))
    return choice[rng.integers(len(choice), size=config.num_samples)]

"""A recipe: a complete study, the source of each constant, its data, cost and outcome."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mudit.analysis import Workload, grouped_cost_ratio
from mudit.data import DeclaredDataset, Splits, declared_splits
from mudit.errors import DataError, UsageError
from mudit.tuning import (
    ExperimentConfig,
    Preview,
    StudyConfig,
    StudyCost,
    VerifyConfig,
    VerifyPreview,
    preview,
    preview_grid,
    study_cost,
)

# Kinds of data that lie in a folder of this machine; others are fetched or are a pattern.
_FOLDERS = ("idx", "folder", "captions", "latents")


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """Under what something may be used.

    Attributes:
        of: The data, weights or code.
        terms: The licence's name.
        source: Who says so.
    """

    of: str
    terms: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """A number that a run of the recipe should come to.

    Attributes:
        what: Which number.
        value: What it was.
        source: Where it was: a table of a paper, or a dated run of this recipe.
    """

    what: str
    value: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCost:
    """The cost as the paper computes it, from sizes that it rounds.

    Attributes:
        searches: All runs of the search, by size.
        target: One training of the target.
        source: Where.
        human_runs: Trainings of the target that tuning by hand took; 0: not known.
    """

    searches: tuple[Workload, ...]
    target: Workload
    source: str
    human_runs: float = 0.0

    @property
    def ratio(self) -> float:
        """The search over one training of the target, [muDiT] Eq. (1)."""
        return grouped_cost_ratio(self.searches, self.target)

    @property
    def human_ratio(self) -> float | None:
        """The search over tuning by hand."""
        return self.ratio / self.human_runs if self.human_runs else None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A study that somebody has run, complete.

    Attributes:
        name: What `--recipe` calls it.
        summary: What it is, in a sentence.
        study: For `mudit transfer`; its `hps` are the base HPs that the search should find, so that
            `mudit train` trains the target with them at once.
        sources: Where each constant of the study is from, by option; what nobody has stated begins
            with `Assumption:`.
        data: Sizes of the data, which need not be there.
        baseline: For `mudit train`: the target under sp, with HPs tuned by hand.
        grids: For `mudit verify`.
        prepare: Commands that make what the study reads.
        published: The cost as published.
        time: How long it takes, and on what.
        licences: Of data, weights and code.
        expected: What it should come to.
        notes: What else has to be known, a sentence or two each.
    """

    name: str
    summary: str
    study: StudyConfig
    sources: dict[str, str]
    data: DeclaredDataset
    baseline: StudyConfig | None = None
    grids: tuple[VerifyConfig, ...] = ()
    prepare: tuple[str, ...] = ()
    published: PublishedCost | None = None
    time: tuple[str, ...] = ()
    licences: tuple[Licence, ...] = ()
    expected: tuple[Expected, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def commands(self) -> tuple[str, ...]:
        """All that can be run of it."""
        found = [f"mudit transfer --recipe {self.name}", f"mudit train --recipe {self.name}"]
        if self.baseline is not None:
            found.append(f"mudit train --recipe {self.name} --baseline")
        found += [
            f"mudit verify --recipe {self.name} --across {grid.across} --hp {grid.hp}"
            for grid in self.grids
        ]
        return tuple(found)

    def settings(self) -> tuple[tuple[str, str, str], ...]:
        """Each constant: option, value, source."""
        return tuple(
            (option, _shown(value_of(self.study, option)), source)
            for option, source in self.sources.items()
        )

    def training(self, *, baseline: bool = False) -> StudyConfig:
        """What `mudit train` trains: the target, in a folder of its own.

        Raises:
            UsageError: The baseline is asked for, and there is none.
        """
        if not baseline:
            return dataclasses.replace(self.study, folder=f"{self.study.folder}-target")
        if self.baseline is None:
            raise UsageError(
                f"the recipe {self.name} has no baseline tuned by hand; leave --baseline out. "
                "`--control sp` of `mudit transfer` trains one with the search's own HPs."
            )
        return self.baseline

    def grid(self, *, across: str | None = None, hp: str | None = None) -> VerifyConfig:
        """The verify study along an axis; None: whichever comes first.

        Raises:
            UsageError: There is none.
        """
        for grid in self.grids:
            if across in (None, grid.across) and hp in (None, grid.hp):
                return grid
        there = "; ".join(f"--across {grid.across} --hp {grid.hp}" for grid in self.grids)
        asked = " ".join([f"--across {across}"] * bool(across) + [f"--hp {hp}"] * bool(hp))
        raise UsageError(
            f"the recipe {self.name} has no verify study{f' {asked}' if asked else ''}; "
            f"there {'are: ' + there if there else 'is none'}. Use `mudit transfer --recipe "
            f"{self.name}`, or start from `mudit verify` without a recipe."
        )

    def declared(self, config: ExperimentConfig) -> Splits | None:
        """The data's sizes, if the config reads the recipe's data, else None."""
        ours, theirs = self.study.data, config.data
        if theirs.source != ours.source or config.text != self.study.text:
            return None
        size = theirs.size or self.data.size
        return declared_splits(dataclasses.replace(self.data, size=size))

    def preview(self, config: StudyConfig | None = None) -> Preview:
        """Plan and cost of its transfer study, or of one made from it.

        The data are not opened where they are the recipe's own, nor must its device be there.
        """
        config = config or self.study
        return preview(config, declared=self.declared(config))

    def cost(self, config: StudyConfig | None = None) -> StudyCost:
        """Cost of the same, alone."""
        config = config or self.study
        return study_cost(config, declared=self.declared(config))

    def preview_grid(self, config: VerifyConfig) -> VerifyPreview:
        """Runs and cost of a verify study made from it; the same holds."""
        return preview_grid(config, declared=self.declared(config))

    def require_data(self, config: ExperimentConfig) -> None:
        """Make sure that what the study reads is there.

        Raises:
            DataError: It is not; the message says how to prepare it.
        """
        named = {"data.source": config.data.source}
        if config.text.features:
            named["text.features"] = f"folder:{config.text.features}"
        elif config.text.encoder == self.study.text.encoder:
            named["text.encoder"] = config.text.encoder
        for option, text in named.items():
            kind, _, path = text.partition(":")
            local = kind in _FOLDERS or (kind == "hf" and path.startswith("models/"))
            if not local or Path(path).expanduser().exists():
                continue
            place = "FOLDER" if option == "text.features" else f"{kind}:FOLDER"
            how = "; then ".join(f"`{command}`" for command in self.prepare)
            raise DataError(
                f"the recipe {self.name} reads {path} ({option}), and there is no such folder. "
                + (f"Prepare it: {how}. " if how else "")
                + f"If it lies elsewhere: --{option} {place}. `mudit recipes {self.name}` "
                "says more."
            )


def value_of(config: StudyConfig, option: str) -> Any:
    """The value of an option by its dotted name, e.g. `hps.loss_weight.repa`."""

    def part(value: Any, name: str) -> Any:
        return value[name] if isinstance(value, dict) else getattr(value, name)

    return functools.reduce(part, option.split("."), config)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shown(item)}" for name, item in value.items())
    if isinstance(value, float):
        return f"{value:.10g}"
    return f"{value:,}" if type(value) is int else str(value)

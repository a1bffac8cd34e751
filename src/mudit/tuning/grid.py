"""What a verify study trains: every size of an axis, with every value of one base HP, for seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from mudit.data import Splits
from mudit.errors import DataError, UsageError
from mudit.parametrization import Parametrization
from mudit.records import TrialRecord
from mudit.training import RunConfig, write_text
from mudit.tuning.config import ExperimentConfig, TaskConfig, run_config
from mudit.tuning.pool import Job
from mudit.tuning.space import Choices, parse_range, point_key

Axis: TypeAlias = Literal["width", "batch", "steps"]

_LETTERS: dict[Axis, str] = {"width": "w", "batch": "b", "steps": "t"}
_SIZES: dict[Axis, tuple[int, ...]] = {
    "width": (32, 64, 128),
    "batch": (32, 64, 128),
    "steps": (150, 300, 600),
}
_EXTENSION = "extension.json"


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(ExperimentConfig):
    """A verify study: does the best value of a base HP stay where it is along an axis?

    Algorithms 1 (width), 2 (batch size) and 3 (steps) of the paper.

    Attributes:
        folder: Where the study lives; `{across}` in it stands for the axis.
        across: The axis.
        sizes: Its sizes, smallest to largest; empty: three sizes, two doublings.
        task: The sizes that the axis does not vary.
        hp: The base HP, by dotted name, e.g. `lr` or `phi.output`.
        values: Its values, all above zero: `log2(-9, -4)` or `grid(...)`.
        seeds: Replicates; number k trains with seed + k at every size and value.
        target: The size that HPs are to be carried to; 0: the largest one trained.
        control: `sp` runs the same grid under the standard parametrization beside it.
    """

    folder: str = "runs/verify-{across}"
    across: Axis = "width"
    sizes: tuple[int, ...] = ()
    task: TaskConfig = field(default_factory=lambda: TaskConfig(width=64, batch_size=64, steps=300))
    hp: str = "lr"
    values: str = "log2(-9, -4)"
    seeds: int = 3
    target: int = 0
    control: Literal["none", "sp"] = "sp"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "folder", self.folder.replace("{across}", self.across))
        sizes = self.sizes or _SIZES[self.across]
        if len(set(sizes)) < len(sizes):
            raise UsageError(
                f"sizes is {list(sizes)}, which names a size twice. Give each once, e.g. --sizes "
                f"'{str(sorted(set(sizes))).replace(' ', '')}'."
            )
        if len(sizes) < 2 or min(sizes) < 1:
            raise UsageError(
                f"sizes is {list(sizes)}, expected at least two sizes of {self.across}; a verdict "
                "needs three."
            )
        object.__setattr__(self, "sizes", tuple(sorted(sizes)))
        if self.target_size < max(sizes):
            raise UsageError(
                f"target is {self.target}, expected at least the largest size, {max(sizes)}: HPs "
                "are carried to larger sizes."
            )
        if self.seeds < 1:
            raise UsageError(f"seeds is {self.seeds}, expected at least 1; a verdict needs two.")
        if len(self.grid()) < 2:
            raise UsageError(
                f"values is {self.values!r}, which is one point: there is no optimum to find. Give "
                "five or more, e.g. --values 'log2(-9, -4)'."
            )

    @property
    def target_size(self) -> int:
        """The size that HPs are to be carried to."""
        return self.target or max(self.sizes)

    def grid(self) -> tuple[float, ...]:
        """The values of the HP, ascending.

        Raises:
            UsageError: They are not a finite set of numbers above zero.
        """
        found = parse_range(self.hp, self.values, option="values")
        if not isinstance(found, Choices) or min(found.values) <= 0:
            raise UsageError(
                f"values is {self.values!r}; expected a finite set above zero, since basins are "
                "fitted in log2, e.g. log2(-9, -4) or grid(0.01, 0.03, 0.1)."
            )
        return tuple(sorted({self.exact(value) for value in found.values}))

    def exact(self, value: float) -> float:
        """The value that a run has for it: steps are whole."""
        return float(round(value)) if self.hp == "warmup_steps" else value

    def task_at(self, size: int) -> TaskConfig:
        """The task at a size of the axis."""
        name = "batch_size" if self.across == "batch" else self.across
        return dataclasses.replace(self.task, **{name: size})


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class GridPoint:
    """One training run of the grid.

    Attributes:
        size: Of the axis.
        value: Of the HP.
        seed: Number of the replicate.
    """

    size: int
    value: float
    seed: int


def grid_points_of(config: VerifyConfig, extension: Sequence[GridPoint]) -> list[GridPoint]:
    """Every point, the smallest sizes first: what is wrong with a grid shows early."""
    points = {
        GridPoint(size=size, value=value, seed=seed)
        for size in config.sizes
        for value in config.grid()
        for seed in range(config.seeds)
    }
    return sorted({*points, *extension}, key=lambda point: (point.size, point.seed, point.value))


def grid_jobs(
    config: VerifyConfig,
    splits: Splits,
    parametrization: Parametrization,
    points: Sequence[GridPoint],
) -> list[Job]:
    """The training runs of the points.

    Where sp and μP are the same model bit for bit, the control's run is μP's, and has its key.
    """
    jobs = []
    for point in points:
        shared = same_model(config, point.size)
        chosen: Parametrization = "mup" if shared else parametrization
        varied = {config.hp: point.value}
        key = f"{chosen}_{_LETTERS[config.across]}{point.size}_s{point.seed}_{point_key(varied)}"
        jobs.append(
            Job(
                key=key,
                point=varied,
                role="grid",
                config=_run_config(config, splits, chosen, point),
                folder=Path(config.folder) / key,
            )
        )
    return jobs


def same_model(config: VerifyConfig, size: int) -> bool:
    """Whether sp and μP are the same at this size: at base width, with one initialisation."""
    width = config.task_at(size).width
    same_init = config.control_init in (None, config.model.init)
    return same_init and width == config.parametrization.base_width


def _run_config(
    config: VerifyConfig, splits: Splits, parametrization: Parametrization, point: GridPoint
) -> RunConfig:
    return run_config(
        config,
        splits,
        config.task_at(point.size),
        hps=config.hps.updated({config.hp: point.value}),
        parametrization=parametrization,
        seed=config.seed + point.seed,
    )


def point_of(config: VerifyConfig, record: TrialRecord) -> GridPoint:
    """Where in the grid a record stands."""
    sizes = {"width": record.width, "batch": record.batch_size, "steps": record.steps}
    return GridPoint(
        size=sizes[config.across],
        value=record.hps[config.hp],
        seed=record.seed - config.seed,
    )


def is_grid(folder: Path) -> bool:
    """Whether a folder holds a verify study, rather than one of another kind."""
    path = folder / "config.json"
    try:
        return "across" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def read_extension(folder: Path) -> list[GridPoint]:
    """The points that `--extend` has added to the study so far.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / _EXTENSION
    if not path.exists():
        return []
    try:
        return [GridPoint(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}). Delete it to go on with the grid alone."
        ) from None


def write_extension(folder: Path, points: Sequence[GridPoint]) -> None:
    """Keep the points that have been added, all of them."""
    rows = [dataclasses.asdict(point) for point in sorted(set(points))]
    write_text(folder / _EXTENSION, json.dumps(rows, indent=1) + "\n")

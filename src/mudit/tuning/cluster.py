"""Where a study's runs are scheduled and who does them; none of it changes results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mudit.errors import UsageError

Launcher: TypeAlias = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """A Ray cluster, with `--launcher ray`.

    Attributes:
        address: Of the cluster, e.g. `10.0.0.1:6379`; empty: RAY_ADDRESS or the one that was
            started on this machine, and if there is none, a new one on this machine.
        cpus_per_trial: CPU cores that a run occupies.
        gpus_per_trial: GPUs that a run occupies; fractions share one.
    """

    address: str = ""
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cpus_per_trial", "gpus_per_trial"):
            if getattr(self, name) < 0:
                raise UsageError(f"ray.{name} is {getattr(self, name)}, expected at least 0.")
        if self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise UsageError(
                f"ray.gpus_per_trial is {self.gpus_per_trial}, expected a whole number or a share "
                "of one GPU."
            )
        if self.cpus_per_trial == self.gpus_per_trial == 0:
            raise UsageError(
                "ray.cpus_per_trial and ray.gpus_per_trial are both 0: then Ray would start any "
                "number of runs on one machine. Give one of them."
            )


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where a study's runs are scheduled and who does them.

    Attributes:
        storage: URL of the database that schedules runs; empty: SQLite in the study's folder.
        launcher: `local` processes, or tasks on a `ray` cluster.
        ray: The Ray cluster.
    """

    storage: str = ""
    launcher: Launcher = "local"
    ray: RayConfig = field(default_factory=RayConfig)

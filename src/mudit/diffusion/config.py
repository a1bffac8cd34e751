"""The config of an objective: one flat dataclass, so that each field is an option of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from mudit.diffusion.schedules import Betas, make_schedule
from mudit.errors import UsageError

ObjectiveKind: TypeAlias = Literal["ddpm", "flow", "vp_sde"]
TimeLaw: TypeAlias = Literal["uniform", "logit_normal"]

# Which fields a kind reads; all others must stay at their defaults. `learn_sigma` is with every
# kind, as `--model NAME` sets it before anything is known of the objective; only ddpm reads it.
_FIELDS: dict[ObjectiveKind, tuple[str, ...]] = {
    "ddpm": ("num_timesteps", "learn_sigma", "betas", "first_step"),
    "flow": ("learn_sigma", "time_law", "logit_mean", "logit_std", "shift", "time_scale"),
    "vp_sde": ("learn_sigma", "time_scale"),
}


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What defines an objective. The defaults are those of all DiT runs.

    Attributes:
        kind: `ddpm`: noise prediction on discrete steps ([DDPM], [IDDPM]); `flow`: rectified flow,
            velocity prediction ([SD3]); `vp_sde`: noise prediction in continuous time ([VPSDE]).
        num_timesteps: T, the steps of ddpm's schedule; at least 21.
        learn_sigma: Whether a ddpm network also predicts the variance of the reverse steps, in a
            second half of its output channels; the other kinds have no variance to learn.
        betas: ddpm's schedule: `linear` (DiT, PixArt) or `scaled_linear` (Stable Diffusion, and
            U-ViT on its latents).
        first_step: What a ddpm network is told of the least noisy step: 0, or 1 ([U-ViT] code,
            discrete scripts).
        time_law: How a flow draws t in [0, 1]: `uniform`, or `logit_normal`, the logistic function
            of a normal number ([SD3] §3.1).
        logit_mean: Mean of that normal number.
        logit_std: Its standard deviation.
        shift: s in t' = s t / (1 + (s - 1) t), which moves a flow's times, drawn and sampled, to
            more noise ([SD3]: 3 at 1024 pixels); 1: none.
        time_scale: What t in [0, 1] is multiplied by for the network of a flow or vp_sde: 1000
            ([SD3] code), 999 ([U-ViT] code, continuous scripts) or 1 ([REPA] code).

    Raises:
        UsageError: A value is out of range, or set where the kind does not read it.
    """

    kind: ObjectiveKind = "ddpm"
    num_timesteps: int = 1000
    learn_sigma: bool = True
    betas: Betas = "linear"
    first_step: int = 0
    time_law: TimeLaw = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    shift: float = 1.0
    time_scale: float = 1000.0

    def __post_init__(self) -> None:
        if self.kind not in _FIELDS:
            raise UsageError(
                f"objective.kind is {self.kind!r}, expected one of {', '.join(_FIELDS)}."
            )
        self._check_unread()
        if self.kind == "ddpm":
            make_schedule(self.betas, self.num_timesteps)
        if self.first_step < 0:
            raise UsageError(f"objective.first_step is {self.first_step}, expected ≥ 0.")
        if self.time_law not in ("uniform", "logit_normal"):
            raise UsageError(
                f"objective.time_law is {self.time_law!r}, expected 'uniform' or 'logit_normal'."
            )
        if not math.isfinite(self.logit_mean):
            raise UsageError(f"objective.logit_mean is {self.logit_mean}, expected a number.")
        for name in ("logit_std", "shift", "time_scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"objective.{name} is {value}, expected a number > 0.")

    @property
    def learns_variance(self) -> bool:
        """Whether the network has a second half of output channels, for the variance."""
        return self.kind == "ddpm" and self.learn_sigma

    def _check_unread(self) -> None:
        read = {"kind", *_FIELDS[self.kind]}
        if self.time_law != "logit_normal":
            read -= {"logit_mean", "logit_std"}
        changed = [
            f"objective.{field.name} = {getattr(self, field.name)}"
            for field in fields(self)
            if field.name not in read and getattr(self, field.name) != field.default
        ]
        if changed:
            law = f" with time_law {self.time_law}" if self.kind == "flow" else ""
            raise UsageError(
                f"objective.kind {self.kind}{law} does not read {', '.join(changed)}. Leave "
                "it at its default, or choose the kind (and time_law) that it belongs to."
            )

"""The base HPs: the width-independent values that a user tunes and μP carries over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from mudit.errors import UsageError
from mudit.program import Role

_ROLES: tuple[str, ...] = get_args(Role)
# HPs with a value for each of several names, and those names; loss terms besides the denoising
# one, which is the unit and ranks trials.
_BY_NAME = {
    "phi": _ROLES,
    "sigma": _ROLES,
    "lr_multiplier": _ROLES,
    "loss_weight": ("variational_bound", "repa"),
}


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Base HPs.

    Attributes:
        lr: Learning rate η.
        weight_decay: λ, in torch's convention (AdamW shrinks by lr·λ).
        eps: Adam's ε.
        beta1: Adam's first decay, or SGD's momentum.
        beta2: Adam's second decay.
        clip: Largest global gradient norm; 0: no clipping.
        warmup_steps: Steps over which the learning rate rises linearly from 0.
        phi: Forward multiplier φ by role.
        sigma: Initial scale σ by role, in units of the model's own.
        lr_multiplier: Learning rate by role, in units of lr.
        loss_weight: Weight of a term that the training loss has beside the denoising one, e.g.
            `variational_bound` (1 if not given) or `repa` (0.5 if not given). Trials are ranked by
            the denoising term alone.
    """

    lr: float = 2**-8
    weight_decay: float = 0.0
    eps: float = 1e-8
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 0.0
    warmup_steps: int = 0
    phi: dict[str, float] = field(default_factory=dict)
    sigma: dict[str, float] = field(default_factory=dict)
    lr_multiplier: dict[str, float] = field(default_factory=dict)
    loss_weight: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.flat().items():
            check_value(name, value)

    def flat(self) -> dict[str, float]:
        """By dotted name, e.g. `lr` and `phi.output`."""
        values = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in _BY_NAME
        }
        for name in _BY_NAME:
            values |= {f"{name}.{part}": value for part, value in getattr(self, name).items()}
        return values

    def updated(self, values: Mapping[str, float]) -> Hyperparameters:
        """With some values replaced, by dotted name.

        Raises:
            UsageError: A name is unknown or a value out of range.
        """
        changes: dict[str, object] = {}
        for name, value in values.items():
            check_value(name, value)
            head, _, part = name.partition(".")
            if part:
                changes[head] = {**getattr(self, head), **changes.get(head, {}), part: value}  # type: ignore[dict-item]
            else:
                changes[name] = round(value) if name == "warmup_steps" else value
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def names() -> tuple[str, ...]:
    """Every base HP that can be searched, by dotted name."""
    plain = [f.name for f in dataclasses.fields(Hyperparameters) if f.name not in _BY_NAME]
    return (*plain, *(f"{name}.{part}" for name, parts in _BY_NAME.items() for part in parts))


def check_name(name: str) -> None:
    """Refuse a name that no HP has.

    Raises:
        UsageError: The message lists those that there are.
    """
    if name not in names():
        raise UsageError(f"no base HP is called {name!r}; there are: {', '.join(names())}.")


def check_value(name: str, value: float) -> None:
    """Refuse an unknown HP, or a value that it cannot have.

    Raises:
        UsageError: The message says what is expected.
    """
    check_name(name)
    if not math.isfinite(value):
        raise UsageError(f"{name} is {value}, expected a finite number.")
    head = name.partition(".")[0]
    if head in ("beta1", "beta2"):
        good, expected = 0 <= value < 1, "in [0, 1)"
    elif head in ("weight_decay", "clip", "warmup_steps", "eps", "loss_weight"):
        good, expected = value >= 0, "≥ 0"
    else:
        good, expected = value > 0, "> 0"
    if not good:
        raise UsageError(f"{name} is {value}, expected {expected}.")

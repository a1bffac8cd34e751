"""What all objectives have in common: the protocol, the terms of a loss, and the checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Real
from torch import Tensor

from mudit.diffusion.config import ObjectiveConfig
from mudit.diffusion.schedules import NoiseSchedule
from mudit.errors import UsageError

# (x_t, time) to the prediction (B, C, ...), or to noise and variance fraction (B, 2C, ...). The
# time (B,) is `Objective.told(t)`.
Network: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Prediction: TypeAlias = Literal["noise", "velocity"]


class Terms(NamedTuple):
    """The loss of each sample, and the terms that it is the sum of; float32 or wider, shape (B,).

    Attributes:
        total: What to average over the batch and minimise.
        denoising: Mean squared error of the prediction, over all dimensions.
        variational_bound: Bits per dimension; None without a learned variance.
    """

    total: Tensor
    denoising: Tensor
    variational_bound: Tensor | None

    def named(self) -> dict[str, Tensor]:
        """The terms that exist by name, without the total."""
        terms = {"denoising": self.denoising}
        if self.variational_bound is not None:
            terms["variational_bound"] = self.variational_bound
        return terms


@runtime_checkable
class Objective(Protocol):
    """Draws t and computes the loss; knows how data is noised, and no network.

    `t` is the objective's own time: a step in {0, ..., T-1} for ddpm, a number in [0, 1] for the
    others; it grows with noise. What the network is given instead is `told(t)`.
    """

    @property
    def config(self) -> ObjectiveConfig:
        """What it was made from."""

    @property
    def prediction(self) -> Prediction:
        """What the first C output channels of the network are."""

    @property
    def term_names(self) -> tuple[str, ...]:
        """The keys of `Terms.named()` of its losses, in order."""

    def num_outputs(self, channels: int) -> int:
        """Output channels of a network for data of so many channels."""

    def draw_t(self, batch: int, generator: torch.Generator) -> Real[Tensor, " batch"]:
        """Independent draws from the law of t, on the generator's device."""

    def stratified_t(self, count: int) -> Real[Tensor, " count"]:
        """Quantiles of that law at the middles of `count` equal parts: a validation bank's t."""

    def told(self, t: Real[Tensor, " batch"]) -> Real[Tensor, " batch"]:
        """What the network is given for `t`."""

    def noise_level(self, told: Real[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """T as a share of its largest value, in [0, 1], from what the network is given."""

    def loss(
        self,
        network: Network,
        x0: Float[Tensor, "batch channels *space"],
        t: Real[Tensor, " batch"],
        *,
        noise: Float[Tensor, "batch channels *space"],
    ) -> Terms:
        """Per-sample loss of `network` at `x0` noised to `t` by `noise`.

        Args:
            network: Called once, with x_t in x0's dtype and `told(t)`.
            x0: Data, scaled to about unit variance.
            t: On x0's device.
            noise: Standard normal.

        Raises:
            UsageError: `noise`, `t` or the network's output has the wrong shape.
        """


@runtime_checkable
class NoiseObjective(Objective, Protocol):
    """An objective that predicts noise: one whose samplers walk down a `NoiseSchedule`."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The steps that samplers choose from."""

    def told_at(
        self, step: Real[Tensor, " batch"], *, dtype: torch.dtype
    ) -> Real[Tensor, " batch"]:
        """What the network is given at steps of `schedule`; in `dtype` unless it is an integer."""


def mean_flat(x: Tensor) -> Tensor:
    """The mean of each sample, (B,)."""
    return x.flatten(1).mean(dim=1)


def check_inputs(name: str, x0: Tensor, t: Tensor, noise: Tensor) -> None:
    """Raises UsageError unless there is one t per sample and noise of x0's shape."""
    if noise.shape != x0.shape or t.shape != x0.shape[:1]:
        raise UsageError(
            f"{name}.loss got x0 {tuple(x0.shape)}, t {tuple(t.shape)} and noise "
            f"{tuple(noise.shape)}; expected one t per sample of x0, and noise of x0's shape."
        )


def check_output(output: Tensor, x0: Tensor, objective: Objective) -> None:
    """Raises UsageError unless the network returned what the objective expects."""
    expected = (x0.shape[0], objective.num_outputs(x0.shape[1]), *x0.shape[2:])
    if output.shape != expected:
        config = objective.config
        told = f"learn_sigma={config.learn_sigma}" if config.kind == "ddpm" else "no variance"
        raise UsageError(
            f"The network returned shape {tuple(output.shape)} for x_t {tuple(x0.shape)}; with "
            f"kind={config.kind!r} and {told} the objective expects {expected}. Make the model's "
            "output channels (its learn_sigma) and ObjectiveConfig agree."
        )

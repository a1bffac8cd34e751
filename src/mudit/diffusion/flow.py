"""Rectified flow: straight lines from data to noise, and their velocity as the target.

x_t = (1 - t) x0 + t noise for t in [0, 1], so dx_t/dt = noise - x0. Sources: [SD3] Esser et al.
2024, §2-3; [REPA] code, whose linear path is the same. Others count t the other way round.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudit.diffusion.config import ObjectiveConfig
from mudit.diffusion.objective import Network, Terms, check_inputs, check_output, mean_flat
from mudit.diffusion.schedules import compute_dtype
from mudit.errors import UsageError


class Flow:
    """The objective: mean squared error of the velocity, weight 1 at every t.

    Attributes:
        config: What it was made from.
        prediction: The velocity, noise - x0.
        term_names: The terms of its loss.
    """

    prediction: Literal["velocity"] = "velocity"
    term_names: tuple[str, ...] = ("denoising",)

    def __init__(self, config: ObjectiveConfig) -> None:
        if config.kind != "flow":
            raise UsageError(f"Flow got kind={config.kind!r}; expected 'flow'.")
        self.config = config

    def num_outputs(self, channels: int) -> int:
        """As many as the data's: there is no variance to learn."""
        return channels

    def draw_t(self, batch: int, generator: torch.Generator) -> Float[Tensor, " batch"]:
        """Independent draws from the law of t, shifted, in float32; on the generator's device."""
        config, device = self.config, generator.device
        if config.time_law == "uniform":
            t = torch.rand(batch, generator=generator, device=device)
        else:
            normal = torch.randn(batch, generator=generator, device=device)
            t = torch.sigmoid(config.logit_mean + config.logit_std * normal)
        return shifted(t, config.shift)

    def stratified_t(self, count: int) -> Float[Tensor, " count"]:
        """Quantiles of the law at the middles of `count` equal parts of [0, 1], in float32."""
        config = self.config
        t = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        if config.time_law == "logit_normal":
            t = torch.sigmoid(config.logit_mean + config.logit_std * torch.special.ndtri(t))
        return shifted(t, config.shift).float()

    def told(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """`time_scale` t."""
        return t * self.config.time_scale

    def noise_level(self, told: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """T itself."""
        return told / self.config.time_scale

    def loss(
        self,
        network: Network,
        x0: Float[Tensor, "batch channels *space"],
        t: Float[Tensor, " batch"],
        *,
        noise: Float[Tensor, "batch channels *space"],
    ) -> Terms:
        """Per-sample squared error of the velocity at `x0` noised to `t`. [SD3] §2-3.

        Args:
            network: Called once, with x_t in x0's dtype and `told(t)`.
            x0: Data, scaled to about unit variance.
            t: In [0, 1], on x0's device.
            noise: Standard normal.

        Raises:
            UsageError: `noise`, `t` or the network's output has the wrong shape.
        """
        check_inputs("Flow", x0, t, noise)
        share = t.to(compute_dtype(x0)).view(-1, *[1] * (x0.ndim - 1))  # (B, 1, ..., 1)
        x_t = (1 - share) * x0 + share * noise
        output = network(x_t.to(x0.dtype), self.told(t))
        check_output(output, x0, self)
        error = output.to(compute_dtype(x0)) - (noise - x0)  # under autocast it may be bfloat16
        denoising = mean_flat(error.square())
        return Terms(total=denoising, denoising=denoising, variational_bound=None)

    def times(self, intervals: int, *, last: float = 0.0) -> Float64[Tensor, " times"]:
        """Sampling times, shifted: `intervals` + 1 at equal distances from 1 to `last`."""
        even = torch.linspace(1, last, intervals + 1, dtype=torch.float64)
        return shifted(even, self.config.shift)


def shifted(t: Float[Tensor, " times"], shift: float) -> Float[Tensor, " times"]:
    """Times whose odds t / (1 - t) are `shift` times as large: s t / (1 + (s - 1) t). [SD3]."""
    return t if shift == 1 else shift * t / (1 + (shift - 1) * t)


def score_from_velocity(
    x_t: Float[Tensor, "batch channels *space"],
    velocity: Float[Tensor, "batch channels *space"],
    t: float,
) -> Float[Tensor, "batch channels *space"]:
    """Gradient of log p(x_t): minus the noise x_t + (1 - t) v over its standard deviation t.

    Source: [REPA] code `get_score_from_velocity`, for the straight path.
    """
    assert not math.isclose(t, 0.0), "the score of data without noise is not defined"
    return -(x_t + (1 - t) * velocity) / t

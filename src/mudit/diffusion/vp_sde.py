"""Noise prediction in continuous time, on the variance-preserving SDE.

dx = -beta(t) x / 2 dt + sqrt(beta(t)) dw for t in [0, 1], with beta(t) = 0.1 + 19.9 t. So
alphas_cumprod(t) = exp(-(0.1 t + 19.9 t² / 2)). Sources: [VPSDE] Song et al. 2021, App. C;
[U-ViT] code `sde.py` and `train_ldm.py`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mudit.diffusion.config import ObjectiveConfig
from mudit.diffusion.objective import Network, Terms, check_inputs, check_output, mean_flat
from mudit.diffusion.schedules import NoiseSchedule, compute_dtype
from mudit.errors import UsageError

_BETA_MIN, _BETA_MAX = 0.1, 20.0  # [VPSDE] App. C; [U-ViT] code `VPSDE`
# Samplers walk on the times 1/1000, ..., 1. [U-ViT] code samples from 1 down to 1/1000 as well.
_SAMPLER_STEPS = 1000


class VPSDE:
    """The objective: mean squared error of the noise, weight 1 at every t; t is uniform.

    Attributes:
        config: What it was made from.
        prediction: The noise.
        term_names: The terms of its loss.
        schedule: The process at t = 1/1000, ..., 1 as discrete steps, for samplers.
    """

    prediction: Literal["noise"] = "noise"
    term_names: tuple[str, ...] = ("denoising",)

    def __init__(self, config: ObjectiveConfig) -> None:
        if config.kind != "vp_sde":
            raise UsageError(f"VPSDE got kind={config.kind!r}; expected 'vp_sde'.")
        self.config = config
        grid = torch.arange(_SAMPLER_STEPS + 1, dtype=torch.float64) / _SAMPLER_STEPS
        self.schedule = NoiseSchedule.from_betas(-torch.expm1(log_alphas_cumprod(grid).diff()))

    def num_outputs(self, channels: int) -> int:
        """As many as the data's: there is no variance to learn."""
        return channels

    def draw_t(self, batch: int, generator: torch.Generator) -> Float[Tensor, " batch"]:
        """Independent uniform times in [0, 1), in float32; on the generator's device."""
        return torch.rand(batch, generator=generator, device=generator.device)

    def stratified_t(self, count: int) -> Float[Tensor, " count"]:
        """Middles of `count` equal parts of [0, 1], in float32."""
        return ((torch.arange(count, dtype=torch.float64) + 0.5) / count).float()

    def told(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """`time_scale` t."""
        return t * self.config.time_scale

    def told_at(
        self, step: Int[Tensor, " batch"], *, dtype: torch.dtype
    ) -> Float[Tensor, " batch"]:
        """What the network is given at steps of `schedule`: `time_scale` (step + 1) / 1000."""
        return self.told((step + 1).to(dtype) / _SAMPLER_STEPS)

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
        """Per-sample squared error of the noise at `x0` noised to `t`. [U-ViT] code `sde.py`.

        Args:
            network: Called once, with x_t in x0's dtype and `told(t)`.
            x0: Data, scaled to about unit variance.
            t: In [0, 1], on x0's device.
            noise: Standard normal.

        Raises:
            UsageError: `noise`, `t` or the network's output has the wrong shape.
        """
        check_inputs("VPSDE", x0, t, noise)
        log_kept = log_alphas_cumprod(t.to(compute_dtype(x0))).view(-1, *[1] * (x0.ndim - 1))
        # expm1: near t = 0 the noise's share would drown in the rounding of 1 - exp.
        x_t = (0.5 * log_kept).exp() * x0 + (-torch.expm1(log_kept)).sqrt() * noise
        output = network(x_t.to(x0.dtype), self.told(t))
        check_output(output, x0, self)
        error = output.to(compute_dtype(x0)) - noise  # under autocast it may be bfloat16
        denoising = mean_flat(error.square())
        return Terms(total=denoising, denoising=denoising, variational_bound=None)


def log_alphas_cumprod(t: Float[Tensor, " times"]) -> Float[Tensor, " times"]:
    """Log of x0's share of the variance at t: minus the integral of beta. [VPSDE] App. C."""
    return -(_BETA_MIN * t + 0.5 * (_BETA_MAX - _BETA_MIN) * t.square())

"""The DiT training objective: noise prediction plus the variational bound of a learned variance.

Sources: [DDPM] Ho et al. 2020; [IDDPM] Nichol & Dhariwal 2021; [DiT] code
`GaussianDiffusion.training_losses` with LossType.MSE and LEARNED_RANGE variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mudit.diffusion.schedules import (
    Coefficients,
    compute_dtype,
    learned_log_variance,
    linear_schedule,
    q_sample,
)
from mudit.errors import UsageError

# (x_t, t) to the predicted noise (B, C, H, W), or to noise and variance fraction (B, 2C, H, W).
Network: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# Half the width of a bin of uint8 images scaled to [-1, 1]; [DiT] code keeps it for latents.
_HALF_BIN = 1 / 255
# Beyond it a value lies in the outermost bin, which extends to infinity; [DDPM] Eq. 13.
_OUTERMOST = 0.999
_SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True, kw_only=True)
class DDPMConfig:
    """What defines the objective. The defaults are those of all DiT runs.

    Attributes:
        num_timesteps: T, the steps of the linear schedule; at least 21.
        learn_sigma: Whether the network also predicts the variance of the reverse steps, in a
            second half of its output channels.

    Raises:
        UsageError: Too few timesteps.
    """

    num_timesteps: int = 1000
    learn_sigma: bool = True

    def __post_init__(self) -> None:
        linear_schedule(self.num_timesteps)


class DDPMTerms(NamedTuple):
    """The loss of each sample, and the terms that it is the sum of; float32 or wider, shape (B,).

    Attributes:
        total: What to average over the batch and minimise.
        denoising: Mean squared error of the predicted noise, over all dimensions.
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


class DDPM:
    """Draws t and computes the loss; knows the noise schedule and no network.

    Attributes:
        config: What it was made from.
        schedule: The linear schedule of `config.num_timesteps` steps.
    """

    def __init__(self, config: DDPMConfig) -> None:
        self.config = config
        self.schedule = linear_schedule(config.num_timesteps)

    def draw_t(self, batch: int, generator: torch.Generator) -> Int[Tensor, " batch"]:
        """Independent uniform steps in [0, T), on the generator's device."""
        return torch.randint(
            self.config.num_timesteps, (batch,), generator=generator, device=generator.device
        )

    def stratified_t(self, count: int) -> Int[Tensor, " count"]:
        """Middles of `count` equal parts of [0, T), rounded down: a validation bank's steps."""
        return (2 * torch.arange(count) + 1) * self.config.num_timesteps // (2 * count)

    def loss(
        self,
        network: Network,
        x0: Float[Tensor, "batch channels *space"],
        t: Int[Tensor, " batch"],
        *,
        noise: Float[Tensor, "batch channels *space"],
    ) -> DDPMTerms:
        """Per-sample loss of `network` at `x0` noised to step `t` by `noise`. [IDDPM] Eq. 16.

        The mean of the variational bound is that of the detached noise prediction, so the bound
        trains the variance alone; its weight is 1 ([DiT] code, LossType.MSE). x0 is not clipped.

        Args:
            network: Called once, with x_t in x0's dtype and `t`.
            x0: Data, scaled to about unit variance.
            t: Steps in [0, T), on x0's device.
            noise: Standard normal.

        Raises:
            UsageError: `noise`, `t` or the network's output has the wrong shape.
        """
        _check_inputs(x0, t, noise)
        at = self.schedule.at(t, like=x0)
        x_t = q_sample(at, x0, noise)
        output = network(x_t.to(x0.dtype), t)
        _check_output(output, x0, learn_sigma=self.config.learn_sigma)
        output = output.to(compute_dtype(x0))  # under autocast it may be bfloat16
        channels = x0.shape[1]
        error = output[:, :channels] - noise
        denoising = _mean_flat(error.square())
        if not self.config.learn_sigma:
            return DDPMTerms(total=denoising, denoising=denoising, variational_bound=None)
        # [DiT] code: the bound must not affect the prediction of the mean.
        mean_error = posterior_mean_error(at, error.detach())
        bound = _variational_bound(at, t, x0, mean_error, fraction=output[:, channels:])
        return DDPMTerms(total=denoising + bound, denoising=denoising, variational_bound=bound)


def posterior_mean_error(
    at: Coefficients, noise_error: Float[Tensor, "batch channels *space"]
) -> Float[Tensor, "batch channels *space"]:
    """True minus predicted mean of the reverse step, from the predicted minus the true noise.

    Both means weigh x_t alike, so only the difference of the x0 remains; at t = 0 the true mean is
    x0 itself. Differs from [DiT] code, which subtracts two means: equal, but for less rounding.
    """
    return (at.posterior_x0_scale * at.noise_scale / at.x0_scale) * noise_error


def gaussian_kl(
    mean_difference: Float[Tensor, "batch channels *space"],
    log_variance_q: Tensor | float,
    log_variance_p: Float[Tensor, "batch channels *space"],
) -> Float[Tensor, "batch channels *space"]:
    """KL(q || p) of two Gaussians in nats, elementwise."""
    log_ratio = log_variance_q - log_variance_p
    return 0.5 * (
        log_ratio.exp() - 1 - log_ratio + mean_difference.square() * (-log_variance_p).exp()
    )


def discretized_gaussian_nll(
    x0: Float[Tensor, "batch channels *space"],
    difference: Float[Tensor, "batch channels *space"],
    log_variance: Float[Tensor, "batch channels *space"],
) -> Float[Tensor, "batch channels *space"]:
    """Minus the log probability in nats of x0's bin of width 2/255, elementwise. [DDPM] Eq. 13.

    The normal distribution function is a tanh approximation (absolute error below 2e-4), and
    probabilities are held above 1e-12, both as in [DiT] code.

    Args:
        x0: Data; beyond ±0.999 the bin extends to infinity.
        difference: x0 minus the Gaussian's mean.
        log_variance: The Gaussian's log variance, in nats.
    """
    inverse_std = (-0.5 * log_variance).exp()
    upper = _normal_cdf(inverse_std * (difference + _HALF_BIN))
    lower = _normal_cdf(inverse_std * (difference - _HALF_BIN))
    probability = torch.where(
        x0 < -_OUTERMOST, upper, torch.where(x0 > _OUTERMOST, 1 - lower, upper - lower)
    )
    return -probability.clamp(min=_SMALLEST_PROBABILITY).log()


def _variational_bound(
    at: Coefficients, t: Tensor, x0: Tensor, mean_error: Tensor, *, fraction: Tensor
) -> Tensor:
    """Bits per dimension of each sample, (B,). [IDDPM] Eqs. 4-7."""
    log_variance = learned_log_variance(at, fraction)
    kl = gaussian_kl(mean_error, at.posterior_log_variance, log_variance)
    nats = _mean_flat(kl)
    if _may_contain_zero(t):
        nll = discretized_gaussian_nll(x0, mean_error, log_variance)
        nats = torch.where(t == 0, _mean_flat(nll), nats)
    return nats / math.log(2)


def _may_contain_zero(t: Tensor) -> bool:
    """Whether the NLL of t = 0, half of the loss's arithmetic, is needed; True where unknown.

    Only on the CPU is looking cheaper than computing: a device would have to be waited for.
    """
    if t.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return bool((t == 0).any())


def _normal_cdf(x: Tensor) -> Tensor:
    # [DiT] code `approx_standard_normal_cdf`, the tanh form that GELU is known for.
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)))


def _mean_flat(x: Tensor) -> Tensor:
    return x.flatten(1).mean(dim=1)


def _check_inputs(x0: Tensor, t: Tensor, noise: Tensor) -> None:
    if noise.shape != x0.shape or t.shape != x0.shape[:1]:
        raise UsageError(
            f"DDPM.loss got x0 {tuple(x0.shape)}, t {tuple(t.shape)} and noise "
            f"{tuple(noise.shape)}; expected one t per sample of x0, and noise of x0's shape."
        )


def _check_output(output: Tensor, x0: Tensor, *, learn_sigma: bool) -> None:
    channels = x0.shape[1] * (2 if learn_sigma else 1)
    expected = (x0.shape[0], channels, *x0.shape[2:])
    if output.shape != expected:
        raise UsageError(
            f"The network returned shape {tuple(output.shape)} for x_t {tuple(x0.shape)}; with "
            f"learn_sigma={learn_sigma} the objective expects {expected}. Make the model's output "
            "channels and DDPMConfig.learn_sigma agree."
        )

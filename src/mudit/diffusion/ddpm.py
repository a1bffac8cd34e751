"""The DiT training objective: noise prediction plus the variational bound of a learned variance.

Sources: [DDPM] Ho et al. 2020; [IDDPM] Nichol & Dhariwal 2021; [DiT] code
`GaussianDiffusion.training_losses` with LossType.MSE and LEARNED_RANGE variance.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mudit.diffusion.config import ObjectiveConfig
from mudit.diffusion.objective import Network, Terms, check_inputs, check_output, mean_flat
from mudit.diffusion.schedules import (
    Coefficients,
    compute_dtype,
    learned_log_variance,
    make_schedule,
    q_sample,
)
from mudit.errors import UsageError

# Half the width of a bin of uint8 images scaled to [-1, 1]; [DiT] code keeps it for latents.
_HALF_BIN = 1 / 255
# Beyond it a value lies in the outermost bin, which extends to infinity; [DDPM] Eq. 13.
_OUTERMOST = 0.999
_SMALLEST_PROBABILITY = 1e-12


class DDPM:
    """Draws t and computes the loss; knows the noise schedule and no network.

    Attributes:
        config: What it was made from.
        prediction: The noise.
        schedule: The `config.num_timesteps` steps that `config.betas` names.
    """

    prediction: Literal["noise"] = "noise"

    def __init__(self, config: ObjectiveConfig) -> None:
        if config.kind != "ddpm":
            raise UsageError(f"DDPM got kind={config.kind!r}; expected 'ddpm'.")
        self.config = config
        self.schedule = make_schedule(config.betas, config.num_timesteps)

    @property
    def term_names(self) -> tuple[str, ...]:
        """The terms of its loss."""
        return ("denoising", *(["variational_bound"] if self.config.learn_sigma else []))

    def num_outputs(self, channels: int) -> int:
        """As many as the data's, and as many again for a learned variance."""
        return channels * (2 if self.config.learn_sigma else 1)

    def draw_t(self, batch: int, generator: torch.Generator) -> Int[Tensor, " batch"]:
        """Independent uniform steps in [0, T), on the generator's device."""
        return torch.randint(
            self.config.num_timesteps, (batch,), generator=generator, device=generator.device
        )

    def stratified_t(self, count: int) -> Int[Tensor, " count"]:
        """Middles of `count` equal parts of [0, T), rounded down: a validation bank's steps."""
        return (2 * torch.arange(count) + 1) * self.config.num_timesteps // (2 * count)

    def told(self, t: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """`t`, counted from `first_step`."""
        return t + self.config.first_step if self.config.first_step else t

    def told_at(self, step: Int[Tensor, " batch"], *, dtype: torch.dtype) -> Int[Tensor, " batch"]:
        """What the network is given at steps of `schedule`: integers, whatever `dtype`."""
        return self.told(step)

    def noise_level(self, told: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Steps of noise in x_t, as a share of T: 1/T at t = 0, and 1 at T-1."""
        return (told - self.config.first_step + 1) / self.config.num_timesteps

    def loss(
        self,
        network: Network,
        x0: Float[Tensor, "batch channels *space"],
        t: Int[Tensor, " batch"],
        *,
        noise: Float[Tensor, "batch channels *space"],
    ) -> Terms:
        """Per-sample loss of `network` at `x0` noised to step `t` by `noise`. [IDDPM] Eq. 16.

        The mean of the variational bound is that of the detached noise prediction, so the bound
        trains the variance alone; its weight is 1 ([DiT] code, LossType.MSE). x0 is not clipped.

        Args:
            network: Called once, with x_t in x0's dtype and `told(t)`.
            x0: Data, scaled to about unit variance.
            t: Steps in [0, T), on x0's device.
            noise: Standard normal.

        Raises:
            UsageError: `noise`, `t` or the network's output has the wrong shape.
        """
        check_inputs("DDPM", x0, t, noise)
        at = self.schedule.at(t, like=x0)
        x_t = q_sample(at, x0, noise)
        output = network(x_t.to(x0.dtype), self.told(t))
        check_output(output, x0, self)
        output = output.to(compute_dtype(x0))  # under autocast it may be bfloat16
        channels = x0.shape[1]
        error = output[:, :channels] - noise
        denoising = mean_flat(error.square())
        if not self.config.learn_sigma:
            return Terms(total=denoising, denoising=denoising, variational_bound=None)
        # [DiT] code: the bound must not affect the prediction of the mean.
        mean_error = posterior_mean_error(at, error.detach())
        bound = _variational_bound(at, t, x0, mean_error, fraction=output[:, channels:])
        return Terms(total=denoising + bound, denoising=denoising, variational_bound=bound)


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
    nats = mean_flat(kl)
    if _may_contain_zero(t):
        nll = discretized_gaussian_nll(x0, mean_error, log_variance)
        nats = torch.where(t == 0, mean_flat(nll), nats)
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

"""Noise schedules in discrete time, and the conversions between x0, noise and x_t.

A `NoiseSchedule` holds one float64 number per step. `NoiseSchedule.at(t, like=x)` gathers a batch's
`Coefficients` from it, `NoiseSchedule.step(index)` those of one step as plain floats; the
conversions below are formulas over either kind. t = 0 is the least noise, t = T-1 the most.

Sources: [DDPM] Ho et al. 2020; [IDDPM] Nichol & Dhariwal 2021; [DiT] code, folder `diffusion`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from mudit.errors import UsageError

Spacing: TypeAlias = Literal["even", "stride"]
Betas: TypeAlias = Literal["linear", "scaled_linear"]

# Linear betas run from 0.1 / T to 20 / T ([DDPM] §4 at T = 1000): with 20 steps beta reaches 1.
_FEWEST_LINEAR_STEPS = 21
# Those of Stable Diffusion end at 12 / T.
_FEWEST_SCALED_LINEAR_STEPS = 13


class Coefficients(NamedTuple):
    """The numbers of a schedule at some t: floats, or tensors that broadcast against a batch.

    Attributes:
        x0_scale: sqrt(alphas_cumprod), the share of x0 in x_t.
        noise_scale: sqrt(1 - alphas_cumprod), the standard deviation of the noise in x_t.
        posterior_x0_scale: Weight of x0 in the mean of q(x_{t-1} | x_t, x0); [DDPM] Eq. 7.
        posterior_x_t_scale: Weight of x_t in that mean; [DDPM] Eq. 7.
        posterior_log_variance: Clipped log variance of q(x_{t-1} | x_t, x0), in nats.
        log_beta: log beta_t, in nats: the largest log variance of a reverse step.
    """

    x0_scale: Tensor | float
    noise_scale: Tensor | float
    posterior_x0_scale: Tensor | float
    posterior_x_t_scale: Tensor | float
    posterior_log_variance: Tensor | float
    log_beta: Tensor | float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NoiseSchedule:
    """A variance-preserving schedule of T steps; every table is float64, of shape (T,), on the CPU.

    Make one with `linear_schedule`, `respace` or `NoiseSchedule.from_betas`.

    Attributes:
        betas: Variance of the noise that step t adds.
        alphas_cumprod: Product of (1 - beta) up to and including t.
        alphas_cumprod_prev: The same one step earlier; 1 at t = 0.
        posterior_variance: Variance of q(x_{t-1} | x_t, x0), [DDPM] Eq. 7; 0 at t = 0.
        posterior_log_variance: Its log in nats, the entry at 0 replaced by that at 1 ([DiT] code).
        posterior_x0_scale: Weight of x0 in the mean of q(x_{t-1} | x_t, x0); [DDPM] Eq. 7.
        posterior_x_t_scale: Weight of x_t in that mean; [DDPM] Eq. 7.
    """

    betas: Float64[Tensor, " T"]
    alphas_cumprod: Float64[Tensor, " T"]
    alphas_cumprod_prev: Float64[Tensor, " T"]
    posterior_variance: Float64[Tensor, " T"]
    posterior_log_variance: Float64[Tensor, " T"]
    posterior_x0_scale: Float64[Tensor, " T"]
    posterior_x_t_scale: Float64[Tensor, " T"]
    # A (T, 6) table of `Coefficients` rows per device and dtype, so that a batch costs one gather.
    _tables: dict[tuple[torch.device, torch.dtype], Tensor] = field(
        default_factory=dict, init=False, repr=False
    )

    @classmethod
    def from_betas(cls, betas: Float64[Tensor, " T"]) -> NoiseSchedule:
        """The schedule that adds noise of variance `betas[t]` at step t.

        Raises:
            UsageError: Fewer than two betas, or one outside (0, 1).
        """
        if betas.numel() < 2 or not bool(((betas > 0) & (betas < 1)).all()):
            raise UsageError(
                f"A noise schedule got {betas.numel()} betas in "
                f"[{betas.min() if betas.numel() else '-'}, "
                f"{betas.max() if betas.numel() else '-'}]; expected at least 2 betas, each "
                "between 0 and 1 exclusive. Lower the largest beta, or use more timesteps."
            )
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        previous = torch.cat([betas.new_ones(1), alphas_cumprod[:-1]])
        variance = betas * (1 - previous) / (1 - alphas_cumprod)
        return cls(
            betas=betas,
            alphas_cumprod=alphas_cumprod,
            alphas_cumprod_prev=previous,
            posterior_variance=variance,
            # The variance at 0 is 0: its log is not usable, so [DiT] code repeats the entry at 1.
            posterior_log_variance=torch.cat([variance[1:2], variance[1:]]).log(),
            posterior_x0_scale=betas * previous.sqrt() / (1 - alphas_cumprod),
            posterior_x_t_scale=(1 - previous) * (1 - betas).sqrt() / (1 - alphas_cumprod),
        )

    @property
    def num_timesteps(self) -> int:
        """T, the number of steps."""
        return self.betas.shape[0]

    def at(
        self, t: Int[Tensor, " batch"], like: Float[Tensor, "batch channels *space"]
    ) -> Coefficients:
        """The coefficients at each sample's t.

        Args:
            t: Steps, each in [0, T); on the device of `like`. Not checked, as that would
                synchronise with the device.
            like: Gives the number of dimensions, the device and the dtype (at least float32).

        Returns:
            Six tensors of shape (batch, 1, ..., 1).
        """
        rows = self._table(like.device, compute_dtype(like)).index_select(0, t)  # (B, 6)
        shape = (-1, *[1] * (like.ndim - 1))
        return Coefficients(*[column.view(shape) for column in rows.unbind(1)])

    def step(self, index: int) -> Coefficients:
        """The coefficients at one step in [0, T), as float64 numbers."""
        return Coefficients(*self._table(torch.device("cpu"), torch.float64)[index].tolist())

    def _columns(self) -> Tensor:
        columns = Coefficients(
            x0_scale=self.alphas_cumprod.sqrt(),
            noise_scale=(1 - self.alphas_cumprod).sqrt(),
            posterior_x0_scale=self.posterior_x0_scale,
            posterior_x_t_scale=self.posterior_x_t_scale,
            posterior_log_variance=self.posterior_log_variance,
            log_beta=self.betas.log(),
        )
        return torch.stack([torch.as_tensor(column) for column in columns], dim=1)  # (T, 6)

    def _table(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        key = (device, dtype)
        if key not in self._tables:
            # Rounding the table and gathering from it equals gathering and rounding, without
            # float64 on the device, where it is slow or missing.
            self._tables[key] = self._columns().to(dtype).to(device)
        return self._tables[key]


def linear_schedule(num_timesteps: int = 1000) -> NoiseSchedule:
    """The linear schedule: betas from 1e-4 to 0.02, times 1000 / T.

    Source: [DDPM] §4; [DiT] code `get_named_beta_schedule("linear")`.

    Raises:
        UsageError: Fewer than 21 timesteps, where the last beta would reach 1.
    """
    if num_timesteps < _FEWEST_LINEAR_STEPS:
        raise UsageError(
            f"linear_schedule got num_timesteps={num_timesteps}; expected at least "
            f"{_FEWEST_LINEAR_STEPS}, as the last beta is 20 / num_timesteps and must stay below "
            "1. For few sampling steps keep num_timesteps and use respace."
        )
    scale = 1000 / num_timesteps
    return NoiseSchedule.from_betas(
        torch.linspace(scale * 1e-4, scale * 0.02, num_timesteps, dtype=torch.float64)
    )


def scaled_linear_schedule(num_timesteps: int = 1000) -> NoiseSchedule:
    """Stable Diffusion's schedule: betas whose roots run evenly from √0.00085 to √0.012.

    Source: [LDM] code `make_beta_schedule("linear")`; [U-ViT] code `train_ldm_discrete.py`.
    Assumption: for another number of steps the betas scale by 1000 / T, as the linear ones do.

    Raises:
        UsageError: Fewer than 13 timesteps, where the last beta would reach 1.
    """
    if num_timesteps < _FEWEST_SCALED_LINEAR_STEPS:
        raise UsageError(
            f"scaled_linear_schedule got num_timesteps={num_timesteps}; expected at least "
            f"{_FEWEST_SCALED_LINEAR_STEPS}, as the last beta is 12 / num_timesteps and must stay "
            "below 1. For few sampling steps keep num_timesteps and use respace."
        )
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, num_timesteps, dtype=torch.float64)
    return NoiseSchedule.from_betas(1000 / num_timesteps * roots.square())


def make_schedule(betas: Betas, num_timesteps: int) -> NoiseSchedule:
    """The schedule of a name: `linear` or `scaled_linear`.

    Raises:
        UsageError: Too few timesteps, or no such schedule.
    """
    if betas == "linear":
        return linear_schedule(num_timesteps)
    if betas == "scaled_linear":
        return scaled_linear_schedule(num_timesteps)
    raise UsageError(f"objective.betas is {betas!r}, expected 'linear' or 'scaled_linear'.")


def respace(
    schedule: NoiseSchedule, sampling_steps: int, *, spacing: Spacing = "even"
) -> tuple[NoiseSchedule, tuple[int, ...]]:
    """A schedule of only `sampling_steps` of the steps, with the same alphas_cumprod at those.

    Source: [IDDPM] §4; [DiT] code `SpacedDiffusion`.

    Args:
        schedule: The schedule that a model was trained with.
        sampling_steps: How many of its steps to keep.
        spacing: Which ones: see `even_timesteps` ([DiT] code "250") and `strided_timesteps`
            ("ddim250").

    Returns:
        The shorter schedule, and for each of its steps the original t, which is what the model
        must be given.

    Raises:
        UsageError: `sampling_steps` is out of range or impossible with this spacing, or `spacing`
            is unknown.
    """
    pick = {"even": even_timesteps, "stride": strided_timesteps}.get(spacing)
    if pick is None:
        raise UsageError(f"respace got spacing={spacing!r}; expected 'even' or 'stride'.")
    original = pick(schedule.num_timesteps, sampling_steps)
    kept = schedule.alphas_cumprod[list(original)]
    previous = torch.cat([kept.new_ones(1), kept[:-1]])
    return NoiseSchedule.from_betas(1 - kept / previous), original


def even_timesteps(num_timesteps: int, sampling_steps: int) -> tuple[int, ...]:
    """`sampling_steps` evenly spaced steps from 0 to T-1, both included, rounded half to even.

    Source: [DiT] code `space_timesteps("250")`: 0, 4, 8, 12, ..., 991, 995, 999.

    Raises:
        UsageError: `sampling_steps` is not in [2, T].
    """
    _check_sampling_steps(num_timesteps, sampling_steps)
    stride = (num_timesteps - 1) / (sampling_steps - 1)
    steps, position = [], 0.0
    for _ in range(sampling_steps):
        steps.append(round(position))
        # Summed, not multiplied, as in [DiT] code: the rounding error of the sum decides the ties
        # (21 steps of 1000 visit 499; `round(i * stride)` would visit 500).
        position += stride
    return tuple(steps)


def strided_timesteps(num_timesteps: int, sampling_steps: int) -> tuple[int, ...]:
    """Every k-th step from 0, for the one integer k that gives `sampling_steps` of them.

    The last step visited lies below T-1 in general, so sampling starts at less than full noise.
    Source: [DiT] code `space_timesteps("ddimN")`.

    Raises:
        UsageError: `sampling_steps` is not in [2, T], or no integer stride gives that many.
    """
    _check_sampling_steps(num_timesteps, sampling_steps)
    stride = math.ceil(num_timesteps / sampling_steps)  # the smallest that gives no more steps
    steps = tuple(range(0, num_timesteps, stride))
    if len(steps) != sampling_steps:
        raise UsageError(
            f"No integer stride makes {sampling_steps} steps out of {num_timesteps}; the nearest "
            f"are {len(steps)} (stride {stride}) and {math.ceil(num_timesteps / (stride - 1))} "
            f"(stride {stride - 1}). Use one of these, or spacing='even'."
        )
    return steps


def q_sample(
    at: Coefficients,
    x0: Float[Tensor, "batch channels *space"],
    noise: Float[Tensor, "batch channels *space"],
) -> Float[Tensor, "batch channels *space"]:
    """x_t: `x0` with `noise` mixed in. [DDPM] Eq. 4."""
    return at.x0_scale * x0 + at.noise_scale * noise


def predict_x0_from_noise(
    at: Coefficients,
    x_t: Float[Tensor, "batch channels *space"],
    noise: Float[Tensor, "batch channels *space"],
) -> Float[Tensor, "batch channels *space"]:
    """The x0 that `x_t` came from, were `noise` the noise in it. [DDPM] Eq. 15."""
    return (x_t - at.noise_scale * noise) / at.x0_scale


def predict_noise_from_x0(
    at: Coefficients,
    x_t: Float[Tensor, "batch channels *space"],
    x0: Float[Tensor, "batch channels *space"],
) -> Float[Tensor, "batch channels *space"]:
    """The noise in `x_t`, had it come from `x0`: the inverse of `predict_x0_from_noise`."""
    return (x_t - at.x0_scale * x0) / at.noise_scale


def posterior_mean(
    at: Coefficients,
    x0: Float[Tensor, "batch channels *space"],
    x_t: Float[Tensor, "batch channels *space"],
) -> Float[Tensor, "batch channels *space"]:
    """Mean of q(x_{t-1} | x_t, x0), [DDPM] Eq. 7; log variance: `at.posterior_log_variance`."""
    return at.posterior_x0_scale * x0 + at.posterior_x_t_scale * x_t


def learned_log_variance(
    at: Coefficients, fraction: Float[Tensor, "batch channels *space"]
) -> Float[Tensor, "batch channels *space"]:
    """Log variance in nats of a reverse step with learned range. [IDDPM] Eq. 15.

    Args:
        at: The coefficients at the step.
        fraction: The variance half of a model's output, unbounded: -1 means the posterior's
            (clipped) log variance, +1 means log beta ([DiT] code's parametrization of v).
    """
    weight = (fraction + 1) / 2
    return weight * at.log_beta + (1 - weight) * at.posterior_log_variance


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that diffusion arithmetic on `x` is done in: its own, but at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def _check_sampling_steps(num_timesteps: int, sampling_steps: int) -> None:
    if not 2 <= sampling_steps <= num_timesteps:
        raise UsageError(
            f"Got sampling_steps={sampling_steps}; expected 2 to {num_timesteps}, the number of "
            "steps that the model was trained with."
        )

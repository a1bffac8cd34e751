"""From an objective to the scheduler of diffusers that samples as `mudit sample` does."""

from __future__ import annotations

from typing import Any

from mudit.diffusion import ObjectiveConfig
from mudit.errors import UsageError
from mudit.export.extras import diffusers

# [LDM] and [DDPM]: the first and the last beta of 1000 steps; for T steps they are 1000/T as large.
_BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}
# Of a flow. Without `sigmas=`, the scheduler's last step starts at 1/N of the noise, N being what t
# is multiplied by: it would do next to nothing with N = 1.
_FEWEST_STEPS = 100


def scheduler_for(config: ObjectiveConfig) -> Any:
    """The scheduler of what was trained with `config`.

    Noise on discrete steps: DPM-Solver++(2M), the same as `mudit sample --method dpm++`. Flows:
    Euler's steps, the same as `--method euler` where the pipeline is given `sigmas_of(steps)`.

    Raises:
        EnvironmentFailure: diffusers is not installed.
        UsageError: No scheduler tells a network the time as this objective does.
    """
    library = diffusers()
    if config.kind == "flow":
        return _flow_scheduler(library, config)
    if config.kind == "vp_sde":
        raise UsageError(
            "objective.kind is vp_sde: its network is told a continuous time, "
            f"{config.time_scale:g} t, where the pipelines of diffusers tell the number of a step. "
            "Sample it with `mudit sample`, or train with objective.kind ddpm."
        )
    if config.first_step:
        raise UsageError(
            f"objective.first_step is {config.first_step}: the network counts steps from there, "
            "and the pipelines of diffusers count them from 0. Sample it with `mudit sample`, or "
            "train with objective.first_step 0."
        )
    first, last = (1000 / config.num_timesteps * beta for beta in _BETAS[config.betas])
    return library.DPMSolverMultistepScheduler(
        num_train_timesteps=config.num_timesteps,
        beta_start=first,
        beta_end=last,
        beta_schedule=config.betas,
        prediction_type="epsilon",
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="linspace",
        final_sigmas_type="zero",
    )


def sigmas_of(steps: int) -> list[float]:
    """What a flow's pipeline must be given as `sigmas`, so that all steps are of one size.

    Left to itself, `FlowMatchEulerDiscreteScheduler` spaces them from 1 to 1/1000, and adds a step
    from there to 0. The shift is applied to either.
    """
    return [1 - step / steps for step in range(steps)]


def _flow_scheduler(library: Any, config: ObjectiveConfig) -> Any:
    scale = config.time_scale
    if not float(scale).is_integer() or scale < _FEWEST_STEPS:
        raise UsageError(
            f"objective.time_scale is {scale:g}; the scheduler of diffusers multiplies t by its "
            f"number of steps, a whole number, and needs at least {_FEWEST_STEPS} of them. Sample "
            "it with `mudit sample`, or train with objective.time_scale 1000."
        )
    return library.FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=int(scale), shift=config.shift
    )

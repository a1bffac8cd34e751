"""DPM-Solver++, of which diffusers' scheduler does the work.

Source: [DPM-Solver] Lu et al. 2022, Algorithm 2; diffusers' `DPMSolverMultistepScheduler`.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mudit.diffusion.flow import Flow
from mudit.diffusion.objective import Network, NoiseObjective
from mudit.diffusion.samplers import Callback, SamplerStep, split_output
from mudit.errors import EnvironmentFailure, UsageError


def sample_dpm_solver(
    network: Network,
    x_T: Float[Tensor, "batch channels *space"],
    objective: NoiseObjective | Flow,
    *,
    sampling_steps: int,
    callback: Callback | None = None,
) -> Float[Tensor, "batch channels *space"]:
    """Samples by DPM-Solver++(2M): deterministic, second order in the logarithm of the noise.

    Steps are at equal distances of t (a flow's: before its shift, from 0.999); the first and the
    last are of first order. A variance half of the network's output is ignored.

    Args:
        network: Called without gradients, `sampling_steps` times, with x_t in the dtype of `x_T`.
        x_T: Standard normal noise.
        objective: What it was trained with.
        sampling_steps: At most the objective's number of steps, if it has one.
        callback: Called once per step.

    Returns:
        Samples, in the dtype of `x_T`; the arithmetic is done in float32, as diffusers does.

    Raises:
        EnvironmentFailure: diffusers is not installed.
        UsageError: `sampling_steps` is impossible, or the network's output has a wrong shape.
    """
    scheduler = _scheduler(objective, sampling_steps)
    x_t = x_T.float()
    with torch.no_grad():
        for index, step in enumerate(scheduler.timesteps.tolist()):
            t = scheduler.sigmas[index].item() if isinstance(objective, Flow) else step
            told = _told(objective, t, x_t)
            prediction = _prediction(network(x_t.to(x_T.dtype), told), x_t, objective)
            result = scheduler.step(prediction, step, x_t, return_dict=False)
            if callback is not None:
                # The scheduler keeps the predictions of x0 that it steps with, the newest last.
                x0 = scheduler.model_outputs[-1]
                callback(SamplerStep(index=index, t=t, x_t=x_t, x0=x0))
            x_t = result[0]
    return x_t.to(x_T.dtype)


def _scheduler(objective: NoiseObjective | Flow, sampling_steps: int) -> Any:
    try:
        from diffusers import DPMSolverMultistepScheduler
    except ImportError:
        raise EnvironmentFailure(
            "Sampling by dpm++ needs diffusers, which is not installed: "
            "pip install 'mudit[diffusers]'."
        ) from None
    # Of T timesteps it would visit one twice in T steps, and a step of length 0 gives NaN.
    most = None if isinstance(objective, Flow) else objective.schedule.num_timesteps - 1
    if sampling_steps < 1 or (most is not None and sampling_steps > most):
        raise UsageError(
            f"Got sampling_steps={sampling_steps}; expected at least 1"
            + ("." if most is None else f", and at most {most} for this objective.")
        )
    options: dict[str, Any]
    if isinstance(objective, Flow):
        options = {
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": objective.config.shift,
        }
    else:
        options = {
            "prediction_type": "epsilon",
            "num_train_timesteps": objective.schedule.num_timesteps,
            "trained_betas": objective.schedule.betas.numpy(),
        }
    make: Any = DPMSolverMultistepScheduler  # which has no annotations
    scheduler = make(
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="linspace",
        final_sigmas_type="zero",
        **options,
    )
    with warnings.catch_warnings():
        # It makes arrays of tensors in a way that NumPy 2 does not like.
        warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
        scheduler.set_timesteps(sampling_steps)
    # It would look each step up by its integer time, of which a flow's are rounded and may repeat.
    scheduler.set_begin_index(0)
    return scheduler


def _told(objective: NoiseObjective | Flow, t: int | float, x_t: Tensor) -> Tensor:
    """What the network is given: from the step, or from a flow's t."""
    if isinstance(objective, Flow):
        return objective.told(torch.full(x_t.shape[:1], t, device=x_t.device))
    return objective.told_at(torch.full(x_t.shape[:1], t, device=x_t.device), dtype=x_t.dtype)


def _prediction(output: Tensor, x_t: Tensor, objective: NoiseObjective | Flow) -> Tensor:
    """The noise or the velocity, in float32."""
    if isinstance(objective, Flow) and output.shape != x_t.shape:
        raise UsageError(
            f"The network returned shape {tuple(output.shape)} for x_t {tuple(x_t.shape)}; a "
            "flow's sampler expects a velocity of x_t's shape."
        )
    return split_output(output, x_t)[0].float()

"""Flow samplers, DPM-Solver++ and Stable Diffusion's betas against diffusers' schedulers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from mudit.diffusion import (
    Flow,
    ObjectiveConfig,
    make_objective,
    sample,
    sample_euler,
    scaled_linear_schedule,
    shifted,
)

# Their states are float32: 50 steps of rounding, amplified where x_T is divided by 0.006.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def network(x_t: Tensor, told: Tensor) -> Tensor:
    """Nonlinear in x_t and in time, so that each time that a network is told leaves a trace."""
    phase = told.to(x_t.dtype).view(-1, 1, 1, 1) / 100
    return 0.8 * x_t + 0.2 * torch.sin(3 * x_t + phase)


def start() -> Tensor:
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 10, 50])
def test_euler_takes_diffusers_steps(shift: float, steps: int) -> None:
    """With our times before the shift; their own default ends at 1/1000 of them, not at 0."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, steps + 1)[:-1].tolist())
    x_t = start()
    for t in scheduler.timesteps:  # which are 1000 t
        x_t = scheduler.step(network(x_t, t.expand(3)), t, x_t).prev_sample
    flow = Flow(ObjectiveConfig(kind="flow", shift=shift))
    torch.testing.assert_close(
        sample_euler(network, start(), flow, sampling_steps=steps), x_t, **TOLERANCE
    )


def test_another_shift_or_scale_takes_others() -> None:
    """Planted: the comparison above tells them apart."""
    ends = [
        sample_euler(
            network,
            start(),
            Flow(ObjectiveConfig(kind="flow", shift=shift, time_scale=time_scale)),
            sampling_steps=10,
        )
        for shift, time_scale in ((1.0, 1000.0), (3.0, 1000.0), (1.0, 900.0))
    ]
    assert float((ends[1] - ends[0]).abs().max()) > 0.01
    assert float((ends[2] - ends[0]).abs().max()) > 0.01


def test_the_shift_is_diffusers_shift() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)  # its table: 1000/1000, ..., 1/1000
    table = torch.arange(1000, 0, -1) / 1000
    torch.testing.assert_close(scheduler.sigmas, shifted(table, 3.0))


def test_noising_is_diffusers_noising() -> None:
    seen: list[Tensor] = []
    x0, noise = start(), start().flip(0)
    t = torch.tensor([0.1, 0.5, 1.0])

    def recorded(x_t: Tensor, told: Tensor) -> Tensor:
        seen.append(x_t)
        return torch.zeros_like(x_t)

    Flow(ObjectiveConfig(kind="flow")).loss(recorded, x0, t, noise=noise)
    scheduler = FlowMatchEulerDiscreteScheduler()
    torch.testing.assert_close(seen[0], scheduler.scale_noise(x0, 1000 * t, noise))


BETAS = {
    "linear": {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"},
    "scaled_linear": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
    },
}


def test_stable_diffusions_betas_are_diffusers() -> None:
    scheduler = DDIMScheduler(**BETAS["scaled_linear"])
    torch.testing.assert_close(scheduler.betas.double(), scaled_linear_schedule().betas)


def walked(scheduler: Any, steps: int, told) -> Tensor:  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
        scheduler.set_timesteps(steps)
    x_t = start()
    for step, sigma in zip(scheduler.timesteps, scheduler.sigmas):
        output = network(x_t, told(step, sigma).expand(3))
        x_t = scheduler.step(output, step, x_t).prev_sample
    return x_t


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("first_step", [0, 1])
def test_dpm_solver_on_discrete_steps_is_that_of_a_plain_pipeline(
    betas: Any, first_step: int, steps: int
) -> None:
    """diffusers' scheduler as its pipelines set it up, by the names of its schedules."""
    scheduler = DPMSolverMultistepScheduler(**BETAS[betas])
    end = walked(scheduler, steps, lambda step, sigma: step + first_step)
    objective = make_objective(
        ObjectiveConfig(learn_sigma=False, betas=betas, first_step=first_step)
    )
    got = sample(network, start(), objective, method="dpm++", sampling_steps=steps)
    torch.testing.assert_close(got, end, rtol=1e-3, atol=1e-3)


def test_dpm_solver_drops_the_variance_half() -> None:
    def both(x_t: Tensor, told: Tensor) -> Tensor:
        return torch.cat([network(x_t, told), torch.full_like(x_t, 9.0)], dim=1)

    options: dict[str, Any] = {"method": "dpm++", "sampling_steps": 5}
    objective = make_objective(ObjectiveConfig())
    assert torch.equal(
        sample(both, start(), objective, **options), sample(network, start(), objective, **options)
    )


@pytest.mark.parametrize(("shift", "steps"), [(1.0, 5), (1.0, 20), (3.0, 20)])
def test_dpm_solver_on_flows_is_told_exact_times(shift: float, steps: int) -> None:
    """Pipelines tell the network times rounded down to thousandths; ours are not."""
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    end = walked(scheduler, steps, lambda step, sigma: 1000 * sigma)
    objective = make_objective(ObjectiveConfig(kind="flow", shift=shift))
    got = sample(network, start(), objective, method="dpm++", sampling_steps=steps)
    torch.testing.assert_close(got, end, **TOLERANCE)


def test_ddim_on_stable_diffusions_schedule_takes_diffusers_steps() -> None:
    scheduler = DDIMScheduler(
        **BETAS["scaled_linear"],
        timestep_spacing="linspace",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    scheduler.set_timesteps(1000)  # all steps: no choice of spacing
    x_t = start()
    for step in scheduler.timesteps:
        x_t = scheduler.step(network(x_t, (step + 1).expand(3)), step, x_t).prev_sample
    objective = make_objective(
        ObjectiveConfig(learn_sigma=False, betas="scaled_linear", first_step=1)
    )
    got = sample(network, start(), objective, sampling_steps=1000)
    torch.testing.assert_close(got, x_t, rtol=1e-3, atol=1e-3)

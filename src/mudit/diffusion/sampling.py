"""One call shape for all samplers."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from jaxtyping import Float
from torch import Tensor

from mudit.diffusion.config import ObjectiveConfig
from mudit.diffusion.dpm_solver import sample_dpm_solver
from mudit.diffusion.flow import Flow
from mudit.diffusion.flow_samplers import sample_euler, sample_heun, sample_sde
from mudit.diffusion.noise import SampleNoise
from mudit.diffusion.objective import Network, NoiseObjective, Objective
from mudit.diffusion.samplers import Callback, sample_ddim, sample_ddpm
from mudit.diffusion.schedules import compute_dtype
from mudit.errors import UsageError

Method: TypeAlias = Literal["ddpm", "ddim", "euler", "heun", "sde", "dpm++"]

# The first is what is taken where none is named.
_NOISE_METHODS: tuple[Method, ...] = ("ddim", "ddpm", "dpm++")
_FLOW_METHODS: tuple[Method, ...] = ("euler", "heun", "sde", "dpm++")


def sample(
    network: Network,
    x_T: Float[Tensor, "batch channels *space"],
    objective: Objective,
    *,
    method: Method | None = None,
    sampling_steps: int,
    noise: SampleNoise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "batch channels *space"]:
    """Samples of a network, by any method that suits what it was trained with.

    Args:
        network: As in training; called without gradients, with x_t in the dtype of `x_T`.
        x_T: Standard normal noise, e.g. `noise.initial(shape)`.
        objective: What the network was trained with.
        method: `ddim`, `ddpm` or `dpm++` for noise, `euler`, `heun`, `sde` or `dpm++` for a flow;
            None: the first of these.
        sampling_steps: Steps; `heun` calls the network about twice in each.
        noise: Each sample's own; `ddpm` and `sde` need it.
        callback: Called once per step.

    Returns:
        Samples, in the dtype of `x_T`.

    Raises:
        EnvironmentFailure: `dpm++` without diffusers.
        UsageError: The method does not suit the objective or lacks noise, `sampling_steps` is
            impossible, or the network's output has a wrong shape.
    """
    method = resolve_method(method, objective.config)
    if method in ("ddpm", "sde") and noise is None:
        raise UsageError(
            f"Sampling by {method} got no noise, and each step draws some. Pass "
            "noise=SampleNoise.of(count, seed=...)."
        )
    if isinstance(objective, Flow):
        return _sample_flow(network, x_T, objective, method, sampling_steps, noise, callback)
    assert isinstance(objective, NoiseObjective)
    return _sample_noise(network, x_T, objective, method, sampling_steps, noise, callback)


def resolve_method(method: Method | None, config: ObjectiveConfig) -> Method:
    """`method`, or for None the objective's first.

    Raises:
        UsageError: It does not suit the objective, or does not exist.
    """
    suitable = _FLOW_METHODS if config.kind == "flow" else _NOISE_METHODS
    if method is None:
        return suitable[0]
    if method not in get_args(Method):
        raise UsageError(
            f"The sampling method is {method!r}, expected one of {', '.join(get_args(Method))}."
        )
    if method not in suitable:
        raise UsageError(
            f"The sampling method {method} does not suit objective.kind {config.kind}; expected "
            f"one of {', '.join(suitable)}."
        )
    return method


def check_steps(steps: int, method: Method | None, config: ObjectiveConfig, *, name: str) -> None:
    """Refuse more steps than the objective has timesteps for; a flow takes any number.

    Args:
        steps: Steps of the sampler.
        method: Its name; None: the objective's first.
        config: The objective.
        name: What the user calls the number.

    Raises:
        UsageError: They are too many, or the method does not suit the objective.
    """
    method = resolve_method(method, config)
    if config.kind == "flow":
        return
    most, why = config.num_timesteps, "objective.num_timesteps"
    if method == "dpm++":  # whose steps lie between timesteps
        most, why = most - 1, "objective.num_timesteps - 1, for dpm++"
    if steps > most:
        raise UsageError(f"{name} is {steps}, expected at most {most} ({why}).")


def _sample_flow(
    network: Network,
    x_T: Tensor,
    flow: Flow,
    method: Method,
    sampling_steps: int,
    noise: SampleNoise | None,
    callback: Callback | None,
) -> Tensor:
    if method == "sde":
        assert noise is not None
        return sample_sde(
            network, x_T, flow, sampling_steps=sampling_steps, noise=noise, callback=callback
        )
    sampler = {"euler": sample_euler, "heun": sample_heun, "dpm++": sample_dpm_solver}[method]
    return sampler(network, x_T, flow, sampling_steps=sampling_steps, callback=callback)


def _sample_noise(
    network: Network,
    x_T: Tensor,
    objective: NoiseObjective,
    method: Method,
    sampling_steps: int,
    noise: SampleNoise | None,
    callback: Callback | None,
) -> Tensor:
    if method == "dpm++":
        return sample_dpm_solver(
            network, x_T, objective, sampling_steps=sampling_steps, callback=callback
        )

    def at_steps(x_t: Tensor, step: Tensor) -> Tensor:
        return network(x_t, objective.told_at(step, dtype=compute_dtype(x_t)))

    schedule = objective.schedule
    if method == "ddim":
        return sample_ddim(
            at_steps, x_T, schedule, sampling_steps=sampling_steps, callback=callback
        )
    assert noise is not None
    return sample_ddpm(
        at_steps, x_T, schedule, sampling_steps=sampling_steps, noise=noise, callback=callback
    )

"""One call shape for all samplers: what suits what, and where each one ends on Gaussian data."""

from __future__ import annotations

import builtins
import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from mudit.diffusion import (
    Method,
    Network,
    Objective,
    ObjectiveConfig,
    SampleNoise,
    SamplerStep,
    check_steps,
    make_objective,
    resolve_method,
    sample,
)
from mudit.errors import EnvironmentFailure, UsageError

MEAN, STD = 0.7, 0.4
OBJECTIVES: dict[str, ObjectiveConfig] = {
    "dit": ObjectiveConfig(),
    "u-vit, discrete": ObjectiveConfig(learn_sigma=False, betas="scaled_linear", first_step=1),
    "u-vit, continuous": ObjectiveConfig(kind="vp_sde", time_scale=999.0),
    "sd3": ObjectiveConfig(kind="flow", time_law="logit_normal", shift=3.0),
    "repa": ObjectiveConfig(kind="flow", time_scale=1.0),
}
SUITS: dict[str, set[str]] = {
    "ddpm": {"ddpm", "ddim", "dpm++"},
    "vp_sde": {"ddpm", "ddim", "dpm++"},
    "flow": {"euler", "heun", "sde", "dpm++"},
}
CASES = [
    (name, method)
    for name, config in OBJECTIVES.items()
    for method in get_args(Method)
    if method in SUITS[config.kind]
]


def best_network(objective: Objective) -> Network:
    """The best prediction for N(MEAN, STD²) data; it reads the objective's own times."""
    config = objective.config

    def network(x_t: Tensor, told: Tensor) -> Tensor:
        if config.kind == "flow":
            t = float(told[0]) / config.time_scale
            data, noise = 1 - t, t
            target = noise - data * STD**2
        else:
            if config.kind == "vp_sde":
                t = float(told[0]) / config.time_scale
                kept = math.exp(-(0.1 * t + 9.95 * t * t))
            else:
                assert told.dtype == torch.int64
                kept = alphas_cumprod(config)[int(told[0]) - config.first_step]
            data, noise = math.sqrt(kept), math.sqrt(1 - kept)
            target = noise
        slope = target / (data**2 * STD**2 + noise**2)
        offset = -MEAN if config.kind == "flow" else 0.0
        out = offset + slope * (x_t - data * MEAN)
        return torch.cat([out, out], dim=1) if config.learns_variance else out

    return network


def alphas_cumprod(config: ObjectiveConfig) -> list[float]:
    ends = (1e-4, 0.02) if config.betas == "linear" else (0.00085**0.5, 0.012**0.5)
    betas = torch.linspace(*ends, 1000, dtype=torch.float64)
    betas = betas if config.betas == "linear" else betas.square()
    return (1 - betas).cumprod(0).tolist()


def marginal(config: ObjectiveConfig) -> tuple[float, float]:
    """Mean and deviation of x_T; Stable Diffusion's schedule leaves 7 % of the data in it."""
    if config.kind == "flow":
        return 0.0, 1.0
    kept = math.exp(-10.05) if config.kind == "vp_sde" else alphas_cumprod(config)[-1]
    return math.sqrt(kept) * MEAN, math.sqrt(kept * STD**2 + 1 - kept)


def end(objective: Objective, method: Method, steps: int) -> Tensor:
    normal = torch.randn(2, 1, 20_000, generator=torch.Generator().manual_seed(0))
    mean, std = marginal(objective.config)
    x_T = mean + std * normal
    noise = SampleNoise.of(2, seed=0)
    network = best_network(objective)
    return sample(network, x_T, objective, method=method, sampling_steps=steps, noise=noise)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_every_sampler_ends_near_the_data(name: str, method: Method) -> None:
    """Within 0.02 of the data's mean and deviation: 40,000 draws, 200 steps.

    The SDE's last step is as long as 0.04, shifted to 0.11, whatever the number of steps.
    """
    x = end(make_objective(OBJECTIVES[name]), method, 200).double()
    tolerance = 0.06 if (name, method) == ("sd3", "sde") else 0.02
    assert float(x.mean()) == pytest.approx(MEAN, abs=tolerance)
    assert float(x.std()) == pytest.approx(STD, abs=tolerance)


@pytest.mark.parametrize("name", ["u-vit, discrete", "u-vit, continuous", "repa"])
def test_an_objective_with_other_times_ends_elsewhere(name: str) -> None:
    """Planted: the network is told times that start or scale differently, or are not shifted."""
    right = make_objective(OBJECTIVES[name])
    network = best_network(right)
    wrong: dict[str, Any] = {
        "u-vit, discrete": lambda x, t: network(x, (t - 1).clamp(min=1)),
        "u-vit, continuous": lambda x, t: network(x, 0.9 * t),
        "repa": lambda x, t: network(x, 0.9 * t),
    }
    x_T = torch.tensor([[[0.0, 1.0]]])
    method = resolve_method(None, right.config)
    options: dict[str, Any] = {"method": method, "sampling_steps": 200}
    good = sample(network, x_T, right, **options)
    bad = sample(wrong[name], x_T, right, **options)
    assert float((good - bad).abs().max()) > 1e-3


@pytest.mark.parametrize(("kind", "timesteps"), [("ddpm", 50), ("ddpm", 1000), ("vp_sde", 1000)])
def test_dpm_solver_takes_one_step_less_than_there_are_timesteps(kind: Any, timesteps: int) -> None:
    """In as many it would visit one of them twice, and a step of length 0 gives NaN."""
    config = ObjectiveConfig(kind=kind, num_timesteps=timesteps, learn_sigma=False)
    objective, x_T = make_objective(config), torch.randn(2, 1, 5)

    def zero(x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)

    x = sample(zero, x_T, objective, method="dpm++", sampling_steps=timesteps - 1)
    assert x.isfinite().all()
    with pytest.raises(UsageError, match=f"at most {timesteps - 1} "):
        sample(zero, x_T, objective, method="dpm++", sampling_steps=timesteps)
    for method, most in (("dpm++", timesteps - 1), ("ddim", timesteps), (None, timesteps)):
        check_steps(most, method, config, name="steps")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=f"steps is {most + 1}, expected at most {most} "):
            check_steps(most + 1, method, config, name="steps")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_dpm_solver_comes_nearer_than_first_order(name: str) -> None:
    """The probability flow's end is known: 20 steps come nearer to it than the first method's."""
    objective = make_objective(OBJECTIVES[name])
    x_T = torch.tensor([[[-1.0, 0.0, 1.0]]])
    x = {
        (method, steps): sample(
            best_network(objective), x_T, objective, method=method, sampling_steps=steps
        )
        for method in (resolve_method(None, objective.config), "dpm++")
        for steps in (20, 80)
    }
    mean, std = marginal(objective.config)
    exact = MEAN + STD * (x_T - mean) / std
    off = {key: float((value - exact).abs().max()) for key, value in x.items()}
    first = resolve_method(None, objective.config)
    # Its last step, to no noise at all, is of first order, and most of what is left.
    assert off["dpm++", 20] < 0.9 * off[first, 20]
    assert off["dpm++", 80] < 0.015


@pytest.mark.parametrize("kind", SUITS)
@pytest.mark.parametrize("method", get_args(Method))
def test_a_method_that_does_not_suit_is_refused(kind, method: Method) -> None:  # type: ignore[no-untyped-def]
    config = ObjectiveConfig(kind=kind)
    if method in SUITS[kind]:
        assert resolve_method(method, config) == method
        return
    with pytest.raises(UsageError, match=rf"method {method} does not suit objective.kind {kind}"):
        sample(
            lambda x, t: x,
            torch.zeros(1, 1),
            make_objective(config),
            method=method,
            sampling_steps=5,
        )


def test_the_first_method_is_deterministic() -> None:
    assert resolve_method(None, ObjectiveConfig()) == "ddim"
    assert resolve_method(None, ObjectiveConfig(kind="vp_sde")) == "ddim"
    assert resolve_method(None, ObjectiveConfig(kind="flow")) == "euler"


def test_an_unknown_method_is_refused(unchecked_types: None) -> None:
    with pytest.raises(UsageError, match="'plms', expected one of ddpm, ddim, euler"):
        resolve_method("plms", ObjectiveConfig())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "method"), [("ddpm", "ddpm"), ("vp_sde", "ddpm"), ("flow", "sde")]
)
def test_a_method_that_draws_needs_noise(kind, method: Method) -> None:  # type: ignore[no-untyped-def]
    objective = make_objective(ObjectiveConfig(kind=kind))
    with pytest.raises(UsageError, match=f"by {method} got no noise"):
        sample(lambda x, t: x, torch.zeros(1, 1), objective, method=method, sampling_steps=5)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_batches_and_order_change_nothing(name: str, method: Method) -> None:
    """To the bit, with a network that works sample by sample."""
    objective = make_objective(OBJECTIVES[name])
    network = best_network(objective)
    noise = SampleNoise.of(7, seed=11)

    def drawn(part: SampleNoise) -> Tensor:
        x_T = part.initial((2, 3, 3))
        return sample(network, x_T, objective, method=method, sampling_steps=6, noise=part)

    whole = drawn(noise)
    assert torch.equal(whole, torch.cat([drawn(noise[:3]), drawn(noise[3:])]))
    assert torch.equal(whole[[5, 1]], drawn(SampleNoise(seed=11, numbers=(5, 1))))


@pytest.mark.parametrize(("name", "method"), CASES)
def test_every_sampler_tells_its_steps(name: str, method: Method) -> None:
    steps: list[SamplerStep] = []
    objective = make_objective(OBJECTIVES[name])
    sample(
        best_network(objective),
        torch.ones(2, 1, 3),
        objective,
        method=method,
        sampling_steps=5,
        noise=SampleNoise.of(2, seed=0),
        callback=steps.append,
    )
    assert [step.index for step in steps] == list(range(5))
    times = [step.t for step in steps]
    assert times == sorted(times, reverse=True)
    assert all(step.x0.shape == step.x_t.shape == (2, 1, 3) for step in steps)
    # From the last x_t the best prediction of x0 is near it: little noise is left.
    assert float((steps[-1].x0 - steps[-1].x_t).abs().max()) < 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_half_precision_does_not_reach_the_times(name: str) -> None:
    """999 in bfloat16 would be 1000."""
    seen: set[torch.dtype] = set()
    objective = make_objective(OBJECTIVES[name])

    def network(x_t: Tensor, told: Tensor) -> Tensor:
        assert x_t.dtype == torch.bfloat16
        seen.add(told.dtype)
        return x_t

    for method in SUITS[objective.config.kind]:
        x = sample(
            network,
            torch.ones(2, 1, 3).bfloat16(),
            objective,
            method=method,  # type: ignore[arg-type]
            sampling_steps=5,
            noise=SampleNoise.of(2, seed=0),
        )
        assert x.dtype == torch.bfloat16
    assert seen == {torch.int64 if objective.config.kind == "ddpm" else torch.float32}


@pytest.mark.parametrize("kind", SUITS)
def test_dpm_solver_refuses_impossible_steps_and_outputs(kind) -> None:  # type: ignore[no-untyped-def]
    objective = make_objective(ObjectiveConfig(kind=kind))
    options: dict[str, Any] = {"method": "dpm++", "sampling_steps": 5}
    for steps in (0, 1001) if kind != "flow" else (0,):
        impossible = options | {"sampling_steps": steps}
        with pytest.raises(UsageError, match=f"sampling_steps={steps}; expected at least 1"):
            sample(lambda x, t: x, torch.zeros(1, 1), objective, **impossible)
    three = lambda x, t: x.expand(-1, 3, -1)  # noqa: E731
    with pytest.raises(UsageError, match=r"The network returned shape \(1, 3, 4\)"):
        sample(three, torch.zeros(1, 1, 4), objective, **options)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "diffusers":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    objective = make_objective(ObjectiveConfig())
    with pytest.raises(EnvironmentFailure, match=r"pip install 'mudit\[diffusers\]'"):
        sample(lambda x, t: x, torch.zeros(1, 1), objective, method="dpm++", sampling_steps=5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_device_gives_the_cpus_samples(name: str, method: Method) -> None:
    objective = make_objective(OBJECTIVES[name])
    noise = SampleNoise.of(3, seed=0)
    options: dict[str, Any] = {"method": method, "sampling_steps": 6, "noise": noise}
    x_T = noise.initial((2, 3, 3))
    network = best_network(objective)
    there = sample(network, x_T.cuda(), objective, **options)
    assert there.device.type == "cuda"
    torch.testing.assert_close(
        there.cpu(), sample(network, x_T, objective, **options), rtol=1e-4, atol=1e-4
    )

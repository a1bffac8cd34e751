"""One flat config for all objectives: what each kind reads, and what it refuses."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from mudit.diffusion import DDPM, VPSDE, Flow, Objective, ObjectiveConfig, make_objective
from mudit.errors import UsageError
from mudit.training.config import parse_config

# A value that is not the default, for each field that only some kinds read.
OTHERS: dict[str, Any] = {
    "num_timesteps": 500,
    "betas": "scaled_linear",
    "first_step": 1,
    "time_law": "logit_normal",
    "logit_mean": 0.5,
    "logit_std": 2.0,
    "shift": 3.0,
    "time_scale": 999.0,
}
READ = {
    "ddpm": {"num_timesteps", "betas", "first_step"},
    "flow": {"time_law", "shift", "time_scale"},
    "vp_sde": {"time_scale"},
}


def test_the_defaults_are_dit() -> None:
    config = ObjectiveConfig()
    assert (config.kind, config.num_timesteps, config.learn_sigma) == ("ddpm", 1000, True)
    assert (config.betas, config.first_step) == ("linear", 0)


@pytest.mark.parametrize(
    ("kind", "cls", "prediction"),
    [("ddpm", DDPM, "noise"), ("flow", Flow, "velocity"), ("vp_sde", VPSDE, "noise")],
)
def test_each_kind_has_its_objective(kind, cls, prediction) -> None:  # type: ignore[no-untyped-def]
    objective = make_objective(ObjectiveConfig(kind=kind))
    assert type(objective) is cls
    assert isinstance(objective, Objective)
    assert objective.prediction == prediction
    assert objective.config == ObjectiveConfig(kind=kind)


@pytest.mark.parametrize("cls", [DDPM, Flow, VPSDE])
def test_an_objective_refuses_the_config_of_another(cls) -> None:  # type: ignore[no-untyped-def]
    other = ObjectiveConfig(kind="flow" if cls is not Flow else "ddpm")
    with pytest.raises(UsageError, match=f"{cls.__name__} got kind='{other.kind}'"):
        cls(other)


@pytest.mark.parametrize(
    ("config", "outputs"),
    [
        (ObjectiveConfig(), 8),
        (ObjectiveConfig(learn_sigma=False), 4),
        (ObjectiveConfig(kind="flow"), 4),
        (ObjectiveConfig(kind="flow", learn_sigma=False), 4),
        (ObjectiveConfig(kind="vp_sde"), 4),
    ],
)
def test_only_ddpm_may_learn_a_variance(config: ObjectiveConfig, outputs: int) -> None:
    objective = make_objective(config)
    assert objective.num_outputs(4) == outputs
    assert config.learns_variance == (outputs == 8)
    assert ("variational_bound" in objective.term_names) == (outputs == 8)


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("field", OTHERS)
def test_a_field_that_the_kind_does_not_read_is_refused_by_name(kind, field) -> None:  # type: ignore[no-untyped-def]
    if field in READ[kind]:
        assert getattr(ObjectiveConfig(kind=kind, **{field: OTHERS[field]}), field) == OTHERS[field]
        return
    with pytest.raises(UsageError, match=rf"kind {kind}.* does not read objective\.{field} = "):
        ObjectiveConfig(kind=kind, **{field: OTHERS[field]})


def test_the_normal_numbers_of_a_uniform_law_are_refused() -> None:
    """Set under a law that has none, they would be without effect."""
    with pytest.raises(UsageError, match=r"flow with time_law uniform does not read .*logit_std"):
        ObjectiveConfig(kind="flow", logit_std=2.0)
    ObjectiveConfig(kind="flow", time_law="logit_normal", logit_mean=-1.0, logit_std=2.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "edm"}, "kind is 'edm', expected one of ddpm, flow, vp_sde"),
        ({"betas": "cosine"}, "betas is 'cosine', expected 'linear' or 'scaled_linear'"),
        ({"first_step": -1}, "first_step is -1, expected ≥ 0"),
        ({"kind": "flow", "time_law": "beta"}, "time_law is 'beta', expected 'uniform' or"),
        ({"kind": "flow", "shift": 0.0}, "shift is 0.0, expected a number > 0"),
        ({"kind": "flow", "shift": math.inf}, "shift is inf, expected a number > 0"),
        ({"kind": "vp_sde", "time_scale": -1.0}, "time_scale is -1.0, expected a number > 0"),
        (
            {"kind": "flow", "time_law": "logit_normal", "logit_std": 0.0},
            "logit_std is 0.0, expected a number > 0",
        ),
        (
            {"kind": "flow", "time_law": "logit_normal", "logit_mean": math.nan},
            "logit_mean is nan, expected a number",
        ),
        ({"num_timesteps": 20}, "expected at least 21"),
        ({"num_timesteps": 12, "betas": "scaled_linear"}, "expected at least 13"),
    ],
)
def test_values_out_of_range_are_refused(values, words, unchecked_types) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=words):
        ObjectiveConfig(**values)


def test_a_config_survives_json() -> None:
    config = ObjectiveConfig(kind="flow", time_law="logit_normal", shift=3.0, time_scale=1.0)
    assert parse_config(ObjectiveConfig, dataclasses.asdict(config)) == config
    assert parse_config(ObjectiveConfig, {"num_timesteps": 500}).num_timesteps == 500

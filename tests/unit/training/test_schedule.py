from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mudit.errors import UsageError
from mudit.training import Hyperparameters, ScheduleConfig, lr_factor
from mudit.training.ema import EMA, decay_from_half_life


def factors(kind: str, *, steps: int = 100, warmup: int = 10, **options) -> list[float]:
    config = ScheduleConfig(kind=kind, **options)
    return [lr_factor(config, step, steps=steps, warmup_steps=warmup) for step in range(steps)]


def test_warm_up_is_linear_and_ends_at_one() -> None:
    for kind in ("constant", "cosine", "wsd"):
        assert factors(kind)[:10] == pytest.approx([k / 10 for k in range(1, 11)])


def test_constant() -> None:
    assert set(factors("constant", warmup=0)) == {1.0}


def test_cosine_by_hand() -> None:
    found = factors("cosine", final=0.1)
    assert found[10] == 1.0
    assert found[55] == pytest.approx(0.1 + 0.9 * 0.5)
    assert found[99] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_warmup_stable_decay_by_hand() -> None:
    found = factors("wsd", decay_share=0.2)
    assert set(found[10:81]) == {1.0}
    assert found[90] == pytest.approx(0.5)
    assert found[99] == pytest.approx(0.05)


@pytest.mark.parametrize("options", [{"decay_share": 1.5}, {"final": -0.1}])
def test_bad_schedules(options) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        ScheduleConfig(kind="wsd", **options)


def test_half_life_is_a_share_of_the_run() -> None:
    assert decay_from_half_life(0.05, 1000) ** 50 == pytest.approx(0.5)


def test_ema_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    ema = EMA(model, 0.75)
    with torch.no_grad():
        model.weight.fill_(2.0)
    ema.update()
    assert ema.model.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 2)
    ema.update()
    assert ema.model.weight.item() == pytest.approx(0.75 * 1.25 + 0.25 * 2)
    assert not ema.model.weight.requires_grad


def test_hyperparameters_by_dotted_name() -> None:
    hps = Hyperparameters(phi={"input": 2.0})
    new = hps.updated({"lr": 0.5, "phi.output": 4.0, "warmup_steps": 12.4})
    assert (new.lr, new.phi, new.warmup_steps) == (0.5, {"input": 2.0, "output": 4.0}, 12)
    assert new.flat()["phi.output"] == 4.0
    assert hps.phi == {"input": 2.0}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lrr", 1.0, "lrr"),
        ("phi.readout", 1.0, "phi.readout"),
        ("lr", 0.0, "> 0"),
        ("lr", math.nan, "finite"),
        ("beta2", 1.0, r"\[0, 1\)"),
        ("clip", -1.0, "≥ 0"),
    ],
)
def test_impossible_hyperparameters(name, value, message) -> None:
    with pytest.raises(UsageError, match=message):
        Hyperparameters().updated({name: value})

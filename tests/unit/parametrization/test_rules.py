"""Multipliers against FACTS §0 and §6, and against closed forms by hand."""

from __future__ import annotations

import pytest

from mudit.errors import ParametrizationError
from mudit.parametrization import multipliers
from mudit.parametrization.rules import optimizer_name

R = 4.0
FANS = {"input": (1.0, R), "hidden": (R, R), "output": (R, 1.0), "scalar": (1.0, 1.0)}


def at(role, **options):
    fan_in, fan_out = FANS[role]
    found = multipliers(role, fan_in_ratio=fan_in, fan_out_ratio=fan_out, **options)
    return found.init, found.lr, found.weight_decay, found.eps, found.clip


@pytest.mark.parametrize(
    ("options", "table"),
    [
        # (init, lr, wd, eps, clip); r = 4
        (
            {"optimizer": "adamw"},
            {
                "input": (1, 1, 1, 1, 1),
                "hidden": (1 / 2, 1 / 4, 4, 1, 1),
                "output": (1 / 4, 1 / 4, 4, 4, 1 / 4),
                "scalar": (1, 1, 1, 1, 1),
            },
        ),
        (
            {"optimizer": "adamw", "wd": "constant"},
            {"hidden": (1 / 2, 1 / 4, 1, 1, 1), "output": (1 / 4, 1 / 4, 4, 4, 1 / 4)},
        ),
        (
            {"optimizer": "adamw", "eps_rule": "scaled"},
            {
                "input": (1, 1, 1, 1 / 4, 1),
                "hidden": (1 / 2, 1 / 4, 4, 1 / 4, 1),
                "output": (1 / 4, 1 / 4, 4, 1, 1 / 4),
                "scalar": (1, 1, 1, 1, 1),
            },
        ),
        ({"optimizer": "adam"}, {"output": (1 / 4, 1 / 4, 16, 4, 1 / 4)}),
        (
            # MuSGD: vectors ·r, matrices ·r_out/r_in; the readout's W̃ gets η·r, hence η·r·(1/r)².
            {"optimizer": "sgd"},
            {
                "input": (1, 4, 1 / 4, 1, 1),
                "hidden": (1 / 2, 1, 1, 1, 1),
                "output": (1 / 4, 1 / 4, 4, 4, 1 / 4),
            },
        ),
        # φ = 2 on W = φ·W̃: lr·2, λ/2, ε/2, norm·2; a role's lr multiplier touches lr alone.
        ({"parametrization": "sp", "phi": 2.0}, {"hidden": (2, 2, 1 / 2, 1 / 2, 2)}),
        ({"parametrization": "sp", "lr_multiplier": 3.0}, {"hidden": (1, 3, 1, 1, 1)}),
        ({"phi": 2.0, "lr_multiplier": 3.0}, {"output": (1 / 2, 3 / 2, 2, 2, 1 / 2)}),
        ({"sigma": 5.0}, {"hidden": (5 / 2, 1 / 4, 4, 1, 1)}),
        ({"parametrization": "sp"}, dict.fromkeys(FANS, (1, 1, 1, 1, 1))),
    ],
)
def test_table(options, table) -> None:
    for role, expected in table.items():
        assert at(role, **options) == pytest.approx(expected, rel=1e-12), role


def test_mmdit_proxy_below_the_base() -> None:
    """FACTS §3.3: base 1920, proxy 512 and target 5120 at η = 2.5e-4."""
    for width, hidden_lr, readout in ((512, 9.375e-4, 3.75), (5120, 9.375e-5, 0.375)):
        r = width / 1920
        hidden = multipliers("hidden", fan_in_ratio=r, fan_out_ratio=r)
        output = multipliers("output", fan_in_ratio=r, fan_out_ratio=1.0)
        assert 2.5e-4 * hidden.lr == pytest.approx(hidden_lr, rel=1e-12)
        assert output.clip == pytest.approx(readout, rel=1e-12)


def test_pixart_decay_product() -> None:
    """FACTS §6: PixArt target, hidden: lr 2^-12, wd .12, product 2.93e-5 as at base."""
    hidden = multipliers("hidden", fan_in_ratio=4.0, fan_out_ratio=4.0)
    assert 2**-10 * hidden.lr == 2**-12
    assert 0.03 * hidden.weight_decay == pytest.approx(0.12)
    assert hidden.lr * hidden.weight_decay == 1.0


@pytest.mark.parametrize("name", ["adafactor", "lion", "muon", "AdamW8bit"])
def test_other_optimizers_are_refused_by_name(name: str) -> None:
    with pytest.raises(ParametrizationError, match=name):
        optimizer_name(name)


def test_other_classes_are_refused_by_name() -> None:
    import torch

    with pytest.raises(ParametrizationError, match="Adafactor"):
        optimizer_name(torch.optim.Adafactor)
    assert optimizer_name(torch.optim.AdamW) == "adamw"

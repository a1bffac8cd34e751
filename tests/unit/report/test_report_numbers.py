from __future__ import annotations

import pytest

from mudit.report import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**-8, "2⁻⁸"),
        (2**10, "2¹⁰"),
        (0.25, "2⁻²"),
        (0.5, "0.5"),
        (1.0, "1"),
        (2.0, "2"),
        (0.0, "0"),
        (3e-4, "0.0003"),
        (1e-8, "1e-8"),
        (-4.0, "-4"),
    ],
)
def test_hp_values(value, text):
    assert formats.hp_value(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "×1"), (0.25, "×1/4"), (1 / 3, "×1/3"), (8.0, "×8"), (0.35355, "×0.354"), (0.0, "×0")],
)
def test_multipliers(value, text):
    assert formats.multiplier(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.05464, "5.5"), (0.145, "14.5"), (0.0029, "0.29"), (1.0, "100"), (1.234, "123"), (0.0, "0")],
)
def test_percent(ratio, text):
    assert formats.percent(ratio) == f"{text}\u202f%"


def test_counts_flops_durations():
    assert formats.count(87_816) == "87,816"
    assert formats.count(1_270_000) == "1.27M"
    assert formats.count(1.8e10) == "18B"
    assert formats.flops(6.14e12) == "6.14 TFLOPs"
    assert formats.flops(1e21) == "1 ZFLOPs"
    assert formats.flops(12.0) == "12 FLOPs"
    assert formats.duration(0.0876) == "0.088 s"
    assert formats.duration(46.4) == "46 s"
    assert formats.duration(59.7) == "1 min 0 s"
    assert formats.duration(200) == "3 min 20 s"
    assert formats.duration(7500) == "2 h 5 min"
    assert formats.loss(0.09591) == "0.0959"
    assert formats.loss(None) == "–"
    assert formats.optimizer_name("adamw") == "AdamW"
    assert formats.optimizer_name("sophia") == "sophia"

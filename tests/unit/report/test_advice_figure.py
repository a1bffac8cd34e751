from __future__ import annotations

import math

import pytest

from mudit.analysis.proxies import Advice, Proxy, Task
from mudit.report.advice import advice_info, draw_advice
from mudit.report.theme import LIGHT, type_style


def proxy(size, steps, cost, regret, *, on_front=False) -> Proxy:
    return Proxy(
        task=Task(size, steps),
        cost=cost,
        choices=(-6.0,),
        regret=regret,
        worst=2 * regret,
        on_front=on_front,
    )


PROXIES = (
    proxy(32, 100, 0.03, math.inf),
    proxy(32, 300, 0.09, 0.3, on_front=True),
    proxy(64, 300, 0.4, 0.04, on_front=True),
    proxy(128, 100, 0.5, 0.05),
    proxy(128, 300, 1.5, 0.0, on_front=True),
)


@pytest.fixture
def info():
    return advice_info(Advice(proxies=PROXIES, recommended=PROXIES[2], gain=0.1), axis="width")


def test_proxies_are_drawn_and_those_that_diverge_named(info) -> None:
    assert info.infinite == ("width 32, 100 steps",)
    assert [(p.cost, p.regret) for p in info.points] == [
        (0.09, 0.3),
        (0.4, 0.04),
        (0.5, 0.05),
        (1.5, 1e-4),
    ]
    assert [p.label for p in info.points if p.recommended] == ["width 64, 300 steps"]


def test_the_figure_can_be_read(info) -> None:
    """Every number on the axes is a share; the front says at how many steps."""
    with type_style(LIGHT):
        figure = draw_advice(info, LIGHT)
        figure.canvas.draw()
        (axes,) = figure.axes
        ticks = [
            label.get_text()
            for along in (axes.xaxis, axes.yaxis)
            for label in [*along.get_ticklabels(minor=False), *along.get_ticklabels(minor=True)]
        ]
    assert all(text == "" or text.endswith("\u202f%") for text in ticks)
    assert {"10.0\u202f%", "50.0\u202f%", "100\u202f%", "≤ 0.01\u202f%"} <= set(ticks)
    assert [text.get_text() for text in axes.texts] == ["300 steps"] * 3
    assert "not shown, diverges at the target: width 32, 100 steps" in axes.get_title(loc="left")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-1] == "recommended"


def test_without_a_recommendation_the_legend_has_none() -> None:
    info = advice_info(Advice(proxies=PROXIES, recommended=None, gain=0.1), axis="steps")
    with type_style(LIGHT):
        figure = draw_advice(info, LIGHT)
    assert "recommended" not in [text.get_text() for text in figure.legends[0].get_texts()]
    assert not list(figure.axes[0].texts)  # on that axis sizes are steps

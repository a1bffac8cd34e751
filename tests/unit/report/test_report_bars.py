from __future__ import annotations

import dataclasses
import math

import pytest

from mudit.report import Control, cost_facts
from mudit.report.bars import (
    agreement_info,
    cost_info,
    draw_agreement,
    draw_cost,
    importance_info,
)
from mudit.report.theme import LIGHT, type_style


def test_costs_of_the_study_by_hand(study_contents):
    """Four trials of 64²·16·30 against 128²·16·60; the diverged one stopped at step 7."""
    cost = study_contents().cost
    assert cost.eq1_ratio == pytest.approx(4 * 64**2 * 30 / (128**2 * 60))
    assert cost.search_flops == 64**2 * (3 * 30 + 7)
    assert cost.target_flops == 128**2 * 60
    assert cost.measured_ratio == pytest.approx(97 / 240)
    assert cost.control_flops == 64**2 * 97 + 128**2 * 60
    assert cost.measured_ratio < cost.eq1_ratio  # Eq. (1) counts the diverged trial in full


def test_cost_bars(study_contents):
    bars = cost_info(study_contents())
    assert [bar.colour for bar in bars] == ["rest", "mup", "mup", "sp"]
    assert [bar.value for bar in bars] == pytest.approx([1, 0.5, 97 / 240, 1 + 97 / 240])
    assert "4 trials" in bars[1].label
    with type_style(LIGHT):
        figure = draw_cost(bars, LIGHT)
    texts = [text.get_text().strip() for text in figure.axes[0].texts]
    assert texts == ["100\u202f%", "50.0\u202f%", "40.4\u202f%", "140\u202f%"]


def test_a_control_that_shares_the_search_says_so(study_contents):
    contents = study_contents()
    target = contents.control.target_run
    shared = Control(trials=(), best_key="mup--8", target_run=target)
    cost = cost_facts(
        [trial.record for trial in contents.trials],
        contents.target_run.record,
        control=[target.record],
    )
    bars = cost_info(study_contents(control=shared, cost=cost))
    assert bars[-1].label.endswith("search shared")
    assert bars[-1].value == 1.0


def test_without_a_control_there_is_no_bar_of_it(study_contents):
    contents = study_contents(control=None)
    cost = dataclasses.replace(contents.cost, control_flops=None)
    assert len(cost_info(study_contents(control=None, cost=cost))) == 3


def test_importance_is_drawn_for_more_than_one_hp(study_contents):
    assert importance_info(study_contents()) == ()
    assert importance_info(study_contents(importance={"lr": 1.0})) == ()
    bars = importance_info(study_contents(importance={"b": 0.2, "lr": 0.7, "a": 0.1}))
    assert [(bar.label, bar.value) for bar in bars] == [("lr", 0.7), ("b", 0.2), ("a", 0.1)]


def test_agreement_by_class(study_contents):
    info = agreement_info(study_contents())
    assert info.classes == ("a", "b")
    (study, ours), (control, theirs) = info.series
    assert (study, ours, control) == ("mup", (0.95, 0.85), "sp")
    assert theirs[0] == 0.8
    assert math.isnan(theirs[1])
    with type_style(LIGHT):
        draw_agreement(info, LIGHT).draw_without_rendering()
    assert agreement_info(study_contents(agreement=None)) is None

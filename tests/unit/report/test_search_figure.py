from __future__ import annotations

import pytest

from mudit.report import Control
from mudit.report.search import draw_search, edge, search_info, varied_hps
from mudit.report.theme import LIGHT, type_style


def texts(figure):
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    found += [axes.get_title(loc="left") for axes in figure.axes]
    return found + [text.get_text() for text in figure.legends[0].get_texts()]


def drawn(contents):
    with type_style(LIGHT):
        return draw_search(search_info(contents), LIGHT)


def test_one_panel_per_searched_hp_on_a_log2_axis(study_contents):
    info = search_info(study_contents())
    (panel,) = info.panels  # clip is the same in all trials
    assert (panel.hp, panel.log2, panel.joined) == ("lr", True, True)
    study, control = panel.series
    assert study.points == ((-9, 0.5), (-8, 0.4), (-7, 0.45))
    assert study.diverged == (-6,)
    assert study.chosen == (-8, 0.4)
    assert control.parametrization == "sp"
    assert control.chosen == (-8, pytest.approx(0.41))


def test_trials_of_the_same_value_are_joined_at_their_mean(study_contents, run_facts):
    trials = tuple(
        run_facts(f"t{i}", score, hps={"lr": lr})
        for i, (lr, score) in enumerate([(0.25, 1.0), (0.5, 0.5), (0.25, 2.0)])
    )
    (panel,) = search_info(study_contents(trials=trials, best_key="t1", control=None)).panels
    assert panel.series[0].means == ((-2, 1.5), (-1, 0.5))


def test_an_hp_that_may_be_zero_has_a_linear_axis(study_contents, run_facts):
    trials = tuple(run_facts(f"t{x}", 1 + x, hps={"weight_decay": x}) for x in (0.0, 0.1))
    info = search_info(study_contents(trials=trials, best_key="t0.0", control=None))
    assert not info.panels[0].log2
    assert info.panels[0].series[0].points == ((0, 1), (0.1, 1.1))
    assert info.warnings == ()  # nothing lies below zero


def test_the_edge_warning_appears_only_at_the_edge(study_contents):
    inside = study_contents(control=None)
    assert search_info(inside).warnings == ()
    assert not any("edge" in text for text in texts(drawn(inside)))
    outside = study_contents(control=None, best_key="mup--9")
    assert search_info(outside).warnings == (
        "μP: the best lr, 2⁻⁹, is the smallest one tried; the optimum may lie below it.",
    )
    assert any("edge of the search" in text for text in texts(drawn(outside)))


def test_a_diverged_neighbour_is_a_neighbour(study_contents):
    """2⁻⁷ is the largest that completed, but 2⁻⁶ was tried: the optimum is bracketed."""
    contents = study_contents(control=None)
    above = next(trial for trial in contents.trials if trial.record.key == "mup--7")
    assert edge(contents.trials, above, "lr") is None
    assert edge(contents.trials[:3], above, "lr") == "largest"


def test_the_controls_edge_is_told_apart(study_contents):
    contents = study_contents()
    control = contents.control
    edge_case = Control(trials=control.trials, best_key="sp--9", target_run=control.target_run)
    (warning,) = search_info(study_contents(control=edge_case)).warnings
    assert warning.startswith("sp: the best lr, 2⁻⁹, is the smallest")


def test_one_value_is_no_search(study_contents):
    contents = study_contents(control=None)
    (warning,) = search_info(study_contents(control=None, trials=contents.trials[1:2])).warnings
    assert "only value tried" in warning


def test_diverged_trials_are_shown_in_their_band(study_contents):
    figure = drawn(study_contents())
    found = texts(figure)
    assert {"diverged", "μP diverged", "sp diverged"} <= set(found)
    axes = figure.axes[0]
    crosses = next(c for c in axes.collections if c.get_label() == "μP diverged")
    ((x, height),) = crosses.get_offsets()
    assert x == -6
    assert height > 0.875
    highest = axes.transAxes.inverted().transform(axes.transData.transform((0, 0.51)))[1]
    assert highest < 0.875


def test_without_divergence_there_is_no_such_band(study_contents):
    contents = study_contents(control=None)
    figure = drawn(study_contents(control=None, trials=contents.trials[:3]))
    assert not any("diverged" in text for text in texts(figure))


def test_a_shared_search_is_drawn_once(study_contents):
    contents = study_contents()
    shared = Control(trials=(), best_key="mup--8", target_run=contents.control.target_run)
    (panel,) = search_info(study_contents(control=shared)).panels
    assert [series.parametrization for series in panel.series] == ["mup"]


def test_losses_far_apart_get_a_logarithm(study_contents, run_facts):
    trials = tuple(run_facts(f"t{y}", y, hps={"lr": 2.0**-i}) for i, y in enumerate((9.0, 1.0)))
    contents = study_contents(trials=trials, best_key="t1.0", control=None)
    assert search_info(contents).log_y
    assert drawn(contents).axes[0].get_yscale() == "log"
    assert not search_info(study_contents()).log_y


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_many_hps_make_many_panels(study_contents, run_facts, number):
    trials = tuple(
        run_facts(f"t{i}", 1.0 + i, hps={f"hp${j}": 2.0 ** (i + j) for j in range(number)})
        for i in range(12)
    )
    contents = study_contents(trials=trials, best_key="t0", control=None)
    assert varied_hps(trials) == tuple(f"hp${j}" for j in range(number))
    figure = drawn(contents)
    assert sum(axes.get_visible() for axes in figure.axes) == number
    assert figure.axes[0].get_xlabel() == "base hp$0 (log2 axis)"

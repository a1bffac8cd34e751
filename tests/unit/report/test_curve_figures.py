from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mudit.report.curves import curves_info, draw_curves, draw_updates, updates_info
from mudit.report.theme import DARK, LIGHT, type_style


def without_terms(run):
    rows = tuple(dataclasses.replace(row, terms={}) for row in run.steps)
    return dataclasses.replace(run, steps=rows)


def test_one_panel_per_search_and_one_of_targets(study_contents):
    info = curves_info(study_contents())
    assert [panel.title for panel in info.searches] == [
        "μP search, width 64, by lr",
        "sp search, width 64, by lr",
    ]
    labels = [curve.label for curve in info.searches[0].curves]
    assert labels == ["2⁻⁹", "2⁻⁸", "2⁻⁷", "2⁻⁶"]
    shades = [curve.shade for curve in info.searches[0].curves]
    assert shades == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [curve.chosen for curve in info.searches[0].curves] == [False, True, False, False]
    assert [curve.label for curve in info.targets.curves] == ["μP target", "sp target"]
    assert info.targets.curves[0].validation == ((60, 0.3),)


def test_the_denoising_term_is_drawn_if_every_run_has_it(study_contents):
    contents = study_contents()
    info = curves_info(contents)
    assert info.term == "denoising"
    assert info.targets.curves[0].raw[1] == 0.5
    partly = curves_info(study_contents(target_run=without_terms(contents.target_run)))
    assert partly.term == "loss"
    assert partly.targets.curves[0].raw[1] == 1.0


def test_diverging_runs_do_not_set_the_limits(study_contents):
    contents = study_contents()
    wild = contents.trials[3]
    rows = (*wild.steps[:-1], dataclasses.replace(wild.steps[-1], terms={"denoising": 1e9}))
    trials = (*contents.trials[:3], dataclasses.replace(wild, steps=rows))
    low, high = curves_info(study_contents(trials=trials)).limits
    assert high == 1.0
    assert 0 < low < 0.1


def test_diverged_runs_are_marked(study_contents):
    with type_style(LIGHT):
        figure = draw_curves(curves_info(study_contents(control=None)), LIGHT)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["2⁻⁹", "2⁻⁸ (chosen)", "2⁻⁷", "2⁻⁶ (diverged)"]
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[7]]


def test_the_legend_of_many_trials_names_the_chosen_one(study_contents, run_facts):
    trials = tuple(run_facts(f"t{i}", 1.0 + i, hps={"lr": 0.5 + i, "b": i}) for i in range(20))
    contents = study_contents(trials=trials, best_key="t3", control=None)
    info = curves_info(contents)
    assert {curve.shade for curve in info.searches[0].curves} == {None}
    with type_style(DARK):
        figure = draw_curves(info, DARK)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(labels) == ["other trials", "t3 (chosen)"]


def test_runs_without_records_can_be_drawn(study_contents):
    contents = study_contents(control=None)
    bare = [dataclasses.replace(run, steps=(), validations=()) for run in contents.trials]
    target = dataclasses.replace(contents.target_run, steps=(), validations=())
    info = curves_info(study_contents(control=None, trials=tuple(bare), target_run=target))
    with type_style(LIGHT):
        draw_curves(info, LIGHT).draw_without_rendering()


def test_update_ratios_by_role_of_target_and_chosen_trial(study_contents):
    info = updates_info(study_contents())
    assert [line.role for line in info.target] == ["hidden", "output"]
    hidden, output = info.target
    assert list(hidden.steps) == list(range(5, 61, 5))
    assert hidden.ratios == pytest.approx(0.1 / hidden.steps)
    assert output.ratios == pytest.approx(2 * hidden.ratios)
    assert list(info.proxy[0].steps) == list(range(5, 31, 5))


def test_ratios_are_smoothed_geometrically(study_contents):
    contents = study_contents()
    rows = tuple(
        dataclasses.replace(row, update_ratio={"input": 10.0 ** (-1 if row.step % 2 else -3)})
        for row in contents.target_run.steps
    )
    run = dataclasses.replace(contents.target_run, steps=rows * 2)
    (line,) = updates_info(study_contents(target_run=run)).target
    assert np.log10(line.smoothed[20:-5]) == pytest.approx(np.full(95, -2), abs=0.2)


def test_ratios_that_a_logarithm_cannot_show_are_left_out(study_contents):
    contents = study_contents()
    ratios = [{"input": 0.0}, {"input": float("nan")}, {}, {"hidden": 0.5}]
    rows = tuple(
        dataclasses.replace(row, update_ratio=ratio)
        for row, ratio in zip(contents.target_run.steps, ratios, strict=False)
    )
    run = dataclasses.replace(contents.target_run, steps=rows)
    info = updates_info(study_contents(target_run=run))
    assert [(line.role, list(line.steps)) for line in info.target] == [("hidden", [4])]
    with type_style(LIGHT):
        draw_updates(info, LIGHT).draw_without_rendering()

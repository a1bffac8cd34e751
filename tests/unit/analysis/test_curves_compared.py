from __future__ import annotations

import math

import numpy as np
import pytest

from mudit.analysis import smooth, steps_to_match
from mudit.errors import UsageError


def test_the_papers_speed_up():
    """[muDiT] §4.3: what DiT reaches at 7M steps, DiT-μP reaches at 2.4M."""
    found = steps_to_match([1e6, 4e6, 7e6], [5, 3, 2.27], [0.4e6, 2.4e6], other_loss=[9, 2.27])
    assert found is not None
    assert found.step == 2.4e6
    assert round(found.speed_up, 1) == 2.9
    assert (found.loss, found.reference_step) == (2.27, 7e6)


def test_between_two_measurements_the_loss_falls_linearly():
    found = steps_to_match([100, 200], [2, 1], [100, 200], other_loss=[1.5, 0.5])
    assert found is not None
    assert found.step == pytest.approx(150)
    assert found.speed_up == pytest.approx(200 / 150)


def test_final_and_best_differ_where_the_reference_rose_again():
    reference = ([10, 20, 30], [3, 1, 2])
    other = ([10, 20, 30], [3, 2, 1])
    final = steps_to_match(*reference, other[0], other_loss=other[1])
    best = steps_to_match(*reference, other[0], other_loss=other[1], value="best")
    assert (final.step, final.speed_up) == (20, 1.5)
    assert (best.step, best.reference_step) == (30, 20)


def test_it_is_none_if_never_reached():
    assert steps_to_match([1, 2], [2, 1], [1, 2, 3], other_loss=[4, 3, 1.01]) is None


def test_losses_that_are_not_finite_neither_reach_nor_are_reached():
    assert steps_to_match([1, 2], [2, math.nan], [1], other_loss=[0]) is None
    assert steps_to_match([1, 2], [2, 1], [1, 2], other_loss=[math.nan, math.nan]) is None
    found = steps_to_match([1, 2], [2, 1], [1, 2], other_loss=[math.inf, 0.5])
    assert found is not None
    assert found.step == 2
    best = steps_to_match([1, 2], [2, math.nan], [1, 4], other_loss=[3, 1], value="best")
    assert best is not None
    assert best.loss == 2


def test_a_run_that_starts_below_matches_at_its_first_step():
    found = steps_to_match([10, 20], [2, 1], [5, 6], other_loss=[0.5, 0.4])
    assert found is not None
    assert found.step == 5


def test_curves_need_as_many_losses_as_steps():
    with pytest.raises(UsageError, match="as many losses as steps"):
        steps_to_match([1, 2], [1], [1], other_loss=[1])
    with pytest.raises(UsageError, match="at least one"):
        steps_to_match([], [], [1], other_loss=[1])


def test_smooth_by_hand():
    # half windows 0 0 0 0 1 1 1 1, the last cut at the end
    curve = [8, 4, 0, 2, 4, 6, 2, 4]
    assert smooth(curve, 3) == pytest.approx([8, 4, 0, 2, 4, 4, 4, 3])


def test_smooth_keeps_levels_and_slopes():
    assert smooth(np.full(50, 2.5), 9) == pytest.approx(np.full(50, 2.5))
    line = np.arange(60.0)
    assert smooth(line, 7)[:57] == pytest.approx(line[:57])


def test_smooth_leaves_out_what_is_not_finite():
    curve = np.ones(40)
    curve[20], curve[39] = math.nan, math.inf
    smoothed = smooth(curve, 9)
    assert np.isnan(smoothed[[20, 39]]).all()
    assert np.delete(smoothed, [20, 39]) == pytest.approx(np.ones(38))


def test_smooth_of_nothing_and_by_nothing():
    assert len(smooth([], 5)) == 0
    assert smooth([3, 1, 2], 1) == pytest.approx([3, 1, 2])
    with pytest.raises(UsageError, match="at least 1"):
        smooth([1], 0)

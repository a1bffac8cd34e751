"""The verdict on transfer: what passes, what fails, what is open; the paper's own tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis_basins import SIZES, grid
from mudit.analysis.basin import Run
from mudit.analysis.transferability import judge

NAN = math.nan
# [muDiT] Tables 7 to 11: FID-50K by log2 of the HP, one seed; NaN where training diverged.
FID_BY_WIDTH = {
    144: {-9: NAN, -10: 88.89, -11: 91.88, -12: 93.61, -13: 102.99},
    288: {-9: NAN, -10: 61.65, -11: 63.85, -12: 65.99, -13: 79.17},
    576: {-9: NAN, -10: 43.73, -11: 45.00, -12: 50.30, -13: 66.20},
}
FID_BY_BATCH = {
    128: {-9: NAN, -10: 74.54, -11: 73.47, -12: 76.98, -13: 88.79},
    256: {-9: NAN, -10: 61.65, -11: 63.85, -12: 65.99, -13: 79.17},
    512: {-9: 53.90, -10: 53.72, -11: 54.36, -12: 57.60, -13: 72.09},
}
FID_BY_STEPS = {
    100_000: {-9: 74.40, -10: 75.35, -11: 78.57, -12: 84.74, -13: 102.79},
    150_000: {-9: 70.44, -10: 67.48, -11: 69.61, -12: 72.72, -13: 88.05},
    200_000: {-9: NAN, -10: 61.65, -11: 63.85, -12: 65.99, -13: 79.17},
}
FID_BY_PHI_AND_WIDTH = {
    144: {-6: 168.81, -4: 119.38, -2: 104.26, 0: 88.89, 2: 89.01, 4: 88.68, 6: 100.03},
    288: {-6: 134.82, -4: 63.93, -2: 63.65, 0: 61.65, 2: 64.64, 4: 59.85, 6: NAN},
    576: {-6: 167.14, -4: 44.82, -2: 42.75, 0: 43.73, 2: 41.93, 4: 46.87, 6: 52.93},
}
FID_BY_PHI_AND_STEPS = {
    100_000: {-6: 194.59, -4: 75.87, -2: 72.09, 0: 75.35, 2: 75.43, 4: 72.26, 6: NAN},
    150_000: {-6: 150.86, -4: 68.94, -2: 68.24, 0: 67.48, 2: 68.67, 4: 67.32, 6: NAN},
    200_000: {-6: 134.82, -4: 63.93, -2: 63.65, 0: 61.65, 2: 64.64, 4: 59.85, 6: NAN},
}
# Table 2 (training loss) and Table 15 of PixArt's and MMDiT's searches: one size.
LOSS_OF_PIXART = {0: {-9: NAN, -10: 0.1493, -11: 0.1494, -12: 0.1504, -13: 0.1536}}
LOSS_OF_MMDIT = {
    0: {
        math.log2(lr): loss
        for lr, loss in (
            (1.0e-4, 0.185028),
            (2.0e-4, 0.184505),
            (2.5e-4, 0.184423),
            (4.0e-4, 0.184436),
            (8.0e-4, 0.185562),
        )
    }
}


@pytest.mark.parametrize(
    ("table", "best"),
    [
        (FID_BY_WIDTH, [-10, -10, -10]),
        (FID_BY_BATCH, [-11, -10, -10]),
        (FID_BY_STEPS, [-9, -10, -10]),
        (FID_BY_PHI_AND_WIDTH, [4, 4, 2]),
        (FID_BY_PHI_AND_STEPS, [-2, 4, 4]),
        (LOSS_OF_PIXART, [-10]),
        (LOSS_OF_MMDIT, [math.log2(2.5e-4)]),
    ],
)
def test_the_papers_tables_have_the_optima_that_they_show_and_one_seed(table, best) -> None:
    runs = [
        Run(size=max(size, 1), log2_hp=float(x), seed=0, loss=loss)
        for size, row in table.items()
        for x, loss in row.items()
    ]
    found = judge(runs)
    assert [basin.best for basin in found.basins] == best
    assert found.verdict == "INCONCLUSIVE"
    assert any("one seed" in reason for reason in found.reasons)
    assert "seeds" in [suggestion.kind for suggestion in found.suggestions]


def test_a_quiet_grid_without_drift_passes() -> None:
    found = judge(grid())
    assert found.verdict == "PASS"
    assert found.suggestions == ()
    assert len(found.reasons) == 3
    assert -0.25 < found.drift.low < 0 < found.drift.high < 0.25
    assert found.reach == pytest.approx(3 * max(-found.drift.low, found.drift.high))
    assert found.regret.high < 0.1
    assert found.gain == pytest.approx(0.02, abs=0.015)
    assert found.noise == pytest.approx(0.002, rel=0.4)


@pytest.mark.parametrize("drift", [-1.0, -0.5, 0.6])
def test_a_drift_beyond_the_bound_fails(drift) -> None:
    found = judge(grid(drift=drift, values=range(-11, -1), gain=0.02))
    assert found.verdict == "FAIL"
    assert f"by {'−' if drift < 0 else '+'}" in found.reasons[0]
    assert found.drift.low <= drift <= found.drift.high


def test_each_criterion_can_fail_alone() -> None:
    small = {"drift": 0.12, "noise": 1e-4, "luck": 1e-4}
    assert judge(grid(**small), target=256).verdict == "PASS"
    far = judge(grid(**small), target=32 * 2**8)
    assert far.verdict == "FAIL"
    assert "On the way to the target" in far.reasons[0]
    assert far.reach == pytest.approx(0.12 * 8, abs=0.02)
    costly = judge(grid(**small, gain=0.005))
    assert costly.verdict == "FAIL"
    assert "costs 25" in costly.reasons[0] or "costs 26" in costly.reasons[0]
    assert costly.regret.value == pytest.approx(0.01 * 0.36**2 / 0.005, rel=0.05)
    assert costly.extrapolation_cost == pytest.approx(costly.regret.value, rel=0.1)


def test_a_drift_that_noise_hides_is_open() -> None:
    found = judge(grid(drift=0.1, noise=0.012, seeds=2))
    assert found.verdict == "INCONCLUSIVE"
    assert found.suggestions


def test_an_optimum_on_the_edge_is_open_and_asks_for_a_wider_grid() -> None:
    found = judge(grid(values=range(-6, -1)))
    assert found.verdict == "INCONCLUSIVE"
    assert all("lowest one tried" in reason for reason in found.reasons)
    (wider,) = found.suggestions
    assert wider.kind == "wider"
    assert {x for _, x, _ in wider.runs} == {-7.0, -8.0}
    assert {size for size, _, _ in wider.runs} == set(SIZES)
    assert {seed for _, _, seed in wider.runs} == {0, 1, 2}
    above = judge(grid(values=range(-11, -6)))
    assert {x for _, x, _ in above.suggestions[0].runs} == {-6.0, -5.0}


def test_divergence_beside_the_best_value_is_a_bracket() -> None:
    runs = grid(values=np.arange(-11, -4, 0.5), cliff=-0.4, skew=0.3, noise=5e-4)
    found = judge(runs)
    assert all(basin.form == "cliff" for basin in found.basins)
    assert all(basin.best == -7.0 for basin in found.basins)
    assert not any("edge" in (basin.problem or "") for basin in found.basins)
    assert found.verdict == "PASS"
    coarse = judge(grid(values=range(-11, -4), cliff=-0.4, skew=0.3, noise=5e-4))
    assert coarse.verdict == "INCONCLUSIVE"  # a cell of an octave is wider than the margin
    (finer,) = coarse.suggestions
    assert finer.kind == "finer"
    assert {-6.5, -7.5} <= {x for _, x, _ in finer.runs}


@pytest.mark.parametrize(
    ("runs", "reason", "kind"),
    [
        (grid(sizes=SIZES[:2]), "There are 2 sizes; a drift needs 3", "sizes"),
        (grid(seeds=1), "There is one seed", "seeds"),
        (grid(values=range(-7, -4)), "3 values did not diverge; a basin needs four", "wider"),
        (grid(curvature=1e-6), "", ""),
    ],
)
def test_too_little_is_open(runs, reason, kind) -> None:
    found = judge(runs)
    assert found.verdict == "INCONCLUSIVE"
    assert any(reason in text for text in found.reasons)
    assert any(kind in suggestion.kind for suggestion in found.suggestions)


def test_a_size_that_always_diverged_is_open() -> None:
    runs = [
        Run(size=r.size, log2_hp=r.log2_hp, seed=r.seed, loss=NAN if r.size == 64 else r.loss)
        for r in grid()
    ]
    found = judge(runs)
    assert found.verdict == "INCONCLUSIVE"
    assert found.basins[1].problem == "all diverged"
    assert {(size, x) for size, x, _ in found.suggestions[0].runs} == {(64, -10.0), (64, -11.0)}
    nothing = judge([Run(size=8, log2_hp=x, seed=s, loss=NAN) for x in (0.0, 1.0) for s in (0, 1)])
    assert nothing.verdict == "INCONCLUSIVE"
    assert nothing.drift is None


def test_more_seeds_are_asked_for_where_the_grid_is_fine_enough() -> None:
    runs = grid(values=np.arange(-8.5, -4, 0.5), noise=0.006, seeds=2, drift=0.15, seed=1)
    found = judge(runs, target=256)
    assert found.verdict == "INCONCLUSIVE"
    (more,) = found.suggestions
    assert more.kind == "seeds"
    assert {seed for _, _, seed in more.runs} <= {2, 3}
    assert {x for _, x, _ in more.runs} <= {run.log2_hp for run in runs}


def test_the_asymptote_of_a_power_law_is_found() -> None:
    runs = [
        Run(size=r.size, log2_hp=r.log2_hp, seed=r.seed, loss=r.loss - 0.3 + 0.1 + r.size**-0.7)
        for r in grid(gain=0.0, noise=1e-6, luck=0.0)
    ]
    found = judge(runs)
    assert found.asymptote.value == pytest.approx(0.1, abs=1e-3)
    assert found.asymptote.low <= 0.1 <= found.asymptote.high


def test_no_asymptote_is_negative() -> None:
    """Losses that fall as a straight line over log2 size, or faster, tend below zero."""
    runs = grid(gain=0.08, noise=1e-4, luck=0.0)
    found = judge(runs)
    assert found.asymptote.low == 0
    assert found.asymptote.value == pytest.approx(0.0, abs=1e-3)
    assert 0 <= found.asymptote.high < 0.05
    noisy = judge(grid(gain=0.08, noise=0.01, luck=0.0))
    assert noisy.asymptote.low == 0
    assert noisy.asymptote.high > found.asymptote.high


def test_nothing_to_judge() -> None:
    with pytest.raises(ValueError, match="no runs"):
        judge([])


def test_a_drift_at_the_bound_passes_once_in_a_hundred_at_most() -> None:
    """40 draws here: two passes would come by chance in 6 % of them; 1,000 in the benchmark."""
    passes = sum(judge(grid(drift=0.25, noise=5e-4, seed=s)).verdict == "PASS" for s in range(40))
    assert passes <= 3

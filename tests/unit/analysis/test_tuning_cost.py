from __future__ import annotations

import pytest

from mudit.analysis import Workload, grouped_cost_ratio, measured_cost_ratio, tuning_cost_ratio
from mudit.errors import UsageError


def test_pixart_search_costs_five_and_a_half_percent():
    """[muDiT] E.3, in epochs of the same data: 5·0.04B·5 / (0.61B·30)."""
    ratio = tuning_cost_ratio(
        5,
        proxy_parameters=0.04e9,
        proxy_batch=1,
        proxy_steps=5,
        target_parameters=0.61e9,
        target_batch=1,
        target_steps=30,
    )
    assert ratio == pytest.approx(1 / 18.3, rel=1e-12)
    assert f"{100 * ratio:.3f}" == "5.464"


def test_mmdit_search_in_two_groups_costs_fourteen_and_a_half_percent():
    """[muDiT] E.4: (80·0.18B·30K + 5·0.18B·100K) / (18B·200K), a fifth of it against experts."""
    small = {"parameters": 0.18e9, "batch_size": 4096}
    searches = [
        Workload(**small, steps=30_000, trials=80),
        Workload(**small, steps=100_000, trials=5),
    ]
    target = Workload(parameters=18e9, batch_size=4096, steps=200_000)
    ratio = grouped_cost_ratio(searches, target)
    assert ratio == pytest.approx(522 / 3600, rel=1e-12)
    assert f"{100 * ratio:.1f}" == "14.5"
    assert f"{100 * ratio / 5:.1f}" == "2.9"


def test_batch_and_steps_count():
    sizes = {"proxy_parameters": 2, "target_parameters": 4, "proxy_steps": 3, "target_steps": 9}
    assert tuning_cost_ratio(1, **sizes, proxy_batch=5, target_batch=10) == pytest.approx(1 / 12)
    assert tuning_cost_ratio(0, **sizes, proxy_batch=5, target_batch=10) == 0


def test_measured_ratio_is_of_sums():
    assert measured_cost_ratio([1e12, 2e12, 0.5e12], 7e12) == pytest.approx(0.5)
    assert measured_cost_ratio([], 7e12) == 0


@pytest.mark.parametrize("flops", [0.0, -1.0, float("nan")])
def test_a_target_that_spent_nothing_is_refused(flops):
    with pytest.raises(UsageError, match="positive"):
        measured_cost_ratio([1.0], flops)


@pytest.mark.parametrize(
    "change",
    [{"parameters": 0}, {"batch_size": -1}, {"steps": float("inf")}, {"trials": -1}],
)
def test_sizes_that_make_no_sense_are_refused(change):
    with pytest.raises(UsageError, match="workload"):
        Workload(**{"parameters": 1, "batch_size": 1, "steps": 1} | change)

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from mudit.analysis import Share, clopper_pearson


@pytest.mark.parametrize(("right", "count"), [(0, 1), (0, 30), (1, 30), (17, 30), (30, 30)])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_is_the_exact_one_of_scipy(right, count, confidence) -> None:
    exact = binomtest(right, count).proportion_ci(confidence, method="exact")
    assert clopper_pearson(right, count, confidence=confidence) == pytest.approx(
        (exact.low, exact.high), abs=1e-12
    )


def test_a_share_knows_its_chance() -> None:
    share = Share(right=5, images=20, names=10)
    assert (share.share, share.chance) == (0.25, 0.1)
    assert share.interval == clopper_pearson(5, 20)

"""The order of training: each sample at most once an epoch; a function of (seed, step) alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mudit.data import batch_indices, flips, permutation
from mudit.errors import UsageError


@st.composite
def sizes(draw):
    num_samples = draw(st.integers(1, 200))
    return num_samples, draw(st.integers(1, num_samples))


seeds = st.integers(0, 2**70)


@given(sizes(), seeds, st.integers(0, 5))
@settings(deadline=None)
def test_an_epoch_covers_each_sample_at_most_once(size, seed, epoch):
    num_samples, batch_size = size
    steps = num_samples // batch_size
    seen = np.concatenate(
        [batch_indices(*size, seed, step) for step in range(epoch * steps, (epoch + 1) * steps)]
    )
    assert seen.dtype == np.int64
    assert len(seen) == steps * batch_size > num_samples - batch_size
    assert len(set(seen.tolist())) == len(seen)
    assert set(seen.tolist()) <= set(range(num_samples))


@given(sizes(), seeds, st.lists(st.integers(0, 1000), min_size=1, max_size=10), st.randoms())
@settings(deadline=None)
def test_a_step_is_the_same_whatever_was_asked_before(size, seed, steps, random):
    first = {step: batch_indices(*size, seed, step) for step in steps}
    turned = {step: flips(seed, step, 7) for step in steps}
    random.shuffle(steps)
    for step in steps:
        batch_indices(*size, seed + 1, step)  # somebody else's, in between
        np.testing.assert_array_equal(batch_indices(*size, seed, step), first[step])
        np.testing.assert_array_equal(flips(seed, step, 7), turned[step])


def test_changing_a_returned_batch_changes_no_later_one():
    expected = batch_indices(10, 5, 0, 0).tolist()
    batch_indices(10, 5, 0, 0)[:] = -1
    assert batch_indices(10, 5, 0, 0).tolist() == expected


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        (seed, epoch): tuple(batch_indices(50, 50, seed, epoch))
        for seed in (0, 1, 2**32, 2**32 + 1)
        for epoch in range(3)
    }
    assert len(set(orders.values())) == len(orders)


def test_the_batch_size_does_not_change_the_order_within_an_epoch():
    parts = [batch_indices(12, 4, 3, step) for step in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), batch_indices(12, 12, 3, 0))


def test_the_order_is_uniform():
    # Each place of 6 holds each of 6 numbers in 1/6 of epochs; over 36 counts, a sound order leaves
    # six sigma with probability below 1e-7 (and the seed is fixed).
    epochs = 6000
    counts = np.zeros((6, 6))
    for epoch in range(epochs):
        counts[np.arange(6), permutation(6, 0, epoch)] += 1
    sigma = np.sqrt(epochs * (1 / 6) * (5 / 6))
    assert np.abs(counts - epochs / 6).max() < 6 * sigma


def test_the_order_stays_the_same_over_numpy_versions():
    # Integers from a documented stream: a change here changes every run on record.
    np.testing.assert_array_equal(batch_indices(10, 10, 0, 0), [7, 6, 8, 3, 2, 4, 1, 5, 0, 9])
    np.testing.assert_array_equal(
        flips(0, 0, 8), [True, True, True, False, False, True, False, True]
    )


def test_flips_are_fair_and_differ_by_step_and_seed():
    turned = flips(0, 0, 10_000)
    assert turned.dtype == np.bool_
    assert abs(turned.mean() - 0.5) < 0.03  # six sigma
    for other in (flips(0, 1, 10_000), flips(1, 0, 10_000)):
        assert abs((turned == other).mean() - 0.5) < 0.03


def test_flips_do_not_follow_the_order():
    turned, order = flips(0, 0, 10_000), permutation(10_000, 0)
    assert abs((turned == (order >= 5_000)).mean() - 0.5) < 0.03


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((10, 11, 0, 0), "batch_size is 11 and the dataset has 10"),
        ((10, 0, 0, 0), "batch_size is 0"),
        ((0, 1, 0, 0), "the dataset has 0"),
        ((10, 5, -1, 0), "seed is -1"),
        ((10, 5, 0, -1), "step is -1"),
    ],
)
def test_wrong_sizes_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        batch_indices(*arguments)


@pytest.mark.parametrize("arguments", [(0, 0, 0), (-1, 0, 4), (0, -1, 4)])
def test_wrong_flips_are_refused(arguments):
    with pytest.raises(UsageError, match="expected"):
        flips(*arguments)

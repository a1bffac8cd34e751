"""Which samples a step sees: a function of (seed, step) alone, whatever workers and resuming do.

Numbers are raw Philox output, which NumPy keeps the same over versions; it does not promise that
for `Generator.permutation` (NEP 19).
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from mudit.errors import UsageError

# Streams of one seed that must not depend on each other.
_ORDER, _FLIPS = 0, 1


def check_batch_size(num_samples: int, batch_size: int) -> None:
    """Refuse batches that are empty or larger than the data.

    Raises:
        UsageError: `batch_size` is not in 1 to `num_samples`.
    """
    if not 1 <= batch_size <= num_samples:
        raise UsageError(
            f"batch_size is {batch_size} and the dataset has {num_samples} training images; "
            f"expected 1 to {num_samples}. Take a smaller batch or more data."
        )


def batch_indices(num_samples: int, batch_size: int, seed: int, step: int) -> npt.NDArray[np.int64]:
    """The samples of step `step`: a slice of its epoch's permutation.

    An epoch has `num_samples // batch_size` steps; the rest of its permutation is dropped.

    Args:
        num_samples: Samples in the dataset.
        batch_size: Samples in a step.
        seed: Non-negative; another seed is another order.
        step: From 0.

    Returns:
        Distinct indices, shape (batch_size,).

    Raises:
        UsageError: `batch_size` is not in 1 to `num_samples`, or `seed` or `step` is negative.
    """
    check_batch_size(num_samples, batch_size)
    _check_counts(seed, step)
    epoch, position = divmod(step, num_samples // batch_size)
    start = position * batch_size
    return _epoch_order(num_samples, seed, epoch)[start : start + batch_size].astype(np.int64)


def flips(seed: int, step: int, batch_size: int) -> npt.NDArray[np.bool_]:
    """Which images of step `step` are mirrored, each with probability 1/2; shape (batch_size,).

    Raises:
        UsageError: `batch_size` is below 1, or `seed` or `step` is negative.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}, expected at least 1.")
    _check_counts(seed, step)
    highest_bit = _draws(seed, _FLIPS, step, batch_size) >> np.uint64(63)
    return highest_bit.astype(np.bool_)


def permutation(count: int, seed: int, epoch: int = 0) -> npt.NDArray[np.int64]:
    """The numbers 0 to `count` - 1 in the order of one epoch, shape (count,)."""
    order: npt.NDArray[np.int64] = np.argsort(_draws(seed, _ORDER, epoch, count), kind="stable")
    return order.astype(np.int64, copy=False)


# Training and something else may take turns. Ten million samples take 40 MB each.
@functools.lru_cache(maxsize=2)
def _epoch_order(num_samples: int, seed: int, epoch: int) -> npt.NDArray[np.uint32]:
    if num_samples >= 1 << 32:
        raise UsageError(f"the dataset has {num_samples} samples; expected fewer than 2^32.")
    return permutation(num_samples, seed, epoch).astype(np.uint32)


def _draws(seed: int, stream: int, number: int, count: int) -> npt.NDArray[np.uint64]:
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, number))
    return np.random.Philox(sequence).random_raw(count)


def _check_counts(seed: int, step: int) -> None:
    if seed < 0 or step < 0:
        raise UsageError(f"seed is {seed} and step is {step}; expected both to be 0 or more.")

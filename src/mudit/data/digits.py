"""The digits that scikit-learn carries along: no download, no file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mudit.data.dataset import ArrayDataset, Splits
from mudit.data.order import permutation

# Seed of the split; changing it would change every result on this dataset.
_SPLIT_SEED = 2025
_HELD_OUT_SHARE = 0.2


def open_digits(*, flip: bool = False) -> Splits:
    """1,797 grey 8x8 images of handwritten digits with 17 levels; a fixed 20 % is held out.

    Every class is split on its own. Digits are not mirror symmetric, so `flip` is off.
    Source: UCI "Optical Recognition of Handwritten Digits" (its test set), in scikit-learn.
    """
    # Imported here: it takes a second, which other datasets need not wait for.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]  # (N, 1, 8, 8)
    labels = bunch.target.astype(np.int64)
    held_out = _held_out(labels)

    def part(which: npt.NDArray[np.bool_], flip: bool) -> ArrayDataset:
        return ArrayDataset(
            name="digits",
            images=images[which],
            labels=labels[which],
            class_names=tuple(str(name) for name in bunch.target_names),
            white=16,
            flip=flip,
        )

    return Splits(train=part(~held_out, flip), validation=part(held_out, False))


def _held_out(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(labels), dtype=np.bool_)
    order = permutation(len(labels), _SPLIT_SEED)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        mask[members[: round(_HELD_OUT_SHARE * len(members))]] = True
    return mask

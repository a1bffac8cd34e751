"""From what a user writes (`digits`, `idx:FOLDER`, `folder:PATH`) to a dataset."""

from __future__ import annotations

from mudit.data.dataset import Splits
from mudit.data.digits import open_digits
from mudit.data.folder import open_folder
from mudit.data.idx import open_idx
from mudit.errors import UsageError

_FORMS = "`digits`, `idx:FOLDER` (MNIST's four files) or `folder:PATH` (images in class subfolders)"


def open_dataset(spec: str, *, size: int | None = None, flip: bool | None = None) -> Splits:
    """The training and the held-out images of a dataset.

    Args:
        spec: `digits`, `idx:FOLDER` or `folder:PATH`.
        size: Side of the images, pixels; needed by `folder`, which crops; others have their own.
        flip: Whether training should mirror images; None: yes for `folder`, no for the others.

    Raises:
        UsageError: The spec is none of these, or `size` does not fit it.
        DataError: The data are missing or damaged.
    """
    kind, _, path = spec.partition(":")
    if spec == "digits":
        return _with_size(spec, open_digits(flip=bool(flip)), size)
    if kind == "idx" and path:
        return _with_size(spec, open_idx(path, flip=bool(flip)), size)
    if kind == "folder" and path:
        return open_folder(path, size=size, flip=flip is not False)
    raise UsageError(f"the dataset is {spec!r}; expected {_FORMS}. Correct data.source.")


def _with_size(spec: str, splits: Splits, size: int | None) -> Splits:
    if size is not None and size != splits.train.size:
        raise UsageError(
            f"size is {size}, but the images of {spec} have {splits.train.size}x"
            f"{splits.train.size} pixels and are not scaled. Leave size out."
        )
    return splits

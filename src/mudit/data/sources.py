"""From what a user writes (`digits`, `idx:FOLDER`, `folder:PATH`) to a dataset."""

from __future__ import annotations

from mudit.data.captions import open_captions
from mudit.data.dataset import Splits
from mudit.data.digits import open_digits
from mudit.data.folder import open_folder
from mudit.data.hub import open_table
from mudit.data.idx import open_idx
from mudit.data.shards import open_shards
from mudit.errors import UsageError

_FORMS = (
    "`digits`, `idx:FOLDER` (MNIST's four files), `folder:PATH` (images in class subfolders), "
    "`captions:PATH` (a list of images and captions, or tar files), `shards:PATTERN` (WebDataset) "
    "or `hf:NAME_OR_FOLDER` (Hugging Face)"
)

_CAPTIONED = {"captions": open_captions, "shards": open_shards, "hf": open_table}


def open_dataset(
    spec: str, *, size: int | None = None, flip: bool | None = None, most_skipped: float = 0.01
) -> Splits:
    """The training and the held-out images of a dataset.

    Args:
        spec: `digits`, `idx:FOLDER`, `folder:PATH`, `captions:PATH`, `shards:PATTERN` or
            `hf:NAME_OR_FOLDER`.
        size: Side of the images, pixels; `digits` and `idx` have their own, the others crop.
        flip: Whether training should mirror images; None: yes for `folder`, no for the others: a
            caption may say left and right.
        most_skipped: Share of the rows of captioned data that may be malformed.

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
    if kind in _CAPTIONED and path:
        return _CAPTIONED[kind](path, size=size, flip=bool(flip), most_skipped=most_skipped)
    raise UsageError(f"the dataset is {spec!r}; expected {_FORMS}. Correct data.source.")


def _with_size(spec: str, splits: Splits, size: int | None) -> Splits:
    if size is not None and size != splits.train.size:
        raise UsageError(
            f"size is {size}, but the images of {spec} have {splits.train.size}x"
            f"{splits.train.size} pixels and are not scaled. Leave size out."
        )
    return splits

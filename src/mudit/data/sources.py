"""From what a user writes (`digits`, `idx:FOLDER`, `latents:FOLDER`) to a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from mudit.data.captions import open_captions
from mudit.data.dataset import Skipped, Splits
from mudit.data.digits import open_digits
from mudit.data.folder import open_folder
from mudit.data.hub import open_table
from mudit.data.idx import open_idx
from mudit.data.latents import open_latents
from mudit.data.shards import open_shards
from mudit.data.text import captions_of
from mudit.errors import UsageError

_FORMS = (
    "`digits`, `idx:FOLDER` (MNIST's four files), `folder:PATH` (images in class subfolders), "
    "`captions:PATH` (a list of images and captions, or tar files), `shards:PATTERN` (WebDataset), "
    "`hf:NAME_OR_FOLDER` (Hugging Face) or `latents:FOLDER` (what `mudit data latents` wrote)"
)

_CAPTIONED = {"captions": open_captions, "shards": open_shards, "hf": open_table}


def open_dataset(
    spec: str,
    *,
    size: int | None = None,
    flip: bool | None = None,
    most_skipped: float = 0.01,
    vae: str = "",
) -> Splits:
    """The training and the held-out images, or latents, of a dataset.

    Args:
        spec: `digits`, `idx:FOLDER`, `folder:PATH`, `captions:PATH`, `shards:PATTERN`,
            `hf:NAME_OR_FOLDER` or `latents:FOLDER`.
        size: Side of the images, pixels; `digits` and `idx` have their own, latents theirs, the
            others crop.
        flip: Whether training should mirror images; None: yes for `folder`, no for the others: a
            caption may say left and right.
        most_skipped: Share of the rows of captioned data that may be malformed.
        vae: The VAE that latents should be of; see `open_latents`.

    Raises:
        UsageError: The spec is none of these, or an option does not fit it.
        DataError: The data are missing or damaged, or of another VAE.
    """
    kind, _, path = spec.partition(":")
    if kind == "latents" and path:
        return open_latents(path, size=size, flip=flip, vae=vae)
    if vae:
        raise UsageError(
            f"data.vae is {vae}, but {spec} has images, which no VAE has encoded. Leave it out, or "
            "encode them with `mudit data latents` and use latents:FOLDER."
        )
    if spec == "digits":
        return _with_size(spec, open_digits(flip=bool(flip)), size)
    if kind == "idx" and path:
        return _with_size(spec, open_idx(path, flip=bool(flip)), size)
    if kind == "folder" and path:
        return open_folder(path, size=size, flip=flip is not False)
    if kind in _CAPTIONED and path:
        return _CAPTIONED[kind](path, size=size, flip=bool(flip), most_skipped=most_skipped)
    raise UsageError(f"the dataset is {spec!r}; expected {_FORMS}. Correct data.source.")


def has_own_size(spec: str) -> bool:
    """Whether the images of a data set have a side of their own, and are not scaled to one."""
    return spec == "digits" or spec.partition(":")[0] in ("idx", "latents")


def open_captions_of(spec: str, *, most_skipped: float = 0.01) -> tuple[Sequence[str], Skipped]:
    """The texts of a data set's labels, and the rows left out; no image is read.

    See `open_dataset`.
    """
    size = None if has_own_size(spec) else 1
    splits = open_dataset(spec, size=size, most_skipped=most_skipped)
    return captions_of(splits.train), splits.skipped


def _with_size(spec: str, splits: Splits, size: int | None) -> Splits:
    if size is not None and size != splits.train.size:
        raise UsageError(
            f"size is {size}, but the images of {spec} have {splits.train.size}x"
            f"{splits.train.size} pixels and are not scaled. Leave size out."
        )
    return splits

"""Captioned images in files and tar members, and the rows from which such data are made.

Labels number the distinct captions, in the order of their first appearance. Nothing is ever
extracted from a tar file: an image is the bytes between two places of it.
"""

from __future__ import annotations

import hashlib
import io
import os
from array import array
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from mudit.data.dataset import Flips, Indices, Splits, check_batch, mirrored, to_unit
from mudit.data.folder import centre_crop, read_image
from mudit.data.strings import Strings
from mudit.errors import DataError, UsageError

_MAX_THREADS = 8
_EXAMPLES = 5  # malformed rows that are named
_DIGEST = 16  # bytes that tell captions apart
_HELD_OUT_EVERY = 20  # as in data.folder


class Row(NamedTuple):
    """One image with its caption.

    Attributes:
        file: The image's file; for a tar member, the tar file.
        member: Its name within a tar file; empty for a file of its own.
        offset: Where its bytes begin.
        length: How many there are.
        caption: The text.
        group: Rows of one group are all trained on or all held out; empty: those of one caption.
    """

    file: str
    member: str
    offset: int
    length: int
    caption: str
    group: str = ""


class Malformed(NamedTuple):
    """A row that is none.

    Attributes:
        where: Its place, e.g. `captions.jsonl, line 3`.
        why: What is wrong with it.
    """

    where: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Rows that were left out.

    Attributes:
        count: How many.
        examples: The first of them, in words.
    """

    count: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionedImages:
    """Captioned images, decoded when a batch asks for them, as RGB.

    Attributes:
        name: What to call it.
        root: What `files` are relative to.
        files: Of the images; tar files where `members` are not empty.
        members: Names within tar files.
        places: Where an image's bytes begin and how many there are, int64, shape (N, 2).
        labels: int64, shape (N,).
        class_names: The distinct captions.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        fingerprint: SHA-256 of names, lengths and captions. Images are not read.
        skipped: Malformed rows of the whole data set.
    """

    name: str
    root: Path
    files: Strings
    members: Strings
    places: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    class_names: Strings
    size: int
    flip: bool
    fingerprint: str
    skipped: Skipped = field(default_factory=Skipped)

    @property
    def num_samples(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of distinct captions."""
        return len(self.class_names)

    @property
    def captioned(self) -> bool:
        """True: labels number captions."""
        return True

    @property
    def channels(self) -> int:
        """3: all images are made RGB."""
        return 3

    def batch(
        self,
        indices: Indices,
        flips: Flips | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch 3 size size"], Int[Tensor, " batch"]]:
        """Images and labels, decoded in threads; see `ImageDataset.batch`."""
        check_batch(indices, flips, self.num_samples)
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
            decoded = list(pool.map(self._pixels, indices.tolist()))
        pixels = np.empty((len(decoded), 3, self.size, self.size), dtype=np.uint8)
        for place, image in zip(pixels, decoded):
            place[:] = image.transpose(2, 0, 1)
        return mirrored(to_unit(pixels), flips), torch.from_numpy(self.labels[indices])

    def _pixels(self, index: int) -> npt.NDArray[np.uint8]:
        return np.asarray(centre_crop(self.read(index), self.size))

    def read(self, index: int) -> Image.Image:
        """One whole image, as RGB.

        Raises:
            DataError: It cannot be read.
        """
        path, member = self.root / self.files[index], self.members[index]
        if not member:
            return read_image(path)
        offset, length = self.places[index].tolist()
        try:
            with path.open("rb") as file:
                file.seek(offset)
                content = file.read(length)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}. Restore the file.") from error
        return read_image(io.BytesIO(content), name=f"{path}, member {member}")


def captioned_splits(
    rows: Iterable[Row | Malformed],
    *,
    name: str,
    root: Path,
    size: int | None,
    flip: bool,
    most_skipped: float,
    make: Callable[..., CaptionedImages] = CaptionedImages,
    seal: str = "",
) -> Splits:
    """The data set of some rows.

    About 5 % are held out: the groups, or else captions, whose SHA-256 is divisible by 20, so that
    none is on both sides, and none changes sides when others come or go.

    Args:
        rows: Images and malformed rows, in order.
        name: What to call it.
        root: What files are relative to.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        most_skipped: Share of rows that may be malformed.
        make: Of what class its parts are.
        seal: Goes into the fingerprint: stands for contents that rows do not show.

    Raises:
        DataError: Too many rows are malformed, or fewer than two captions are left.
        UsageError: `size` is missing or below 1, or `most_skipped` is not in [0, 1].
    """
    if size is None or size < 1:
        got = "no size was given" if size is None else f"size is {size}"
        raise UsageError(
            f"{name} needs the side to which images are scaled and cropped, but {got}; expected "
            "pixels, at least 1, e.g. data.size 32."
        )
    if not 0 <= most_skipped <= 1:
        raise UsageError(f"data.most_skipped is {most_skipped}, expected a share in [0, 1].")
    bad: list[Malformed] = []
    skipped = 0
    files, members, captions = Strings(), Strings(), Strings()
    digests, listing = bytearray(), hashlib.sha256(seal.encode())
    places, parts = array("q"), array("b")
    for row in rows:
        if isinstance(row, Malformed):
            skipped += 1
            if len(bad) < _EXAMPLES:
                bad.append(row)
            continue
        files.append(row.file)
        members.append(row.member)
        captions.append(row.caption)
        places.extend((row.offset, row.length))
        text = row.caption.encode("utf-8", "surrogateescape")
        digests += hashlib.sha256(text).digest()[:_DIGEST]
        group = (row.group or row.caption).encode("utf-8", "surrogateescape")
        parts.append(int.from_bytes(hashlib.sha256(group).digest()) % _HELD_OUT_EVERY == 0)
        entry = f"{row.file}\0{row.member}\0{row.length}\0"
        listing.update(entry.encode("utf-8", "surrogateescape") + text + b"\0")
    _refuse_malformed(name, skipped, len(parts), bad, most_skipped)
    first, labels = _distinct(bytes(digests))
    if len(first) < 2:
        raise DataError(
            f"{name} has {len(parts)} images with {len(first)} different captions; expected at "
            "least two captions, one to train on and one to hold out."
        )
    held_out = np.array(parts, dtype=bool)
    if held_out.all() or not held_out.any():
        held_out = labels == labels[-1]
    class_names = Strings(captions[index] for index in first.tolist())
    where = np.array(places, dtype=np.int64).reshape(-1, 2)

    def part(chosen: npt.NDArray[np.bool_], flip: bool) -> CaptionedImages:
        (numbers,) = np.nonzero(chosen)
        return make(
            name=name,
            root=root,
            files=Strings(files[number] for number in numbers.tolist()),
            members=Strings(members[number] for number in numbers.tolist()),
            places=where[numbers],
            labels=labels[numbers],
            class_names=class_names,
            size=size,
            flip=flip,
            fingerprint=hashlib.sha256(listing.digest() + chosen.tobytes()).hexdigest(),
            skipped=Skipped(count=skipped, examples=tuple(f"{at}: {why}" for at, why in bad)),
        )

    return Splits(train=part(~held_out, flip), validation=part(held_out, False))


def _refuse_malformed(
    name: str, skipped: int, good: int, bad: list[Malformed], most_skipped: float
) -> None:
    if skipped <= most_skipped * (skipped + good) and good:
        return
    if not skipped:
        raise DataError(f"{name} has no images with captions. Correct data.source.")
    shown = "; ".join(f"{row.where}: {row.why}" for row in bad)
    raise DataError(
        f"{skipped} of {skipped + good} rows of {name} are malformed, more than the share "
        f"{most_skipped:g} that data.most_skipped allows. The first: {shown}. Mend them, or allow "
        "more."
    )


def _distinct(digests: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each distinct digest appears first, in that order, and the number of each row's."""
    keys = np.frombuffer(digests, dtype=f"V{_DIGEST}")
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]

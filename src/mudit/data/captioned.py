"""Captioned images in files and tar members, and the rows from which such data are made.

Labels number the distinct captions, in the order of their first appearance. Nothing is ever
extracted from a tar file: an image is the bytes between two places of it.
"""

from __future__ import annotations

import hashlib
import io
import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from mudit.data.dataset import (
    Flips,
    Indices,
    Skipped,
    Splits,
    check_batch,
    mirrored,
    to_unit,
)
from mudit.data.images import HELD_OUT_EVERY, checked_size, decoded, read_picture
from mudit.data.strings import Strings, is_unicode
from mudit.errors import DataError, UsageError

EXAMPLES = 5  # malformed rows that are named
_LONGEST = 300  # letters of one that are shown
_MOST_KEPT = 64 * 2**20  # bytes of decoded pixels
_DIGEST = 16  # bytes that tell captions apart

Labels = npt.NDArray[np.int64]


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


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionedImages:
    """Captioned images as RGB, decoded when a batch first asks for them.

    Of small data sets the pixels are kept: decoding a batch of small images takes a tenth of a
    small model's step.

    Attributes:
        name: What to call it.
        root: What `files` are relative to.
        files: Of the images; tar files where `members` are not empty.
        members: Names within tar files.
        places: Where an image's bytes begin and how many there are, int64, shape (N, 2).
        labels: int64, shape (N,).
        class_names: The distinct captions.
        groups: The group of each caption, by number, int64, shape (K,): captions of one group are
            all trained on or all held out.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        fingerprint: SHA-256 of names, lengths and captions. Images are not read.
    """

    name: str
    root: Path
    files: Strings
    members: Strings
    places: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    class_names: Strings
    groups: Labels
    size: int
    flip: bool
    fingerprint: str

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
        images = mirrored(to_unit(self._pixels(indices)), flips)
        return images, torch.from_numpy(self.labels[indices])

    def _pixels(self, indices: Indices) -> npt.NDArray[np.uint8]:
        if self._kept is None:
            return decoded(self.read, indices, size=self.size)
        pixels, there = self._kept
        missing = np.unique(indices[~there[indices]])
        if missing.size:
            pixels[missing] = decoded(self.read, missing, size=self.size)
            there[missing] = True
        return pixels[indices]

    @cached_property
    def _kept(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]] | None:
        """Pixels that have been decoded, and which have; None where there are too many to keep."""
        shape = (self.num_samples, self.channels, self.size, self.size)
        if math.prod(shape) > _MOST_KEPT:
            return None
        return np.empty(shape, dtype=np.uint8), np.zeros(self.num_samples, dtype=bool)

    def read(self, index: int) -> Image.Image:
        """One whole image, as RGB.

        Raises:
            DataError: It cannot be read.
        """
        path, member = self.root / self.files[index], self.members[index]
        if not member:
            return read_picture(path)
        offset, length = self.places[index].tolist()
        try:
            with path.open("rb") as file:
                file.seek(offset)
                content = file.read(length)
        except OSError as error:
            raise DataError(
                f"cannot read the tar file {path} ({error.strerror}); expected it where it was "
                "when the data were opened. Restore it."
            ) from error
        return read_picture(io.BytesIO(content), name=f"{path}, member {member}")


def captioned_splits(
    rows: Iterable[Row | Malformed],
    *,
    spec: str,
    name: str,
    root: Path,
    size: int | None,
    flip: bool,
    most_skipped: float,
    make: Callable[..., CaptionedImages] = CaptionedImages,
) -> Splits:
    """The data set of some rows.

    About 5 % are held out: the captions whose SHA-256 is divisible by 20, so that none is on both
    sides, and none changes sides when others come or go. Where rows have groups, theirs decides;
    groups that have a caption in common go together.

    Args:
        rows: Images and malformed rows, in order.
        spec: What the user wrote, for errors.
        name: What to call it.
        root: What files are relative to.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        most_skipped: Share of rows that may be malformed.
        make: Of what class its parts are.

    Raises:
        DataError: Too many rows are malformed, or all that are left belong together.
        UsageError: `size` is missing or below 1, or `most_skipped` is not in [0, 1].
    """
    side = checked_size(spec, size)
    check_most_skipped(most_skipped)
    bad: list[Malformed] = []
    skipped = 0
    files, members, captions = Strings(), Strings(), Strings()
    digests, groups, listing = bytearray(), bytearray(), hashlib.sha256()
    places, chosen = array("q"), array("b")
    for row in map(_checked, rows):
        if isinstance(row, Malformed):
            skipped += 1
            if len(bad) < EXAMPLES:
                bad.append(row)
            continue
        files.append(row.file)
        members.append(row.member)
        captions.append(row.caption)
        places.extend((row.offset, row.length))
        text = row.caption.encode()
        digests += hashlib.sha256(text).digest()[:_DIGEST]
        digest = hashlib.sha256(row.group.encode() or text).digest()
        groups += digest[:_DIGEST]
        chosen.append(int.from_bytes(digest) % HELD_OUT_EVERY == 0)
        entry = f"{row.file}\0{row.member}\0{row.length}\0"
        listing.update(entry.encode("utf-8", "surrogateescape") + text + b"\0")
    _refuse_malformed(spec, skipped, len(files), bad, most_skipped)
    first, labels = _distinct(bytes(digests))
    joined, group_first = _joined(labels, bytes(groups))
    held_out = _held_out(joined, group_first, np.array(chosen, dtype=bool))
    if held_out.all() or not held_out.any():
        raise DataError(
            f"all {len(files)} images of {spec} have one caption, or belong to one group; expected "
            "at least two, one to train on and one to hold out. Add images with other captions."
        )
    class_names = Strings(captions[index] for index in first.tolist())
    del captions, digests, groups
    where = np.array(places, dtype=np.int64).reshape(-1, 2)

    def part(wanted: npt.NDArray[np.bool_], flip: bool) -> CaptionedImages:
        (numbers,) = np.nonzero(wanted)
        return make(
            name=name,
            root=root,
            files=Strings(files[number] for number in numbers.tolist()),
            members=Strings(members[number] for number in numbers.tolist()),
            places=where[numbers],
            labels=labels[numbers],
            class_names=class_names,
            groups=joined[first],
            size=side,
            flip=flip,
            fingerprint=hashlib.sha256(listing.digest() + wanted.tobytes()).hexdigest(),
        )

    return Splits(
        train=part(~held_out, flip),
        validation=part(held_out, False),
        skipped=Skipped(count=skipped, examples=tuple(map(shown_row, bad))),
    )


def _checked(row: Row | Malformed) -> Row | Malformed:
    """JSON can spell characters that are none, which no encoder of text takes."""
    if isinstance(row, Malformed) or (is_unicode(row.caption) and is_unicode(row.group)):
        return row
    return Malformed(f"{row.file} {row.member}".strip(), "the caption is not Unicode")


def check_most_skipped(share: float) -> None:
    """Refuse what is no share.

    Raises:
        UsageError: It is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise UsageError(
            f"data.most_skipped is {share}; expected the share of rows that may be malformed, 0 to "
            "1."
        )


def shown_row(row: Malformed) -> str:
    """In one short line: it quotes names that may hold anything."""
    text = f"{row.where}: {row.why}"
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _refuse_malformed(
    spec: str, skipped: int, good: int, bad: list[Malformed], most_skipped: float
) -> None:
    if good and skipped <= most_skipped * (skipped + good):
        return
    if not skipped:
        raise DataError(f"{spec} has no images with captions; expected at least two. Add some.")
    shown = "; ".join(map(shown_row, bad))
    raise DataError(
        f"{skipped} of the {skipped + good} rows of {spec} are malformed; expected at most the "
        f"share {most_skipped:g} (data.most_skipped). The first: {shown}. Mend them, or allow more."
    )


def _distinct(digests: bytes) -> tuple[Labels, Labels]:
    """Where each distinct digest appears first, in that order, and the number of each row's."""
    keys = np.frombuffer(digests, dtype=f"V{_DIGEST}")
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]


def _held_out(
    groups: Labels, first: Labels, chosen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which rows are: those of a group that goes first.

    Args:
        groups: The group of each row, by number, shape (N,).
        first: Where each number's own group appears first.
        chosen: Which rows' own groups go first, shape (N,).
    """
    decided = chosen[first][groups]
    if decided.all() or not decided.any():
        decided = groups == groups.min()
    return decided


def _joined(labels: Labels, groups: bytes) -> tuple[Labels, Labels]:
    """The group of each row, by number, and where each number's own group appears first.

    Numbers are in the order of digests. Groups that have a caption in common become one: the one
    with the smallest digest, which decides for all of them.
    """
    keys = np.frombuffer(groups, dtype=f"V{_DIGEST}")
    _, first, numbers = np.unique(keys, return_index=True, return_inverse=True)
    count, nodes = numbers.max() + 1, numbers.max() + labels.max() + 2
    links = coo_array((np.ones(len(labels), bool), (numbers, count + labels)), (nodes, nodes))
    _, component = connected_components(links, directed=False)
    _, smallest, place = np.unique(component[:count], return_index=True, return_inverse=True)
    return smallest[place][numbers], first

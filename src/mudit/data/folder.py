"""Image files in class subfolders, decoded when a batch asks for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from mudit.data.dataset import Flips, Indices, Splits, check_batch, mirrored, to_unit
from mudit.data.images import EXTENSIONS, HELD_OUT_EVERY, checked_size, decoded, read_image
from mudit.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderDataset:
    """Images in files, as RGB.

    Attributes:
        name: What to call it.
        root: The folder that `files` are relative to.
        files: Paths with `/`, sorted.
        labels: int64, shape (N,).
        class_names: Names of the class subfolders, sorted.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        fingerprint: SHA-256 of the listing: paths and sizes in bytes. Contents are not read.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    size: int
    flip: bool
    fingerprint: str

    @property
    def num_samples(self) -> int:
        """Number of images."""
        return len(self.files)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def captioned(self) -> bool:
        """False: labels are classes."""
        return False

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
        images = mirrored(to_unit(decoded(self._image, indices, size=self.size)), flips)
        return images, torch.from_numpy(self.labels[indices])

    def _image(self, index: int) -> Image.Image:
        return read_image(self.root / self.files[index])


def open_folder(folder: str, *, size: int | None, flip: bool = True) -> Splits:
    """The images below `folder`: each subfolder is a class, in the order of sorted names.

    About 5 % of the files are held out (at least one): those whose path, relative to the folder,
    has a SHA-256 divisible by 20. A file stays in its split when others come or go. Names that
    start with a dot are passed over.

    Args:
        folder: Holds one subfolder for each class, with image files right in it.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images at random, as [DiT] code does.

    Raises:
        UsageError: `size` is missing or below 1.
        DataError: The folder, its subfolders or their images are missing.
    """
    side = checked_size(f"folder:{folder}", size)
    root = Path(folder).expanduser()
    class_names = _class_names(root)
    rows = [row for label, name in enumerate(class_names) for row in _files(root, name, label)]
    if len(rows) < 2:
        raise DataError(
            f"the folder {root} has {len(rows)} image; expected at least 2, one to train on and "
            "one to hold out. Add images."
        )
    held_out = _held_out([file for file, _, _ in rows])

    def part(wanted: bool, flip: bool) -> FolderDataset:
        chosen = [row for row, is_held_out in zip(rows, held_out) if is_held_out == wanted]
        return FolderDataset(
            name=root.resolve().name,
            root=root,
            files=tuple(file for file, _, _ in chosen),
            labels=np.array([label for _, label, _ in chosen], dtype=np.int64),
            class_names=class_names,
            size=side,
            flip=flip,
            fingerprint=_listing_hash((file, length) for file, _, length in chosen),
        )

    return Splits(train=part(False, flip), validation=part(True, False))


def _class_names(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise DataError(
            f"there is no folder {root}; expected one with a subfolder of images for each class. "
            "Correct the path after `folder:`."
        )
    names = sorted(entry.name for entry in _listing(root) if entry.is_dir())
    if not names:
        raise DataError(
            f"the folder {root} has no subfolders; expected one for each class with its images in "
            "it. If there are no classes, put all images into one subfolder."
        )
    return tuple(names)


def _files(root: Path, name: str, label: int) -> list[tuple[str, int, int]]:
    """(relative path, label, bytes) of a class's images, sorted."""
    rows = sorted(
        (f"{name}/{entry.name}", label, _length(entry))
        for entry in _listing(root / name)
        if entry.name.lower().endswith(EXTENSIONS) and not entry.is_dir()
    )
    if not rows:
        raise DataError(
            f"the class folder {root / name} has no images; expected files that end in "
            f"{' '.join(EXTENSIONS)} right in it (folders inside are not searched). Add images or "
            f"remove it; if {name} is itself a folder of classes, use folder:{root / name}."
        )
    return rows


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"cannot list the folder {folder} ({error.strerror}); expected a readable one. Check "
            "its permissions and the disk."
        ) from error


def _length(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError as error:
        raise DataError(
            f"cannot look up the file {entry.path} ({error.strerror}); expected a readable image. "
            "If it is a link, does what it points to exist? Replace or remove it."
        ) from error


def _held_out(files: list[str]) -> list[bool]:
    hashes = [hashlib.sha256(os.fsencode(file)).digest() for file in files]
    chosen = [int.from_bytes(digest) % HELD_OUT_EVERY == 0 for digest in hashes]
    if any(chosen) and not all(chosen):
        return chosen
    return [digest == min(hashes) for digest in hashes]


def _listing_hash(rows: Iterable[tuple[str, int]]) -> str:
    digest = hashlib.sha256()
    for file, length in sorted(rows):
        digest.update(os.fsencode(file) + f"\0{length}\0".encode())
    return digest.hexdigest()

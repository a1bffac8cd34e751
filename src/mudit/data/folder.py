"""Image files in class subfolders, decoded when a batch asks for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from mudit.data.dataset import Flips, Indices, Splits, check_batch, mirrored, to_unit
from mudit.errors import DataError, UsageError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

# One file in so many is held out, by the hash of its path.
_HELD_OUT_EVERY = 20
_MAX_THREADS = 8
# What Pillow raises on damaged files (found by flipping and cutting bytes); OSError is most of it.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


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
        threads = min(_MAX_THREADS, os.cpu_count() or 1)
        # map keeps the order; Pillow decodes without the interpreter's lock.
        with ThreadPoolExecutor(threads) as pool:
            decoded = list(pool.map(self._pixels, indices.tolist()))
        pixels = np.empty((len(decoded), 3, self.size, self.size), dtype=np.uint8)
        for place, image in zip(pixels, decoded):
            place[:] = image.transpose(2, 0, 1)
        return mirrored(to_unit(pixels), flips), torch.from_numpy(self.labels[indices])

    def _pixels(self, index: int) -> npt.NDArray[np.uint8]:
        return np.asarray(centre_crop(read_image(self.root / self.files[index]), self.size))


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
    if size is None or size < 1:
        got = "no size was given" if size is None else f"size is {size}"
        raise UsageError(
            f"folder:{folder} needs the side to which images are scaled and cropped, but {got}; "
            "expected pixels, at least 1, e.g. size=32 (data.size in a config)."
        )
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
            size=size,
            flip=flip,
            fingerprint=_listing_hash((file, length) for file, _, length in chosen),
        )

    return Splits(train=part(False, flip), validation=part(True, False))


def read_image(source: Path | BinaryIO, *, name: str = "") -> Image.Image:
    """The image as RGB; transparency and EXIF orientation are ignored, as in [ADM] code.

    Args:
        source: A file, or its contents.
        name: What to call it in errors; empty: the file.

    Raises:
        DataError: The file cannot be read or decoded, is too large, or has more than 8 bits.
    """
    name = name or str(source)
    try:
        with Image.open(source) as file:
            file.load()
            image: Image.Image = file
            if image.mode.startswith(("I", "F")):
                # convert("RGB") would cut all values above 255 without a word.
                raise DataError(
                    f"the image {name} has pixels of mode {image.mode} (more than 8 bits); "
                    "expected 8 bits per channel. Convert it to 8 bits."
                )
            if image.mode == "P" and "transparency" in image.info:
                image = image.convert("RGBA")  # same colours, without Pillow's warning
            return image.convert("RGB")
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(
            f"cannot read the image {name} ({type(error).__name__}: {error}); expected a complete "
            f"image file ({' '.join(EXTENSIONS)}). Replace or remove it."
        ) from error


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """`image` scaled until its shorter side is `size`, and the middle of that, `size` x `size`.

    Halved with a box filter while the shorter side is at least twice `size`, then bicubic.
    Source: [ADM] code `center_crop_arr` (guided_diffusion/image_datasets.py), used by [DiT] code.
    """
    while min(image.size) >= 2 * size:
        width, height = image.size
        image = image.resize((width // 2, height // 2), resample=Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    image = image.resize((width, height), resample=Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


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
    chosen = [int.from_bytes(digest) % _HELD_OUT_EVERY == 0 for digest in hashes]
    if any(chosen) and not all(chosen):
        return chosen
    return [digest == min(hashes) for digest in hashes]


def _listing_hash(rows: Iterable[tuple[str, int]]) -> str:
    digest = hashlib.sha256()
    for file, length in sorted(rows):
        digest.update(os.fsencode(file) + f"\0{length}\0".encode())
    return digest.hexdigest()

"""From image files to RGB pixels: decoding, cropping, batches."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from mudit.data.dataset import Indices
from mudit.errors import BrokenImageError, DataError, UsageError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
# One sample in so many is held out, by the hash of its path or caption.
HELD_OUT_EVERY = 20

_MAX_THREADS = 8
# What Pillow raises on damaged files (found by flipping and cutting bytes); OSError is most of it.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
# What Pillow raises on EXIF whose bytes were changed or cut.
_DAMAGED_EXIF = (LookupError, OSError, SyntaxError, TypeError, ValueError, Warning, struct.error)
_ADVICE = (
    "Replace or remove it: either changes the data, so that a run on them needs a new --folder. "
    "`mudit data latents` leaves such images out."
)
_CLEAR = ("LA", "La", "PA", "RGBA", "RGBa")  # modes with an alpha channel
_SIXTEEN = 257  # 65535 / 255


def read_image(source: Path | BinaryIO, *, name: str = "") -> Image.Image:
    """The image as RGB; transparency and EXIF orientation are ignored, as in [ADM] code.

    Args:
        source: A file, or its contents.
        name: What to call it in errors; empty: the file.

    Raises:
        BrokenImageError: It cannot be decoded, is too large, or has more than 8 bits.
        DataError: The file cannot be read.
    """
    return _read(source, name or str(source), _plain)


def read_picture(source: Path | BinaryIO, *, name: str = "") -> Image.Image:
    """The image as RGB as a viewer shows it: upright, over white where transparent, 16 bits scaled.

    Data from the web have all modes, and a phone's pictures lie on their side but for what EXIF
    says of them; a caption speaks of what can be seen.

    Args:
        source: A file, or its contents.
        name: What to call it in errors; empty: the file.

    Raises:
        BrokenImageError: It cannot be decoded, is too large, or has no known white.
        DataError: The file cannot be read.
    """
    return _read(source, name or str(source), _as_shown)


def _read(
    source: Path | BinaryIO, name: str, as_rgb: Callable[[Image.Image, str], Image.Image]
) -> Image.Image:
    try:
        with Image.open(source) as file:
            file.load()
            return as_rgb(file, name)
    except DataError:
        raise
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno:  # Pillow's own errors have none
            raise DataError(
                f"cannot read the image {name} ({error.strerror}); expected it where it was when "
                "the data were opened. Restore it."
            ) from error
        what = str(error)
        if isinstance(error, UnidentifiedImageError):
            what = "no image format that is known"  # Pillow's words may hold an address in memory
        why = f"{type(error).__name__}: {what}"
        raise BrokenImageError(
            f"cannot read the image {name} ({why}); expected a complete image file "
            f"({' '.join(EXTENSIONS)}). {_ADVICE}",
            name,
            why,
        ) from error


def _plain(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # convert("RGB") would cut all values above 255 without a word.
        why = f"pixels of mode {image.mode} (more than 8 bits)"
        raise BrokenImageError(
            f"the image {name} has {why}; expected 8 bits per channel. Convert it to 8 bits, and "
            "give a run on the changed data a new --folder.",
            name,
            why,
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # same colours, without Pillow's warning
    return image.convert("RGB")


def _as_shown(image: Image.Image, name: str) -> Image.Image:
    with suppress(*_DAMAGED_EXIF):  # the picture itself is whole
        ImageOps.exif_transpose(image, in_place=True)
    return _over_white(image, name)


def _over_white(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        # Pillow before 11 gives 16-bit PNGs the mode I. Colours of 16 bits are RGB already.
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode not in _CLEAR and "transparency" not in image.info:
        return _plain(image, name)
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")


def _eight_bits(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Of 16 bits the nearest of 8: 65535 is 255."""
    scaled = (values.astype(np.int64) + _SIXTEEN // 2) // _SIXTEEN
    return scaled.astype(np.uint8)


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


def decoded(
    read: Callable[[int], Image.Image], indices: Indices, *, size: int
) -> npt.NDArray[np.uint8]:
    """RGB pixels, shape (B, 3, size, size), read and cropped in threads.

    Args:
        read: Gives the RGB image of an index.
        indices: Which, shape (B,).
        size: Side, pixels.

    Raises:
        DataError: One cannot be read.
    """

    def pixels_of(index: int) -> npt.NDArray[np.uint8]:
        return np.asarray(centre_crop(read(index), size))

    # map keeps the order; Pillow decodes without the interpreter's lock.
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        images = list(pool.map(pixels_of, indices.tolist()))
    pixels = np.empty((len(images), 3, size, size), dtype=np.uint8)
    for place, image in zip(pixels, images):
        place[:] = image.transpose(2, 0, 1)
    return pixels


def checked_size(spec: str, size: int | None) -> int:
    """`size`, if it is one.

    Raises:
        UsageError: It is missing or below 1.
    """
    if size is None or size < 1:
        got = "no size was given" if size is None else f"size is {size}"
        raise UsageError(
            f"{spec} needs the side to which images are scaled and cropped, but {got}; expected "
            "pixels, at least 1, e.g. size=32 (data.size in a config)."
        )
    return size

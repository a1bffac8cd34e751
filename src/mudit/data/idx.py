"""Datasets in the four files of MNIST, which Fashion-MNIST and KMNIST use too.

An IDX file: two zero bytes, type (8: unsigned byte), number of dimensions, each dimension as a
big-endian 32-bit number, then the values. Source: http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mudit.data.dataset import ArrayDataset, Splits
from mudit.errors import DataError

Bytes = npt.NDArray[np.uint8]

_FORMS = ("{0}-{1}", "{0}-{1}.gz", "{0}.{1}", "{0}.{1}.gz")
_GZIP = 16 + zlib.MAX_WBITS


def open_idx(folder: str, *, flip: bool = False) -> Splits:
    """The images in `folder`: training on the train files, validation on the t10k files.

    Args:
        folder: Holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and their `t10k-`
            counterparts, each perhaps with `.gz`, or named `train-images.idx3-ubyte`.
        flip: Whether training should mirror images. Off: the format does not say what they show.

    Raises:
        DataError: The folder or a file is missing, a file is damaged or of another kind, images
            are not square, or files do not belong together.
    """
    root = Path(folder).expanduser()
    files = _find(root)
    train_images = _read_images(files["train-images"])
    images = _read_images(files["t10k-images"])
    if train_images.shape[1:] != images.shape[1:]:
        raise DataError(
            f"{files['train-images']} has images of {_sides(train_images)} pixels and "
            f"{files['t10k-images']} of {_sides(images)}; expected the same. Take the four files "
            "from one dataset."
        )
    train_labels = _read_labels(files["train-labels"], files["train-images"], len(train_images))
    labels = _read_labels(files["t10k-labels"], files["t10k-images"], len(images))
    num_classes = int(max(train_labels.max(), labels.max())) + 1
    names = tuple(str(label) for label in range(num_classes))
    return Splits(
        train=ArrayDataset(
            name=root.resolve().name,
            images=train_images[:, None],  # (N, 1, H, W)
            labels=train_labels,
            class_names=names,
            flip=flip,
        ),
        validation=ArrayDataset(
            name=root.resolve().name, images=images[:, None], labels=labels, class_names=names
        ),
    )


def read_idx(path: Path, *, dims: int) -> Bytes:
    """The array in an IDX file of unsigned bytes, gzipped if its name ends in `.gz`.

    Args:
        path: The file.
        dims: How many dimensions it must have.

    Raises:
        DataError: The file cannot be read, is of another kind, or is not as long as it says.
    """
    raw = _read_bytes(path)
    magic, expected = raw[:4], bytes([0, 0, 8, dims])
    if magic != expected:
        raise DataError(
            f"{path} starts with bytes 0x{magic.hex()}; expected 0x{expected.hex()}, which marks "
            f"an IDX file of unsigned bytes with {dims} dimension{'s' if dims > 1 else ''}. "
            "Is it another kind of file, or are images and labels mixed up?"
        )
    start = 4 + 4 * dims
    if len(raw) < start:
        raise DataError(_wrong_length(path, f"{start} bytes of header", len(raw)))
    shape = [int(length) for length in np.frombuffer(raw[4:start], dtype=">u4")]
    wanted = start + math.prod(shape)
    if len(raw) != wanted:
        raise DataError(_wrong_length(path, f"{wanted} bytes for dimensions {shape}", len(raw)))
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror}); expected a readable file. Check its "
            "permissions and the disk."
        ) from error
    if path.suffix != ".gz":
        return data
    # Not gzip.open: what there is of a truncated file is wanted for the message.
    content = b""
    try:
        while data:
            stream = zlib.decompressobj(_GZIP)
            content += stream.decompress(data)
            data = stream.unused_data
    except zlib.error as error:
        raise DataError(
            f"{path} is damaged or not gzip ({error}); expected a gzipped IDX file. Download it "
            "again, or drop .gz from its name if it is not compressed."
        ) from error
    return content


def _wrong_length(path: Path, expected: str, got: int) -> str:
    unpacked = " after decompression" if path.suffix == ".gz" else ""
    return (
        f"{path} has the wrong length: expected {expected}, got {got} bytes{unpacked}. The file "
        "is truncated or damaged: copy or download it again."
    )


def _find(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError(
            f"there is no folder {root}; expected one with the four IDX files. Correct the path "
            "after `idx:` (Debian's package dataset-fashion-mnist has a set in "
            "/usr/share/datasets/fashion-mnist)."
        )
    found, missing = {}, []
    for stem, kind in (
        ("train-images", "idx3-ubyte"),
        ("train-labels", "idx1-ubyte"),
        ("t10k-images", "idx3-ubyte"),
        ("t10k-labels", "idx1-ubyte"),
    ):
        paths = [root / form.format(stem, kind) for form in _FORMS]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            missing.append(f"{stem}-{kind}")
        else:
            found[stem] = path
    if missing:
        raise DataError(
            f"the folder {root} lacks {', '.join(missing)}; expected each with or without .gz "
            "(names like train-images.idx3-ubyte are found too). Put them there, or correct the "
            "path after `idx:`."
        )
    return found


def _read_images(path: Path) -> Bytes:
    images = read_idx(path, dims=3)
    count, height, width = images.shape
    if not images.size:
        raise DataError(
            f"{path} says that it has {count} images of {height}x{width} pixels; expected at least "
            "one image and one pixel. Take another file."
        )
    if height != width:
        raise DataError(
            f"{path} has images of {height}x{width} pixels; expected square ones. Pad or crop "
            "them, or save them as PNG in class subfolders and use folder:PATH, which crops."
        )
    return images


def _read_labels(path: Path, images: Path, count: int) -> npt.NDArray[np.int64]:
    labels = read_idx(path, dims=1)
    if len(labels) != count:
        raise DataError(
            f"{path} has {len(labels)} labels and {images} has {count} images; expected as many "
            "labels as images. Take both files from one dataset."
        )
    return labels.astype(np.int64)


def _sides(images: Bytes) -> str:
    return f"{images.shape[1]}x{images.shape[2]}"

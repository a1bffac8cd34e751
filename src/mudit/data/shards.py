"""WebDataset's tar files, here or at a URL, read in place."""

from __future__ import annotations

import glob
import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from mudit.data.captioned import captioned_splits
from mudit.data.dataset import Splits
from mudit.data.images import checked_size
from mudit.data.tar_index import cache_folder
from mudit.data.tars import after_first_dot, tar_rows
from mudit.errors import DataError, EnvironmentFailure

_TIMEOUT_SECONDS = 60
_BLOCK = 1 << 20


def open_shards(pattern: str, *, size: int | None, flip: bool, most_skipped: float) -> Splits:
    """Captioned images of WebDataset tar files.

    Each sample is some members of one name with different endings: an image (`.jpg`, `.png`,
    `.webp`), and a text (`.txt`, `.caption`) or a `.json` with `caption` or `text`. A batch needs
    samples at random, which the library webdataset, made for streams, does not give; so tar files
    are indexed once, and images are read at their offsets.

    Args:
        pattern: Paths with `{000..012}`, `{a,b}`, `*` or `?`; or URLs with braces, each fetched
            once to the folder that MUDIT_CACHE names, else to ~/.cache/mudit.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        most_skipped: Share of samples that may be malformed.

    Raises:
        DataError: No file matches, a tar file is damaged, or too many samples are malformed.
        EnvironmentFailure: A URL does not answer, or braceexpand is not installed.
        UsageError: An option is missing or out of range.
    """
    checked_size(f"shards:{pattern}", size)  # before anything is fetched
    paths = [path for part in _expanded(pattern) for path in _local(part)]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    files = [path.relative_to(root).as_posix() for path in paths]
    return captioned_splits(
        tar_rows(root, files, after_first_dot),
        spec=f"shards:{pattern}",
        name=paths[0].stem,
        root=root,
        size=size,
        flip=flip,
        most_skipped=most_skipped,
    )


def _expanded(pattern: str) -> list[str]:
    """`a{0..2}` as `a0`, `a1`, `a2`."""
    if "{" not in pattern:
        return [pattern]
    try:
        import braceexpand
    except ImportError:
        raise EnvironmentFailure(
            f"shards:{pattern} has braces, for which braceexpand is needed: pip install "
            "'mudit[data]'. Or use * and ?."
        ) from None
    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise DataError(
            f"shards:{pattern} has braces that cannot be read ({error}); expected pairs, e.g. "
            "part-{000..007}.tar. Correct data.source."
        ) from None


def _local(part: str) -> list[Path]:
    if "://" in part:
        return [_fetched(part)]
    found = [Path(path).absolute() for path in sorted(glob.glob(os.path.expanduser(part)))]
    if not found:
        raise DataError(
            f"no file matches {part}; expected tar files, e.g. shards:data/part-{{000..007}}.tar "
            "or shards:data/*.tar. Correct data.source."
        )
    return found


def _fetched(url: str) -> Path:
    """A local copy of a URL, made once: whole or not at all."""
    parts = urlsplit(url)
    # A query or password may be secret.
    shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    folder = cache_folder() / "shards" / hashlib.sha256(url.encode()).hexdigest()[:16]
    path = folder / (PurePosixPath(parts.path).name or "shard.tar")
    if path.exists():
        return path
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _fetch(url, aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # of a network, a disk or a URL
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the answer, too
        raise EnvironmentFailure(
            f"cannot fetch {shown} to {folder} ({error}); expected a URL that answers with a tar "
            "file, and space for it. Fetch it by other means and give the local path, e.g. "
            "shards:data/part-000.tar."
        ) from None
    return path


def _fetch(url: str, path: Path) -> None:
    with (
        urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer,
        path.open("wb") as file,
    ):
        while block := answer.read(_BLOCK):
            file.write(block)
        # A connection that breaks off looks like an end to `read`.
        announced = answer.headers.get("Content-Length")
        if announced is not None and int(announced) != file.tell():
            raise ConnectionError(f"it broke off after {file.tell()} of {announced} bytes")

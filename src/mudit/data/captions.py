"""Rows of captioned images: from a JSONL or CSV file, from tar files, from a Hugging Face data set.

Each reader yields a `Row` for an image with its caption and a `Malformed` for what is neither, so
that `captioned_splits` can count, name and skip those.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mudit.data.captioned import Malformed, Row, captioned_splits
from mudit.data.dataset import Splits
from mudit.data.folder import EXTENSIONS
from mudit.errors import DataError, EnvironmentFailure

# Files that list a folder's images, in the order in which they are looked for, and their columns.
_LISTS = ("captions.jsonl", "metadata.jsonl", "captions.csv", "metadata.csv")
_FILE_KEYS = ("file", "file_name", "image")
_CAPTION_KEYS = ("caption", "text")
_TEXTS = (".txt", ".caption")


def open_captions(path: str, *, size: int | None, flip: bool, most_skipped: float) -> Splits:
    """Captioned images of a folder, or of tar files.

    A folder holds `captions.jsonl`, `metadata.jsonl`, `captions.csv` or `metadata.csv` with the
    columns `file` (or `file_name`, `image`), relative to the folder, and `caption` (or `text`); a
    column `group` keeps rows on one side of the split. Without such a file the folder's tar files
    are read, in which each image stands beside a text of the same name: SA-1B's layout.

    Args:
        path: The folder, or one tar file.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        most_skipped: Share of rows that may be malformed.

    Raises:
        DataError: Nothing of that kind is there, or too many rows are malformed.
        UsageError: An option is missing or out of range.
    """
    root = Path(path).expanduser()
    options: dict[str, Any] = {"size": size, "flip": flip, "most_skipped": most_skipped}
    if root.is_file():
        return captioned_splits(
            tar_rows(root.parent, [root.name]), name=root.stem, root=root.parent, **options
        )
    if not root.is_dir():
        raise DataError(
            f"there is no folder or tar file {root}; expected a folder with {', '.join(_LISTS)} or "
            "with tar files. Correct the path after `captions:`."
        )
    name = root.resolve().name
    for file in _LISTS:
        if (root / file).exists():
            read = _jsonl if file.endswith(".jsonl") else _csv
            rows = _listed(root, read(root / file))
            return captioned_splits(rows, name=name, root=root, **options)
    tars = sorted(entry.name for entry in root.glob("*.tar"))
    if not tars:
        raise DataError(
            f"the folder {root} has neither {', '.join(_LISTS)} nor tar files. Add a list of its "
            "images, one JSON object a line: "
            '{"file": "a.jpg", "caption": "a red apple"}.'
        )
    return captioned_splits(tar_rows(root, tars), name=name, root=root, **options)


def open_shards(pattern: str, *, size: int | None, flip: bool, most_skipped: float) -> Splits:
    """Captioned images of WebDataset tar files, read in place.

    Each sample is some members of one name with different endings: an image (`.jpg`, `.png`,
    `.webp`), and a text (`.txt`, `.caption`) or a `.json` with a caption. A batch needs samples at
    random, which WebDataset's own readers, made for streams, do not give; so the tar files are
    indexed once when they are opened, and images are read at their offsets.

    Args:
        pattern: Paths with `{000..012}`, `*` or `?`; or a URL, which is fetched once to the folder
            that MUDIT_CACHE names, else to ~/.cache/mudit.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        most_skipped: Share of samples that may be malformed.

    Raises:
        DataError: No file matches, or too many samples are malformed.
        EnvironmentFailure: A URL does not answer.
        UsageError: An option is missing or out of range.
    """
    paths = [path for part in _expanded(pattern) for path in _local(part)]
    if not paths:
        raise DataError(
            f"no file matches {pattern}; expected tar files, e.g. "
            "shards:data/part-{000..007}.tar or shards:data/*.tar. Correct data.source."
        )
    root = Path(os.path.commonpath([path.parent for path in paths]))
    files = [path.relative_to(root).as_posix() for path in paths]
    return captioned_splits(
        tar_rows(root, files),
        name=Path(files[0]).stem,
        root=root,
        size=size,
        flip=flip,
        most_skipped=most_skipped,
    )


# --- lists ----------------------------------------------------------------------------------------


def _jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | Malformed]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path.name}, line {number}"
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:  # Unicode errors are among them
                yield where, Malformed(where, f"no JSON ({error})")
                continue
            if isinstance(value, dict):
                yield where, value
            else:
                yield where, Malformed(where, "no JSON object")


def _csv(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | Malformed]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            yield f"{path.name}, line {reader.line_num}", row


def _listed(
    root: Path, rows: Iterator[tuple[str, Mapping[str, Any] | Malformed]]
) -> Iterator[Row | Malformed]:
    top = os.path.realpath(root)
    for where, row in rows:
        if isinstance(row, Malformed):
            yield row
            continue
        file, caption = _value(row, _FILE_KEYS), _value(row, _CAPTION_KEYS)
        if file is None or caption is None:
            keys, what = (_FILE_KEYS, "file") if file is None else (_CAPTION_KEYS, "caption")
            yield Malformed(where, f"no {what} (looked for {', '.join(keys)})")
            continue
        path = os.path.realpath(os.path.join(top, file))
        if os.path.commonpath([top, path]) != top:
            yield Malformed(where, f"{file} lies outside of the folder")
        elif not file.lower().endswith(EXTENSIONS):
            yield Malformed(where, f"{file} is no image ({' '.join(EXTENSIONS)})")
        elif not os.path.isfile(path):
            yield Malformed(where, f"{file} does not exist")
        else:
            group = row.get("group")
            yield Row(
                file=file,
                member="",
                offset=0,
                length=os.path.getsize(path),
                caption=caption,
                group=group if isinstance(group, str) else "",
            )


def _value(row: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    found = next((row[key] for key in keys if row.get(key)), None)
    if not isinstance(found, str) or "\0" in found:
        return None
    return found.strip() or None


# --- tar files ------------------------------------------------------------------------------------


def tar_rows(root: Path, files: list[str]) -> Iterator[Row | Malformed]:
    """The samples of tar files, in the order of the files and their members.

    Args:
        root: What the files are relative to.
        files: Uncompressed tar files.

    Raises:
        DataError: One is missing, damaged or compressed.
    """
    for file in files:
        try:
            with tarfile.open(root / file, "r:") as tar:
                yield from _samples(tar, file)
        except (OSError, tarfile.TarError) as error:
            raise DataError(
                f"cannot read the tar file {root / file} ({error}); expected a complete one "
                "without compression, since images are read in place. Replace it, or unpack a "
                "compressed one with gunzip."
            ) from error


def _samples(tar: tarfile.TarFile, file: str) -> Iterator[Row | Malformed]:
    """WebDataset and SA-1B agree: members of one sample follow each other and share a name."""
    key = ""
    parts: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        pure = PurePosixPath(member.name)
        if member.isdir():
            continue
        if pure.is_absolute() or ".." in pure.parts or not member.isfile():
            why = "a link or device" if not member.isfile() else "a name that leaves its folder"
            yield Malformed(f"{file}, member {member.name}", why)
            continue
        stem, dot, ending = pure.name.partition(".")
        name = str(pure.parent / stem)
        if name != key and parts:
            yield _sample(tar, file, key, parts)
            parts = {}
        key = name
        parts[(dot + ending).lower()] = member
    if parts:
        yield _sample(tar, file, key, parts)


def _sample(
    tar: tarfile.TarFile, file: str, key: str, parts: Mapping[str, tarfile.TarInfo]
) -> Row | Malformed:
    where = f"{file}, sample {key}"
    image = next((parts[ending] for ending in EXTENSIONS if ending in parts), None)
    if image is None:
        return Malformed(where, f"no image ({' '.join(EXTENSIONS)}) among {' '.join(parts)}")
    caption: str | None = None
    for ending, member in parts.items():
        if ending not in (*_TEXTS, ".json"):
            continue
        content = tar.extractfile(member)
        assert content is not None  # regular files alone come here
        try:
            text = content.read().decode()
            value = json.loads(text) if ending == ".json" else {"text": text}
        except ValueError as error:
            return Malformed(where, f"{ending} cannot be read ({error})")
        if isinstance(value, dict):
            caption = caption or _value(value, _CAPTION_KEYS)
    if caption is None:
        return Malformed(where, f"no caption in {', '.join(_TEXTS)} or .json")
    return Row(
        file=file, member=image.name, offset=image.offset_data, length=image.size, caption=caption
    )


# --- shards ---------------------------------------------------------------------------------------


def _expanded(pattern: str) -> list[str]:
    """`a{0..2}` as `a0`, `a1`, `a2`."""
    if "{" not in pattern:
        return [pattern]
    try:
        from braceexpand import braceexpand
    except ImportError:
        raise EnvironmentFailure(
            f"{pattern} has braces, for which braceexpand is needed: pip install 'mudit[data]'. Or "
            "use * and ?."
        ) from None
    return list(braceexpand(pattern))


def _local(part: str) -> list[Path]:
    if "://" in part:
        return [_fetched(part)]
    return [Path(path) for path in sorted(glob.glob(os.path.expanduser(part)))]


def _fetched(url: str) -> Path:
    """A local copy of a URL, made once."""
    cache = Path(os.environ.get("MUDIT_CACHE") or Path.home() / ".cache" / "mudit")
    folder = cache / "shards" / hashlib.sha256(url.encode()).hexdigest()[:16]
    path = folder / PurePosixPath(urllib.request.url2pathname(url).partition("?")[0]).name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, aside.open("wb") as file:
            while block := answer.read(1 << 20):
                file.write(block)
    except (urllib.error.URLError, OSError, ValueError) as error:
        aside.unlink(missing_ok=True)
        raise EnvironmentFailure(
            f"{url} cannot be fetched ({error}). Fetch it by other means and give the local path, "
            "e.g. shards:data/part-000.tar."
        ) from None
    aside.replace(path)
    return path

"""Captioned images that a list beside them names: JSONL or CSV; or in tar files."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path

from mudit.data.captioned import Malformed, Row, captioned_splits
from mudit.data.csv_rows import csv_rows
from mudit.data.dataset import Splits
from mudit.data.images import EXTENSIONS
from mudit.data.tars import CAPTION_KEYS, after_last_dot, caption_in, tar_rows
from mudit.errors import DataError

# The lists; metadata.* are those of Hugging Face's image folders.
LISTS = ("captions.jsonl", "metadata.jsonl", "captions.csv", "metadata.csv")

_FILE_KEYS = ("file", "file_name", "image")
_Rows = Iterator[tuple[str, Mapping[str, object] | str]]


def open_captions(path: str, *, size: int | None, flip: bool, most_skipped: float) -> Splits:
    """Captioned images of a folder, or of tar files.

    A folder holds one of `captions.jsonl`, `metadata.jsonl`, `captions.csv` and `metadata.csv`,
    with the columns `file` (or `file_name`, `image`), relative to the folder, and `caption` (or
    `text`); rows with the same text or whole number in a column `group` stay on one side of the
    split. Without a list the folder's tar files are read, where each image has a text of the same
    name beside it: SA-1B's layout. Images are not opened: one that is damaged is named when a batch
    asks for it.

    Args:
        path: The folder, or one tar file.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        most_skipped: Share of rows that may be malformed.

    Raises:
        DataError: Nothing of that kind is there, or too many rows are malformed.
        UsageError: An option is missing or out of range.
    """
    place = Path(path).expanduser()
    options = partial(
        captioned_splits, spec=f"captions:{path}", size=size, flip=flip, most_skipped=most_skipped
    )
    if place.is_file():
        rows = tar_rows(place.parent, [place.name], after_last_dot)
        return options(rows, name=place.stem, root=place.parent)
    if not place.is_dir():
        raise DataError(
            f"there is no folder or tar file {place}; expected a folder with {', '.join(LISTS)} or "
            "tar files. Correct the path after `captions:`."
        )
    name = place.resolve().name
    lists = [file for file in LISTS if (place / file).exists()]
    tars = sorted(entry.name for entry in place.glob("[!.]*.tar"))
    if len(lists) > 1:
        raise DataError(
            f"the folder {place} has {' and '.join(lists)}; expected one list of its images. Move "
            "the others elsewhere."
        )
    if lists:
        return options(_listed(place, lists[0]), name=name, root=place)
    if not tars:
        raise DataError(
            f"the folder {place} has neither {', '.join(LISTS)} nor tar files. Add a list of its "
            "images, captions.jsonl, with one JSON object a line: "
            '{"file": "a.jpg", "caption": "a red apple"}.'
        )
    return options(tar_rows(place, tars, after_last_dot), name=name, root=place)


def _listed(root: Path, file: str) -> Iterator[Row | Malformed]:
    """The rows of a list; a file that they name has to lie in the folder, links followed.

    Raises:
        DataError: The list cannot be read, or has no captions.
    """
    top = os.path.realpath(root)
    _real_folder.cache_clear()  # links may have changed since
    read = _jsonl if file.endswith(".jsonl") else _csv
    try:
        for where, row in read(root / file):
            why = row if isinstance(row, str) else _missing(row)
            if why or isinstance(row, str):
                yield Malformed(f"{file}, {where}", why)
                continue
            found = _row(top, caption_in(row, _FILE_KEYS), row)
            yield found if isinstance(found, Row) else Malformed(f"{file}, {where}", found)
    except OSError as error:
        raise DataError(
            f"cannot read {root / file} ({error.strerror}); expected a readable list of images. "
            "Check its permissions and the disk."
        ) from error


def _missing(row: Mapping[str, object]) -> str:
    for what, keys in (("file", _FILE_KEYS), ("caption", CAPTION_KEYS)):
        if not caption_in(row, keys):
            shown = ", ".join(str(key) for key in row) or "nothing"
            return f"no {what} (looked for {', '.join(keys)}; there is {shown})"
    return ""


def _row(top: str, file: str, row: Mapping[str, object]) -> Row | str:
    """The row, or what is wrong with it."""
    if not file.lower().endswith(EXTENSIONS):
        return f"{file} is no image ({' '.join(EXTENSIONS)})"
    inside = f"{top.rstrip('/')}/"
    try:
        folder, name = os.path.split(os.path.join(top, file))
        path = f"{_real_folder(folder)}/{name}"
        if not path.startswith(inside):
            return f"{file} lies outside of the folder"
        facts = os.lstat(path)
        if stat.S_ISLNK(facts.st_mode):
            if not os.path.realpath(path).startswith(inside):
                return f"{file} is a link that leads outside of the folder"
            facts = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: characters that no path has
        return f"{file!r} cannot be found ({getattr(error, 'strerror', None) or error})"
    if not stat.S_ISREG(facts.st_mode):
        return f"{file} is no plain file"
    if not facts.st_size:
        return f"{file} is empty"
    group = row.get("group")
    if isinstance(group, bool) or not isinstance(group, str | int | None):
        return f"the group {group!r} is neither a text nor a whole number"
    text = "" if group is None else str(group).strip()
    return Row(file, "", 0, facts.st_size, caption_in(row), text)


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    """Images of one folder usually follow each other; links are looked up on each level."""
    return os.path.realpath(path)


def _jsonl(path: Path) -> _Rows:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"line {number}", f"no JSON ({error})"
                continue
            yield f"line {number}", value if isinstance(value, dict) else "no JSON object"


def _csv(path: Path) -> _Rows:
    # Bytes that are no UTF-8 stay: they may be part of a file's name.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        rows = csv_rows(lines)
        _, first = next(rows, (1, ""))
        columns = () if isinstance(first, str) else tuple(first)
        if not (set(columns) & set(_FILE_KEYS) and set(columns) & set(CAPTION_KEYS)):
            raise DataError(
                f"the first line of {path} has the columns {', '.join(columns) or 'none'}; "
                f"expected one of {', '.join(_FILE_KEYS)} and one of {', '.join(CAPTION_KEYS)}, "
                "separated by commas. Add it."
            )
        for number, row in rows:
            yield f"line {number}", row

"""Rows from tar files whose images stand beside their texts: WebDataset's and SA-1B's layouts.

A tar file is read from end to end once; what was found is kept in the cache folder, since each
process of a study opens the data anew. Nothing is ever extracted, so no member can write anywhere.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from mudit.data.captioned import Malformed, Row
from mudit.data.images import EXTENSIONS
from mudit.data.tar_index import index_path, is_whole, keeping, kept_rows
from mudit.errors import DataError

CAPTION_KEYS = ("caption", "text")

_TEXTS = (".txt", ".caption", ".json")  # the first that has a caption counts
_LONGEST = 1 << 24  # bytes of a text; SA-1B's with all masks have some 100,000


class _Member(NamedTuple):
    """A file in a tar file.

    Attributes:
        name: With folders.
        offset: Where its bytes begin.
        length: How many there are.
        caption: A text's; empty: none.
        why: What is wrong with a text.
    """

    name: str
    offset: int
    length: int
    caption: str = ""
    why: str = ""


# What belongs to one sample: its members by their endings.
_Parts = dict[str, _Member]


def after_first_dot(name: str) -> tuple[str, str]:
    """WebDataset's reading of a name: `a.seg.png` is `.seg.png` of the sample `a`."""
    stem, dot, ending = name.partition(".")
    return stem, dot + ending


def after_last_dot(name: str) -> tuple[str, str]:
    """A file system's reading of a name: `a.seg.png` is `.png` of the sample `a.seg`."""
    pure = PurePosixPath(name)
    return pure.stem, pure.suffix


def tar_rows(
    root: Path, files: list[str], split_name: Callable[[str], tuple[str, str]]
) -> Iterator[Row | Malformed]:
    """The samples of tar files, in the order of the files and their members.

    Names that start with a dot or two underscores are passed over, as are endings that are neither
    an image's nor a text's.

    Args:
        root: What the files are relative to.
        files: Uncompressed tar files.
        split_name: From a member's name to its sample's name and its ending.

    Raises:
        DataError: One is missing, damaged or compressed.
    """
    for file in files:
        path = root / file
        try:
            kept = index_path(path, split_name)
            if is_whole(kept):
                yield from kept_rows(kept, file)
            else:
                yield from keeping(kept, _samples(path, file, split_name))
        except (OSError, EOFError, ValueError, tarfile.TarError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"cannot read the tar file {path} ({type(error).__name__}: {error}); expected a "
                "complete one without compression, since images are read in place. Replace it, or "
                "unpack a compressed one with gunzip."
            ) from error


def caption_in(row: Mapping[str, object], keys: tuple[str, ...] = CAPTION_KEYS) -> str:
    """The first text under one of the keys, without white space around it; empty: there is none.

    Of a list of texts, as COCO's captions are, the first.
    """
    for key in keys:
        value = row.get(key)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


# --- samples --------------------------------------------------------------------------------------


def _samples(
    path: Path, file: str, split_name: Callable[[str], tuple[str, str]]
) -> Iterator[Row | Malformed]:
    """Members of one sample usually follow each other; those that do not are joined at the end."""
    apart: dict[str, _Parts] = {}
    key, parts = "", _Parts()
    for member in _members(path, file):
        if isinstance(member, Malformed):
            yield member
            continue
        pure = PurePosixPath(member.name)
        stem, ending = split_name(pure.name)
        name = str(pure.parent / stem)
        if name != key or ending.lower() in parts:  # joined tars may repeat names
            yield from _whole(file, key, parts, apart)
            key, parts = name, {}
        parts[ending.lower()] = member
    yield from _whole(file, key, parts, apart)
    for key, parts in apart.items():
        if _first(parts, EXTENSIONS) is None and (left := _unpaired(file, key, parts)):
            yield from left
        else:
            yield _sample(file, key, parts)


def _whole(
    file: str, key: str, parts: _Parts, apart: dict[str, _Parts]
) -> Iterator[Row | Malformed]:
    """The sample, if it has image and text; else it is put with those that are `apart`."""
    if not parts:
        return
    if key not in apart and _first(parts, EXTENSIONS) and _first(parts, _TEXTS):
        yield _sample(file, key, parts)
    else:
        apart.setdefault(key, {}).update(parts)


def _unpaired(file: str, key: str, parts: _Parts) -> list[Malformed]:
    """Images of a sample that has none, since more of their names is taken for the ending.

    Each is told: with dots in names, all of a tar may look like one sample.
    """
    return [
        Malformed(
            f"{file}, member {member.name}",
            f"read as {ending} of the sample {key}: in WebDataset's layout an ending begins at the "
            "first dot. Rename it, or open the tar files with captions:",
        )
        for ending, member in parts.items()
        if ending.endswith(EXTENSIONS)
    ]


def _sample(file: str, key: str, parts: _Parts) -> Row | Malformed:
    where = f"{file}, sample {key}"
    image = _first(parts, EXTENSIONS)
    if image is None:
        return Malformed(where, f"no image ({' '.join(EXTENSIONS)}) beside {' '.join(parts)}")
    if not image.length:
        return Malformed(where, f"the image {image.name} is empty")
    texts = [parts[ending] for ending in _TEXTS if ending in parts]
    caption = next((text.caption for text in texts if text.caption), None)
    if caption is not None:
        return Row(file, image.name, image.offset, image.length, caption)
    wrong = "; ".join(text.why for text in texts if text.why)
    looked = f"looked for {' '.join(_TEXTS)} with {' or '.join(CAPTION_KEYS)}"
    return Malformed(where, wrong or f"no caption beside {image.name} ({looked})")


def _first(parts: _Parts, endings: tuple[str, ...]) -> _Member | None:
    return next((parts[ending] for ending in endings if ending in parts), None)


def _members(path: Path, file: str) -> Iterator[_Member | Malformed]:
    """Of all tars in the file: some are joined by `cat`, each with an end of its own.

    tarfile's `ignore_zeros` would pass over damaged headers, too.
    """
    with path.open("rb") as content:
        start: int | None = 0
        while start is not None:
            content.seek(start)
            with tarfile.open(fileobj=content, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    vars(tar)["members"].clear()  # tarfile keeps them all, at 1 kB each
                    if (found := _member(tar, member, file)) is not None:
                        yield found
                start = _behind_the_end(content, tar.offset)


def _behind_the_end(content: IO[bytes], end: int) -> int | None:
    """Where the next tar begins, if one does: behind the zeros that end this one.

    Raises:
        ValueError: There are none: tarfile takes a damaged header for the end.
    """
    content.seek(end)
    if content.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise ValueError(f"it is damaged or breaks off at byte {end}")
    while block := content.read(tarfile.BLOCKSIZE):
        if block.strip(b"\0"):
            return content.tell() - len(block)
    return None


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo, file: str) -> _Member | Malformed | None:
    """What a sample may be made of, or what is wrong with it; None: something else."""
    pure = PurePosixPath(member.name)
    if member.isdir() or pure.name.startswith((".", "__")):
        return None
    where = f"{file}, member {member.name}"
    if pure.is_absolute() or ".." in pure.parts:
        return Malformed(where, "a name that leaves its folder")
    if not member.isreg() or member.issparse():
        return Malformed(where, "no plain file (a link, a device or one with holes)")
    if pure.suffix.lower() in EXTENSIONS:
        return _Member(member.name, member.offset_data, member.size)
    return _text(tar, member) if pure.suffix.lower() in _TEXTS else None


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> _Member:
    """A caption in a member; its text is not kept, since there may be much beside the caption."""
    place = (member.name, member.offset_data, member.size)
    if member.size > _LONGEST:
        return _Member(*place, why=f"{member.name} has more than {_LONGEST} bytes")
    content = tar.extractfile(member)  # opens it; writes nothing
    assert content is not None  # a plain file
    text = content.read()
    try:
        if not member.name.lower().endswith(".json"):
            return _Member(*place, caption=text.decode().strip())
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _Member(*place, why=f"{member.name} cannot be read ({type(error).__name__})")
    return _Member(*place, caption=caption_in(value) if isinstance(value, dict) else "")

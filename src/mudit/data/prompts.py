"""Prompts from a file: a text a line, JSONL or CSV."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mudit.data.csv_rows import csv_rows
from mudit.data.strings import is_unicode
from mudit.errors import DataError, UsageError

# The columns of a JSONL or CSV file that hold the text, the first that is there.
PROMPT_KEYS = ("prompt", "caption", "text")

_NO_TEXT = (
    "not Unicode: half of a character (a surrogate) stands alone. Write it whole, or take it out."
)


def check_prompts(prompts: Iterable[str]) -> None:
    """Refuse what no encoder of text takes.

    Raises:
        UsageError: One is not Unicode.
    """
    for number, prompt in enumerate(prompts, start=1):
        if not is_unicode(prompt):
            raise UsageError(f"prompt {number}, {prompt!r}, is {_NO_TEXT}")


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts of a file, in order; blank lines are passed over.

    Args:
        path: `.jsonl`: an object, or a string, a line; `.csv`: with a line of column names; any
            other: a prompt a line. UTF-8.

    Raises:
        DataError: There is no such file, it cannot be read, holds no prompts, or has a line that
            is none.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(
            f"the file of prompts {path} {what}. Give a file with a prompt a line (.txt), .jsonl "
            "or .csv; or the prompts themselves as a list, e.g. --prompts '[\"a red apple\"]'."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the file of prompts {path} is not UTF-8: byte {error.start} cannot be read. Save it "
            "as UTF-8 text."
        ) from None
    except OSError as error:
        raise DataError(
            f"the file of prompts {path} cannot be read ({error.strerror}). Check its permissions."
        ) from error
    read = {".jsonl": _jsonl, ".csv": _csv}.get(path.suffix.lower(), _lines)
    prompts = tuple(prompt for line in read(text, path) if (prompt := line.strip()))
    if not prompts:
        raise DataError(
            f"the file of prompts {path} has none: all its lines are blank. Write one a line."
        )
    return prompts


def _lines(text: str, path: Path) -> Iterator[str]:
    # Not str.splitlines, which also cuts at characters that may stand within a prompt.
    return iter(text.replace("\r\n", "\n").split("\n"))


def _jsonl(text: str, path: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(text, path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: no JSON ({error}). Correct it.") from None
        found = row if isinstance(row, str) else _text_in(row) if isinstance(row, dict) else None
        if found is None:
            raise DataError(
                f"{path}, line {number}: no prompt in it; expected a string, or an object with a "
                f'text under one of {", ".join(PROMPT_KEYS)}: {{"prompt": "a red apple"}}.'
            )
        if not is_unicode(found):
            raise DataError(f"{path}, line {number}: the prompt {found!r} is {_NO_TEXT}")
        yield found


def _csv(text: str, path: Path) -> Iterator[str]:
    rows = csv_rows(io.StringIO(text, newline=""))
    _, first = next(rows, (1, ""))
    columns = () if isinstance(first, str) else tuple(first)
    if not set(columns) & set(PROMPT_KEYS):
        raise DataError(
            f"the first line of {path} has the columns {', '.join(columns) or 'none'}; expected "
            f"one of {', '.join(PROMPT_KEYS)}. Add it; or name the file .txt for a prompt a line."
        )
    for number, row in rows:
        if isinstance(row, str):
            raise DataError(f"{path}, line {number}: {row}.")
        yield _text_in(row) or ""


def _text_in(row: Mapping[str, object]) -> str | None:
    found = next((row[key] for key in PROMPT_KEYS if key in row), None)
    return found if isinstance(found, str) else None

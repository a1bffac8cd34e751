"""Folders that are whole or as they were, and that hold nothing but what was exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mudit.errors import EnvironmentFailure, MuditError, UsageError

MANIFEST = "export.json"
_SHOWN = 5  # files that a message names


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """An empty folder aside, which takes the place of `out` once it has been filled.

    Raises:
        EnvironmentFailure: It cannot be written; `out` is as it was.
        UsageError: `out` holds something that no export wrote.
    """
    require_own(out)
    aside, old = (out.with_name(f".{out.name}.{end}") for end in ("tmp", "old"))
    try:
        for rest in (aside, old):  # of an export that was killed
            shutil.rmtree(rest, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        files = [*_files(aside), MANIFEST]
        manifest = {"made_by": "mudit export", "files": sorted(files)}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if out.exists():
            out.rename(old)
        aside.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except MuditError:
        raise
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error in its own
        raise EnvironmentFailure(
            f"could not write {out}: {error}. Make room, or choose another folder with --out, and "
            "repeat the command."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def require_own(out: Path) -> None:
    """Refuse a place that holds something else than an export.

    Raises:
        UsageError: There is a file, or a folder with files that no export wrote.
    """
    if out.name in ("", ".."):
        raise UsageError(f"--out is {str(out)!r}; give the folder to make by its name.")
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; choose a folder with --out.")
    if not (found := set(_files(out))):
        return
    try:
        own = set(json.loads((out / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{out} holds files and is not an export: there is no {MANIFEST} in it. Choose "
            "another folder with --out."
        ) from None
    if others := sorted(found - own):
        shown = ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
        raise UsageError(
            f"{out} is an export, but no export wrote {shown} in it, and all of it would be "
            "replaced. Move them away, or choose another folder with --out."
        )


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]

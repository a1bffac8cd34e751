"""What all pages share: their head, their figures, and how their files are written."""

from __future__ import annotations

import base64
import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from matplotlib.figure import Figure

from mudit.errors import EnvironmentFailure
from mudit.report.css import STYLE_SHEET
from mudit.report.markup import Html, el
from mudit.report.theme import DARK, LIGHT, Theme, to_png, type_style

Drawing: TypeAlias = tuple[str, Callable[[Theme], Figure]]
Section: TypeAlias = tuple[str, str, Html]  # its id, its title, what it says

# Nothing can be fetched, even if some escaping should fail.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Rendered(NamedTuple):
    """One figure as PNG, for light and for dark pages."""

    name: str
    light: bytes
    dark: bytes


def rendered(drawings: Iterable[Drawing]) -> Iterator[Rendered]:
    """Each figure in both themes, in order."""
    for name, draw in drawings:
        yield Rendered(name, light=_png(draw, LIGHT), dark=_png(draw, DARK))


def _png(draw: Callable[[Theme], Figure], theme: Theme) -> bytes:
    with type_style(theme):
        return to_png(draw(theme))


def pictures(figures: Iterable[Rendered], alternatives: Mapping[str, str]) -> dict[str, Html]:
    """The figures as HTML, by name.

    Args:
        figures: The figures.
        alternatives: What each shows, in words, by name.
    """
    return {one.name: _picture(one, alternatives[one.name]) for one in figures}


def _picture(figure: Rendered, alternative: str) -> Html:
    width, height = struct.unpack(">II", figure.light[16:24])  # the PNG's header
    image = el(
        "img",
        src=data_uri(figure.light),
        alt=alternative,
        width=str(width),
        height=str(height),
    )
    dark = el("source", media="(prefers-color-scheme: dark)", srcset=data_uri(figure.dark))
    return el("picture", dark, image)


def data_uri(png: bytes) -> str:
    """A PNG as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def whole_page(
    title: str, header: Iterable[str], sections: Sequence[Section], *, version: str, created: str
) -> str:
    """A page as text.

    Args:
        title: What the browser calls it.
        header: What stands above the links to the sections.
        sections: The page's sections.
        version: Of mudit.
        created: When the page was made.
    """
    links = [el("a", name, href=f"#{key}") for key, name, _ in sections]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        el("style", Html(STYLE_SHEET)),
    )
    written = f"Written by mudit {version} on {created}. ".replace("  ", " ")
    body = el(
        "body",
        el("header", *header, el("nav", *links)),
        el(
            "main",
            *(el("section", el("h2", name, id=key), text) for key, name, text in sections),
        ),
        el("footer", written),
    )
    return "<!DOCTYPE html>\n" + el("html", head, body, lang="en") + "\n"


def write_page(
    folder: Path, page: str, figures: Sequence[Rendered], *, names: Iterable[str]
) -> Path:
    """Writes `report.html`, and its figures as PNG into `figures/`.

    Each file is written aside and then renamed, so a page that is there is whole. Figures of an
    earlier report that this one does not have are removed; other files are left alone.

    Args:
        folder: Where to write; made if it is missing.
        page: The page.
        figures: Its figures.
        names: Of the figures that such a page may have.

    Returns:
        The path of the page.

    Raises:
        EnvironmentFailure: The folder cannot be written.
    """
    path = folder / "report.html"
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        _write_figures(figures, folder / "figures", names)
        _write(path, page.encode())
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot write the report to {folder}: {error}. Free some space or choose another "
            f"folder; the study's records are untouched."
        ) from error
    return path


def _write_figures(figures: Sequence[Rendered], folder: Path, names: Iterable[str]) -> None:
    files = {f"{one.name}.png": one.light for one in figures}
    files |= {f"{one.name}-dark.png": one.dark for one in figures}
    for name, png in files.items():
        _write(folder / name, png)
    for name in names:
        for stale in {f"{name}.png", f"{name}-dark.png"} - set(files):
            (folder / stale).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise

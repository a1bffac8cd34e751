"""One self-contained page: `report.html` with its figures inside, and the same as PNG beside it."""

from __future__ import annotations

import base64
import contextlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from mudit.errors import EnvironmentFailure
from mudit.report import formats, words
from mudit.report.contents import StudyContents
from mudit.report.css import STYLE_SHEET
from mudit.report.figures import NAMES, Rendered, render
from mudit.report.markup import Html, el
from mudit.report.sections import SECTIONS, callout, paragraph, tiles

# Nothing can be fetched, even if some escaping should fail.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(contents: StudyContents, folder: Path) -> Path:
    """Writes `report.html`, and its figures as PNG into `figures/`.

    Each file is written aside and then renamed, so a page that is there is whole. Figures of an
    earlier report that this one does not have are removed; other files are left alone.

    Args:
        contents: What the report tells.
        folder: Where to write; made if it is missing.

    Returns:
        The path of the page.

    Raises:
        EnvironmentFailure: The folder cannot be written.
    """
    path = folder / "report.html"
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        figures = tuple(render(contents))
        page = page_html(contents, figures).encode()
        _write_figures(figures, folder / "figures")
        _write(path, page)
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot write the report to {folder}: {error}. Free some space or choose another "
            f"folder; the study's records are untouched."
        ) from error
    return path


def page_html(contents: StudyContents, figures: Sequence[Rendered]) -> str:
    """The page as text."""
    images = {one.name: _picture(one) for one in figures}
    bodies = [(key, title, make(contents, images)) for key, title, make in SECTIONS]
    shown = [(key, title, body) for key, title, body in bodies if body is not None]
    links = [el("a", title, href=f"#{key}") for key, title, _ in shown]
    sections = [el("section", el("h2", title, id=key), body) for key, title, body in shown]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", contents.title),
        el("style", Html(STYLE_SHEET)),
    )
    body = el(
        "body",
        _header(contents, el("nav", *links)),
        el("main", *sections),
        _footer(contents),
    )
    return "<!DOCTYPE html>\n" + el("html", head, body, lang="en") + "\n"


def _header(contents: StudyContents, nav: Html) -> Html:
    findings = [
        f"{one.parameter}: {one.message}" if one.parameter else one.message
        for one in contents.findings
    ]
    notes = [paragraph(note) for note in contents.notes]
    name = formats.parametrization_name(contents.parametrization)
    return el(
        "header",
        el(
            "p",
            f"mudit · {name} transfer · {contents.model} on {contents.data.name}",
            class_="kicker",
        ),
        el("h1", contents.title),
        el("p", words.headline(contents), class_="lead"),
        tiles(contents),
        callout(findings, mark="Found."),
        el("div", *notes, class_="callout") if notes else "",
        nav,
    )


def _footer(contents: StudyContents) -> Html:
    version = contents.versions.get("mudit", "")
    return el("footer", f"Written by mudit {version} on {contents.created}. ".replace("  ", " "))


def _picture(figure: Rendered) -> Html:
    width, height = struct.unpack(">II", figure.light[16:24])  # the PNG's header
    image = el(
        "img",
        src=_data_uri(figure.light),
        alt=words.ALTERNATIVES[figure.name],
        width=str(width),
        height=str(height),
    )
    dark = el("source", media="(prefers-color-scheme: dark)", srcset=_data_uri(figure.dark))
    return el("picture", dark, image)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _write_figures(figures: Sequence[Rendered], folder: Path) -> None:
    files = {f"{one.name}.png": one.light for one in figures}
    files |= {f"{one.name}-dark.png": one.dark for one in figures}
    for name, png in files.items():
        _write(folder / name, png)
    for name in NAMES:
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

"""The page of a transfer study: `report.html` with its figures inside, and as PNG beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mudit.report import formats, words
from mudit.report.contents import StudyContents
from mudit.report.figures import NAMES, render
from mudit.report.markup import Html, el
from mudit.report.parts import callout, paragraph
from mudit.report.sections import SECTIONS, tiles
from mudit.report.shell import Rendered, pictures, whole_page, write_page


def write_report(contents: StudyContents, folder: Path) -> Path:
    """Writes `report.html`, and its figures as PNG into `figures/`; `write_page` says how.

    Args:
        contents: What the report tells.
        folder: Where to write; made if it is missing.

    Returns:
        The path of the page.

    Raises:
        EnvironmentFailure: The folder cannot be written.
    """
    figures = tuple(render(contents))
    return write_page(folder, page_html(contents, figures), figures, names=NAMES)


def page_html(contents: StudyContents, figures: Sequence[Rendered]) -> str:
    """The page as text."""
    images = pictures(figures, words.ALTERNATIVES)
    bodies = [(key, title, make(contents, images)) for key, title, make in SECTIONS]
    return whole_page(
        contents.title,
        _header(contents),
        [(key, title, body) for key, title, body in bodies if body is not None],
        version=contents.versions.get("mudit", ""),
        created=contents.created,
    )


def _header(contents: StudyContents) -> list[Html]:
    findings = [
        f"{one.parameter}: {one.message}" if one.parameter else one.message
        for one in contents.findings
    ]
    notes = [paragraph(note) for note in contents.notes]
    name = formats.parametrization_name(contents.parametrization)
    return [
        el(
            "p",
            f"mudit · {name} transfer · {contents.model} on {contents.data.name}",
            class_="kicker",
        ),
        el("h1", contents.title),
        el("p", words.headline(contents), class_="lead"),
        tiles(contents),
        callout(findings, mark="Found."),
        el("div", *notes, class_="callout") if notes else Html(""),
    ]

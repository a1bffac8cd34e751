"""The page of a verify study: does the best value of a base HP stay put along an axis?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from mudit.report import formats
from mudit.report import verify_words as words
from mudit.report.basins import basins_info, draw_basins
from mudit.report.gains import draw_losses, draw_regret, losses_info, regret_info
from mudit.report.markup import Html, el
from mudit.report.optima import draw_optima, optima_info
from mudit.report.pair import draw_pair, pair_info
from mudit.report.parts import paragraph
from mudit.report.shell import Drawing, Rendered, pictures, rendered, whole_page, write_page
from mudit.report.verify_contents import VerifyContents
from mudit.report.verify_sections import SECTIONS, next_runs, reasons, tiles
from mudit.report.verify_tables import verdict_mark

NAMES = ("basins", "optima", "regret", "losses", "pair")


def write_verify_report(contents: VerifyContents, folder: Path) -> Path:
    """Writes `report.html`, and its figures as PNG into `figures/`; `write_page` says how.

    Args:
        contents: What the report tells.
        folder: Where to write; made if it is missing.

    Returns:
        The path of the page.

    Raises:
        EnvironmentFailure: The folder cannot be written.
    """
    figures = tuple(rendered(verify_drawings(contents)))
    return write_page(folder, verify_html(contents, figures), figures, names=NAMES)


def verify_drawings(contents: VerifyContents) -> Iterator[Drawing]:
    """Name and drawing function of each figure that these contents give reason to draw."""
    studies, axis, hp = contents.studies, contents.axis, contents.hp
    basins = basins_info(studies, axis=axis, hp=hp)
    yield "basins", lambda theme: draw_basins(basins, theme)
    if any(basin.best is not None for _, found in studies for basin in found.basins):
        optima = optima_info(studies, axis=axis, hp=hp)
        yield "optima", lambda theme: draw_optima(optima, theme)
    if any(found.regret is not None for _, found in studies):
        regret = regret_info(studies)
        yield "regret", lambda theme: draw_regret(regret, theme)
    losses = losses_info(studies, axis=axis, hp=hp)
    if any(sum(math.isfinite(y) for _, y in one.optimal) > 1 for one in losses.series):
        yield "losses", lambda theme: draw_losses(losses, theme)
    if contents.pair is not None and all(run.steps for run in contents.pair):
        pair = pair_info(contents.pair, hp=hp)
        yield "pair", lambda theme: draw_pair(pair, theme)


def verify_html(contents: VerifyContents, figures: Sequence[Rendered]) -> str:
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


def _header(contents: VerifyContents) -> list[Html]:
    axis = formats.axis_name(contents.axis)
    notes = [paragraph(note) for note in contents.notes]
    return [
        el(
            "p",
            f"mudit · transfer of {contents.hp} across {axis} · {contents.model} on "
            f"{contents.data.name}",
            class_="kicker",
        ),
        el("h1", contents.title),
        el(
            "p",
            verdict_mark(contents.main.verdict),
            f": {words.headline(contents)}",
            class_="lead",
        ),
        paragraph(words.telling_apart(contents)),
        tiles(contents),
        reasons(contents.findings),
        next_runs(contents),
        el("div", *notes, class_="callout") if notes else Html(""),
    ]

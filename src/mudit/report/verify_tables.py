"""The tables of a verify study's page."""

from __future__ import annotations

import numpy as np

from mudit.analysis.basin import Basin, Tried
from mudit.analysis.transferability import Transferability
from mudit.report import formats
from mudit.report import verify_words as words
from mudit.report.markup import Html, el, join, table
from mudit.report.parts import run_name
from mudit.report.verify_contents import VerifyContents


def verdict_mark(verdict: str) -> Html:
    """PASS, FAIL or INCONCLUSIVE in its colour."""
    return el("span", verdict, class_=f"verdict {verdict.lower()}")


def size_table(name: str, found: Transferability, contents: VerifyContents) -> Html:
    """What was found at each size."""
    head = (
        run_name(name),
        f"best {contents.hp} tried",
        "fitted optimum",
        "log2, 95 % interval",
        "loss there",
        "basin",
        "problem",
    )
    rows = [_size_row(basin, contents) for basin in found.basins]
    return table(head, rows, numeric=range(1, 5))


def _size_row(basin: Basin, contents: VerifyContents) -> tuple[str, ...]:
    optimum = basin.optimum
    return (
        formats.at_size(contents.axis, basin.size),
        "–" if basin.best is None else formats.log2_value(basin.best),
        "–" if optimum is None else f"{2**optimum.value:.3g}",
        "–"
        if optimum is None
        else f"{formats.number(optimum.value)} ({words.interval(optimum, '.2f')})",
        formats.loss(basin.loss),
        basin.form or "–",
        words.problem(basin),
    )


def numbers(contents: VerifyContents) -> Html:
    """What each verdict rests on, μP and sp side by side."""
    columns = [_study_cells(found) for _, found in contents.studies]
    rows = [(cells[0][0], *(value for _, value in cells)) for cells in zip(*columns, strict=True)]
    head = ("", *(run_name(name) for name, _ in contents.studies))
    return table(head, rows, numeric=range(1, 1 + len(columns)), cls="facts")


def _study_cells(found: Transferability) -> list[tuple[str, str]]:
    return [
        ("verdict", verdict_mark(found.verdict)),
        (
            "drift, octaves per doubling (98 %)",
            f"{words.drift(found)} ({words.interval(found.drift)})",
        ),
        (f"reach to {found.target:,g}, octaves", formats.number(found.reach)),
        ("regret, of a doubling's gain", words.regret(found)),
        ("its 95 % bounds", words.bounds(found)),
        ("cost of the worst reach, of a doubling's gain", words.extrapolation(found)),
        ("gain of the last doubling, loss", formats.number(found.gain, ".3g")),
        ("loss for ever larger sizes (95 %)", _asymptote(found)),
    ]


def _asymptote(found: Transferability) -> str:
    if found.asymptote is None:
        return "not known"
    value = formats.number(found.asymptote.value, ".4g")
    return f"{value} ({words.interval(found.asymptote, '.4g')})"


def loss_table(found: Transferability, contents: VerifyContents) -> Html:
    """Mean and spread of the losses, by value and size."""
    values = sorted({row.log2_hp for basin in found.basins for row in basin.tried})
    tried = [{row.log2_hp: row for row in basin.tried} for basin in found.basins]
    rows = [
        (
            formats.log2_value(value),
            *(
                _losses_cell(of_size.get(value), best=basin.best == value)
                for of_size, basin in zip(tried, found.basins, strict=True)
            ),
        )
        for value in values
    ]
    head = (contents.hp, *(formats.at_size(contents.axis, basin.size) for basin in found.basins))
    return table(head, rows, numeric=range(1, 1 + len(found.basins)))


def _losses_cell(row: Tried | None, *, best: bool) -> str:
    if row is None:
        return "–"
    said = []
    if row.losses:
        text = formats.loss(float(np.mean(row.losses)))
        if len(row.losses) > 1:
            text += f" ± {np.std(row.losses, ddof=1):.1g}"
        said.append(el("strong", text) if best else text)
    if row.diverged:
        said.append(f" ×{row.diverged}" if row.losses else f"diverged ×{row.diverged}")
    return join(said)

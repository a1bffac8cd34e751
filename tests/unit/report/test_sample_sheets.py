"""Sheets of samples: what has room, and whether everything is where it should be."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mudit.report import Sheet, draw_sheet, sheet_numbers
from mudit.report.sheet import _font, cell_width, sheet_layout

LONG = "Horses are pulling a carriage on the lunar surface. The background is the Statue of Liberty"


def sheet(labels=("a", LONG), size=16, per_row=2, models=2, note="seed 0") -> Sheet:
    """Each image has a grey of its own: 1, 2, 3, ..."""
    greys = iter(range(1, 200))
    cells = tuple(
        tuple(
            tuple(np.full((size, size, 3), next(greys), np.uint8) for _ in range(per_row))
            for _ in (labels or (1, 2))
        )
        for _ in range(models)
    )
    titles = tuple(f"model {i}\nwidth 8" for i in range(models)) if models > 1 else ()
    return Sheet(titles=titles, labels=tuple(labels), cells=cells, note=note)


@pytest.mark.parametrize("size", [8, 100, 600])
def test_every_image_is_shown_whole_in_its_place(size) -> None:
    shown = sheet(size=size)
    at, picture = sheet_layout(shown), np.asarray(draw_sheet(shown))
    assert picture.shape == (at.height, at.width, 3)
    assert at.cell == cell_width(size) == {8: 64, 100: 100, 600: 512}[size]
    for model, left in enumerate(at.columns):
        for row, top in enumerate(at.rows):
            for place, image in enumerate(shown.cells[model][row]):
                x = left + place * (at.cell + 2)
                found = picture[top : top + at.cell, x : x + at.cell]
                assert (found == image[0, 0, 0]).all()
    # The same row at the same height, and no image over another.
    assert (picture == 1).all(axis=2).sum() == at.cell**2


def test_long_prompts_are_broken_into_lines_that_fit() -> None:
    at = sheet_layout(sheet(labels=("a", LONG, "x" * 300, "word " * 200)))
    font = _font(at.letters)
    for words, lines in zip(("a", LONG, "x" * 300, "word " * 200), at.label_lines):
        assert "".join("".join(lines).split()) == "".join(words.split()), "nothing is left out"
        assert all(20 + font.getlength(line) < at.columns[0] for line in lines)
    assert len(at.label_lines[1]) > 1
    # The tallest label makes its row higher: no label runs into the next row's.
    heights = np.diff([*at.rows, at.height])
    assert all(
        len(lines) * at.letters * 1.3 <= height + 1
        for lines, height in zip(at.label_lines, heights)
    )


def test_words_are_really_drawn() -> None:
    with_words, without = draw_sheet(sheet()), draw_sheet(sheet(labels=("", "")))
    at = sheet_layout(sheet())
    margin = np.asarray(with_words.crop((0, at.rows[0], at.columns[0], at.rows[-1])))
    assert (margin < 128).any()
    assert with_words.size != without.size


def test_a_sheet_has_limits() -> None:
    labels = np.arange(50).repeat(30)
    rows = sheet_numbers(labels, by_label=True, size=8)
    assert (len(rows), {len(row) for row in rows}) == (20, {20})
    assert rows[1] == list(range(30, 50))
    assert [len(row) for row in sheet_numbers(labels, by_label=True, size=8, models=3)] == [6] * 20
    rows = sheet_numbers(labels, by_label=True, size=1024)  # 512 pixels each
    assert (len(rows), len(rows[0])) == (7, 7)
    # Labels in order of their first samples, whatever they are.
    assert sheet_numbers(np.array([7, 2, 7, 2, 7]), by_label=True, size=8) == [[0, 2, 4], [1, 3]]


def test_without_labels_the_first_samples_make_a_square() -> None:
    assert sheet_numbers(np.zeros(5, int), by_label=False, size=8) == [[0, 1, 2], [3, 4]]
    rows = sheet_numbers(np.zeros(50_000, int), by_label=False, size=8)
    assert [number for row in rows for number in row] == list(range(400))
    assert {len(row) for row in rows} == {20}
    assert draw_sheet(sheet(labels=(), models=1)).size[0] < draw_sheet(sheet(models=1)).size[0]


def test_characters_that_the_font_lacks_warn_nobody() -> None:
    assert isinstance(draw_sheet(sheet(labels=("一只猫", "🐈 $x$ <b>"))), Image.Image)

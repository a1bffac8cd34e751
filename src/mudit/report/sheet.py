"""A sheet of samples: a prompt or class a row, models beside each other, as in Figure 10.

Drawn by pixels, not by matplotlib: images are neither resampled nor smoothed, and long prompts are
measured before they are broken into lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mudit.report.grids import enlarged
from mudit.report.theme import LIGHT, Theme

_MOST, _SIDE = 20, 4096  # images in a row or column; pixels of a row or column of images
_SMALLEST, _LARGEST = 64, 512  # of a cell: below, images grow by whole pixels; above, they shrink
_MARGIN, _GAP, _BETWEEN = 20, 2, 18
_LABEL_WIDTHS = (170, 250, 340, 460)
_LEADING = 1.3


class Sheet(NamedTuple):
    """What a sheet shows.

    Attributes:
        titles: Of the models, a column of images each; lines after the first are muted.
        labels: Of the rows; empty: rows have none.
        cells: By model, by row, the images, each uint8 of shape (H, W, 3).
        note: A line below.
    """

    titles: tuple[str, ...]
    labels: tuple[str, ...]
    cells: tuple[tuple[tuple[NDArray[np.uint8], ...], ...], ...]
    note: str


class Layout(NamedTuple):
    """Where everything is, in pixels.

    Attributes:
        width: Of the sheet.
        height: Of the sheet.
        cell: Width of an image; `cell_height` its height.
        cell_height: See `cell`.
        letters: Height of the letters.
        label_lines: By row, its label's lines.
        title_lines: By model, its title's lines.
        columns: By model, its left edge.
        rows: By row, its top edge.
    """

    width: int
    height: int
    cell: int
    cell_height: int
    letters: int
    label_lines: tuple[tuple[str, ...], ...]
    title_lines: tuple[tuple[str, ...], ...]
    columns: tuple[int, ...]
    rows: tuple[int, ...]


def cell_width(size: int) -> int:
    """How wide an image of `size` pixels is drawn: a whole multiple, if it is not too large."""
    return min(size * math.ceil(_SMALLEST / size), _LARGEST)


def sheet_numbers(
    labels: NDArray[np.int64], *, by_label: bool, size: int, models: int = 1
) -> list[list[int]]:
    """Which samples a sheet has room for, by row.

    Args:
        labels: Of all samples, shape (N,).
        by_label: A label a row; else the first samples, in as many columns as rows.
        size: Of the images, pixels.
        models: How many stand beside each other.

    Returns:
        The numbers of samples; at most 20 rows, 20 images a row and 4,096 pixels each way.
    """
    most = min(_MOST, max(1, _SIDE // (cell_width(size) + _GAP)))
    across = max(1, most // models)
    if not by_label:
        shown = min(len(labels), across * most)
        columns = min(across, math.ceil(math.sqrt(shown)))
        return [list(range(i, min(i + columns, shown))) for i in range(0, shown, columns)]
    _, firsts = np.unique(labels, return_index=True)
    kept = labels[np.sort(firsts)[:most]]
    return [np.flatnonzero(labels == label)[:across].tolist() for label in kept]


def sheet_layout(sheet: Sheet) -> Layout:
    """Measures the words and places everything."""
    side_y, side_x = sheet.cells[0][0][0].shape[:2]
    cell = cell_width(side_x)
    cell_height = round(side_y * cell / side_x)
    letters = min(22, max(14, cell // 14))
    font, bold = _font(letters), _font(letters, bold=True)
    line = round(letters * _LEADING)
    label_lines, label_width = _labels(sheet.labels, font, room=cell_height, line=line)
    across = max(len(row) for model in sheet.cells for row in model)
    group = across * (cell + _GAP) - _GAP
    # A title may be wider than a column of tiny images.
    words = [line for title in sheet.titles for line in title.split("\n")]
    group = max(group, *(min(math.ceil(bold.getlength(word)), 240) for word in words), 0)
    titles = tuple(tuple(_wrapped(title, bold, group)) for title in sheet.titles)
    left = _MARGIN + (label_width + _BETWEEN if label_width else 0)
    columns = tuple(left + model * (group + _BETWEEN) for model in range(len(sheet.cells)))
    title_height = max(map(len, titles), default=0) * line + (10 if any(titles) else 0)
    top, rows = _MARGIN + title_height, []
    for row in range(len(sheet.cells[0])):
        rows.append(top)
        words_height = len(label_lines[row]) * line + 8 if label_lines else 0
        top += max(cell_height, words_height) + (6 if sheet.labels else _GAP)
    note = math.ceil(_font(13).getlength(sheet.note))
    width = max(columns[-1] + group, _MARGIN + note) + _MARGIN
    height = top + (34 if sheet.note else _MARGIN)
    return Layout(
        width, height, cell, cell_height, letters, label_lines, titles, columns, tuple(rows)
    )


def draw_sheet(sheet: Sheet, theme: Theme = LIGHT) -> Image.Image:
    """The sheet as a picture."""
    at = sheet_layout(sheet)
    picture = Image.new("RGB", (at.width, at.height), theme.paper)
    draw = ImageDraw.Draw(picture)
    font, bold = _font(at.letters), _font(at.letters, bold=True)
    line = round(at.letters * _LEADING)
    for model, left in enumerate(at.columns):
        first, *_ = sheet.titles[model].split("\n") if sheet.titles else [""]
        for number, words in enumerate(at.title_lines[model] if at.title_lines else ()):
            heading = words and words in first
            draw.text(
                (left, _MARGIN - 4 + number * line),
                words,
                font=bold if heading else font,
                fill=theme.ink if heading else theme.muted,
            )
        for top, images in zip(at.rows, sheet.cells[model], strict=True):
            for place, cell in enumerate(_sized(images, at)):
                picture.paste(Image.fromarray(cell), (left + place * (at.cell + _GAP), top))
    for top, lines in zip(at.rows, at.label_lines):
        shift = max(0, (at.cell_height - len(lines) * line) // 2)
        for number, words in enumerate(lines):
            draw.text((_MARGIN, top + shift + number * line), words, font=font, fill=theme.ink)
    if sheet.note:
        draw.text((_MARGIN, at.height - 26), sheet.note, font=_font(13), fill=theme.muted)
    return picture


def _sized(images: Sequence[NDArray[np.uint8]], at: Layout) -> NDArray[np.uint8]:
    return enlarged(np.stack(images), at.cell) if images else np.zeros((0, 1, 1, 3), np.uint8)


def _labels(
    labels: Sequence[str], font: ImageFont.FreeTypeFont, *, room: int, line: int
) -> tuple[tuple[tuple[str, ...], ...], int]:
    """The lines of each label, in the narrowest column where none is taller than its images."""
    lines: tuple[tuple[str, ...], ...] = ()
    for width in _LABEL_WIDTHS if labels else ():
        lines = tuple(tuple(_wrapped(label, font, width)) for label in labels)
        if max(len(one) for one in lines) * line <= room:
            break
    return lines, math.ceil(max((font.getlength(word) for one in lines for word in one), default=0))


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines at most `width` wide; a word that is wider itself is cut."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if font.getlength(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            line = ""
            for letter in word:
                if line and font.getlength(line + letter) > width:
                    lines.append(line)
                    line = ""
                line += letter
        lines.append(line)
    return lines


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of the reports' figures, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)

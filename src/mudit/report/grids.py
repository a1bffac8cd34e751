"""Grids of images beside each other, tiny ones enlarged pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from mudit.report.contents import SampleGrid, StudyContents
from mudit.report.theme import DPI, WIDTH_INCHES, Theme, new_figure

PAGE_PIXELS = round(WIDTH_INCHES * DPI)
_MARGIN, _BETWEEN, _GAP = 10, 30, 2
_TITLE, _LABEL, _LETTER = 40, 26, 11  # 8-point letters are some 11 pixels wide here, bold
_TITLE_LETTER = 13  # 10-point ones some 13
SMALLEST, _LARGEST, _TALLEST = 34, 220, 1200  # of a cell, a cell, a panel
_LONGEST = 28  # letters of a row's label


class GridPanel(NamedTuple):
    """One grid, laid out in pixels.

    Attributes:
        title: What the images are.
        cells: uint8 of shape (N, cell height, cell width, 3), ready to be shown.
        columns: Cells in a row.
        rows: Rows of cells.
        column_labels: One label per column, or empty.
        row_labels: One label per row, or empty, also if the panel to the left has the same.
        cell_labels: One label per image, or empty.
        left: Width of the row labels.
        width: Of the whole panel, row labels included.
        height: Likewise.
    """

    title: str
    cells: NDArray[np.uint8]
    columns: int
    rows: int
    column_labels: tuple[str, ...]
    row_labels: tuple[str, ...]
    cell_labels: tuple[str, ...]
    left: int
    width: int
    height: int


class GridsInfo(NamedTuple):
    """Panels in lines: each line's panels stand beside each other."""

    lines: tuple[tuple[GridPanel, ...], ...]


def grids_info(contents: StudyContents) -> GridsInfo:
    """The samples, then real images: in one line if their cells stay legible, else stacked."""
    grids = [*contents.samples, *([contents.real_images] if contents.real_images else [])]
    row_labels = [shared_labels(grid.labels, grid.columns)[1] for grid in grids]
    same = len(set(row_labels)) == 1  # then they are written once per line of panels
    lines: list[tuple[GridPanel, ...]] = []
    for across in range(len(grids), 0, -1):
        margins = [
            _margin(labels) if not same or index % across == 0 else 0
            for index, labels in enumerate(row_labels)
        ]
        width = _grid_width(across, margins)
        if across == 1 or all(_cell_width(grid, width) >= SMALLEST for grid in grids):
            cells = [_cell_width(grid, width) for grid in grids]
            if same:  # then rows stand beside each other
                cells = [min(cells)] * len(cells)
            panels = [_panel(*one) for one in zip(grids, margins, cells, strict=True)]
            lines = [tuple(panels[i : i + across]) for i in range(0, len(panels), across)]
            break
    return GridsInfo(tuple(lines))


def _grid_width(across: int, margins: Sequence[int]) -> int:
    """Pixels for the cells of one panel, if `across` panels stand beside each other."""
    taken = max(sum(margins[i : i + across]) for i in range(0, len(margins), across))
    return (PAGE_PIXELS - 2 * _MARGIN - (across - 1) * _BETWEEN - taken) // across


def _margin(row_labels: Sequence[str]) -> int:
    letters = max((min(len(label), _LONGEST) for label in row_labels), default=0)
    return letters * _LETTER + 12 if letters else 0


def shared_labels(
    labels: Sequence[str], columns: int
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Labels by column, by row and by cell: exactly one of them is filled, the first that can."""
    if not labels:
        return (), (), ()
    rows = math.ceil(len(labels) / columns)
    by_column = [set(labels[column::columns]) for column in range(min(columns, len(labels)))]
    by_row = [set(labels[row * columns : (row + 1) * columns]) for row in range(rows)]
    if all(len(found) == 1 for found in by_column):
        return tuple(found.pop() for found in by_column), (), ()
    if all(len(found) == 1 for found in by_row):
        return (), tuple(found.pop() for found in by_row), ()
    return (), (), tuple(labels)


def enlarged(images: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """RGB images at most `width` wide: whole-number nearest enlargement, or area reduction."""
    rgb = np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
    if images.shape[2] <= width:
        factor = width // images.shape[2]
        return rgb.repeat(factor, axis=1).repeat(factor, axis=2)
    height = max(1, round(images.shape[1] * width / images.shape[2]))
    return np.stack(
        [
            np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BOX))
            for one in rgb
        ]
    )


def _cell_width(grid: SampleGrid, width: int) -> int:
    columns = min(grid.columns, len(grid.images))
    rows = math.ceil(len(grid.images) / columns)
    return min(_LARGEST, (width + _GAP) // columns - _GAP, max(SMALLEST, _TALLEST // rows))


def _panel(grid: SampleGrid, left: int, cell_width: int) -> GridPanel:
    by_column, by_row, by_cell = shared_labels(grid.labels, grid.columns)
    cells = enlarged(grid.images, max(1, cell_width))
    columns = min(grid.columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    pitch = cells.shape[1] + _GAP + (_LABEL if by_cell else 0)
    return GridPanel(
        title=grid.title,
        cells=cells,
        columns=columns,
        rows=rows,
        column_labels=by_column,
        row_labels=by_row if left else (),
        cell_labels=by_cell,
        left=left,
        width=left + max(columns * (cells.shape[2] + _GAP) - _GAP, len(grid.title) * _TITLE_LETTER),
        height=_TITLE + (_LABEL if by_column else 0) + rows * pitch,
    )


def draw_grids(info: GridsInfo, theme: Theme) -> Figure:
    """The figure, one screen pixel per pixel of a cell. Call it inside `type_style`."""
    heights = [max(panel.height for panel in line) for line in info.lines]
    total = sum(heights) + _MARGIN * (len(heights) + 1)
    figure = new_figure(total / DPI, constrained=False)
    top = _MARGIN
    for line, height in zip(info.lines, heights, strict=True):
        free = PAGE_PIXELS - sum(panel.width for panel in line) - 2 * _MARGIN
        between = free // (len(line) - 1) if len(line) > 1 else 0
        left = _MARGIN
        for panel in line:
            _draw_panel(figure, panel, theme, left=left, top=top, total=total)
            left += panel.width + between
        top += height + _MARGIN
    return figure


def _draw_panel(
    figure: Figure, panel: GridPanel, theme: Theme, *, left: int, top: int, total: int
) -> None:
    axes = figure.add_axes((0, 0, 1, 1), frameon=False)
    axes.set_xlim(0, PAGE_PIXELS)
    axes.set_ylim(total, 0)
    axes.axis("off")
    grid_left = left + panel.left
    axes.text(
        grid_left, top + 8, panel.title, va="top", fontsize=10, fontweight="bold", color=theme.ink
    )
    grid_top = top + _TITLE + (_LABEL if panel.column_labels else 0)
    height, width = panel.cells.shape[1:3]
    pitch = height + _GAP + (_LABEL if panel.cell_labels else 0)
    style: dict[str, Any] = {"color": theme.muted, "fontsize": 8}
    for index, cell in enumerate(panel.cells):
        row, column = divmod(index, panel.columns)
        x, y = grid_left + column * (width + _GAP), grid_top + row * pitch
        if panel.cell_labels:
            text = _short(panel.cell_labels[index], width)
            axes.text(x + width / 2, y + _LABEL - 6, text, ha="center", va="bottom", **style)
            y += _LABEL
        figure.figimage(cell, x, total - y - height, origin="upper")
    for column, label in enumerate(panel.column_labels):
        x = grid_left + column * (width + _GAP) + width / 2
        axes.text(x, grid_top - 6, _short(label, width), ha="center", va="bottom", **style)
    for row, label in enumerate(panel.row_labels):
        y = grid_top + row * pitch + height / 2
        axes.text(grid_left - 8, y, _short(label, panel.left), ha="right", va="center", **style)


def _short(label: str, pixels: int) -> str:
    """The label, cut to about what fits."""
    letters = max(1, pixels // _LETTER)
    return label if len(label) <= letters else label[: max(1, letters - 1)] + "…"

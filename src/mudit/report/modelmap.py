"""The model drawn with its weights coloured by role, as in [muDiT] Figure 2a."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from mudit.report import formats
from mudit.report.contents import PlanRowFacts, StudyContents
from mudit.report.structure import CollapsedRow, collapse, copies_of, without_common_prefix
from mudit.report.theme import ROLES, WIDTH_INCHES, Theme, new_figure

_COLUMNS, _MOST_BOXES = 3, 66
_GUTTER, _EDGE, _PAD, _TITLE, _BOX, _LINE = 0.42, 0.05, 0.12, 0.36, 0.46, 0.16
_GAP, _BREAK = 0.07, 0.09
_LEGEND = 0.42


class WeightBox(NamedTuple):
    """One weight.

    Attributes:
        name: Module path within its card.
        shape: At the target's width.
        role: What colours it.
        multipliers: What the plan does to it, in words, line by line.
        companions: (name, role) of the biases and gains beside it.
        new_part: Whether a new part of the card begins here, e.g. the MLP after attention.
    """

    name: str
    shape: str
    role: str
    multipliers: tuple[str, ...]
    companions: tuple[tuple[str, str], ...]
    new_part: bool


class Card(NamedTuple):
    """A top module: its name, how often it is repeated, its weights."""

    title: str
    copies: int
    boxes: tuple[WeightBox, ...]


class ModelInfo(NamedTuple):
    """The model.

    Attributes:
        columns: Cards from left to right, in the order of the model's parameters.
        flow: Whether the columns are what comes before, in and after the repeated modules.
        roles: Those that occur.
        omitted: Boxes left out of the drawing because there were too many.
    """

    columns: tuple[tuple[Card, ...], ...]
    flow: bool
    roles: tuple[str, ...]
    omitted: int


def row_role(row: PlanRowFacts) -> str:
    """The role that colours a parameter: its own, or `frozen`."""
    return row.role if row.trainable else "frozen"


def multipliers(row: PlanRowFacts) -> tuple[str, ...]:
    """What the plan multiplies for this parameter, two by two; `as tuned` if nothing."""
    if not row.trainable:
        return ("not trained",)
    named = (
        ("lr", row.lr_multiplier),
        ("decay", row.weight_decay_multiplier),
        ("eps", row.eps_multiplier),
        ("clip", row.clip_multiplier),
    )
    changed = [f"{name} {formats.multiplier(value)}" for name, value in named if value != 1]
    pairs = [" · ".join(changed[i : i + 2]) for i in range(0, len(changed), 2)]
    return tuple(pairs) or ("as tuned",)


def model_info(contents: StudyContents) -> ModelInfo:
    """The model's modules and weights, derived from the names in the plan."""
    rows = without_common_prefix(collapse(contents.plan_rows))
    cards, omitted = _limited(_cards(rows), _MOST_BOXES)
    found = {row_role(row.first) for row in rows}
    repeated = [index for index, card in enumerate(cards) if card.copies > 1]
    flow = bool(repeated)
    columns = _by_repetition(cards, repeated) if flow else _balanced(cards)
    roles = tuple(role for role in ROLES if role in found)
    return ModelInfo(columns, flow, roles, omitted)


def _cards(rows: Sequence[CollapsedRow]) -> tuple[Card, ...]:
    repeating = {row.path[0] for row in rows if len(row.path) > 2 and copies_of(row.path[1]) > 1}
    groups: dict[tuple[str, ...], list[CollapsedRow]] = {}
    for row in rows:
        groups.setdefault(_card_key(row, repeating), []).append(row)
    return tuple(
        Card(
            ".".join(key) or "top level",
            max(copies_of(key[1]), 1) if len(key) > 1 else 1,
            _boxes(members, len(key)),
        )
        for key, members in groups.items()
    )


def _card_key(row: CollapsedRow, repeating: Container[str]) -> tuple[str, ...]:
    """The first component, and the number if it has copies; none for a bare parameter."""
    if len(row.path) == 1:
        return ()
    numbered = len(row.path) > 2 and row.path[0] in repeating and copies_of(row.path[1]) > 0
    return row.path[: 2 if numbered else 1]


def _boxes(rows: Sequence[CollapsedRow], depth: int) -> tuple[WeightBox, ...]:
    modules: dict[tuple[str, ...], list[CollapsedRow]] = {}
    for row in rows:
        modules.setdefault(row.path[depth:-1], []).append(row)
    boxes: list[WeightBox] = []
    part: str | None = None
    for path, members in modules.items():
        first = path[0] if path else ""
        boxes += _module_boxes(path, members, new_part=part is not None and first != part)
        part = first
    return tuple(boxes)


def _module_boxes(
    path: tuple[str, ...], rows: Sequence[CollapsedRow], *, new_part: bool
) -> list[WeightBox]:
    mains = [row for row in rows if row.first.kind in ("weight", "table")] or [rows[0]]
    followers: dict[int, list[CollapsedRow]] = {index: [] for index in range(len(mains))}
    current = 0
    for row in rows:
        if row in mains:
            current = mains.index(row)
        else:
            followers[current].append(row)
    return [
        WeightBox(
            name=".".join(path if path and len(mains) == 1 else (*path, main.path[-1])),
            shape=formats.shape(main.first.shape),
            role=row_role(main.first),
            multipliers=multipliers(main.first),
            companions=tuple((row.path[-1], row_role(row.first)) for row in followers[index]),
            new_part=new_part and index == 0,
        )
        for index, main in enumerate(mains)
    ]


def _limited(cards: Sequence[Card], most: int) -> tuple[tuple[Card, ...], int]:
    kept, left, omitted = [], most, 0
    for card in cards:
        boxes = card.boxes[:left]
        omitted += len(card.boxes) - len(boxes)
        left -= len(boxes)
        if boxes:
            kept.append(card._replace(boxes=boxes))
    return tuple(kept), omitted


def _by_repetition(
    cards: tuple[Card, ...], repeated: Sequence[int]
) -> tuple[tuple[Card, ...], ...]:
    parts = cards[: repeated[0]], cards[repeated[0] : repeated[-1] + 1], cards[repeated[-1] + 1 :]
    return tuple(part for part in parts if part)


def _balanced(cards: Sequence[Card]) -> tuple[tuple[Card, ...], ...]:
    """In order, in at most three columns of about the same height."""
    total = sum(_card_height(card) for card in cards)
    columns: list[list[Card]] = [[] for _ in range(_COLUMNS)]
    above = 0.0
    for card in cards:
        height = _card_height(card)
        place = int(_COLUMNS * (above + height / 2) / total)
        columns[min(place, _COLUMNS - 1)].append(card)
        above += height
    return tuple(tuple(column) for column in columns if column)


def _card_height(card: Card) -> float:
    breaks = sum(box.new_part for box in card.boxes) * _BREAK
    return _TITLE + sum(_box_height(box) + _GAP for box in card.boxes) + breaks + _PAD - _GAP


def _box_height(box: WeightBox) -> float:
    return _BOX + (len(box.multipliers) - 1) * _LINE


def draw_model(info: ModelInfo, theme: Theme) -> Figure:
    """The figure, laid out in inches. Call it inside `type_style`."""
    heights = [sum(_card_height(card) + _PAD for card in column) - _PAD for column in info.columns]
    total = _LEGEND + max(heights) + 2 * _EDGE + (0.3 if info.omitted else 0)
    figure = new_figure(total, constrained=False)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH_INCHES)
    axes.set_ylim(total, 0)
    axes.axis("off")
    _legend(axes, info.roles, theme)
    count = len(info.columns)
    width = min(3.2, (WIDTH_INCHES - 2 * _EDGE - (count - 1) * _GUTTER) / count)
    left = (WIDTH_INCHES - count * width - (count - 1) * _GUTTER) / 2
    for place, (column, height) in enumerate(zip(info.columns, heights, strict=True)):
        x = left + place * (width + _GUTTER)
        y = _LEGEND + _EDGE + (max(heights) - height) / 2
        for card in column:
            _draw_card(axes, card, theme, x=x, y=y, width=width)
            y += _card_height(card) + _PAD
        if info.flow and place:
            _arrow(axes, x - _GUTTER + 0.06, x - 0.06, _LEGEND + _EDGE + max(heights) / 2, theme)
    if info.omitted:
        text = f"and {formats.plural(info.omitted, 'more weight')}: see the table"
        axes.text(WIDTH_INCHES / 2, total - 0.12, text, ha="center", color=theme.muted)
    return figure


def _legend(axes: Axes, roles: Sequence[str], theme: Theme) -> None:
    x = (WIDTH_INCHES - 1.05 * len(roles)) / 2
    for role in roles:
        axes.add_patch(Rectangle((x, 0.12), 0.17, 0.17, color=theme.role(role), linewidth=0))
        axes.text(x + 0.25, 0.205, role, va="center", fontsize=9, color=theme.ink)
        x += 1.05


def _draw_card(axes: Axes, card: Card, theme: Theme, *, x: float, y: float, width: float) -> None:
    height = _card_height(card)
    if card.copies > 1:  # the sheets behind say "repeated"
        for shift in (0.1, 0.05):
            _rounded(axes, x + shift, y + shift, width, height, fill=theme.paper, edge=theme.rule)
    _rounded(axes, x, y, width, height, fill=theme.panel, edge=theme.rule)
    axes.text(
        x + _PAD, y + 0.2, _middle_cut(card.title, 26), va="center", fontsize=9.5,
        fontweight="bold", color=theme.ink,
    )  # fmt: skip
    if card.copies > 1:
        axes.text(
            x + width - _PAD, y + 0.2, f"×{card.copies}", va="center", ha="right", fontsize=11,
            fontweight="bold", color=theme.ink,
        )  # fmt: skip
    top = y + _TITLE
    for box in card.boxes:
        top += _BREAK if box.new_part else 0
        _draw_box(axes, box, theme, x=x + _PAD, y=top, width=width - 2 * _PAD)
        top += _box_height(box) + _GAP


def _draw_box(
    axes: Axes, box: WeightBox, theme: Theme, *, x: float, y: float, width: float
) -> None:
    colour = theme.role(box.role)
    fill, height = theme.tint(colour, 0.16), _box_height(box)
    axes.add_patch(Rectangle((x, y), width, height, facecolor=fill, linewidth=0))
    axes.add_patch(Rectangle((x, y), 0.07, height, facecolor=colour, linewidth=0))
    first, second = y + 0.15, y + 0.33
    letters = max(8, int(22 - 0.9 * max(0, len(box.shape) - 8)))
    axes.text(
        x + 0.14, first, _middle_cut(box.name, letters), va="center", fontsize=8.5, color=theme.ink
    )
    right = x + width - 0.07
    axes.text(right, first, box.shape, va="center", ha="right", fontsize=8, color=theme.muted)
    for line, text in enumerate(box.multipliers):
        y_line = second + line * _LINE
        axes.text(x + 0.14, y_line, text, va="center", fontsize=7.5, color=theme.muted)
    for name, role in reversed(box.companions):
        label = f"+ {name}"
        axes.text(right, second, label, va="center", ha="right", fontsize=7.5, color=theme.muted)
        right -= 0.062 * len(label) + 0.13
        axes.add_patch(
            Rectangle((right, second - 0.055), 0.1, 0.1, facecolor=theme.role(role), linewidth=0)
        )
        right -= 0.06


def _rounded(
    axes: Axes, x: float, y: float, width: float, height: float, *, fill: str, edge: str
) -> None:
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=fill, edgecolor=edge)
    )


def _arrow(axes: Axes, start: float, end: float, y: float, theme: Theme) -> None:
    arrow = FancyArrowPatch((start, y), (end, y), arrowstyle="-|>", mutation_scale=12)
    arrow.set(color=theme.muted, linewidth=1.4)
    axes.add_patch(arrow)


def _middle_cut(text: str, letters: int) -> str:
    if len(text) <= letters:
        return text
    head = (letters - 1) // 3
    return text[:head] + "…" + text[-(letters - 1 - head) :]

"""The drawing of a certificate: module by module, the operators that the forward pass is made of.

A row is a module (or a run of consecutive blocks that are alike): its operators as tiles in the
order of the pass, its weights counted by role, and what stands against it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle

from mudit.errors import UsageError
from mudit.report.theme import DPI, LIGHT, WIDTH_INCHES, Theme, new_figure, type_style

_SUFFIXES = (".svg", ".png", ".pdf")
_TILE, _STEP, _LINE = 0.19, 0.225, 0.27  # inches
_LEFT, _RIGHT, _HEAD = 2.35, 1.75, 1.05
_MOST_TILES = 120  # of one row
_LETTERS = {"Avg": "A", "MatMul": "M", "OuterNonlin": "O", "Scalar": "S"}
_ROLES = ("input", "hidden", "output", "scalar")


class ProgramRow(NamedTuple):
    """One module, or a run of blocks that are alike.

    Attributes:
        name: Its path; a run is written `blocks.0–27`.
        copies: How many blocks it stands for.
        operators: In the order of the pass.
        roles: How many of its weights have each role, in one copy.
        against: What was found against it; empty if nothing.
    """

    name: str
    copies: int
    operators: tuple[str, ...]
    roles: Mapping[str, int]
    against: str


class ProgramInfo(NamedTuple):
    """What is drawn.

    Attributes:
        title: The verdict, the model and the widths.
        rows: In the order of the pass.
        said: Findings, in brief; of a certificate without rows, all there is.
    """

    title: str
    verdict: str
    rows: tuple[ProgramRow, ...]
    said: tuple[str, ...]


def program_info(certificate_json: str) -> ProgramInfo:
    """What to draw of a certificate's JSON."""
    found: dict[str, Any] = json.loads(certificate_json)
    weights = _roles_by_section(found["weights"], [row["section"] for row in found["canonical"]])
    against = _against(found["findings"], found["ops"])
    rows: list[ProgramRow] = []
    for section, steps in groupby(found["canonical"], key=lambda row: row["section"]):
        operators = tuple(step["operator"] for step in steps)
        first = section not in {row.name for row in rows}
        rows.append(
            ProgramRow(section, 1, operators, weights.get(section, {}) if first else {}, "")
        )
    for section, text in against.items():
        # A module that runs several times is marked where it runs last.
        places = [index for index, row in enumerate(rows) if row.name == section]
        for index in places[-1:]:
            rows[index] = rows[index]._replace(against=text)
    widths = ", ".join(map(str, found["widths"]))
    return ProgramInfo(
        title=f"{found['model']} at widths {widths}",
        verdict=found["verdict"],
        rows=tuple(_collapsed(rows)),
        said=tuple(_brief(finding) for finding in found["findings"]),
    )


def draw_program(info: ProgramInfo, theme: Theme) -> Figure:
    """The figure, laid out in inches. Call it inside `type_style`."""
    across = int((WIDTH_INCHES - _LEFT - _RIGHT) / _STEP)
    lines = [max(1, -(-len(_shown(row)) // across)) for row in info.rows]
    said = [line for text in info.said[:4] for line in _wrapped(text, 135)[:3]]
    height = _HEAD + sum(lines) * _LINE + 0.14 * len(lines) + 0.22 * len(said) + 0.3
    figure = new_figure(height, constrained=False)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH_INCHES)
    axes.set_ylim(height, 0)
    axes.axis("off")
    _title(axes, info, theme)
    y = _HEAD
    for row, count in zip(info.rows, lines, strict=True):
        _draw_row(axes, row, theme, y=y, lines=count, across=across)
        y += count * _LINE + 0.14
    for number, line in enumerate(said):
        axes.text(0.2, y + 0.15 + 0.22 * number, line, va="center", fontsize=8, color=theme.warning)
    return figure


def save_program_drawing(certificate_json: str, path: Path, theme: Theme = LIGHT) -> None:
    """Draw a certificate into a file.

    Raises:
        UsageError: The file's suffix is not that of a picture.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"{path}: {path.suffix or 'no suffix'} is no picture; use one of "
            f"{', '.join(_SUFFIXES)}."
        )
    with type_style(theme):
        figure = draw_program(program_info(certificate_json), theme)
        figure.savefig(path, dpi=DPI, facecolor=theme.paper)


# --- what is drawn --------------------------------------------------------------------------------


def _roles_by_section(
    weights: Sequence[Mapping[str, Any]], sections: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Of each section: its weights by role. A parameter belongs to its longest section."""
    known = sorted(set(sections), key=len, reverse=True)
    found: dict[str, Counter[str]] = {}
    for weight in weights:
        name = weight["name"]
        home = next((s for s in known if not s or name == s or name.startswith(s + ".")), "")
        found.setdefault(home, Counter())[weight["role"] or "not reached"] += 1
    return {section: dict(counts) for section, counts in found.items()}


def _against(
    findings: Sequence[Mapping[str, Any]], ops: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Of each section: a finding whose line lies in it."""
    found: dict[str, str] = {}
    for finding in findings:
        for op in ops:
            if op["source"] and op["source"] in finding["message"]:
                found.setdefault(_section(op["module"]), _brief(finding))
    return found


def _section(module: str) -> str:
    """The first name of a path, with a block's number, as the canonical form cuts it."""
    parts = module.split(".")
    return ".".join(parts[: 2 if len(parts) > 1 and parts[1].isdigit() else 1])


def _brief(finding: Mapping[str, Any]) -> str:
    text = str(finding["message"])
    return f"{finding['parameter']}: {text}" if finding["parameter"] else text


def _collapsed(rows: Sequence[ProgramRow]) -> list[ProgramRow]:
    """Consecutive numbered blocks that are alike, as one."""
    found: list[ProgramRow] = []
    for row in rows:
        last = found[-1] if found else None
        if last is not None and _alike(last, row):
            stem, first = _numbered(last.name)
            found[-1] = last._replace(
                name=f"{stem}.{first}–{_numbered(row.name)[1]}", copies=last.copies + 1
            )
        else:
            found.append(row)
    return found


def _alike(last: ProgramRow, row: ProgramRow) -> bool:
    same = (last.operators, last.roles, last.against) == (row.operators, row.roles, row.against)
    return (
        same and _numbered(row.name)[1] != "" and _numbered(last.name)[0] == _numbered(row.name)[0]
    )


def _numbered(name: str) -> tuple[str, str]:
    """`blocks.3` and `blocks.3–5` as `blocks` and `3`; nothing for another name."""
    match = re.fullmatch(r"(.+)\.(\d+)(–\d+)?", name)
    return (match[1], match[2]) if match else (name, "")


def _shown(row: ProgramRow) -> tuple[tuple[str, int], ...]:
    """Operators as tiles: several in a row of the same kind are one, with their number."""
    tiles = [(operator, len(list(group))) for operator, group in groupby(row.operators)]
    return tuple(tiles[:_MOST_TILES])


# --- drawing --------------------------------------------------------------------------------------


def _title(axes: Axes, info: ProgramInfo, theme: Theme) -> None:
    good = info.verdict == "PASS"
    colour = theme.role("input") if good else theme.warning
    axes.text(0.2, 0.27, info.verdict, va="center", fontsize=13, fontweight="bold", color=colour)
    axes.text(
        0.35 + 0.135 * len(info.verdict), 0.27, info.title, va="center", fontsize=11,
        fontweight="bold", color=theme.ink,
    )  # fmt: skip
    x = 0.2
    for operator, words in (
        ("Avg", "Avg: mean over n"),
        ("MatMul", "MatMul: n×n weight"),
        ("OuterNonlin", "OuterNonlin: entry by entry"),
        ("Scalar", "Lemma B.1: no n"),
    ):
        _tile(axes, operator, 1, theme, x=x, y=0.52)
        axes.text(x + 0.27, 0.52 + _TILE / 2, words, va="center", fontsize=8, color=theme.muted)
        x += 0.42 + 0.068 * len(words)
    x = WIDTH_INCHES - _RIGHT + 0.1
    axes.text(x, 0.85, "parameters by role", va="center", fontsize=8, color=theme.muted)
    for number, role in enumerate(_ROLES):
        column, line = divmod(number, 2)
        left, middle = x + 0.8 * column, 0.42 + 0.19 * line
        square = Rectangle((left, middle - 0.06), 0.12, 0.12, color=theme.role(role), linewidth=0)
        axes.add_patch(square)
        axes.text(left + 0.18, middle, role, va="center", fontsize=8, color=theme.muted)
    axes.text(0.2, 0.85, "module", va="center", fontsize=8, color=theme.muted)
    axes.text(_LEFT, 0.85, "operators", va="center", fontsize=8, color=theme.muted)


def _draw_row(
    axes: Axes, row: ProgramRow, theme: Theme, *, y: float, lines: int, across: int
) -> None:
    height = lines * _LINE + 0.06
    axes.add_patch(
        FancyBboxPatch(
            (0.12, y), WIDTH_INCHES - 0.24, height, boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=theme.panel, edgecolor=theme.warning if row.against else theme.rule,
            linewidth=1.6 if row.against else 0.8,
        )
    )  # fmt: skip
    name = row.name or "(top level)"
    copies = f"  ×{row.copies}" if row.copies > 1 else ""
    axes.text(
        0.2, y + height / 2, _cut(name, 30 - len(copies)) + copies, va="center", fontsize=8.5,
        fontweight="bold" if copies else "normal", color=theme.ink,
    )  # fmt: skip
    for number, (operator, count) in enumerate(_shown(row)):
        line, place = divmod(number, across)
        _tile(
            axes, operator, count, theme,
            x=_LEFT + place * _STEP, y=y + 0.03 + line * _LINE + (_LINE - _TILE) / 2,
        )  # fmt: skip
    _draw_roles(axes, row.roles, theme, y=y + height / 2)


def _draw_roles(axes: Axes, roles: Mapping[str, int], theme: Theme, *, y: float) -> None:
    x = WIDTH_INCHES - _RIGHT + 0.1
    for role in (*_ROLES, "not reached"):
        if count := roles.get(role):
            colour = theme.role(role if role in _ROLES else "frozen")
            axes.add_patch(Rectangle((x, y - 0.06), 0.12, 0.12, color=colour, linewidth=0))
            axes.text(x + 0.16, y, str(count), va="center", fontsize=8, color=theme.ink)
            x += 0.24 + 0.08 * len(str(count))


def _tile(axes: Axes, operator: str, count: int, theme: Theme, *, x: float, y: float) -> None:
    """A shape and a letter for each operator, so that colour is not needed."""
    middle = x + _TILE / 2, y + _TILE / 2
    if operator == "MatMul":
        colour = theme.role("hidden")
        axes.add_patch(Rectangle((x, y), _TILE, _TILE, color=colour, linewidth=0))
    elif operator == "Avg":
        colour = theme.role("output")
        half = _TILE / 2 * 1.08
        corners = [(middle[0] + a * half, middle[1] + b * half) for a, b in _DIAMOND]
        axes.add_patch(Polygon(corners, color=colour, linewidth=0))
    elif operator == "Scalar":
        colour = theme.role("scalar")
        axes.add_patch(Circle(middle, _TILE * 0.36, color=colour, linewidth=0))
    else:
        colour = theme.role("input")
        axes.add_patch(Circle(middle, _TILE / 2, color=colour, linewidth=0))
    label = _LETTERS[operator] if count == 1 else str(count)
    axes.text(
        *middle, label, va="center_baseline", ha="center", fontsize=6.5 if count < 10 else 5.5,
        fontweight="bold", color=theme.paper,
    )  # fmt: skip


_DIAMOND = ((0, -1), (1, 0), (0, 1), (-1, 0))


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _wrapped(text: str, letters: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > letters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines

"""A recipe in words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from mudit.recipes.recipe import Recipe

_WIDTH = 110
_VALUE = 24  # characters of a value


def table_text(recipes: Sequence[Recipe]) -> str:
    """All of them, one after the other: name, sizes, machine, in a sentence."""
    head = ("recipe", "proxy", "target", "search", "trained on")
    rows = [head, *(_row(recipe) for recipe in recipes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", "`mudit recipes NAME` says everything about one."])


def _row(recipe: Recipe) -> tuple[str, ...]:
    study = recipe.study
    finals = study.search.finals.most_runs
    search = f"{study.trials} of {', '.join(study.search.space)}"
    return (
        recipe.name,
        f"width {study.proxy.width}",
        f"width {study.target.width}",
        search + (f", {finals} finals" if finals else ""),
        recipe.data.name,
    )


def recipe_text(recipe: Recipe, cost: str) -> str:
    """Everything about one.

    Args:
        recipe: The recipe.
        cost: Its study's cost in words.
    """
    sections = (
        ("Prepare", recipe.prepare),
        ("Run", recipe.commands),
        ("Constants, and where each is from", _settings(recipe)),
        ("Cost", [*cost.splitlines(), *cost_lines(recipe)]),
        ("Time", recipe.time),
        ("Licences", (f"{one.of}: {one.terms} ({one.source})" for one in recipe.licences)),
        (
            "Expected",
            (f"{one.what}: {one.value} ({one.source})" for one in recipe.expected)
            if recipe.expected
            else ("nothing is known yet",),
        ),
        ("Notes", recipe.notes),
    )
    parts = [f"{recipe.name}\n{_wrapped(recipe.summary, indent='')}"]
    parts += [_section(title, lines) for title, lines in sections]
    return "\n\n".join(part for part in parts if part)


def cost_lines(recipe: Recipe) -> list[str]:
    """The published cost, if there is one."""
    published = recipe.published
    if published is None:
        return []
    lines = [
        f"As published, from rounded sizes: {100 * published.ratio:.1f} % of one target training "
        f"({published.source})."
    ]
    if published.human_ratio is not None:
        lines.append(
            f"Tuning by hand took about {published.human_runs:g} target trainings: the search "
            f"costs {100 * published.human_ratio:.1f} % of it."
        )
    return lines


def _settings(recipe: Recipe) -> list[str]:
    """Option, value and source in columns; a long value has a line to itself."""
    rows = recipe.settings()
    first = max(len(option) for option, _, _ in rows) + 2
    second = _VALUE + 2
    lines = []
    for option, value, source in rows:
        parts = textwrap.wrap(source, _WIDTH - first - second - 2)
        head = option.ljust(first) + value.ljust(second)
        if len(value) > _VALUE:
            lines.append(head.rstrip())
            head = " " * (first + second)
        lines.append(head + parts[0])
        lines += [" " * (first + second) + part for part in parts[1:]]
    return lines


def _section(title: str, lines: Iterable[str]) -> str:
    whole = title in ("Run", "Prepare") or title.startswith("Constants")
    shown = [line if whole else _wrapped(line, indent="  ")[2:] for line in lines]
    if not shown:
        return ""
    return "\n".join([f"{title}:", *(f"  {line}" for line in shown)])


def _wrapped(text: str, *, indent: str) -> str:
    return textwrap.fill(
        text,
        width=_WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  " * bool(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )

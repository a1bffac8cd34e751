"""HTML built from elements, so that text is escaped unless it already is an element."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Html(str):
    """Text that is HTML already; every other string is escaped when it becomes a child."""

    __slots__ = ()


_VOID = frozenset({"img", "source", "meta", "br"})


def el(tag: str, *children: str, **attributes: str) -> Html:
    """One element. `class_` is `class`; children that are not `Html` are escaped."""
    marks = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for name, value in attributes.items()
    )
    if tag in _VOID:
        return Html(f"<{tag}{marks}>")
    return Html(f"<{tag}{marks}>{join(children)}</{tag}>")


def join(children: Iterable[str]) -> Html:
    """Children one after the other, escaped unless they are `Html`."""
    return Html(
        "".join(child if isinstance(child, Html) else html.escape(child) for child in children)
    )


def table(
    head: Iterable[str],
    rows: Iterable[Iterable[str]],
    *,
    numeric: Iterable[int] = (),
    cls: str = "",
) -> Html:
    """A table that scrolls sideways if it must; `numeric` columns stand right."""
    right = frozenset(numeric)

    def line(tag: str, cells: Iterable[str]) -> Html:
        return el(
            "tr",
            *(
                el(tag, cell, class_="number") if place in right else el(tag, cell)
                for place, cell in enumerate(cells)
            ),
        )

    body = el("tbody", *(line("td", row) for row in rows))
    heads = list(head)
    content = el("table", el("thead", line("th", heads)) if heads else "", body, class_=cls)
    return el("div", content, class_="scroll")

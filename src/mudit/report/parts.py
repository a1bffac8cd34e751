"""Pieces that the sections of all pages are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from mudit.report import formats
from mudit.report.contents import DataFacts
from mudit.report.markup import Html, el, join, table

Figures: TypeAlias = Mapping[str, Html]


class Origin(Protocol):
    """Where a page comes from; `StudyContents` is one."""

    @property
    def command(self) -> str:
        """The exact command that made the study."""

    @property
    def study_folder(self) -> str:
        """Where its runs lie."""

    @property
    def created(self) -> str:
        """When the page was made."""

    @property
    def versions(self) -> dict[str, str]:
        """Of mudit and of what it stands on."""

    @property
    def machine(self) -> str:
        """What it ran on."""

    @property
    def config(self) -> str:
        """The complete config as text."""


def paragraph(*children: str) -> Html:
    """A paragraph."""
    return el("p", *children)


def figure(figures: Figures, name: str, *caption: str) -> Html:
    """The figure of that name with its caption; nothing if it was not drawn."""
    if name not in figures:
        return Html("")
    return el("figure", figures[name], el("figcaption", *caption))


def run_name(parametrization: str) -> Html:
    """μP or sp in its colour."""
    name = formats.parametrization_name(parametrization)
    return el("span", name, class_=f"run {parametrization}")


def callout(texts: Iterable[str], *, mark: str) -> Html:
    """Sentences that must not be overlooked; nothing if there are none."""
    lines = [paragraph(el("span", mark, class_="mark"), " ", text) for text in texts]
    return el("div", *lines, class_="callout warning") if lines else Html("")


def tile(label: str, value: str, beside: str, *, value_class: str = "value") -> Html:
    """A number that matters, with what to compare it with."""
    return el(
        "div",
        el("dt", label),
        el("dd", value, class_=value_class),
        el("dd", beside, class_="beside"),
        class_="tile",
    )


def data_words(data: DataFacts) -> str:
    """The dataset in a sentence."""
    counts = ", ".join(f"{number:,} {split}" for split, number in data.counts.items())
    images = f" of {formats.shape(data.image_shape)}" if data.image_shape else ""
    classes = f", {formats.plural(len(data.classes), 'class')[:-1] + 'es'}" if data.classes else ""
    return (
        f"Data: {data.name}, images{images}{classes} ({counts})."
        if counts
        else f"Data: {data.name}."
    )


def origin(facts: Origin, further: Sequence[tuple[str, str]]) -> Html:
    """Command, folder, versions, config, and further facts with their names."""
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    rows = [
        ("study folder", el("code", facts.study_folder)),
        ("made", facts.created),
        *further,
        ("versions", versions),
        ("machine", facts.machine),
    ]
    parts = [
        paragraph(
            "The same command again resumes the study or, once it is complete, remakes this page."
        ),
        el("pre", el("code", facts.command)),
        table((), [row for row in rows if row[1]], cls="facts"),
    ]
    if facts.config:
        config = el("pre", el("code", facts.config))
        parts.append(el("details", el("summary", "The complete config"), config))
    return join(parts)

"""Bars: what the study cost, which HPs mattered, how often samples show what was asked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mudit.report import formats
from mudit.report.contents import StudyContents
from mudit.report.theme import Theme, bare, new_figure


class Bar(NamedTuple):
    """One bar: what it is, how long, and what colours it (`rest` is neutral)."""

    label: str
    value: float
    colour: str


class AgreementInfo(NamedTuple):
    """Agreement by class, NaN where a class was not judged."""

    classes: tuple[str, ...]
    series: tuple[tuple[str, tuple[float, ...]], ...]
    held_out_accuracy: float


def cost_info(contents: StudyContents) -> tuple[Bar, ...]:
    """Costs in units of training the target once, as in [muDiT] Figure 1b."""
    cost, name = contents.cost, formats.parametrization_name(contents.parametrization)
    trials = formats.plural(len(contents.trials), "trial")
    if contents.finals:
        trials += f" and {formats.plural(len(contents.finals), 'final')}"
    bars = [
        Bar("Train the target once", 1.0, "rest"),
        Bar(f"{name} search, {trials},\nby Eq. (1)", cost.eq1_ratio, contents.parametrization),
        Bar(f"{name} search,\nmeasured FLOPs", cost.measured_ratio, contents.parametrization),
    ]
    control = contents.control
    if control is not None and cost.control_flops is not None:
        own = len(control.trials) > 0
        what = "search and target" if own else "target, search shared"
        label = f"{formats.parametrization_name(control.parametrization)} control,\n{what}"
        bars.append(Bar(label, cost.control_flops / cost.target_flops, control.parametrization))
    return tuple(bars)


def draw_cost(bars: tuple[Bar, ...], theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    return _horizontal(bars, theme, height=0.62)


def importance_info(contents: StudyContents) -> tuple[Bar, ...]:
    """HPs by importance, greatest first; empty if fewer than two were searched."""
    shares = contents.importance or {}
    if len(shares) < 2:
        return ()
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Bar(name, share, contents.parametrization) for name, share in ordered)


def draw_importance(bars: tuple[Bar, ...], theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    return _horizontal(bars, theme, height=0.4)


def _horizontal(bars: tuple[Bar, ...], theme: Theme, *, height: float) -> Figure:
    figure = new_figure(0.5 + height * len(bars))
    axes = figure.subplots()
    places = np.arange(len(bars))[::-1]
    values = [bar.value for bar in bars]
    colours = [theme.rule if bar.colour == "rest" else theme.run(bar.colour) for bar in bars]
    axes.barh(places, values, height=0.6, color=colours)
    for place, value in zip(places, values, strict=True):
        text = formats.percent(value)
        axes.text(value, place, f"  {text}", va="center", fontweight="bold", color=theme.ink)
    axes.set_yticks(places, [bar.label for bar in bars])
    axes.set_xlim(0, max(values) * 1.12 or 1.0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    bare(axes, grid="x")
    return figure


def agreement_info(contents: StudyContents) -> AgreementInfo | None:
    """Agreement by class; None if it was not measured by class."""
    facts = contents.agreement
    if facts is None or not facts.per_class:
        return None
    classes = tuple(facts.per_class)
    series = [(contents.parametrization, tuple(facts.per_class.values()))]
    if contents.control is not None and facts.control_per_class:
        values = tuple(facts.control_per_class.get(name, np.nan) for name in classes)
        series.append((contents.control.parametrization, values))
    return AgreementInfo(classes, tuple(series), facts.held_out_accuracy)


def draw_agreement(info: AgreementInfo, theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    figure = new_figure(2.9)
    axes = figure.subplots()
    places = np.arange(len(info.classes))
    width = 0.72 / len(info.series)
    for index, (parametrization, values) in enumerate(info.series):
        shift = (index - (len(info.series) - 1) / 2) * width
        name = formats.parametrization_name(parametrization)
        axes.bar(
            places + shift, values, width=0.9 * width, color=theme.run(parametrization),
            label=f"{name} target's samples",
        )  # fmt: skip
    axes.axhline(
        info.held_out_accuracy, color=theme.ink, linestyle=(0, (4, 3)), linewidth=1.1,
        label="real held-out images, all classes",
    )  # fmt: skip
    many = len(info.classes) > 12
    axes.set_xticks(
        places, info.classes, rotation=45 if many else 0, ha="right" if many else "center"
    )
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_xlabel("class asked for")
    bare(axes, grid="y")
    figure.legend(loc="outside upper center", ncols=3)
    return figure

"""Proxies by what a search on them costs and what its choice loses at the target."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from mudit.analysis.proxies import Advice
from mudit.analysis.transferability import REGRET_BOUND
from mudit.report import formats
from mudit.report.theme import DARK, LIGHT, Theme, new_figure, to_png, type_style

_LEAST = 1e-4  # regrets below are drawn there: the axis is logarithmic


class AdvicePoint(NamedTuple):
    """One proxy.

    Attributes:
        label: Its size and steps.
        size: Its size.
        steps: Its steps.
        cost: Of a search, over one training of the target.
        regret: In units of a doubling's gain; at least 0.0001.
        worst: The worst seed's bound; None if infinite.
        on_front: Whether it is on the Pareto front.
        recommended: Whether it is the one to take.
    """

    label: str
    size: int
    steps: int
    cost: float
    regret: float
    worst: float | None
    on_front: bool
    recommended: bool


class AdviceInfo(NamedTuple):
    """All that the figure shows; proxies with an infinite regret are named, not drawn."""

    axis: str
    points: tuple[AdvicePoint, ...]
    infinite: tuple[str, ...]


def advice_info(advice: Advice, *, axis: str) -> AdviceInfo:
    """What the figure shows."""
    points, infinite = [], []
    for proxy in advice.proxies:
        label = f"{axis} {proxy.task.size}"
        if axis != "steps":
            label += f", {formats.count(proxy.task.steps)} steps"
        if math.isinf(proxy.regret):
            infinite.append(label)
            continue
        points.append(
            AdvicePoint(
                label=label,
                size=proxy.task.size,
                steps=proxy.task.steps,
                cost=proxy.cost,
                regret=max(proxy.regret, _LEAST),
                worst=None if math.isinf(proxy.worst) else max(proxy.worst, _LEAST),
                on_front=proxy.on_front,
                recommended=proxy == advice.recommended,
            )
        )
    return AdviceInfo(axis, tuple(points), tuple(infinite))


def draw_advice(info: AdviceInfo, theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    figure = new_figure(4.6)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = sorted({point.size for point in info.points})
    # Looked at on the way, too: colours tell sizes apart, not steps.
    shorter = info.axis != "steps" and len({point.steps for point in info.points}) > 1
    for place, size in enumerate(sizes):
        colour = theme.shade(place / max(len(sizes) - 1, 1))
        rows = [point for point in info.points if point.size == size]
        for point in rows:
            if point.worst is not None:
                axes.plot(
                    [point.cost] * 2, [point.regret, point.worst], color=colour, linewidth=1.2
                )
            marker, area = ("*", 240) if point.recommended else ("o", 42)
            axes.scatter(point.cost, point.regret, s=area, marker=marker, color=colour, zorder=4)
            if shorter and (point.on_front or point.recommended):
                axes.annotate(
                    f"{formats.count(point.steps)} steps",
                    (point.cost, point.regret),
                    xytext=(0, -8),
                    textcoords="offset points",
                    ha="center",
                    va="top",
                    color=theme.muted,
                )
        axes.scatter([], [], color=colour, label=f"{info.axis} {size}")
    front = [point for point in info.points if point.on_front]
    axes.plot(
        [point.cost for point in front],
        [point.regret for point in front],
        color=theme.muted,
        linewidth=1,
        linestyle=(0, (3, 2)),
        zorder=2,
        label="Pareto front",
    )
    axes.axhline(REGRET_BOUND, color=theme.warning, linewidth=1.1, label="bound, 10 %")
    if any(point.recommended for point in info.points):
        axes.scatter([], [], marker="*", s=110, color=theme.muted, label="recommended")
    for along, marks in ((axes.xaxis, (1.0, 2.0, 5.0)), (axes.yaxis, (1.0,))):
        along.set_major_locator(LogLocator(subs=marks))
        along.set_major_formatter(lambda value, _: _tick(value))
        along.set_minor_formatter(NullFormatter())
    axes.margins(y=0.12)
    axes.set_xlabel("cost of the search, one seed, over one training of the target")
    axes.set_ylabel("regret, of a doubling's gain")
    if info.infinite:
        axes.set_title(f"not shown, diverges at the target: {'; '.join(info.infinite)}")
    figure.legend(loc="outside upper center", ncols=5)
    return figure


def _tick(value: float) -> str:
    return f"{'≤ ' if math.isclose(value, _LEAST) else ''}{formats.percent(value)}"


def save_advice_figure(advice: Advice, folder: Path, *, axis: str) -> None:
    """Write `figures/advice.png` and its dark twin into a study's folder."""
    (folder / "figures").mkdir(exist_ok=True)
    info = advice_info(advice, axis=axis)
    for theme, ending in ((LIGHT, ""), (DARK, "-dark")):
        with type_style(theme):
            png = to_png(draw_advice(info, theme))
        (folder / "figures" / f"advice{ending}.png").write_bytes(png)

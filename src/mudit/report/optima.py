"""Where the optimum lies at every size, and how it drifts, under μP and under sp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from mudit.analysis.basin import Array, Interval
from mudit.analysis.transferability import DRIFT_BOUND, Transferability
from mudit.report import formats
from mudit.report.theme import Theme, new_figure

_BEYOND = 1.0  # octaves beyond optima and tried values that an interval is drawn
_LEAST_SPAN = 2.0  # of the y axis in octaves, so that a drift of nothing looks like nothing


class Optimum(NamedTuple):
    """One size's optimum.

    Attributes:
        size: The size.
        optimum: log2 of the fitted optimum with its 95 % interval; None without a fit.
        best: log2 of the best tried value; None if all diverged.
    """

    size: int
    optimum: Interval | None
    best: float | None


class OptimaPanel(NamedTuple):
    """One parametrization.

    Attributes:
        parametrization: `mup` or `sp`.
        optima: By size, ascending.
        drift: Octaves per doubling with its 98 % interval; None without two fitted sizes.
        centre: Mean log2 size and mean log2 optimum of the fitted sizes; the least-squares line
            goes through it whatever its slope.
    """

    parametrization: str
    optima: tuple[Optimum, ...]
    drift: Interval | None
    centre: tuple[float, float] | None

    @property
    def cone(self) -> tuple[int, float] | None:
        """The smallest fitted size and its optimum, from which the bound opens."""
        fitted = [(one.size, one.optimum.value) for one in self.optima if one.optimum is not None]
        return fitted[0] if fitted else None


class OptimaInfo(NamedTuple):
    """All that the optima's figure shows.

    Attributes:
        axis: What the x axis is called.
        hp: The HP's dotted name.
        sizes: All sizes, ascending.
        target: The size that the HP is to be carried to.
        panels: μP, then its control.
        limits: Of log2 HP; intervals that reach beyond them end in an arrow.
    """

    axis: str
    hp: str
    sizes: tuple[int, ...]
    target: float
    panels: tuple[OptimaPanel, ...]
    limits: tuple[float, float]


def optima_info(
    studies: Sequence[tuple[str, Transferability]], *, axis: str, hp: str
) -> OptimaInfo:
    """The optima of each parametrization.

    Args:
        studies: Parametrizations with what their runs say; at least one.
        axis: `width`, `batch` or `steps`.
        hp: The HP's dotted name.
    """
    panels = tuple(_panel(name, found) for name, found in studies)
    sizes = sorted({one.size for panel in panels for one in panel.optima})
    return OptimaInfo(
        axis=formats.axis_name(axis),
        hp=hp,
        sizes=tuple(sizes),
        target=studies[0][1].target,
        panels=panels,
        limits=_limits(panels),
    )


def _panel(name: str, found: Transferability) -> OptimaPanel:
    optima = tuple(Optimum(b.size, b.optimum, b.best) for b in found.basins)
    fitted = [(math.log2(one.size), one.optimum.value) for one in optima if one.optimum is not None]
    centre = tuple(np.mean(fitted, axis=0).tolist()) if len(fitted) > 1 else None
    return OptimaPanel(name, optima, found.drift, centre)


def _limits(panels: Sequence[OptimaPanel]) -> tuple[float, float]:
    """All optima and best values, and as much of the intervals as lies among the tried values."""
    points = [one.best for panel in panels for one in panel.optima if one.best is not None]
    ends = []
    for panel in panels:
        for one in panel.optima:
            if one.optimum is not None:
                points.append(one.optimum.value)
                ends += [one.optimum.low, one.optimum.high]
    points = points or [0.0]
    low, high = min(points), max(points)
    inside = [end for end in ends if low - _BEYOND <= end <= high + _BEYOND]
    low, high = min([low, *inside]), max([high, *inside])
    middle, half = (low + high) / 2, max(high - low, _LEAST_SPAN) / 2
    return middle - 1.15 * half, middle + 1.15 * half


# --- drawing ------------------------------------------------------------------------------------


def draw_optima(info: OptimaInfo, theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    figure = new_figure(4.3)
    grid = figure.subplots(1, len(info.panels), squeeze=False, sharey=True)
    for axes, panel in zip(grid[0], info.panels, strict=True):
        _draw_panel(axes, panel, info, theme)
    grid[0, 0].set_ylabel(f"best base {info.hp}")
    figure.legend(
        handles=_marks(info, theme), loc="outside lower center", ncols=3, fontsize=8.5,
        columnspacing=1.6,
    )  # fmt: skip
    return figure


def _draw_panel(axes: Axes, panel: OptimaPanel, info: OptimaInfo, theme: Theme) -> None:
    colour = theme.run(panel.parametrization)
    name = formats.parametrization_name(panel.parametrization)
    axes.set_title(f"{name}: {drift_words(panel.drift)}", color=colour, fontsize=9.5)
    axes.set_ylim(*info.limits)
    first, last = math.log2(info.sizes[0]), math.log2(max(info.target, info.sizes[-1]))
    margin = 0.08 * (last - first) + 0.15
    axes.set_xlim(first - margin, last + margin)
    x = np.linspace(first, last, 50)
    if panel.cone is not None:
        size, optimum = panel.cone
        start = math.log2(size)
        rise = DRIFT_BOUND * (x[x >= start] - start)
        axes.fill_between(
            x[x >= start], optimum - rise, optimum + rise, color=theme.rule, alpha=0.6, linewidth=0
        )
    _draw_drift(axes, panel, x, theme)
    for one in panel.optima:
        _draw_optimum(axes, one, info.limits, theme, colour)
    if info.target > info.sizes[-1]:
        axes.axvline(
            math.log2(info.target), color=theme.muted, linewidth=0.9, linestyle=(0, (4, 3))
        )
        axes.text(
            math.log2(info.target), 0.985, "target ", transform=axes.get_xaxis_transform(),
            ha="right", va="top", fontsize=8.5, color=theme.muted,
        )  # fmt: skip
    _ticks(axes, info)


def drift_words(drift: Interval | None) -> str:
    """The drift with its interval, short."""
    if drift is None:
        return "no drift to be measured"
    value, low, high = (formats.number(number, "+.2f") for number in drift)
    return f"{value} octaves per doubling ({low} to {high})"


def _draw_drift(axes: Axes, panel: OptimaPanel, x: Array, theme: Theme) -> None:
    if panel.drift is None or panel.centre is None:
        return
    colour, (at, height) = theme.run(panel.parametrization), panel.centre
    if _bounded(panel.drift):
        ends = [height + slope * (x - at) for slope in (panel.drift.low, panel.drift.high)]
        axes.fill_between(
            x, np.minimum(*ends), np.maximum(*ends), color=colour, alpha=0.16, linewidth=0
        )
    axes.plot(x, height + panel.drift.value * (x - at), color=colour, linewidth=1.4)


def _bounded(drift: Interval | None) -> bool:
    return drift is not None and math.isfinite(drift.low) and math.isfinite(drift.high)


def _draw_optimum(
    axes: Axes, one: Optimum, limits: tuple[float, float], theme: Theme, colour: str
) -> None:
    x = math.log2(one.size)
    if one.best is not None:
        axes.scatter(
            x, one.best, s=70, marker="*", facecolors=theme.paper, edgecolors=colour,
            linewidths=1, zorder=4,
        )  # fmt: skip
    if one.optimum is None:
        what = "all diverged" if one.best is None else "no fit"
        above = one.best is not None and one.best < sum(limits) / 2
        axes.text(
            x, 0.97 if above else 0.03, what, transform=axes.get_xaxis_transform(), rotation=90,
            ha="center", va="top" if above else "bottom", fontsize=8, color=theme.muted,
        )  # fmt: skip
        return
    value, low, high = one.optimum
    bottom, top = limits
    axes.plot([x, x], [max(low, bottom), min(high, top)], color=colour, linewidth=2, zorder=3)
    axes.plot([x], [value], marker="o", markersize=6, color=colour, zorder=5)
    for beyond, end, marker in ((low < bottom, 0.0, "v"), (high > top, 1.0, "^")):
        if beyond:
            axes.plot(
                [x], [end], transform=axes.get_xaxis_transform(), marker=marker, markersize=8,
                color=colour, clip_on=False, zorder=6,
            )  # fmt: skip


def _ticks(axes: Axes, info: OptimaInfo) -> None:
    sizes = [*info.sizes, *([info.target] if info.target > info.sizes[-1] else [])]
    axes.set_xticks([math.log2(size) for size in sizes], [f"{size:g}" for size in sizes])
    axes.set_xlabel(f"{info.axis} (log2 axis)")
    low, high = info.limits
    step = max(1, math.ceil((high - low) / 8))
    axes.yaxis.set_major_locator(
        FixedLocator([float(e) for e in range(math.ceil(low), math.floor(high) + 1, step)])
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: formats.log2_value(value))


def _marks(info: OptimaInfo, theme: Theme) -> list[Line2D | Patch]:
    grey = theme.muted
    bound = f"drift of at most ±{DRIFT_BOUND} octaves per doubling"
    found: list[Line2D | Patch] = [
        Line2D([], [], color=grey, marker="o", linewidth=2, label="fitted optimum, 95 % interval"),
        Line2D(
            [], [], color=grey, marker="*", markersize=9, markerfacecolor=theme.paper,
            linestyle="none", label="best value tried",
        ),
    ]  # fmt: skip
    if any(panel.drift is not None for panel in info.panels):
        found.append(Line2D([], [], color=grey, linewidth=1.4, label="fitted drift"))
    if any(_bounded(panel.drift) for panel in info.panels):
        label = "its 98 % band, turning about the centre"
        found.append(Patch(facecolor=grey, alpha=0.3, label=label))
    return [*found, Patch(facecolor=theme.rule, alpha=0.6, label=bound)]

"""Basins: loss against one HP at every size, under μP and under sp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mudit.analysis.basin import Array, Basin, Interval, linex
from mudit.analysis.transferability import Transferability
from mudit.report import formats
from mudit.report.theme import (
    Theme,
    diverged_band,
    hp_ticks,
    log_losses,
    new_figure,
)

_NEAR = 1.5  # octaves around the best value that a basin's bottom is taken to reach
_ROOM = 1.3  # above the bottoms
_SQUASHED = 1.6  # how much taller an axes may get for points far above the basins
_LOG = 4.0  # spread of losses from which only a logarithm shows them
_POINTS = 60  # of a fitted basin's curve


class BasinCurve(NamedTuple):
    """One size's losses by HP; x is log2 of the HP everywhere.

    Attributes:
        size: The size.
        shade: Its place among all sizes, 0 to 1.
        points: (x, loss) of every run that did not diverge.
        means: (x, mean loss) of every tried value, ascending; NaN where any seed diverged.
        fit: (x, loss) along the fitted basin, through its window; empty without a fit.
        optimum: The fitted optimum with its 95 % interval; None without a fit.
        best: (x, mean loss) of the best tried value; None if all diverged.
        bottom: The fitted loss at the optimum, or else the lowest mean; None if all diverged.
        diverged: (x, share of the seeds that diverged) of every value where any did.
        cliffs: Cells of the grid in which a cliff lies.
    """

    size: int
    shade: float
    points: tuple[tuple[float, float], ...]
    means: tuple[tuple[float, float], ...]
    fit: tuple[tuple[float, float], ...]
    optimum: Interval | None
    best: tuple[float, float] | None
    bottom: float | None
    diverged: tuple[tuple[float, float], ...]
    cliffs: tuple[tuple[float, float], ...]


class BasinsPanel(NamedTuple):
    """One parametrization."""

    parametrization: str
    verdict: str
    curves: tuple[BasinCurve, ...]


class BasinsInfo(NamedTuple):
    """All that the basins' figure shows.

    Attributes:
        axis: `width`, `batch` or `steps`.
        hp: The HP's dotted name.
        panels: μP, then its control.
        log_y: Whether losses spread so much that only a logarithm shows them.
        limits: Of the loss; runs above them are marked at the edge.
        zoom: Least and greatest loss above each size's bottom that the lower row shows.
    """

    axis: str
    hp: str
    panels: tuple[BasinsPanel, ...]
    log_y: bool
    limits: tuple[float, float]
    zoom: tuple[float, float]

    @property
    def curves(self) -> tuple[BasinCurve, ...]:
        """Those of all panels."""
        return tuple(curve for panel in self.panels for curve in panel.curves)

    @property
    def sizes(self) -> dict[int, float]:
        """Every size with its shade, ascending."""
        return dict(sorted((curve.size, curve.shade) for curve in self.curves))


def basins_info(
    studies: Sequence[tuple[str, Transferability]], *, axis: str, hp: str
) -> BasinsInfo:
    """The basins of each parametrization.

    Args:
        studies: Parametrizations with what their runs say; at least one.
        axis: `width`, `batch` or `steps`.
        hp: The HP's dotted name.
    """
    sizes = sorted({basin.size for _, found in studies for basin in found.basins})
    last = max(len(sizes) - 1, 1)
    panels = tuple(
        BasinsPanel(
            name,
            found.verdict,
            tuple(_curve(b, found.skew, sizes.index(b.size) / last) for b in found.basins),
        )
        for name, found in studies
    )
    curves = [curve for panel in panels for curve in panel.curves]
    limits, log_y = _limits(curves)
    return BasinsInfo(axis, hp, panels, log_y, limits, _zoom(curves))


def _curve(basin: Basin, skew: float, shade: float) -> BasinCurve:
    means = tuple((row.log2_hp, row.mean) for row in basin.tried)
    diverged = tuple(
        (row.log2_hp, row.diverged / (row.diverged + len(row.losses)))
        for row in basin.tried
        if row.diverged
    )
    best = None if basin.best is None else (basin.best, dict(means)[basin.best])
    return BasinCurve(
        size=basin.size,
        shade=shade,
        points=tuple((row.log2_hp, loss) for row in basin.tried for loss in row.losses),
        means=means,
        fit=_fitted(basin, skew),
        optimum=basin.optimum,
        best=best,
        bottom=basin.loss if basin.loss is not None or best is None else best[1],
        diverged=diverged,
        cliffs=tuple(cell for cell in basin.cliffs if cell is not None),
    )


def _fitted(basin: Basin, skew: float) -> tuple[tuple[float, float], ...]:
    """The basin through the values that it was fitted to."""
    known = basin.window, basin.bottom, basin.loss, basin.curvature, basin.optimum
    window, bottom, loss, curvature, optimum = known
    if window is None or bottom is None or loss is None or curvature is None or optimum is None:
        return ()
    # `loss` is that at the optimum, which is the bottom or, before a cliff, the window's end.
    at = min(max(bottom, window[0]), window[1]) if basin.form == "cliff" else bottom
    level = loss - curvature * float(linex(at - bottom, skew))
    x = np.linspace(*window, _POINTS)
    y = level + curvature * linex(x - bottom, skew)
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


def _near(curve: BasinCurve) -> list[float]:
    """Mean losses around the best value: within some octaves, or its neighbours."""
    if curve.best is None:
        return []
    stable = [(abs(x - curve.best[0]), y) for x, y in curve.means if math.isfinite(y)]
    steps = sorted({distance for distance, _ in stable})
    radius = max(_NEAR, steps[1] if len(steps) > 1 else 0.0) + 1e-9
    return [y for distance, y in stable if distance <= radius]


def _limits(curves: Sequence[BasinCurve]) -> tuple[tuple[float, float], bool]:
    """Of the loss, and whether they need a logarithm.

    Runs far above all basins are left out if they would squash these.
    """
    everything = [y for curve in curves for _, y in (*curve.points, *curve.fit)]
    if not everything:
        return (0.5, 1.5), False
    low, high = min(everything), max(everything)
    basins = [y for curve in curves for y in (*_near(curve), *(y for _, y in curve.fit))]
    needed = max(basins, default=high)
    log_y = low > 0 and needed > _LOG * low
    if log_y:
        most = low * (needed / low) ** _SQUASHED
        high = min(high, most)
        return (low / (high / low) ** 0.05, high * (high / low) ** 0.05), True
    span = (needed - low) or abs(low) or 1.0
    high = min(high, low + _SQUASHED * span)
    return (low - 0.06 * (high - low or span), high + 0.06 * (high - low or span)), False


def _zoom(curves: Sequence[BasinCurve]) -> tuple[float, float]:
    """From the lowest point to the median size's rise around its best value, with room above."""
    rises, lows = [], [0.0]
    for curve in curves:
        if curve.best is None or curve.bottom is None:
            continue
        at_best = [y - curve.bottom for x, y in curve.points if x == curve.best[0]]
        lows.append(min(at_best))
        rise = max(_near(curve)) - curve.bottom
        rises.append(_ROOM * max(rise, *(abs(deviation) for deviation in at_best)))
    return min(lows), (float(np.median(rises)) if rises else 0.0) or 1.0


# --- drawing ------------------------------------------------------------------------------------


def draw_basins(info: BasinsInfo, theme: Theme) -> Figure:
    """The figure: losses above, the basins' bottoms below. Call it inside `type_style`."""
    found = any(curve.bottom is not None for curve in info.curves)
    count, columns, rows = len(info.sizes), len(info.panels), 2 if found else 1
    figure = new_figure(6.9 + 0.1 * count if found else 2.6)
    heights = (1, 0.9 + 0.04 * count)[:rows]
    grid = figure.subplots(
        rows, columns, squeeze=False, sharex=True, sharey="row", height_ratios=heights
    )
    tried = [x for curve in info.curves for x, _ in curve.means]
    for place, panel in enumerate(info.panels):
        _draw_losses(grid[0, place], panel, info, theme, labelled=place == 0)
        if found:
            _draw_bottoms(grid[1, place], panel, info, theme)
        hp_ticks(grid[-1, place], tried, log2=True, most=13 if columns == 1 else 7)
        grid[-1, place].set_xlabel(f"base {info.hp} (log2 axis)")
    if found:
        grid[0, 0].set_ylabel("validation loss, raw weights", loc="bottom")
        grid[1, 0].set_ylabel("loss above the basin's bottom", loc="top")
    else:
        grid[0, 0].set_yticks([])
    _legends(figure, info, theme)
    return figure


def _floor(info: BasinsInfo) -> float:
    """Where the band of diverged runs begins."""
    return 0.86 - 0.01 * max(len(info.sizes) - 4, 0)


def _draw_losses(
    axes: Axes, panel: BasinsPanel, info: BasinsInfo, theme: Theme, *, labelled: bool
) -> None:
    name = formats.parametrization_name(panel.parametrization)
    axes.set_title(f"{name}: {panel.verdict}", color=theme.run(panel.parametrization))
    low, high = info.limits
    floor = _floor(info)
    banded = any(curve.diverged for curve in info.curves)
    if info.log_y:
        log_losses(axes, high / low)
    if banded:
        high = low * (high / low) ** (1 / floor) if info.log_y else low + (high - low) / floor
    axes.set_ylim(low, high)
    if banded:
        diverged_band(axes, theme, labelled=labelled, floor=floor)
    for place, curve in enumerate(panel.curves):
        colour = theme.shade(curve.shade)
        _draw_curve(axes, curve, theme, offset=0.0, limit=info.limits[1])
        beyond = sorted({x for x, y in curve.points if y > info.limits[1]})
        place_of = axes.get_xaxis_transform()
        edge = (floor if banded else 1.0) - 0.025
        axes.scatter(
            beyond, [edge] * len(beyond), s=22, marker="^", color=colour, zorder=4,
            transform=place_of, linewidths=0,
        )  # fmt: skip
        slot = floor + (1 - floor) * (place + 0.7) / (len(panel.curves) + 0.4)
        for x, share in curve.diverged:
            axes.plot(
                [x], [slot], transform=place_of, marker="x", markersize=5,
                markeredgewidth=1.8 if share == 1 else 0.7, color=colour, zorder=4,
            )  # fmt: skip


def _draw_curve(
    axes: Axes, curve: BasinCurve, theme: Theme, *, offset: float, limit: float
) -> None:
    """Dots, means and basin, `offset` lower, up to `limit`."""
    colour = theme.shade(curve.shade)
    shown = [(x, y - offset) for x, y in curve.points if y - offset <= limit]
    if shown:
        dots = np.array(shown)
        axes.scatter(dots[:, 0], dots[:, 1], s=7, color=colour, alpha=0.65, linewidths=0)
    if curve.fit:
        fit = np.array(curve.fit) - [0, offset]
        fit[fit[:, 1] > limit, 1] = math.nan
        axes.plot(
            fit[:, 0], fit[:, 1], color=colour, linewidth=5.5, alpha=0.28, solid_capstyle="butt"
        )
    means = np.array(curve.means)
    axes.plot(
        *_clipped(means[:, 0], means[:, 1] - offset, limit), color=colour, linewidth=1.3, zorder=3
    )
    if curve.best is not None:
        axes.scatter(
            curve.best[0], curve.best[1] - offset, s=120, marker="*", zorder=6,
            color=colour, edgecolors=theme.paper, linewidths=0.8,
        )  # fmt: skip


def _clipped(x: Array, y: Array, limit: float) -> tuple[list[float], list[float]]:
    """A line up to where it leaves the axes through its top."""
    xs, ys = [float(x[0])], [float(y[0]) if y[0] <= limit else math.nan]
    for i in range(1, len(x)):
        a, b = float(y[i - 1]), float(y[i])
        if (a - limit) * (b - limit) < 0:  # False for NaN
            xs.append(float(x[i - 1] + (limit - a) / (b - a) * (x[i] - x[i - 1])))
            ys.append(limit)
        xs.append(float(x[i]))
        ys.append(b if b <= limit else math.nan)
    return xs, ys


def _draw_bottoms(axes: Axes, panel: BasinsPanel, info: BasinsInfo, theme: Theme) -> None:
    """Each size less its basin's bottom, and the intervals of the optima below them."""
    slots = list(info.sizes)
    lowest, highest = info.zoom
    slot = (highest - lowest) * 0.075
    axes.set_ylim(lowest - slot * (len(slots) + 1.4), highest * 1.04)
    axes.axhline(0, color=theme.muted, linewidth=0.8, zorder=1.5)
    for curve in panel.curves:
        if curve.bottom is None:
            continue
        _draw_curve(axes, curve, theme, offset=curve.bottom, limit=highest)
        _draw_interval(axes, curve, theme, lowest - slot * (slots.index(curve.size) + 1.2))
    axes.set_yticks([tick for tick in axes.get_yticks() if lowest <= tick <= highest])


def _draw_interval(axes: Axes, curve: BasinCurve, theme: Theme, height: float) -> None:
    colour = theme.shade(curve.shade)
    for cell in curve.cliffs:
        axes.plot(cell, [height] * 2, color=colour, linewidth=1, linestyle=(0, (1, 1.5)))
    if curve.optimum is None:
        return
    value, *ends = curve.optimum
    tried = [x for x, _ in curve.means]
    edges = min(tried) - 2.0, max(tried) + 2.0
    low, high = (float(np.clip(end, *edges)) for end in ends)
    axes.plot([low, high], [height] * 2, color=colour, linewidth=2.6, solid_capstyle="butt")
    axes.plot([value], [height], marker="o", markersize=5.5, color=colour,
              markeredgecolor=theme.paper, markeredgewidth=0.8, zorder=5)  # fmt: skip


def _legends(figure: Figure, info: BasinsInfo, theme: Theme) -> None:
    sizes = [
        Line2D([], [], color=theme.shade(shade), linewidth=3, label=str(size))
        for size, shade in info.sizes.items()
    ]
    title = Line2D([], [], linestyle="none", label=formats.axis_name(info.axis))
    figure.legend(
        handles=[title, *sizes], loc="outside upper center", ncols=9, handlelength=1.2,
        columnspacing=1.3,
    )  # fmt: skip
    figure.legend(
        handles=_marks(info, theme), loc="outside lower center", ncols=4, fontsize=8.5,
        columnspacing=1.4, handletextpad=0.6,
    )  # fmt: skip


def _marks(info: BasinsInfo, theme: Theme) -> list[Line2D]:
    """What the marks mean; only of those that are there."""
    grey = theme.muted

    def mark(label: str, marker: str, size: float, edge: float = 1.0) -> Line2D:
        return Line2D(
            [], [], color=grey, linestyle="none", marker=marker, markersize=size, label=label,
            markeredgewidth=edge,
        )  # fmt: skip

    found = []
    if any(curve.points for curve in info.curves):
        found.append(mark("one seed", "o", 3))
    if any(curve.best is not None for curve in info.curves):
        found.append(Line2D([], [], color=grey, linewidth=1.3, label="mean over seeds"))
        found.append(mark("best value tried", "*", 10))
    if any(curve.fit for curve in info.curves):
        found.append(Line2D([], [], color=grey, linewidth=5.5, alpha=0.35, label="fitted basin"))
        label = "fitted optimum, 95 % interval"
        found.append(Line2D([], [], color=grey, linewidth=2.6, marker="o", label=label))
    if any(curve.cliffs for curve in info.curves):
        dots = Line2D([], [], color=grey, linewidth=1, linestyle=(0, (1, 1.5)))
        dots.set_label("a cliff lies in here")
        found.append(dots)
    shares = [share for curve in info.curves for _, share in curve.diverged]
    if shares:
        thin = " (thin: some seeds)" if min(shares) < 1 else ""
        found.append(mark(f"diverged{thin}", "x", 5, 1.8))
    if any(y > info.limits[1] for curve in info.curves for _, y in curve.points):
        found.append(mark("above the axis", "^", 5))
    return found

"""Figures of a coordinate check: values over width under μP and under sp, and all slopes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from mudit.report import formats
from mudit.report.theme import Theme, new_figure

_TITLES = {
    "activation": "features at step 0",
    "change": "change of features, step {step}",
    "initial": "initial values",
    "update": "updates (spectral), step {step}",
    "update_rms": "updates (RMS), step {step}",
    "decay": "weight decay, step {step}",
}
_COMPARED = ("activation", "change", "update")
_MOST_LABELS = 3
_MOST_BARS = 44
_WIDEST = 1.5
_FAULTY = "FAIL"
_LEAST_SPAN = 2.1  # of an axis of relative values, so that flat lines look flat


class RowFacts(Protocol):
    """What is drawn of one quantity; `tuning.diagnosis.CheckRow` is one."""

    @property
    def quantity(self) -> str:
        """`activation`, `change`, `initial`, `update`, `update_rms` or `decay`."""

    @property
    def name(self) -> str:
        """Of the feature or the parameter."""

    @property
    def step(self) -> int:
        """Steps taken."""

    @property
    def slope(self) -> float | None:
        """Of log value over log width."""

    @property
    def low(self) -> float | None:
        """Lower end of its interval."""

    @property
    def high(self) -> float | None:
        """Upper end."""

    @property
    def verdict(self) -> str:
        """PASS, FAIL, INCONCLUSIVE or `not judged`."""

    @property
    def values(self) -> tuple[tuple[float, ...], ...]:
        """By width, by seed."""


class Trace(NamedTuple):
    """One quantity over width.

    Attributes:
        name: Of the feature or the parameter.
        relative: Geometric mean over seeds, over that of the smallest width; NaN where diverged.
        verdict: Of its slope.
        slope: The slope.
    """

    name: str
    relative: NDArray[np.float64]
    verdict: str
    slope: float


class CoordinatePanel(NamedTuple):
    """Traces that share an axes."""

    title: str
    parametrization: str
    traces: tuple[Trace, ...]


class CoordinatesInfo(NamedTuple):
    """Values over width.

    Attributes:
        widths: Of the models.
        bound: Greatest slope that passes.
        lines: One for the plan's parametrization, and one for the control if there is one; the same
            quantities in each.
    """

    widths: tuple[int, ...]
    bound: float
    lines: tuple[tuple[CoordinatePanel, ...], ...]


class SlopeBar(NamedTuple):
    """One slope with its interval."""

    name: str
    slope: float
    low: float
    high: float
    verdict: str


class SlopesInfo(NamedTuple):
    """The slopes nearest to their bounds, grouped by quantity.

    Attributes:
        bound: Greatest slope that passes.
        groups: Title and slopes.
        left_out: How many judged slopes are not shown, all further inside.
    """

    bound: float
    groups: tuple[tuple[str, tuple[SlopeBar, ...]], ...]
    left_out: int


def coordinates_info(
    rows: Sequence[RowFacts],
    control: Sequence[RowFacts],
    *,
    widths: tuple[int, ...],
    steps: int,
    bound: float,
) -> CoordinatesInfo:
    """Features and updates over width, the control's below the plan's."""
    lines = [_panels(rows, "mup", steps)]
    if control:
        lines.append(_panels(control, "sp", steps))
    return CoordinatesInfo(widths, bound, tuple(lines))


def _panels(
    rows: Sequence[RowFacts], parametrization: str, steps: int
) -> tuple[CoordinatePanel, ...]:
    panels = []
    for quantity in _COMPARED:
        step = 0 if quantity == "activation" else steps
        found = [row for row in rows if row.quantity == quantity and row.step == step]
        title = f"{formats.parametrization_name(parametrization)}: {_title(quantity, step)}"
        traces = tuple(_trace(row) for row in found if row.values[0] and row.values[0][0] > 0)
        panels.append(CoordinatePanel(title, parametrization, traces))
    return tuple(panels)


def _title(quantity: str, step: int) -> str:
    return _TITLES.get(quantity, quantity).format(step=step)


def _trace(row: RowFacts) -> Trace:
    values = np.array(row.values, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values).mean(axis=1)
        relative = np.exp(logs - logs[0])
    relative[~np.isfinite(relative)] = np.nan
    slope = math.nan if row.slope is None else row.slope
    return Trace(row.name, relative, row.verdict, slope)


def draw_coordinates(info: CoordinatesInfo, theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    figure = new_figure(0.4 + 2.6 * len(info.lines))
    grid = figure.subplots(len(info.lines), len(_COMPARED), squeeze=False, sharey="row")
    for line, axes_of_line in zip(info.lines, grid, strict=True):
        _limit(axes_of_line[0], line)
        for axes, panel in zip(axes_of_line, line, strict=True):
            _draw_panel(axes, panel, info, theme)
        axes_of_line[0].set_ylabel(f"relative to width {info.widths[0]}")
    for axes in grid[-1]:
        axes.set_xlabel("width")
    return figure


def _limit(axes: Axes, line: tuple[CoordinatePanel, ...]) -> None:
    values = [trace.relative for panel in line for trace in panel.traces]
    finite = np.concatenate([*values, np.ones(1)])
    finite = finite[np.isfinite(finite) & (finite > 0)]
    faulty = any(trace.verdict == _FAULTY for panel in line for trace in panel.traces)
    room = 1.9 if faulty else 1.1  # for names above the lines
    axes.set_yscale("log", base=2)
    axes.set_ylim(min(finite.min() / 1.1, 1 / _LEAST_SPAN), max(finite.max() * room, _LEAST_SPAN))


def _draw_panel(axes: Axes, panel: CoordinatePanel, info: CoordinatesInfo, theme: Theme) -> None:
    axes.set_title(panel.title, fontsize=9.5)
    widths = np.array(info.widths, dtype=np.float64)
    wedge = (widths / widths[0]) ** info.bound
    axes.fill_between(widths, 1 / wedge, wedge, color=theme.rule, alpha=0.55, linewidth=0)
    axes.plot(widths, np.ones_like(widths), color=theme.muted, linewidth=0.8)
    colour = theme.run(panel.parametrization)
    for trace in panel.traces:
        faulty = trace.verdict == _FAULTY
        axes.plot(
            widths, trace.relative, color=theme.warning if faulty else colour,
            linewidth=1.8 if faulty else 0.9, alpha=1.0 if faulty else 0.55,
            zorder=4 if faulty else 3,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(info.widths)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.yaxis.set_major_locator(LogLocator(base=2))
    axes.yaxis.set_major_formatter(lambda value, _: formats.multiplier(value))
    axes.yaxis.set_minor_formatter(NullFormatter())
    _name_faulty(axes, panel, theme)


def _name_faulty(axes: Axes, panel: CoordinatePanel, theme: Theme) -> None:
    """Names of the failed traces that are furthest astray, in a corner."""
    faulty = [trace for trace in panel.traces if trace.verdict == _FAULTY]
    worst = sorted(faulty, key=lambda trace: -abs(np.nan_to_num(trace.slope)))[:_MOST_LABELS]
    lines = [f"{trace.name}  n^{trace.slope:.2f}" for trace in worst]
    if len(faulty) > len(worst):
        lines.append(f"and {len(faulty) - len(worst)} more")
    if lines:
        axes.text(
            0.03, 0.97, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=7,
            color=theme.warning, zorder=6,
            bbox={"facecolor": theme.paper, "edgecolor": "none", "alpha": 0.75, "pad": 1.5},
        )  # fmt: skip


def slopes_info(rows: Sequence[RowFacts], *, bound: float) -> SlopesInfo:
    """The judged slopes with the least room, at most as many as a page holds."""
    judged = [row for row in rows if row.verdict != "not judged" and row.slope is not None]
    ranked = sorted(judged, key=_room)[:_MOST_BARS]
    chosen = {id(row) for row in ranked}
    groups = []
    for quantity in _TITLES:
        of_it = [row for row in judged if row.quantity == quantity and id(row) in chosen]
        if of_it:
            groups.append((_title(quantity, of_it[0].step), tuple(_bars(of_it))))
    return SlopesInfo(bound, tuple(groups), len(judged) - len(ranked))


def _room(row: RowFacts) -> float:
    return -max(abs(row.low or 0.0), abs(row.high or 0.0))


def _bars(rows: Sequence[RowFacts]) -> Iterator[SlopeBar]:
    for row in rows:
        if row.slope is not None and row.low is not None and row.high is not None:
            yield SlopeBar(row.name, row.slope, row.low, row.high, row.verdict)


def draw_slopes(info: SlopesInfo, theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    counts = [len(bars) for _, bars in info.groups] or [1]
    figure = new_figure(0.7 + 0.17 * sum(counts) + 0.32 * len(counts))
    grid = figure.subplots(len(counts), 1, squeeze=False, sharex=True, height_ratios=counts)
    for axes, (title, bars) in zip(grid[:, 0], info.groups):
        _draw_bars(axes, title, bars, info.bound, theme)
    last = grid[-1, 0]
    last.set_xlabel("slope of log value over log width, with simultaneous 95 % intervals")
    limit = _slope_limit([bar for _, bars in info.groups for bar in bars])
    last.set_xlim(-limit, limit)
    if info.left_out:
        figure.supxlabel(
            f"{formats.plural(info.left_out, 'slope')} further inside not shown",
            fontsize=8, color=theme.muted, x=0.995, ha="right",
        )  # fmt: skip
    return figure


def _slope_limit(bars: Sequence[SlopeBar]) -> float:
    """Of the axis: every slope is on it; a hopelessly wide interval runs off it."""
    ends = max((max(-bar.low, bar.high) for bar in bars), default=0.0)
    slopes = max((abs(bar.slope) for bar in bars), default=0.0)
    return 1.08 * max(0.3, slopes, min(ends, _WIDEST))


def _draw_bars(
    axes: Axes, title: str, bars: Sequence[SlopeBar], bound: float, theme: Theme
) -> None:
    axes.set_title(title, fontsize=9)
    axes.axvspan(-bound, bound, color=theme.rule, alpha=0.55, linewidth=0)
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    colours = {"PASS": theme.run("mup"), _FAULTY: theme.warning}
    places = np.arange(len(bars))
    for place, bar in zip(places, bars, strict=True):
        colour = colours.get(bar.verdict, theme.muted)
        axes.plot([bar.low, bar.high], [place, place], color=colour, linewidth=1.6)
        axes.plot([bar.slope], [place], marker="o", markersize=3.2, color=colour)
    axes.set_yticks(places, [bar.name for bar in bars], fontsize=7)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")

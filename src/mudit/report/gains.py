"""What carrying an HP costs, and what size gains: regret, extrapolation, losses over size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mudit.analysis.basin import Interval
from mudit.analysis.transferability import REGRET_BOUND, Transferability
from mudit.report import formats
from mudit.report.theme import Theme, diverged_band, log_losses, new_figure

_TICKS = (0.0, 5.0, 10.0, 100.0, 1e3, 1e4)  # %, of a regret
_MOST = 1e4  # %, that an axis shows
_LOG = 4.0  # spread of losses from which only a logarithm shows them


class RegretBar(NamedTuple):
    """One parametrization's cost of carrying an HP, in units of the last doubling's gain.

    Attributes:
        parametrization: `mup` or `sp`.
        regret: With 95 % bounds to each side; None without two fitted sizes.
        regret_words: Instead of numbers, where the regret has no finite value or upper bound.
        extrapolation: Loss lost by an HP off by the drift's worst reach; None as `regret`.
        extrapolation_words: Instead of the number, where it is not finite.
    """

    parametrization: str
    regret: Interval | None
    regret_words: str
    extrapolation: float | None
    extrapolation_words: str


class RegretInfo(NamedTuple):
    """All that the regret's figure shows; `bound` is what passes."""

    bars: tuple[RegretBar, ...]
    bound: float


def regret_info(studies: Sequence[tuple[str, Transferability]]) -> RegretInfo:
    """The regret of each parametrization.

    Args:
        studies: Parametrizations with what their runs say; at least one.
    """
    bars = tuple(
        RegretBar(name, found.regret, regret_words(found), found.extrapolation_cost,
                  extrapolation_words(found))
        for name, found in studies
    )  # fmt: skip
    return RegretInfo(bars, REGRET_BOUND)


def regret_words(found: Transferability) -> str:
    """Why the regret or its upper bound is no finite number; empty if both are."""
    if found.regret is None or found.gain is None:
        return "not known: fewer than two sizes with a basin"
    if found.gain <= 0:
        return "not known: the last doubling gained nothing"
    if math.isinf(found.regret.value):
        return "the carried value diverges there"
    return "no upper bound" if math.isinf(found.regret.high) else ""


def extrapolation_words(found: Transferability) -> str:
    """Why the cost of the worst reach is no finite number; empty if it is one."""
    if found.extrapolation_cost is None or found.gain is None or found.reach is None:
        return "not known: fewer than two sizes with a basin"
    if found.gain <= 0:
        return "not known: the last doubling gained nothing"
    if math.isinf(found.reach):
        return "not known: the drift has no bound"
    if math.isinf(found.extrapolation_cost):
        return "a value off by so much diverges there"
    return ""


def draw_regret(info: RegretInfo, theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    figure = new_figure(1.45 + 0.5 * len(info.bars))
    left, right = figure.subplots(1, 2, sharey=True)
    left.set_title("regret at the largest fitted size, 95 % bounds", fontsize=9.5)
    right.set_title("cost of the drift's worst reach", fontsize=9.5)
    limit = _limit(info)
    places = range(len(info.bars))
    for axes in (left, right):
        _regret_axis(axes, info, limit, theme)
    for place, bar in zip(places, info.bars, strict=True):
        colour = theme.run(bar.parametrization)
        _draw_bar(left, place, bar.regret, bar.regret_words, limit, colour)
        cost = bar.extrapolation
        interval = None if cost is None else Interval(cost, cost, cost)
        _draw_bar(right, place, interval, bar.extrapolation_words, limit, colour)
    left.set_yticks(
        list(places), [formats.parametrization_name(bar.parametrization) for bar in info.bars]
    )
    left.set_ylim(len(info.bars) - 0.4, -0.6)
    figure.supxlabel(
        "loss lost, in % of what the last doubling gained (linear up to 10 %, then logarithmic)",
        fontsize=9,
    )
    return figure


def _limit(info: RegretInfo) -> float:
    """Of the axis, in %: the next tick beyond every finite number, a finite most at most."""
    numbers = [100 * info.bound * 2]
    for bar in info.bars:
        numbers += [100 * number for number in bar.regret or ()]
        numbers.append(100 * (bar.extrapolation or 0.0))
    finite = min(max(number for number in numbers if math.isfinite(number)), _MOST)
    return next(tick for tick in _TICKS if tick >= finite)


def _regret_axis(axes: Axes, info: RegretInfo, limit: float, theme: Theme) -> None:
    bound = 100 * info.bound
    axes.set_xscale("symlog", linthresh=bound, linscale=1.0)
    axes.set_xlim(-0.6, limit * 1.3)
    ticks = [tick for tick in _TICKS if tick <= limit]
    axes.set_xticks(ticks, [f"{tick:,.0f} %" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axvspan(-1, bound, color=theme.rule, alpha=0.55, linewidth=0)
    axes.axvline(bound, color=theme.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _draw_bar(
    axes: Axes, place: int, interval: Interval | None, words: str, limit: float, colour: str
) -> None:
    """Point and interval, or the words; an end beyond the axis is an arrow."""
    ground = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    if interval is None or math.isinf(interval.value):
        axes.text(0.3, place, words, va="center", fontsize=8.5, color=colour, bbox=ground)
        return
    value, low, high = (min(100 * number, 1.3 * limit) for number in interval)
    axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot([value], [place], marker="o", markersize=6.5, color=colour)
    if 100 * interval.high > 1.3 * limit:
        axes.plot([1.3 * limit], [place], marker=">", markersize=8, color=colour, clip_on=False)
    said = f"{formats.percent(interval.value)}{f', {words}' if words else ''}"
    axes.text(
        min(value, limit / 3), place - 0.2, said, va="bottom", ha="left", fontsize=8.5, color=colour
    )


# --- losses -------------------------------------------------------------------------------------


class LossSeries(NamedTuple):
    """One parametrization's losses over size.

    Attributes:
        parametrization: `mup` or `sp`.
        optimal: (size, loss at the fitted optimum); NaN if all diverged; sizes without a fit left
            out.
        carried: (size, mean loss with the value that was best at the smallest size); NaN where any
            seed diverged; sizes without that value left out.
        carried_value: log2 of that value; None if the smallest size diverged throughout.
        asymptote: Loss for ever larger sizes with its 95 % interval, or None.
    """

    parametrization: str
    optimal: tuple[tuple[int, float], ...]
    carried: tuple[tuple[int, float], ...]
    carried_value: float | None
    asymptote: Interval | None


class LossesInfo(NamedTuple):
    """All that the losses' figure shows."""

    axis: str
    hp: str
    sizes: tuple[int, ...]
    series: tuple[LossSeries, ...]
    log_y: bool
    limits: tuple[float, float]


def losses_info(
    studies: Sequence[tuple[str, Transferability]], *, axis: str, hp: str
) -> LossesInfo:
    """The losses of each parametrization.

    Args:
        studies: Parametrizations with what their runs say; at least one.
        axis: `width`, `batch` or `steps`.
        hp: The HP's dotted name.
    """
    series = tuple(_series(name, found) for name, found in studies)
    sizes = sorted({basin.size for _, found in studies for basin in found.basins})
    values = [y for one in series for _, y in (*one.optimal, *one.carried) if math.isfinite(y)]
    low, high = min(values, default=1.0), max(values, default=1.0)
    asymptotes = [one.asymptote.value for one in series if one.asymptote is not None]
    # An asymptote far below all losses, or above them, is told in words; it would squash them.
    near = [y for y in asymptotes if y > 0 and y >= low - (high - low)]
    low = min([low, *near])
    log_y = low > 0 and high > _LOG * low
    if log_y:
        limits = (low / (high / low) ** 0.08, high * (high / low) ** 0.08)
    else:
        span = (high - low) or abs(high) or 1.0
        limits = (low - 0.1 * span, high + 0.1 * span)
    return LossesInfo(axis, hp, tuple(sizes), series, log_y, limits)


def _series(name: str, found: Transferability) -> LossSeries:
    optimal, carried = [], []
    value = found.basins[0].best
    for basin in found.basins:
        means = {row.log2_hp: row.mean for row in basin.tried}
        if basin.loss is not None:
            optimal.append((basin.size, basin.loss))
        elif basin.best is None:
            optimal.append((basin.size, math.nan))
        if value in means:
            carried.append((basin.size, means[value]))
    return LossSeries(name, tuple(optimal), tuple(carried), value, found.asymptote)


def draw_losses(info: LossesInfo, theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    figure = new_figure(4.0)
    axes = figure.subplots()
    low, high = info.limits
    if info.log_y:
        log_losses(axes, high / low)
    diverged = any(math.isnan(y) for one in info.series for _, y in (*one.optimal, *one.carried))
    if diverged:
        high = low * (high / low) ** (1 / 0.86) if info.log_y else low + (high - low) / 0.86
    axes.set_ylim(low, high)
    if diverged:
        diverged_band(axes, theme, labelled=True)
    first, last = math.log2(info.sizes[0]), math.log2(info.sizes[-1])
    margin = 0.05 * (last - first) + 0.1
    axes.set_xlim(first - margin, last + 2.2 * margin)
    axes.set_xticks([math.log2(size) for size in info.sizes], [str(size) for size in info.sizes])
    axes.set_xlabel(f"{formats.axis_name(info.axis)} (log2 axis)")
    axes.set_ylabel("validation loss, raw weights", loc="bottom")
    for place, one in enumerate(info.series):
        _draw_series(axes, one, info, theme, place=place)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def _draw_series(
    axes: Axes, one: LossSeries, info: LossesInfo, theme: Theme, *, place: int
) -> None:
    """μP is filled, its control hollow and larger, so both are seen where they agree."""
    colour, name = theme.run(one.parametrization), formats.parametrization_name(one.parametrization)
    if one.asymptote is not None and info.limits[0] <= one.asymptote.value <= info.limits[1]:
        _draw_asymptote(axes, one, colour, place=place)
    face = colour if place == 0 else theme.paper
    _draw_line(
        axes, one.optimal, colour, face, marker="o", size=6 + 2.5 * place, dashed=False,
        label=f"{name}: at each {formats.axis_name(info.axis)}'s optimum", zorder=5 - place,
    )  # fmt: skip
    if one.carried_value is not None and one.carried:
        value = formats.log2_value(one.carried_value)
        _draw_line(
            axes, one.carried, colour, face, marker="s", size=5 + 2.5 * place, dashed=True,
            label=f"{name}: with {info.hp} = {value}, the best at {info.sizes[0]}",
            zorder=4 - place,
        )  # fmt: skip


def _draw_line(
    axes: Axes, points: Sequence[tuple[int, float]], colour: str, face: str, *, marker: str,
    size: float, dashed: bool, label: str, zorder: float,
) -> None:  # fmt: skip
    x = np.log2([number for number, _ in points])
    y = np.array([loss for _, loss in points])
    axes.plot(
        x, y, color=colour, marker=marker, markersize=size, markerfacecolor=face, zorder=zorder,
        linestyle=(0, (4, 2)) if dashed else "-", linewidth=1.3 if dashed else 1.8, label=label,
    )  # fmt: skip
    lost = x[np.isnan(y)]
    heights = np.full(len(lost), 0.96 if dashed else 0.915)
    axes.scatter(
        lost, heights, transform=axes.get_xaxis_transform(), marker="x", s=40, color=colour,
        linewidths=1.8, zorder=6,
    )  # fmt: skip


def _draw_asymptote(axes: Axes, one: LossSeries, colour: str, *, place: int) -> None:
    assert one.asymptote is not None
    value, low, high = one.asymptote
    if math.isfinite(low) and math.isfinite(high):
        axes.axhspan(low, high, color=colour, alpha=0.1, linewidth=0)
    axes.axhline(value, color=colour, linewidth=1, linestyle=(0, (1, 2)))
    label = f"{formats.parametrization_name(one.parametrization)} → ∞ "
    axes.text(
        1.0 - 0.1 * place, value, label, transform=axes.get_yaxis_transform(), ha="right",
        va="bottom", fontsize=8.5, color=colour,
    )  # fmt: skip

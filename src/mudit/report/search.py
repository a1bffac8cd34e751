"""The search: score against each searched HP, of the study and of its control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mudit.report import formats
from mudit.report.contents import StudyContents, TrialCurve, chosen, control_trials
from mudit.report.theme import Theme, diverged_band, hp_ticks, log_losses, new_figure

Edge: TypeAlias = Literal["smallest", "largest", "only"]
_COLUMNS = {1: 1, 2: 2, 4: 2}  # panels beside each other, by number of panels; else three


class SearchSeries(NamedTuple):
    """The trials of one parametrization, by one HP.

    Attributes:
        parametrization: `mup` or `sp`.
        points: (x, score) of the completed trials; x is log2 of the HP on a log2 axis.
        means: The mean score at each x, ascending in x.
        diverged: x of the diverged trials.
        pruned: x of the trials that were ended early.
        chosen: The chosen trial's point; None if all diverged.
    """

    parametrization: str
    points: tuple[tuple[float, float], ...]
    means: tuple[tuple[float, float], ...]
    diverged: tuple[float, ...]
    pruned: tuple[float, ...]
    chosen: tuple[float, float] | None


class SearchPanel(NamedTuple):
    """One searched HP.

    Attributes:
        hp: Its dotted name.
        log2: Whether x is log2 of it; not if a tried value is zero or below.
        series: The study, then its control.
        joined: Whether the means are to be joined by a line: only if nothing else varies.
        warnings: In words, what is wrong with the chosen values' place.
    """

    hp: str
    log2: bool
    series: tuple[SearchSeries, ...]
    joined: bool
    warnings: tuple[str, ...]


class SearchInfo(NamedTuple):
    """All that the search's figure shows."""

    panels: tuple[SearchPanel, ...]
    log_y: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of all panels."""
        return tuple(text for panel in self.panels for text in panel.warnings)


def search_info(contents: StudyContents) -> SearchInfo:
    """What the search found, HP by HP."""
    names = varied_hps(contents.trials)
    studies = [(contents.parametrization, contents.trials, contents.best_key)]
    if contents.control is not None and contents.control.trials:
        control = contents.control
        studies.append((control.parametrization, control_trials(contents), control.best_key or ""))
    panels = tuple(_panel(hp, studies, joined=len(names) == 1) for hp in names)
    scores = [y for panel in panels for series in panel.series for _, y in series.points]
    return SearchInfo(panels, log_y=_spread(scores) > 4)


def varied_hps(trials: Sequence[TrialCurve]) -> tuple[str, ...]:
    """HPs that differ between trials, in the trials' order; the first one if none does."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.record.hps))
    values = {name: {trial.record.hps.get(name) for trial in trials} for name in names}
    return tuple(name for name in names if len(values[name]) > 1) or tuple(names[:1])


def edge(trials: Sequence[TrialCurve], best: TrialCurve, hp: str) -> Edge | None:
    """Where the chosen value stands if no tried one lies beyond it; diverged trials count.

    Zero is no edge: an HP cannot be less.
    """
    values = {trial.record.hps[hp] for trial in trials if hp in trial.record.hps}
    value = best.record.hps.get(hp)
    if value is None:
        return None
    if len(values) == 1:
        return "only"
    if value == min(values):
        return "smallest" if value != 0 else None
    return "largest" if value == max(values) else None


def edge_warning(hp: str, value: float, where: Edge, *, study: str) -> str:
    """The honest sentence about an optimum on the edge."""
    shown = formats.hp_value(value)
    if where == "only":
        return f"{study}: {hp} = {shown} is the only value tried, so nothing was searched."
    side = "below" if where == "smallest" else "above"
    return (
        f"{study}: the best {hp}, {shown}, is the {where} one tried; the optimum may lie {side} it."
    )


def _panel(
    hp: str, studies: Sequence[tuple[str, tuple[TrialCurve, ...], str]], *, joined: bool
) -> SearchPanel:
    values = [t.record.hps[hp] for _, trials, _ in studies for t in trials if hp in t.record.hps]
    log2 = all(value > 0 for value in values)
    warnings = []
    for parametrization, trials, key in studies:
        best = chosen(trials, key)
        where = None if best is None else edge(trials, best, hp)
        if best is not None and where is not None:
            study = formats.parametrization_name(parametrization)
            warnings.append(edge_warning(hp, best.record.hps[hp], where, study=study))
    series = tuple(_series(hp, *study, log2=log2) for study in studies)
    return SearchPanel(hp, log2, series, joined, tuple(warnings))


def _series(
    hp: str, parametrization: str, trials: Sequence[TrialCurve], key: str, *, log2: bool
) -> SearchSeries:
    points, best = [], None
    lost: dict[str, list[float]] = {"diverged": [], "pruned": []}
    for record in (trial.record for trial in trials):
        if hp not in record.hps:
            continue
        x = math.log2(record.hps[hp]) if log2 else record.hps[hp]
        if record.score is None or not math.isfinite(record.score):
            lost["pruned" if record.status == "pruned" else "diverged"].append(x)
            continue
        points.append((x, record.score))
        if record.key == key:
            best = (x, record.score)
    points.sort()
    means = tuple(
        (x, float(np.mean([score for at, score in points if at == x])))
        for x in sorted({x for x, _ in points})
    )
    diverged, pruned = (tuple(sorted(places)) for places in lost.values())
    return SearchSeries(parametrization, tuple(points), means, diverged, pruned, best)


def _spread(scores: Sequence[float]) -> float:
    return max(scores) / min(scores) if scores and min(scores) > 0 else 1.0


def draw_search(info: SearchInfo, theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    columns = _COLUMNS.get(len(info.panels), 3)
    rows = math.ceil(len(info.panels) / columns)
    figure = new_figure(0.5 + (3.7 if columns == 1 else 2.9) * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(info.panels) :]:
        axes.set_visible(False)
    limits = _limits(info)
    for axes, panel in zip(grid.flat, info.panels, strict=False):
        _draw_panel(axes, panel, theme, log_y=info.log_y, limits=limits)
    if word := _band_word(info):
        for place, axes in enumerate(grid.flat[: len(info.panels)]):
            diverged_band(axes, theme, labelled=place % columns == 0, word=word)
    for row in grid:
        row[0].set_ylabel("validation loss, raw weights")
    handles = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper center",
        ncols=6,
        columnspacing=1.4,
        handletextpad=0.5,
    )
    return figure


def _limits(info: SearchInfo) -> tuple[float, float]:
    """Of y, leaving the top sixth to trials without a loss if there are any."""
    series = [series for panel in info.panels for series in panel.series]
    scores = [y for one in series for _, y in one.points] or [1.0]
    low, high = min(scores), max(scores)
    room = 0.24 if _band_word(info) else 0.1
    if info.log_y:
        ratio = high / low
        return low / ratio**0.08, high * ratio**room
    span = (high - low) or abs(high) or 1.0
    return low - 0.1 * span, high + room * span


def _draw_panel(
    axes: Axes, panel: SearchPanel, theme: Theme, *, log_y: bool, limits: tuple[float, float]
) -> None:
    if log_y:
        log_losses(axes, limits[1] / limits[0])
    axes.set_ylim(*limits)
    for place, series in enumerate(panel.series):
        _draw_series(axes, series, theme, joined=panel.joined, place=place)
    axes.set_xlabel(f"base {panel.hp}" + (" (log2 axis)" if panel.log2 else ""))
    tried = [
        x for one in panel.series for x in (*one.diverged, *one.pruned, *(x for x, _ in one.points))
    ]
    if tried:
        hp_ticks(axes, tried, log2=panel.log2)
    if panel.warnings:
        axes.set_title("⚠ chosen value on the edge of the search", color=theme.warning, fontsize=9)


def _band_word(info: SearchInfo) -> str:
    """For the band of trials without a loss; empty if there are none."""
    every = [series for panel in info.panels for series in panel.series]
    diverged, pruned = (
        any(one.diverged for one in every),
        any(one.pruned for one in every),
    )
    if diverged and pruned:
        return "no loss"
    return "diverged" if diverged else "ended early" if pruned else ""


def _draw_series(
    axes: Axes, series: SearchSeries, theme: Theme, *, joined: bool, place: int
) -> None:
    """The study (`place` 0) is filled; its control is hollow and larger, so both are seen."""
    colour, study = theme.run(series.parametrization), place == 0
    name = formats.parametrization_name(series.parametrization)
    style: dict[str, Any] = {"edgecolors": colour, "linewidths": 1.4}
    if joined and series.means:
        axes.plot(*zip(*series.means, strict=True), color=colour, linewidth=1.6, zorder=2)
    style["facecolors"] = colour if study else theme.paper
    others = [point for point in series.points if point != series.chosen]
    if others:
        x, y = zip(*others, strict=True)
        size, marker = (36, "o") if study else (62, "s")
        label = f"{name} trial"
        axes.scatter(x, y, s=size, marker=marker, zorder=4 - place, label=label, **style)
    if series.chosen is not None:
        size = 200 if study else 330
        label = f"{name} chosen"
        axes.scatter(*series.chosen, s=size, marker="*", zorder=6 - place, label=label, **style)
    for places, marker, word in (
        (series.diverged, "x", "diverged"),
        (series.pruned, "|", "ended early"),
    ):
        if places:
            height = np.full(len(places), 0.9375 if study else 0.9)
            axes.scatter(
                places, height, transform=axes.get_xaxis_transform(), marker=marker, s=42,
                color=colour, linewidths=2, zorder=4, label=f"{name} {word}",
            )  # fmt: skip

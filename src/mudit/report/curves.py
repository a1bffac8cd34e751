"""Training curves of all runs, and how much each role's weights move in the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mudit.analysis import smooth
from mudit.report import formats
from mudit.report.contents import StudyContents, TrialCurve, all_runs
from mudit.report.search import varied_hps
from mudit.report.theme import ROLES, Theme, log_losses, new_figure, step_axis, thinned

_MOST_LABELS = 9
_HALO = 0.22
_DASHES = (0, (3, 2))


class Curve(NamedTuple):
    """One run's training loss.

    Attributes:
        label: What the legend calls it.
        parametrization: `mup` or `sp`.
        steps: Optimizer steps.
        raw: The loss as recorded.
        smoothed: Its centred running mean.
        shade: Place of its HP among the tried ones, 0 to 1; None if more than one HP varies.
        chosen: Whether it is the chosen trial, or a target.
        diverged_step: When it diverged.
        validation: Step and validation loss on the raw weights.
    """

    label: str
    parametrization: str
    steps: NDArray[np.int64]
    raw: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    shade: float | None
    chosen: bool
    diverged_step: int | None
    validation: tuple[tuple[int, float], ...]


class CurvesPanel(NamedTuple):
    """Curves that share an axes."""

    title: str
    curves: tuple[Curve, ...]


class CurvesInfo(NamedTuple):
    """All training curves of a study.

    Attributes:
        term: What is drawn: `denoising` if every run recorded it, else `loss`.
        searches: One panel per parametrization.
        targets: The panel of the targets.
        log_y: Whether losses spread so much that only a logarithm shows them.
        limits: Of the loss, from runs that completed: diverging ones would hide the rest.
    """

    term: str
    searches: tuple[CurvesPanel, ...]
    targets: CurvesPanel
    log_y: bool
    limits: tuple[float, float]


class RoleLine(NamedTuple):
    """Update-to-weight ratios of one role, and their running geometric mean."""

    role: str
    steps: NDArray[np.int64]
    ratios: NDArray[np.float64]
    smoothed: NDArray[np.float64]


class UpdatesInfo(NamedTuple):
    """Update-to-weight ratios of the target and of the chosen trial."""

    target: tuple[RoleLine, ...]
    proxy: tuple[RoleLine, ...]


def curves_info(contents: StudyContents) -> CurvesInfo:
    """The training curves of the search and of the targets."""
    control = contents.control
    rows = [row for run in all_runs(contents) for row in run.steps]
    term = "denoising" if rows and all("denoising" in row.terms for row in rows) else "loss"
    searches = [_search_panel(contents.parametrization, contents.trials, contents.best_key, term)]
    if control is not None and control.trials:
        searches.append(
            _search_panel(control.parametrization, control.trials, control.best_key, term)
        )
    targets = _target_panel(contents, term)
    limits = _limits([curve for panel in (*searches, targets) for curve in panel.curves])
    return CurvesInfo(term, tuple(searches), targets, limits[1] > 4 * limits[0] > 0, limits)


def _search_panel(
    parametrization: str, trials: Sequence[TrialCurve], best_key: str | None, term: str
) -> CurvesPanel:
    names = varied_hps(trials)
    values = sorted({trial.record.hps.get(names[0], math.nan) for trial in trials}) if names else []
    curves = []
    for trial in trials:
        label, shade = trial.record.key, None
        if len(names) == 1 and names[0] in trial.record.hps:
            value = trial.record.hps[names[0]]
            label = formats.hp_value(value)
            shade = values.index(value) / max(len(values) - 1, 1)
        chosen = trial.record.key == best_key
        curves.append(_curve(trial, term, label=label, shade=shade, chosen=chosen))
    if len(names) == 1:
        curves.sort(key=lambda curve: curve.shade or 0.0)
    record = trials[0].record
    name = formats.parametrization_name(parametrization)
    return CurvesPanel(
        f"{name} search, width {record.width}" + (f", by {names[0]}" if len(names) == 1 else ""),
        tuple(curves),
    )


def _target_panel(contents: StudyContents, term: str) -> CurvesPanel:
    runs = [contents.target_run]
    if contents.control is not None and contents.control.target_run is not None:
        runs.append(contents.control.target_run)
    curves = tuple(
        _curve(
            run,
            term,
            label=formats.parametrization_name(run.record.parametrization) + " target",
            shade=None,
            chosen=True,
        )
        for run in runs
    )
    many = "Targets" if len(runs) > 1 else "Target"
    return CurvesPanel(f"{many}, width {contents.target.width}", curves)


def _curve(run: TrialCurve, term: str, *, label: str, shade: float | None, chosen: bool) -> Curve:
    raw = np.array([row.terms[term] if term != "loss" else row.loss for row in run.steps])
    return Curve(
        label=label,
        parametrization=run.record.parametrization,
        steps=np.array([row.step for row in run.steps], dtype=np.int64),
        raw=raw.astype(np.float64),
        smoothed=smooth(raw, _window(raw)),
        shade=shade,
        chosen=chosen,
        diverged_step=run.record.diverged_step,
        validation=tuple((row.step, row.denoising) for row in run.validation("raw")),
    )


def _window(values: NDArray[np.float64]) -> int:
    return max(1, len(values) // 14)


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    complete = [curve for curve in curves if curve.diverged_step is None] or list(curves)
    values = [curve.smoothed[np.isfinite(curve.smoothed)] for curve in complete]
    values += [np.array([y for _, y in curve.validation if math.isfinite(y)]) for curve in complete]
    joined = np.concatenate([*values, np.empty(0)])
    if not len(joined):
        return 0.0, 1.0
    return float(joined.min()), float(joined.max())


def draw_curves(info: CurvesInfo, theme: Theme) -> Figure:
    """The figure: searches above, targets below. Call it inside `type_style`."""
    figure = new_figure(6.8)
    grid = figure.add_gridspec(2, len(info.searches), height_ratios=(1, 1.15))
    searches = [figure.add_subplot(grid[0, place]) for place in range(len(info.searches))]
    for axes, panel in zip(searches, info.searches, strict=True):
        _frame(axes, panel, info)
        for curve, label in zip(panel.curves, _labels(panel.curves), strict=True):
            _draw_trial(axes, curve, theme, label=label)
        if panel.curves:
            axes.legend(loc="lower left", ncols=2, fontsize=8, handlelength=1.4, labelspacing=0.25)
    axes = figure.add_subplot(grid[1, :])
    _frame(axes, info.targets, info)
    for place, curve in enumerate(info.targets.curves):
        _draw_target(axes, curve, theme, place=place)
    axes.legend(loc="lower left")
    for left in (searches[0], axes):
        left.set_ylabel("training loss" if info.term == "loss" else f"{info.term} loss")
    return figure


def _frame(axes: Axes, panel: CurvesPanel, info: CurvesInfo) -> None:
    axes.set_title(panel.title)
    low, high = info.limits
    if info.log_y:
        log_losses(axes, high / low)
        axes.set_ylim(low / 1.15, high * 1.15)
    else:
        span = (high - low) or 1.0
        axes.set_ylim(low - 0.08 * span, high + 0.08 * span)
    ends = [(*curve.steps[-1:], curve.diverged_step or 1) for curve in panel.curves]
    last = int(max((step for end in ends for step in end), default=1))
    step_axis(axes, last)
    axes.set_xlim(1, max(last * 1.06, 2))


def _labels(curves: Sequence[Curve]) -> list[str]:
    """What the legend says; a leading underscore keeps a curve out of it."""
    if len(curves) <= _MOST_LABELS:
        endings = (
            " (chosen)" if curve.chosen else " (diverged)" if curve.diverged_step else ""
            for curve in curves
        )
        return [curve.label + ending for curve, ending in zip(curves, endings, strict=True)]
    named = [f"{curve.label} (chosen)" if curve.chosen else "_" for curve in curves]
    named[named.index("_")] = "other trials"
    return named


def _draw_trial(axes: Axes, curve: Curve, theme: Theme, *, label: str) -> None:
    colour: str | tuple[float, float, float] = theme.muted
    if curve.shade is not None:
        colour = theme.shade(curve.shade)
    elif curve.chosen:
        colour = theme.run(curve.parametrization)
    style: dict[str, Any] = {
        "linewidth": 2.6 if curve.chosen else 1.2,
        "zorder": 4 if curve.chosen else 3,
    }
    faint = 1.0 if curve.chosen or curve.shade is not None else 0.5
    steps, smoothed = thinned(curve.steps, curve.smoothed)
    axes.plot(steps, smoothed, color=colour, alpha=faint, label=label, **style)
    _mark_divergence(axes, curve, colour)


def _draw_target(axes: Axes, curve: Curve, theme: Theme, *, place: int) -> None:
    colour = theme.run(curve.parametrization)
    steps, raw = thinned(curve.steps, curve.raw)
    axes.plot(steps, raw, color=theme.tint(colour, _HALO), linewidth=0.7, zorder=2 - 0.1 * place)
    steps, smoothed = thinned(curve.steps, curve.smoothed)
    axes.plot(steps, smoothed, color=colour, linewidth=2, zorder=4 - place, label=curve.label)
    if curve.validation:
        axes.plot(
            *zip(*curve.validation, strict=True), linestyle="none", marker="os"[place % 2],
            markersize=6, markerfacecolor=theme.paper, markeredgecolor=colour,
            markeredgewidth=1.5, zorder=6 - place, label=f"{curve.label}, validation",
        )  # fmt: skip
    _mark_divergence(axes, curve, colour)


def _mark_divergence(axes: Axes, curve: Curve, colour: str | tuple[float, float, float]) -> None:
    if curve.diverged_step is None:
        return
    axes.plot(
        [curve.diverged_step], [0.97], transform=axes.get_xaxis_transform(), marker="x",
        markersize=7, markeredgewidth=2, color=colour, clip_on=False, zorder=7,
    )  # fmt: skip


def updates_info(contents: StudyContents) -> UpdatesInfo:
    """Update-to-weight ratios by role; roles without a measurement are left out."""
    return UpdatesInfo(_updates(contents.target_run), _updates(contents.best))


def _updates(run: TrialCurve) -> tuple[RoleLine, ...]:
    lines = []
    for role in ROLES:
        rows = [(row.step, row.update_ratio[role]) for row in run.steps if role in row.update_ratio]
        rows = [(step, ratio) for step, ratio in rows if math.isfinite(ratio) and ratio > 0]
        if rows:
            steps = np.array([step for step, _ in rows], dtype=np.int64)
            ratios = np.array([ratio for _, ratio in rows])
            smoothed = np.exp(smooth(np.log(ratios), _window(ratios)))
            lines.append(RoleLine(role, steps, ratios, smoothed))
    return tuple(lines)


def draw_updates(info: UpdatesInfo, theme: Theme) -> Figure:
    """The figure. Call it inside `type_style`."""
    figure = new_figure(3.4)
    axes = figure.subplots()
    for line in info.proxy:
        axes.plot(
            line.steps, line.smoothed, color=theme.role(line.role), linestyle=_DASHES, linewidth=1.3
        )
    for line in info.target:
        colour, marker = theme.role(line.role), "o" if len(line.steps) == 1 else ""
        halo = theme.tint(colour, _HALO)
        axes.plot(line.steps, line.ratios, color=halo, linewidth=0.7, zorder=1.5)
        axes.plot(
            line.steps, line.smoothed, color=colour, linewidth=2, marker=marker, label=line.role
        )
    axes.plot([], [], color=theme.muted, linewidth=2, label="target")
    if info.proxy:
        axes.plot([], [], color=theme.muted, linestyle=_DASHES, label="chosen trial")
    ends = [int(line.steps[-1]) for line in (*info.target, *info.proxy)]
    step_axis(axes, max(ends, default=1))
    log_losses(axes, math.inf)
    axes.set_ylabel("‖update‖ / ‖weights‖")
    figure.legend(loc="outside upper center", ncols=7)
    return figure

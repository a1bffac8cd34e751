"""Two runs at the largest size, with the HP carried from the smallest: μP against sp."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mudit.analysis import StepsToMatch, smooth, steps_to_match
from mudit.analysis.basin import Array
from mudit.report import formats
from mudit.report.contents import TrialCurve
from mudit.report.theme import Theme, log_losses, new_figure, thinned

_HALO = 0.22
_WINDOW = 14  # part of a run that its running mean covers
_FALLEN = 0.03  # part of a run after which losses set the limits
_SETTLED = 0.1  # part of a run after which differences set the limits
_LOG = 4.0  # spread of losses from which only a logarithm shows them


class PairCurve(NamedTuple):
    """One run's training loss.

    Attributes:
        parametrization: `mup` or `sp`.
        label: What the legend calls it.
        steps: Optimizer steps.
        raw: The loss as recorded.
        smoothed: Its centred running mean.
        diverged_step: When it diverged, or None.
    """

    parametrization: str
    label: str
    steps: Array
    raw: Array
    smoothed: Array
    diverged_step: int | None


class PairInfo(NamedTuple):
    """Two runs and their difference.

    Attributes:
        term: What is drawn: `denoising` if both runs recorded it, else `loss`.
        curves: μP's, then sp's.
        steps: Those that both runs have.
        difference: μP's smoothed loss less sp's at these.
        settled: The first step from which the difference keeps the sign that it ends with; None
            without common steps, or if it ends at zero.
        match: When μP reached sp's last loss; None if it never did, or sp diverged.
    """

    term: str
    curves: tuple[PairCurve, PairCurve]
    steps: Array
    difference: Array
    settled: int | None
    match: StepsToMatch | None


def pair_info(pair: tuple[TrialCurve, TrialCurve], *, hp: str) -> PairInfo:
    """The two runs compared.

    Args:
        pair: μP's run and sp's, of the same size.
        hp: The HP that they carry.
    """
    rows = [row for run in pair for row in run.steps]
    term = "denoising" if rows and all("denoising" in row.terms for row in rows) else "loss"
    ours, theirs = (_curve(run, term, hp) for run in pair)
    steps, at_ours, at_theirs = np.intersect1d(ours.steps, theirs.steps, return_indices=True)
    difference = ours.smoothed[at_ours] - theirs.smoothed[at_theirs]
    known = np.isfinite(difference)
    steps, difference = steps[known], difference[known]
    match = None
    if theirs.diverged_step is None and len(ours.steps) and len(theirs.steps):
        match = steps_to_match(theirs.steps, theirs.smoothed, ours.steps, other_loss=ours.smoothed)
    return PairInfo(term, (ours, theirs), steps, difference, _settled(steps, difference), match)


def _curve(run: TrialCurve, term: str, hp: str) -> PairCurve:
    record = run.record
    raw = np.array([row.terms[term] if term != "loss" else row.loss for row in run.steps], float)
    name = formats.parametrization_name(record.parametrization)
    value = f", {hp} = {formats.hp_value(record.hps[hp])}" if hp in record.hps else ""
    return PairCurve(
        parametrization=record.parametrization,
        label=f"{name}{value}",
        steps=np.array([row.step for row in run.steps], float),
        raw=raw,
        smoothed=smooth(raw, max(1, len(raw) // _WINDOW)),
        diverged_step=record.diverged_step,
    )


def _settled(steps: Array, difference: Array) -> int | None:
    if not len(difference) or difference[-1] == 0:
        return None
    other = np.flatnonzero(np.sign(difference) != np.sign(difference[-1]))
    return int(steps[0] if not len(other) else steps[other[-1] + 1])


def draw_pair(info: PairInfo, theme: Theme) -> Figure:
    """The figure: losses above, their difference below. Call it inside `type_style`."""
    figure = new_figure(5.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.35, 1))
    _draw_losses(upper, info, theme)
    _draw_difference(lower, info, theme)
    last = max((float(curve.steps[-1]) for curve in info.curves if len(curve.steps)), default=1.0)
    lower.set_xlim(0, 1.02 * last)
    lower.set_xlabel("training step")
    lower.xaxis.set_major_formatter(lambda value, _: formats.count(value))
    return figure


def _limits(info: PairInfo) -> tuple[float, float]:
    """Of the loss, from runs that completed, past their first fall: both would hide the rest."""
    complete = [curve for curve in info.curves if curve.diverged_step is None] or info.curves
    last = max((float(curve.steps[-1]) for curve in complete if len(curve.steps)), default=1.0)
    values = [curve.smoothed[curve.steps >= _FALLEN * last] for curve in complete]
    joined = np.concatenate([*values])
    joined = joined[np.isfinite(joined)]
    return (float(joined.min()), float(joined.max())) if len(joined) else (0.5, 1.0)


def _draw_losses(axes: Axes, info: PairInfo, theme: Theme) -> None:
    low, high = _limits(info)
    if low > 0 and high > _LOG * low:
        log_losses(axes, high / low)
        axes.set_ylim(low / 1.12, high * 1.12)
    else:
        span = (high - low) or 1.0
        axes.set_ylim(low - 0.08 * span, high + 0.08 * span)
    for place, curve in enumerate(info.curves):
        colour = theme.run(curve.parametrization)
        axes.plot(
            *thinned(curve.steps, curve.raw), color=theme.tint(colour, _HALO), linewidth=0.7,
            zorder=2 - 0.1 * place,
        )  # fmt: skip
        axes.plot(
            *thinned(curve.steps, curve.smoothed), color=colour, linewidth=2, zorder=4 - place,
            label=curve.label,
        )  # fmt: skip
        if curve.diverged_step is not None:
            axes.plot(
                [curve.diverged_step], [0.97], transform=axes.get_xaxis_transform(), marker="x",
                linestyle="none", markersize=7, markeredgewidth=2, color=colour, zorder=7,
                label=f"{formats.parametrization_name(curve.parametrization)} diverged",
            )  # fmt: skip
    if info.match is not None:
        _mark_match(axes, info.match, theme)
    axes.set_ylabel("training loss" if info.term == "loss" else f"{info.term} loss")
    axes.legend(loc="lower left")


def _mark_match(axes: Axes, match: StepsToMatch, theme: Theme) -> None:
    axes.plot(
        [match.step, match.reference_step], [match.loss] * 2, color=theme.ink, linewidth=1,
        linestyle=(0, (4, 3)), zorder=5,
    )  # fmt: skip
    axes.plot([match.step], [match.loss], marker="o", markersize=6, color=theme.ink, zorder=6)
    axes.annotate(
        f"sp's last loss at step {match.step:,.0f}: {match.speed_up:.2f}× as early",
        (match.step, match.loss), xytext=(0.985, 0.95), textcoords="axes fraction", ha="right",
        va="top", fontsize=9, color=theme.ink,
        arrowprops={"arrowstyle": "-", "color": theme.ink, "linewidth": 0.8, "shrinkB": 4},
    )  # fmt: skip


def _draw_difference(axes: Axes, info: PairInfo, theme: Theme) -> None:
    axes.axhline(0, color=theme.muted, linewidth=1)
    axes.set_ylabel("μP − sp")
    if not len(info.difference):
        return
    steps, difference = thinned(info.steps, info.difference)
    for sign, curve in zip((-1, 1), info.curves):
        part = np.where(sign * difference > 0, difference, 0.0)
        axes.fill_between(
            steps, 0, part, color=theme.run(curve.parametrization), alpha=0.22, linewidth=0
        )
    axes.plot(steps, difference, color=theme.ink, linewidth=1.4)
    late = info.difference[info.steps >= _SETTLED * info.steps[-1]]
    span = float(np.abs(late).max()) * 1.35 or 1.0
    axes.set_ylim(-span, span)
    for text, place, va in (("μP lower", 0.03, "bottom"), ("sp lower", 0.97, "top")):
        colour = theme.run("mup" if va == "bottom" else "sp")
        axes.text(
            0.992,
            place,
            text,
            transform=axes.transAxes,
            ha="right",
            va=va,
            fontsize=9,
            color=colour,
        )
    if info.settled is not None and info.settled > info.steps[0]:
        axes.axvline(info.settled, color=theme.ink, linewidth=1, linestyle=(0, (4, 3)))
        lower = "μP" if info.difference[-1] < 0 else "sp"
        right = info.settled > 0.6 * info.steps[-1]
        axes.annotate(
            f"{lower} lower from step {info.settled:,} on",
            (info.settled, 0.97), xycoords=("data", "axes fraction"),
            xytext=(-5 if right else 5, 0), textcoords="offset points", va="top", fontsize=8.5,
            ha="right" if right else "left", color=theme.ink,
        )  # fmt: skip

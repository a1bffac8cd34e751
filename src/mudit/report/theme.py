"""Colours and type that figures and page share, light and dark; figures without pyplot's state."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from mudit.report import formats

DPI = 150
WIDTH_INCHES = 9.0
_MOST_POINTS = 1500  # of a curve
Steps = TypeVar("Steps", NDArray[np.int64], NDArray[np.float64])
ROLES = ("input", "hidden", "output", "scalar", "frozen")


class Theme(NamedTuple):
    """One set of colours. Hues are Okabe and Ito's, which colour-blind people can tell apart."""

    name: str
    paper: str
    panel: str
    rule: str
    muted: str
    ink: str
    warning: str
    runs: dict[str, str]
    roles: dict[str, str]
    ramp: tuple[str, ...]

    def run(self, parametrization: str) -> str:
        """The colour of a parametrization."""
        return self.runs.get(parametrization, self.muted)

    def role(self, role: str) -> str:
        """The colour of a role."""
        return self.roles.get(role, self.muted)

    def tint(self, colour: str, strength: float) -> tuple[float, float, float]:
        """`colour` mixed into the paper."""
        pairs = zip(to_rgb(colour), to_rgb(self.paper), strict=True)
        red, green, blue = (strength * top + (1 - strength) * under for top, under in pairs)
        return red, green, blue

    def shade(self, position: float) -> tuple[float, float, float]:
        """A colour of the ordered ramp; 0 is its cold end, 1 its warm one."""
        ramp = LinearSegmentedColormap.from_list("ramp", list(self.ramp))
        red, green, blue, _ = ramp(position)
        return red, green, blue


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    panel="#f5f7f9",
    rule="#d8dee4",
    muted="#57606a",
    ink="#1b2026",
    warning="#9a4a00",
    runs={"mup": "#0072b2", "sp": "#d55e00"},
    roles={
        "input": "#009e73",
        "hidden": "#c0609a",
        "output": "#e69f00",
        "scalar": "#56b4e9",
        "frozen": "#8c959f",
    },
    ramp=("#2c1e6b", "#1f6f9c", "#2fa37c", "#c9a227"),
)
DARK = Theme(
    name="dark",
    paper="#14181d",
    panel="#1c2229",
    rule="#353d47",
    muted="#9aa5b1",
    ink="#e6eaee",
    warning="#ffb86b",
    runs={"mup": "#56b4e9", "sp": "#f08a4b"},
    roles={
        "input": "#2bc49a",
        "hidden": "#e091bd",
        "output": "#f2b733",
        "scalar": "#8fd0f5",
        "frozen": "#8b949e",
    },
    ramp=("#8f7ff0", "#4ea6dc", "#4fcf9f", "#f2d35c"),
)


@contextlib.contextmanager
def type_style(theme: Theme) -> Iterator[None]:
    """Matplotlib's defaults in this theme, whatever the user's own are."""
    settings: dict[Any, Any] = {
        "text.parse_math": False,  # a $ in a name is a dollar
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.labelsize": 9.5,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.6,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "grid.color": theme.rule,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def new_figure(height_inches: float, *, constrained: bool = True) -> Figure:
    """An empty figure of the page's width. Call it inside `type_style`."""
    layout = ConstrainedLayoutEngine(h_pad=0.09) if constrained else None
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure. Call it inside `type_style`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def step_axis(axes: Axes, last: int) -> None:
    """An x axis in training steps, logarithmic unless they are very few."""
    axes.set_xlabel("training step")
    if last <= 20:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: formats.count(value))
    axes.xaxis.set_minor_formatter(NullFormatter())


def log_losses(axes: Axes, spread: float) -> None:
    """A logarithmic y axis for losses whose greatest is `spread` times the least."""
    subs = (1, 1.5, 2, 3, 4, 5, 7) if spread < 12 else (1, 2, 5)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def bare(axes: Axes, *, grid: str | None = None) -> None:
    """Leaves an axes without ticks and spines, with grid lines across `x` or `y` at most."""
    axes.grid(visible=False)
    if grid == "x" or grid == "y":
        axes.grid(visible=True, axis="x" if grid == "x" else "y")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def hp_ticks(axes: Axes, values: Sequence[float], *, log2: bool, most: int = 9) -> None:
    """An x axis for an HP: ticks at the tried values, or at powers of two if these are too many.

    Args:
        axes: The axes.
        values: The tried values, their log2 on a log2 axis; at least one.
        log2: Whether the axis is a log2 one.
        most: Ticks that there is room for.
    """
    tried = sorted(set(values))
    low, high = tried[0], tried[-1]
    margin = 0.08 * (high - low) + (0.15 if log2 or high == low else 0.0)
    axes.set_xlim(low - margin, high + margin)
    if len(tried) > most and not log2:
        return
    if len(tried) > most:
        step = max(1, math.ceil((high - low) / (most - 1)))
        tried = [float(tick) for tick in range(math.ceil(low), math.floor(high) + 1, step)]
    axes.set_xticks(tried, [_hp_label(value, log2=log2) for value in tried])


def _hp_label(value: float, *, log2: bool) -> str:
    return formats.log2_value(value) if log2 else formats.hp_value(value)


def diverged_band(
    axes: Axes, theme: Theme, *, labelled: bool, floor: float = 0.875, word: str = "diverged"
) -> None:
    """The top of an axes, for runs without a loss: no ticks, but a word in their place.

    Args:
        axes: The axes, with its final limits.
        theme: The colours.
        labelled: Whether there is room for the word on the left.
        floor: Where the band begins, as a share of the axes' height.
        word: What became of these runs.
    """
    style: dict[str, Any] = {"transform": axes.transAxes, "color": theme.muted, "fontsize": 9}
    axes.axhspan(
        *axes.transData.inverted().transform(axes.transAxes.transform([(0, floor), (0, 1)]))[:, 1],
        color=theme.panel, linewidth=0, zorder=1.2,
    )  # fmt: skip
    low, high = axes.get_ylim()
    if labelled:
        axes.text(-0.008, (1 + floor) / 2, word, ha="right", va="center", **style)
    share = axes.transAxes.inverted()
    ticks = [
        tick
        for tick in axes.get_yticks()
        if low <= tick <= high
        and share.transform(axes.transData.transform((0, tick)))[1] < floor - 0.015
    ]
    axes.set_yticks(ticks)


def thinned(steps: Steps, values: NDArray[np.float64]) -> tuple[Steps, NDArray[np.float64]]:
    """At most about `_MOST_POINTS` points, evenly spread over log steps; drawing stays quick."""
    if len(steps) <= _MOST_POINTS:
        return steps, values
    picks = np.unique(np.geomspace(1, len(steps), _MOST_POINTS).astype(np.int64) - 1)
    return steps[picks], values[picks]

"""The sentences of a verify study's report: what its numbers say, and what they do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mudit.analysis.basin import Basin, Interval
from mudit.analysis.transferability import (
    DRIFT_BOUND,
    REACH_BOUND,
    REGRET_BOUND,
    Transferability,
)
from mudit.report import formats
from mudit.report.gains import extrapolation_words, regret_words
from mudit.report.pair import PairInfo
from mudit.report.verify_contents import VerifyContents

_ALGORITHMS = {"width": 1, "batch": 2, "steps": 3}
_FEW = 3  # seeds


def headline(contents: VerifyContents) -> str:
    """What the verdict means for whoever wants to use the HP."""
    hp, found = contents.hp, contents.main
    small = formats.at_size(contents.axis, contents.sizes[0])
    large = formats.at_size(contents.axis, found.target)
    if found.verdict == "PASS":
        text = f"{hp} found at {small} can be used at {large}"
        if found.target > contents.sizes[-1]:
            last = formats.at_size(contents.axis, contents.sizes[-1])
            text += f", if its drift goes on beyond {last} as up to there"
        return f"{text}."
    if found.verdict == "FAIL":
        return f"{hp} found at {small} should not be used at {large}: tune it there."
    if found.target <= contents.sizes[0]:
        axis = formats.axis_name(contents.axis)
        return f"This study does not show whether {hp} transfers across {axis}. It is no pass."
    return (
        f"This study does not show whether {hp} found at {small} can be used at {large}. It is "
        "no pass."
    )


def telling_apart(contents: VerifyContents) -> str:
    """What the control adds to the verdict, in a sentence."""
    control, axis = contents.control, formats.axis_name(contents.axis)
    if control is None:
        return contents.control_note or "No control was run: this does not show what μP adds."
    if control.verdict == "PASS" and contents.main.verdict == "PASS":
        return "sp passes too: this study cannot tell them apart."
    if control.verdict == "FAIL":
        text = f"Under sp the same grid fails: {contents.hp} does not transfer across {axis} there."
        return text if contents.main.verdict != "FAIL" else f"{text} Both fail."
    if control.verdict == "PASS":
        return f"Under sp the same grid passes: {contents.hp} transfers across {axis} there."
    return "Under sp the same grid is inconclusive: this study does not show what μP adds."


def drift(found: Transferability) -> str:
    """Its value alone."""
    return "–" if found.drift is None else formats.number(found.drift.value, "+.2f")


def interval(ends: Interval | None, form: str = "+.2f") -> str:
    """`−0.02 to +0.03`."""
    if ends is None:
        return "not known"
    return f"{formats.number(ends.low, form)} to {formats.number(ends.high, form)}"


def regret(found: Transferability) -> str:
    """In % of a doubling's gain, or why it is not known."""
    if found.regret is None or math.isinf(found.regret.value):
        return regret_words(found)
    return formats.percent(found.regret.value)


def bounds(found: Transferability) -> str:
    """The regret's 95 % bounds."""
    if found.regret is None or math.isinf(found.regret.value):
        return "–"
    low, high = found.regret.low, found.regret.high
    if math.isinf(high):
        return f"{formats.percent(low)} up, no upper bound"
    return f"{formats.percent(low)} to {formats.percent(high)}"


def extrapolation(found: Transferability) -> str:
    """The cost of the worst reach, in % of a doubling's gain, or why it is not known."""
    cost = found.extrapolation_cost
    return extrapolation_words(found) if cost is None or math.isinf(cost) else formats.percent(cost)


def algorithm(contents: VerifyContents) -> tuple[tuple[str, str], ...]:
    """[muDiT] Algorithms 1 to 3 in three steps, each with a name."""
    axis, hp = formats.axis_name(contents.axis), contents.hp
    sizes = ", ".join(f"{size:,}" for size in contents.sizes)
    held = " and ".join(formats.at_size(name, size) for name, size in contents.task.items())
    rows = [row for basin in contents.main.basins for row in basin.tried]
    tried = sorted({row.log2_hp for row in rows})
    values = _span([len(basin.tried) for basin in contents.main.basins], "value")
    ends = f"{formats.log2_value(tried[0])} to {formats.log2_value(tried[-1])}"
    seeds = _span([len(row.losses) + row.diverged for row in rows], "seed")
    control = ", and the same runs under sp" if contents.control is not None else ""
    return (
        (
            "Train.",
            f"{axis.capitalize()} {sizes}, each with {values} of base {hp} ({ends}) and {seeds} of "
            f"each, under μP with base width {contents.base_width}{control}. {held.capitalize()} "
            "everywhere.",
        ),
        (
            "Pair.",
            "Replicate k has the same seed at every size and value: the same order of the data, "
            "and at one width the same draws for the initial weights. All runs are measured on "
            "one validation bank: the same images, noises and timesteps.",
        ),
        (
            "Judge.",
            f"Basins are fitted to the loss over log2 {hp}, all sizes together. What counts is "
            "where their optima lie, and what it costs to use the smallest size's at a larger one.",
        ),
    )


def _span(counts: Sequence[int], noun: str) -> str:
    """`7 values`, or `7 to 9 values`."""
    low, high = min(counts), max(counts)
    return formats.plural(high, noun) if low == high else f"{low} to {formats.plural(high, noun)}"


def algorithm_number(contents: VerifyContents) -> int:
    """1 for width, 2 for batch size, 3 for steps."""
    return _ALGORITHMS[contents.axis]


def criteria(contents: VerifyContents) -> tuple[tuple[str, str], ...]:
    """The three criteria, each with its formula in words."""
    found, hp = contents.main, contents.hp
    fitted = [basin.size for basin in found.basins if basin.optimum is not None]
    fitted = fitted if len(fitted) > 1 else list(contents.sizes)
    small = formats.at_size(contents.axis, fitted[0])
    large = formats.at_size(contents.axis, fitted[-1])
    target = formats.at_size(contents.axis, found.target)
    return (
        (
            "Drift.",
            f"The slope of the least-squares line through the optima, log2 {hp} over log2 size. "
            f"To pass, its 98 % interval must lie inside ±{DRIFT_BOUND} octaves per doubling.",
        ),
        (
            "Reach.",
            f"How far that takes the optimum from {small} to {target}, at the worse end of the "
            f"interval: |drift| × doublings. To pass, at most {REACH_BOUND} octaves.",
        ),
        (
            "Regret.",
            f"The loss at {large} with {small}'s optimum, less the loss with its own, over what "
            "the last doubling gained (loss before it less loss after it, each at its optimum). "
            f"To pass, its upper 95 % bound must be at most {formats.percent(REGRET_BOUND)}.",
        ),
    )


def problem(basin: Basin) -> str:
    """Why a size's optimum is not known; empty if it is."""
    return {
        None: "",
        "edge below": "the best value is the lowest tried",
        "edge above": "the best value is the highest tried",
        "flat": "the noise hides the basin",
        "too few values": "fewer than four stable values",
        "all diverged": "every value diverged in some seed",
    }[basin.problem]


def shape(found: Transferability) -> str:
    """The basins' noise and fit, in a sentence or two."""
    if not math.isfinite(found.noise):
        return "There are too few runs to measure the noise."
    freedom = f"{found.freedom} degrees of freedom"
    text = f"A loss scatters by {found.noise:.2g} around its basin ({freedom})."
    if found.misfit is not None and found.misfit < 0.05:
        text += (
            f" The basins do not fit within what seeds differ by (F test, p = {found.misfit:.1g}), "
            "so the misfit is taken for the noise; intervals are wider for it."
        )
    return text


def pair_words(info: PairInfo) -> str:
    """The two runs compared, without a reason why."""
    ours, theirs = info.curves
    ended = [
        f"the {formats.parametrization_name(c.parametrization)} run diverged at step "
        f"{c.diverged_step:,}"
        for c in info.curves
        if c.diverged_step is not None
    ]
    said = []
    if ended:
        text = " and ".join(ended)
        said.append(f"{text[0].upper()}{text[1:]}.")
    elif info.settled is not None:
        lower = "μP" if info.difference[-1] < 0 else "sp"
        start = info.settled <= info.steps[0]
        when = "from the start" if start else f"from step {info.settled:,} on"
        said.append(
            f"The {lower} run's smoothed loss is the lower one {when}; at the end the two are "
            f"{abs(float(info.difference[-1])):.2g} apart."
        )
    if info.match is not None and ours.diverged_step is None:
        match = info.match
        said.append(
            f"The μP run first reached {formats.loss(match.loss)}, the sp run's last smoothed "
            f"loss, at step {match.step:,.0f} of {match.reference_step:,.0f}: "
            f"{match.speed_up:.2f}× as early."
        )
    elif theirs.diverged_step is None and ours.diverged_step is None:
        said.append("The μP run did not reach the sp run's last smoothed loss.")
    return " ".join(said)


def limits(contents: VerifyContents) -> tuple[str, ...]:
    """What the study does not show."""
    axis, found = formats.axis_name(contents.axis), contents.main
    last = formats.at_size(contents.axis, contents.sizes[-1])
    found_seeds = formats.plural(contents.seeds, "seed")
    said = [
        f"It is about {contents.hp} across {axis} alone, for this model, data and optimizer. Other "
        "HPs, other axes and several HPs at once are not tested.",
        "Losses are those of the validation bank, not the quality of samples.",
    ]
    if found.target > contents.sizes[-1]:
        said.append(
            f"Nothing was trained beyond {last}: what is said of "
            f"{formats.at_size(contents.axis, found.target)} is extrapolated along the fitted "
            "drift. The regret is that at the largest size trained."
        )
    else:
        said.append(f"Nothing was trained beyond {last}.")
    if contents.seeds <= _FEW:
        said.append(
            f"There are {found_seeds}. The intervals account for it, if losses scatter alike at "
            "all sizes and values."
        )
    if contents.control is not None:
        said.append(
            "The control asks whether sp's optimum stays put too. It does not show that μP's "
            "losses are lower than sp's."
        )
    return tuple(said)


ALTERNATIVES = {
    "basins": "Loss against the hyperparameter at every size, under μP and sp.",
    "optima": "The fitted optimum against size with its drift, under μP and sp.",
    "regret": "Cost of carrying the hyperparameter, in % of a doubling's gain.",
    "losses": "Loss against size, at each optimum and with the hyperparameter carried over.",
    "pair": "Training loss of the μP and the sp run at the largest size, and their difference.",
}

"""The sections of a verify study's page, each a function of its contents and figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from mudit.analysis.transferability import (
    DRIFT_BOUND,
    REACH_BOUND,
    REGRET_BOUND,
)
from mudit.report import formats
from mudit.report import verify_words as words
from mudit.report.markup import Html, el, join, table
from mudit.report.pair import pair_info
from mudit.report.parts import (
    Figures,
    callout,
    data_words,
    figure,
    origin,
    paragraph,
    tile,
)
from mudit.report.verify_contents import VerifyContents
from mudit.report.verify_tables import loss_table, numbers, size_table, verdict_mark

_VALUE = "value word"
Section: TypeAlias = tuple[str, str, Callable[[VerifyContents, Figures], Html | None]]


def tiles(contents: VerifyContents) -> Html:
    """The numbers that the verdict rests on, each with its bound."""
    found, control = contents.main, contents.control
    axis = formats.axis_name(contents.axis)
    sizes = " → ".join(f"{size:,}" for size in contents.sizes)
    drift = f"octaves per doubling (98 %: {words.interval(found.drift)}); bound ±{DRIFT_BOUND}"
    target = formats.at_size(contents.axis, found.target)
    reach = f"octaves at most to {target}; bound {REACH_BOUND}"
    known = None if found.regret is None else found.regret.value
    share = "–" if known is None or math.isinf(known) else formats.percent(known)
    ends = f" (95 % bounds {words.bounds(found)})" if share != "–" else ""
    regret = f"of a doubling's gain{ends}; bound {formats.percent(REGRET_BOUND)}"
    sp, beside = "no control", ""
    if control is not None:
        sp = verdict_mark(control.verdict)
        beside = f"drift {words.drift(control)} (98 %: {words.interval(control.drift)})"
    return el(
        "dl",
        tile("Verdict, μP", verdict_mark(found.verdict), f"{axis} {sizes}", value_class=_VALUE),
        tile("Drift", words.drift(found), drift),
        tile("Reach", formats.number(found.reach), reach),
        tile("Regret", share, regret),
        tile("Verdict, sp", sp, beside, value_class=_VALUE),
        class_="tiles",
    )


def next_runs(contents: VerifyContents) -> Html:
    """What would make an inconclusive study conclusive; nothing for any other."""
    if contents.main.verdict != "INCONCLUSIVE" or not contents.suggestions:
        return Html("")
    lines = [paragraph(el("span", "To run next.", class_="mark"), " ", contents.suggestions[0])]
    lines += [paragraph(text) for text in contents.suggestions[1:]]
    if any(one.runs for one in contents.main.suggestions):
        lines.append(paragraph(*_extension(contents)))
    return el("div", *lines, class_="callout warning")


def _extension(contents: VerifyContents) -> tuple[str, ...]:
    command = contents.command
    if not command.startswith("mudit "):
        return ("The same call with ", el("code", "extend=True"), " runs just these.")
    if "--extend" not in command.split():
        command += " --extend"
    if all(one.runs for one in contents.main.suggestions):
        return (el("code", command), " runs just these, and judges again.")
    return (el("code", command), " runs those that need no other config, and judges again.")


def what_was_done(contents: VerifyContents, figures: Figures) -> Html:
    """Algorithm 1, 2 or 3, and the data."""
    number = words.algorithm_number(contents)
    steps = [el("li", el("strong", name), " ", text) for name, text in words.algorithm(contents)]
    return join(
        [
            paragraph(
                f"Algorithm {number} of ",
                el("cite", "Scaling Diffusion Transformers Efficiently via μP"),
                ", with seeds and a verdict:",
            ),
            el("ol", *steps),
            paragraph(
                f"Model: {contents.model}, trained with "
                f"{formats.optimizer_name(contents.optimizer)}. ",
                data_words(contents.data),
            ),
        ]
    )


def basins(contents: VerifyContents, figures: Figures) -> Html:
    """The basins, and each size's numbers."""
    said = (
        "Above: the loss at every tried value. Below: the same near the bottoms, each size less "
        "its fitted loss at the optimum, with the optima and their 95 % intervals under zero. "
        "A basin is fitted near its bottom alone, where it is drawn broad."
    )
    if any(row.diverged for _, found in contents.studies for b in found.basins for row in b.tried):
        said += " Crosses in the band diverged; they have no loss."
    parts = [figure(figures, "basins", said)]
    for name, found in contents.studies:
        parts.append(size_table(name, found, contents))
        parts.append(el("p", words.shape(found), class_="small"))
    return join(parts)


def optima(contents: VerifyContents, figures: Figures) -> Html:
    """The optima over size."""
    caption = (
        "The grey cone opens from the smallest size's optimum by the bound on the drift. Arrows: "
        "the interval goes on. The band holds the drift's interval; it turns about the optima's "
        "mean."
    )
    items = [el("li", el("strong", name), " ", text) for name, text in words.criteria(contents)]
    return join(
        [
            paragraph("A pass takes all three, a fail one that lies wholly outside its bound:"),
            el("ol", *items),
            figure(figures, "optima", caption),
            numbers(contents),
        ]
    )


def regret(contents: VerifyContents, figures: Figures) -> Html | None:
    """What carrying the HP costs, and what size gains."""
    if "regret" not in figures and "losses" not in figures:
        return None
    costs = (
        "Left: what the optimum of the smallest fitted size costs at the largest; to pass, its "
        "upper bound must lie in the grey. Right: what a value costs there that is off by the "
        "reach, to the worse side; it is not judged."
    )
    losses = (
        "Full lines: the fitted loss at each size's optimum. Dashed: the measured mean loss with "
        "the value that was best at the smallest size; chance can take it below the fit. "
    )
    if any(found.asymptote is not None for _, found in contents.studies):
        losses += (
            "Dotted: what ever larger sizes would come to, if losses fall as a power of size, "
            "with its 95 % interval where it is known."
        )
    return join([figure(figures, "regret", costs), figure(figures, "losses", losses)])


def control(contents: VerifyContents, figures: Figures) -> Html:
    """What sp says, and what that means."""
    found = contents.control
    parts = [paragraph(words.telling_apart(contents))]
    if found is not None:
        budget = "The control has the same sizes, values and seeds."
        if contents.axis == "width" and contents.base_width in contents.sizes:
            budget += (
                f" At the base width, {contents.base_width}, sp and μP are the same model if they "
                "have the same initialisation; then they share these runs."
            )
        parts.append(paragraph(budget))
        lines = [el("li", text) for text in found.reasons]
        parts.append(paragraph("sp: ", verdict_mark(found.verdict), ", because:"))
        parts.append(el("ul", *lines))
    return join(parts)


def all_runs(contents: VerifyContents, figures: Figures) -> Html:
    """Every value at every size: mean loss, spread, diverged seeds."""
    parts = [
        paragraph(
            "Mean of the seeds' losses ± their standard deviation. Bold: the lowest of a size. "
            "× marks seeds that diverged."
        )
    ]
    for name, found in contents.studies:
        summary = el("summary", f"All runs under {formats.parametrization_name(name)}")
        parts.append(el("details", summary, loss_table(found, contents)))
    return join(parts)


def pair(contents: VerifyContents, figures: Figures) -> Html | None:
    """The two runs at the largest size."""
    if contents.pair is None or "pair" not in figures:
        return None
    size = formats.at_size(contents.axis, contents.sizes[-1])
    small = formats.at_size(contents.axis, contents.sizes[0])
    said = words.pair_words(pair_info(contents.pair, hp=contents.hp))
    caption = (
        "Above: running means over the faint raw loss; the first fall runs off the axis. Below: "
        "the difference of the running means."
    )
    return join(
        [
            paragraph(
                f"One run each at {size}, with the {contents.hp} that was best at {small} under "
                f"its parametrization: what carrying it comes to. {said}"
            ),
            callout(
                ["This is one seed of each, and no test of which is better."],
                mark="What this does not show.",
            ),
            figure(figures, "pair", caption),
        ]
    )


def limits(contents: VerifyContents, figures: Figures) -> Html:
    """What the study does not show."""
    return el("ul", *(el("li", text) for text in words.limits(contents)))


def cost(contents: VerifyContents, figures: Figures) -> Html:
    """What the study cost, in runs of the target."""
    rows = [("runs under μP", contents.grid_flops)]
    if contents.control_flops is not None:
        rows.append(("runs under sp alone", contents.control_flops))
    target = formats.at_size(contents.axis, contents.main.target)
    rows.append((f"one run at {target}", contents.target_flops))
    cells = [
        (name, formats.flops(flops), _times(flops, contents.target_flops)) for name, flops in rows
    ]
    return join(
        [
            paragraph(
                "Verifying trains every size and value, the largest too. It is no search: it "
                "shows whether a search at the smallest size will do."
            ),
            table(("", "measured FLOPs", "runs at the target"), cells, numeric=(1, 2), cls="facts"),
        ]
    )


def _times(flops: float, unit: float) -> str:
    return f"{flops / unit:.3g}" if unit > 0 and math.isfinite(flops) else "–"


def reproducibility(contents: VerifyContents, figures: Figures) -> Html:
    """Command, versions, config."""
    return origin(contents, [("seeds", str(contents.seeds))])


def reasons(findings: Sequence[str]) -> Html:
    """Why the verdict is what it is."""
    if not findings:
        return Html("")
    return el("ul", *(el("li", text) for text in findings), class_="reasons")


SECTIONS: tuple[Section, ...] = (
    ("done", "What was done", what_was_done),
    ("basins", "The basins", basins),
    ("optima", "Optima and their drift", optima),
    ("regret", "Regret and gain", regret),
    ("control", "The control", control),
    ("pair", "Two runs", pair),
    ("runs", "All runs", all_runs),
    ("limits", "What this does not show", limits),
    ("cost", "Cost", cost),
    ("again", "Reproducing it", reproducibility),
)

"""The sections of the page, each a function of the contents and of the figures' HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from mudit.report import formats, grids, prompts, words
from mudit.report.contents import (
    PlanRowFacts,
    SizeFacts,
    StudyContents,
    TrialCurve,
    all_runs,
    control_carried,
    control_trials,
)
from mudit.report.markup import Html, el, join, table
from mudit.report.modelmap import row_role
from mudit.report.parts import (
    Figures,
    callout,
    data_words,
    figure,
    origin,
    paragraph,
    run_name,
    tile,
)
from mudit.report.search import edge, edge_warning, search_info, varied_hps
from mudit.report.structure import CollapsedRow, collapse
from mudit.report.theme import ROLES

Section: TypeAlias = tuple[str, str, Callable[[StudyContents, Figures], Html | None]]

_FEW = 4


def tiles(contents: StudyContents) -> Html:
    """The numbers that matter, each with what to compare it with."""
    found = [_hp_tile(contents), _width_tile(contents), _loss_tile(contents)]
    facts = contents.agreement
    if facts is not None:
        real = formats.percent(facts.held_out_accuracy)
        real = f"of samples show the class asked for; real images: {real}"
        found.append(tile("Agreement", formats.percent(facts.target_agreement), real))
    elif contents.retrieval is not None:
        found.append(prompts.retrieval_tile(contents.retrieval))
    cost = contents.cost
    measured = (
        f"of one target training, by Eq. (1); measured: {formats.percent(cost.measured_ratio)}"
    )
    found.append(tile("Search cost", formats.percent(cost.eq1_ratio), measured))
    return el("dl", *found, class_="tiles")


def _hp_tile(contents: StudyContents) -> Html:
    hps, trials = words.searched_hps(contents), len(contents.trials)
    beside = f"best of {formats.plural(trials, 'trial')}"
    for status, word in (("diverged", "diverged"), ("pruned", "ended early")):
        if count := sum(trial.record.status == status for trial in contents.trials):
            beside += f", {count} {word}"
    if contents.finals:
        beside += f", then of {formats.plural(len(contents.finals), 'longer run')}"
    if _final_edges(contents) or any(edge(contents.trials, contents.best, name) for name in hps):
        beside += "; on the edge of the search"
    if len(hps) == 1:
        ((name, value),) = hps.items()
        return tile(f"Base {name}", formats.hp_value(value), beside)
    lines = [
        el("span", el("span", name), " ", formats.hp_value(value)) for name, value in hps.items()
    ]
    return tile("Base HPs", join(lines), beside, value_class="value lines")


def _final_edges(contents: StudyContents) -> list[str]:
    """What is wrong with the place of the finals' best among them."""
    finals, best = contents.finals, contents.carried
    if len(finals) < 2:
        return []
    found = ((name, edge(finals, best, name)) for name in varied_hps(finals))
    return [
        edge_warning(name, best.record.hps[name], where, study="finals")
        for name, where in found
        if where is not None
    ]


def _width_tile(contents: StudyContents) -> Html:
    proxy, target = contents.proxy, contents.target
    small, large = formats.count(proxy.parameters), formats.count(target.parameters)
    sizes = f"proxy → target: {small} → {large} parameters"
    return tile("Width", f"{proxy.width} → {target.width}", sizes)


def _loss_tile(contents: StudyContents) -> Html:
    beside = f"on the validation bank; best proxy: {formats.loss(contents.carried.record.score)}"
    control = contents.control
    if control is not None and control.target_run is not None:
        name = formats.parametrization_name(control.parametrization)
        beside += f", {name} target: {_score(control.target_run)}"
    return tile("Target's loss", _score(contents.target_run), beside)


def _score(run: TrialCurve) -> str:
    return "diverged" if run.record.score is None else formats.loss(run.record.score)


def what_was_done(contents: StudyContents, figures: Figures) -> Html:
    """Algorithm 4, and the two tasks side by side."""
    steps = [el("li", el("strong", name), " ", text) for name, text in words.algorithm(contents)]
    return join(
        [
            paragraph(
                "μTransfer, Algorithm 4 of ",
                el("cite", "Scaling Diffusion Transformers Efficiently via μP"),
                ":",
            ),
            el("ol", *steps),
            paragraph(data_words(contents.data)),
            _task_table(contents),
        ]
    )


def _task_table(contents: StudyContents) -> Html:
    run = contents.target_run.record
    cost = contents.cost
    tasks: list[tuple[str, SizeFacts | None, float, float]]
    tasks = [("Each trial", contents.proxy, *_mean_spent(contents.trials))]
    if contents.finals:
        longer = replace(contents.proxy, steps=contents.finals[0].record.steps)
        tasks.append(("Each final", longer, *_mean_spent(contents.finals)))
    searched = sum(run.record.seconds for run in (*contents.trials, *contents.finals))
    tasks += [
        ("Whole search", None, cost.search_flops, searched),
        ("Target", contents.target, cost.target_flops, run.seconds),
    ]
    rows = [
        (name, *_size_cells(size), formats.flops(flops), formats.duration(seconds))
        for name, size, flops, seconds in tasks
    ]
    head = ("", "width", "parameters", "batch", "steps", "images seen", "measured FLOPs", "time")
    return table(head, rows, numeric=range(1, 8))


def _mean_spent(runs: Sequence[TrialCurve]) -> tuple[float, float]:
    """FLOPs and seconds of a run that took all its steps, in the mean."""
    runs = [run for run in runs if run.record.status == "complete"]
    flops = sum(run.record.train_flops for run in runs)
    return flops / len(runs), sum(run.record.seconds for run in runs) / len(runs)


def _size_cells(size: SizeFacts | None) -> tuple[str, ...]:
    if size is None:
        return ("",) * 5
    images = size.batch_size * size.steps
    numbers = (size.batch_size, size.steps, images)
    return (str(size.width), formats.count(size.parameters), *(f"{number:,}" for number in numbers))


def search(contents: StudyContents, figures: Figures) -> Html:
    """The search's figure, its warnings, its trials."""
    names = varied_hps(contents.trials)
    fixed = {k: v for k, v in contents.best.record.hps.items() if k not in names}
    held = f" Held fixed: {formats.hp_values(fixed)}." if fixed else ""
    info = search_info(contents)
    legend = "One mark per trial; the star is the chosen one."
    if any(series.diverged for panel in info.panels for series in panel.series):
        legend += (
            " Crosses in the upper band diverged: they have no loss, only a place on the axis."
        )
    if any(series.pruned for panel in info.panels for series in panel.series):
        legend += " Upright strokes in the upper band were ended early."
    return join(
        [
            paragraph(
                words.RANKING,
                " The loss is a mean over the same images, noises and timesteps for all.",
                held,
            ),
            callout((*info.warnings, *_final_edges(contents)), mark="Edge of the search."),
            figure(figures, "search", legend),
            figure(figures, "importance", "Share of each HP in the variance of the score."),
            el("details", el("summary", "All trials"), _trial_table(contents)),
        ]
    )


def _trial_table(contents: StudyContents) -> Html:
    names, control = words.tuned_hps(contents), contents.control
    studies = [(contents.trials, "" if contents.finals else contents.best_key)]
    studies.append((contents.finals, contents.finals_key or ""))
    if control is not None and control.trials:
        studies.append((control.trials, "" if control.finals else control.best_key or ""))
        studies.append((control.finals, control.finals_key or ""))
    rows = [
        _trial_row(trial, names, best=trial.record.key == best)
        for trials, best in studies
        for trial in sorted(trials, key=lambda trial: trial.record.score or float("inf"))
    ]
    head = ("trial", "", *names, "validation loss", "FLOPs", "time", "ended")
    return table(head, rows, numeric=range(2, 5 + len(names)))


_ENDS = {"diverged": "diverged", "pruned": "early"}


def _trial_row(trial: TrialCurve, names: Sequence[str], *, best: bool) -> tuple[str, ...]:
    record = trial.record
    ended = (
        "complete"
        if record.status == "complete"
        else f"{_ENDS[record.status]}, step {record.steps_taken:,}"
    )
    hps = (formats.hp_value(record.hps[name]) if name in record.hps else "" for name in names)
    return (
        el("span", record.key, class_="name key"),
        run_name(record.parametrization),
        *hps,
        formats.loss(record.score),
        formats.flops(record.train_flops),
        formats.duration(record.seconds),
        join([el("strong", "chosen")]) if best else ended,
    )


def training(contents: StudyContents, figures: Figures) -> Html:
    """Training curves, and update-to-weight ratios."""
    curves = (
        "Above: running means of the trials' training loss. Below: the target's, over the faint "
        "raw loss; open marks are the validation bank on the raw weights."
    )
    if any(trial.record.diverged_step is not None for trial in all_runs(contents)):
        curves += " Crosses mark where a run diverged."
    updates = (
        "How far one step moves the weights of each role, relative to their size (Frobenius norms, "
        "running geometric means)."
    )
    if contents.parametrization == "mup" and contents.optimizer.lower().startswith("adam"):
        updates += (
            " Expected at the start, under μP with Adam: the hidden weights' ratio falls as the "
            "square root of width, the others do not depend on it."
        )
    return join([figure(figures, "training", curves), figure(figures, "updates", updates)])


def samples(contents: StudyContents, figures: Figures) -> Html | None:
    """Samples beside real images, and what a classifier or a judge makes of them."""
    if contents.prompts is not None:
        return prompts.samples(contents, contents.prompts)
    if "samples" not in figures:
        return None
    caption = "Each sample is labelled with the class that it was asked for. "
    shape = contents.data.image_shape
    if shape is not None and shape[1] <= grids.SMALLEST:
        caption += f"Images are {shape[1]}×{shape[0]} pixels, enlarged without smoothing."
    parts = [figure(figures, "samples", caption)]
    if contents.agreement is not None:
        parts.append(_agreement_words(contents))
        parts.append(figure(figures, "agreement", "Agreement class by class."))
    return join(parts)


def _agreement_words(contents: StudyContents) -> Html:
    facts = contents.agreement
    assert facts is not None
    kind = f" ({facts.classifier})" if facts.classifier else ""
    shares = f"{formats.percent(facts.target_agreement)} of the target's"
    if facts.control_agreement is not None and contents.control is not None:
        name = formats.parametrization_name(contents.control.parametrization)
        shares += f" and {formats.percent(facts.control_agreement)} of the {name} target's"
    return paragraph(
        f"Of {facts.images:,} samples per model, {shares} show the class asked for, as judged by a "
        f"classifier of real images{kind} that is right on "
        f"{formats.percent(facts.held_out_accuracy)} of the real images that it has not seen. "
        "This says nothing about variety."
    )


def model(contents: StudyContents, figures: Figures) -> Html | None:
    """The model by role."""
    if "model" not in figures:
        return None
    caption = (
        "Each box is a weight of the target, coloured by its role; beside the shape, what the plan "
        "multiplies relative to the base HPs. Repeated modules are drawn once; the columns follow "
        "the order of the model's parameters."
    )
    return join([figure(figures, "model", caption), _role_table(contents.plan_rows)])


def _role_table(plan_rows: Sequence[PlanRowFacts]) -> Html:
    rows = []
    for role in ROLES:
        members = [row for row in plan_rows if row_role(row) == role]
        if members:
            rows.append(
                (_role(role), f"{len(members):,}", formats.count(_sizes(members)), *_seen(members))
            )
    head = ("role", "tensors", "parameters", "r", "lr", "weight decay", "eps", "clipping")
    return table(head, rows, numeric=range(1, 8))


def _seen(rows: Sequence[PlanRowFacts]) -> tuple[str, ...]:
    """The different values of each multiplier in a role."""
    trained = [row for row in rows if row.trainable]
    ratios = _distinct((row.r for row in rows), lambda value: f"{value:.4g}")
    columns = ("lr_multiplier", "weight_decay_multiplier", "eps_multiplier", "clip_multiplier")
    return ratios, *(
        _distinct((getattr(row, column) for row in trained), formats.multiplier)
        for column in columns
    )


def _distinct(values: Iterable[float], shown: Callable[[float], str]) -> str:
    texts = list(dict.fromkeys(shown(value) for value in sorted(values)))
    if len(texts) > _FEW:
        return f"{texts[0]} … {texts[-1]}"
    return ", ".join(texts) or "–"


def _sizes(rows: Iterable[PlanRowFacts]) -> int:
    total = 0
    for row in rows:
        size = 1
        for length in row.shape:
            size *= length
        total += size
    return total


def _role(role: str, kind: str = "") -> Html:
    return el("span", f"{role} {kind}".strip(), class_=f"role role-{role}")


def plan(contents: StudyContents, figures: Figures) -> Html:
    """The plan, repeated modules collapsed, and in full."""
    rows = contents.plan_rows
    collapsed = collapse(rows)
    optimizer = formats.optimizer_name(contents.optimizer)
    meaning = (
        f"At width {contents.target.width}, base width {contents.base_width}, for {optimizer}. "
        "r is a tensor's fan-in over its fan-in at the base width. The plan sets the initial RMS; "
        "the last four columns multiply the base learning rate, weight decay, eps, and the "
        "gradient in the global clipping norm. No module and no forward pass is changed."
    )
    every = collapse_none(rows)
    return join(
        [
            paragraph(meaning),
            _plan_table(collapsed),
            el("details", el("summary", f"All {len(rows):,} parameters"), _plan_table(every)),
        ]
    )


def collapse_none(rows: Iterable[PlanRowFacts]) -> tuple[CollapsedRow, ...]:
    """Each row for itself."""
    return tuple(
        CollapsedRow((row.name,), 1, row, None if row.init_rms is None else (row.init_rms,) * 2)
        for row in rows
    )


def _plan_table(rows: Sequence[CollapsedRow]) -> Html:
    scales = ("lr", "decay", "eps", "clip")
    head = ("parameter", "role", "shape", "base shape", "r", "initial RMS", *scales)
    return table(head, (_plan_row(row) for row in rows), numeric=range(2, 10), cls="plan")


def _plan_row(row: CollapsedRow) -> tuple[str, ...]:
    facts = row.first
    scales = (
        facts.lr_multiplier,
        facts.weight_decay_multiplier,
        facts.eps_multiplier,
        facts.clip_multiplier,
    )
    copies = el("span", f" ×{row.copies}", class_="copies") if row.copies > 1 else ""
    name, why = el("span", row.name, class_="name"), el("span", facts.reason, class_="why")
    return (
        join([name, copies, why]),
        _role(row_role(facts), facts.kind),
        formats.shape(facts.shape),
        formats.shape(facts.base_shape),
        f"{facts.r:.4g}",
        _span(row.init_rms),
        *(_scale(scale) if facts.trainable else "–" for scale in scales),
    )


def _scale(value: float) -> Html:
    """Multipliers of 1 stand back, so that the others stand out."""
    return el("span", formats.multiplier(value), class_="same" if value == 1 else "other")


def _span(values: tuple[float, float] | None) -> str:
    if values is None:
        return "–"
    low, high = (f"{value:.3g}" for value in values)
    return low if low == high else f"{low}–{high}"


def cost(contents: StudyContents, figures: Figures) -> Html:
    """What the search cost, by Eq. (1) and as measured."""
    facts = contents.cost
    measured = (
        f"Measured, the search took {formats.flops(facts.search_flops)} and the target "
        f"{formats.flops(facts.target_flops)}: {formats.percent(facts.measured_ratio)}."
    )
    if facts.spared_flops:
        whole = facts.search_flops + facts.spared_flops
        measured += (
            f" Trials that were ended early would have taken {formats.flops(facts.spared_flops)} "
            f"more: the search cost {formats.percent(facts.search_flops / whole)} of one that ends "
            "none."
        )
    equation = (
        "Eq. (1) of the paper is trials × parameters × batch × steps over the target's parameters "
        "× batch × steps. It counts diverged trials in full, those that were ended early by the "
        "steps that they took, and takes FLOPs to be proportional to "
        "parameters; the measured ratio does neither, so the two differ. "
    )
    return join(
        [
            paragraph(equation, measured),
            figure(
                figures, "cost", "Training the target once is 100 %, as in the paper's Figure 1b."
            ),
        ]
    )


def control(contents: StudyContents, figures: Figures) -> Html | None:
    """The control side by side, with what it cannot show."""
    facts = contents.control
    if facts is None:
        return None
    return join(
        [
            paragraph(" ".join(words.control_words(contents))),
            callout([words.ONE_SEED], mark="What this does not show."),
            _control_table(contents),
        ]
    )


def _control_table(contents: StudyContents) -> Html:
    facts, agreement = contents.control, contents.agreement
    assert facts is not None
    searched = control_trials(contents)
    studies = (
        (contents.trials, contents.carried, contents.target_run),
        (searched, control_carried(contents), facts.target_run),
    )
    columns = [_study_cells(*study) for study in studies]
    rows = [(label, ours, theirs) for (label, ours), (_, theirs) in zip(*columns, strict=True)]
    if agreement is not None and agreement.control_agreement is not None:
        shares = agreement.target_agreement, agreement.control_agreement
        ours, theirs = (formats.percent(share) for share in shares)
        rows.append(("samples show the class", ours, theirs))
    retrieval = contents.retrieval
    if retrieval is not None and retrieval.control is not None:
        both = retrieval.target, retrieval.control
        ours, theirs = (formats.percent(one.share) for one in both)
        rows.append(("samples matched with their caption", ours, theirs))
    head = ("", run_name(contents.parametrization), run_name(facts.parametrization))
    return table(head, rows, numeric=(1, 2), cls="facts")


def _study_cells(
    trials: Sequence[TrialCurve], best: TrialCurve | None, target: TrialCurve | None
) -> list[tuple[str, str]]:
    names = varied_hps(trials)
    hps = {} if best is None else {n: v for n, v in best.record.hps.items() if n in names}
    diverged, pruned = (
        sum(trial.record.status == status for trial in trials) for status in ("diverged", "pruned")
    )
    return [
        ("trials (diverged, ended early)", f"{len(trials)} ({diverged}, {pruned})"),
        ("chosen base HPs", formats.hp_values(hps) or "–"),
        ("proxy's validation loss, raw weights", "–" if best is None else _score(best)),
        ("target's validation loss, raw weights", "–" if target is None else _score(target)),
        (
            "target's validation loss, EMA weights",
            "–" if target is None else formats.loss(words.final_loss(target, "ema")),
        ),
    ]


def reproducibility(contents: StudyContents, figures: Figures) -> Html:
    """Command, seed, versions, config."""
    facts = [("seed", str(contents.seed))]
    return origin(contents, facts)


SECTIONS: tuple[Section, ...] = (
    ("done", "What was done", what_was_done),
    ("search", "The search", search),
    ("training", "Training", training),
    ("samples", "Samples", samples),
    ("model", "The model, by role", model),
    ("plan", "The plan", plan),
    ("cost", "Cost", cost),
    ("control", "The control", control),
    ("again", "Reproducing it", reproducibility),
)

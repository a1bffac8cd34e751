"""The sentences of a report: what its numbers say, and what they do not."""

from __future__ import annotations

import math

from mudit.report import formats
from mudit.report.contents import StudyContents, TrialCurve, control_trials
from mudit.report.search import varied_hps

RANKING = "Trials are ranked by the validation bank's denoising loss on the raw weights."
ONE_SEED = (
    "This study has one seed: it does not show that μP beats sp. A difference between them may be "
    "noise: measuring noise takes several seeds, and measuring transfer takes the optima at "
    "several widths."
)


def searched_hps(contents: StudyContents) -> dict[str, float]:
    """The values, carried to the target, of the HPs that the search varied."""
    hps = contents.carried.record.hps
    return {name: hps[name] for name in tuned_hps(contents) if name in hps}


def tuned_hps(contents: StudyContents) -> tuple[str, ...]:
    """HPs that differ between trials, or between finals."""
    names = varied_hps(contents.trials)
    if len(contents.finals) > 1:
        names += tuple(name for name in varied_hps(contents.finals) if name not in names)
    return names


def headline(contents: StudyContents) -> str:
    """The study in one paragraph, with the numbers that matter."""
    proxy, target = contents.proxy, contents.target
    trials = len(contents.trials)
    picked = f"the best of {trials} settings tried" if trials > 1 else "the one setting tried"
    if contents.finals:
        picked += f" and of {len(contents.finals)} trained again for longer"
    grown = target.parameters / proxy.parameters
    name = formats.parametrization_name(contents.parametrization)
    hps = searched_hps(contents)
    what, was = ("Base", "was") if len(hps) == 1 else ("The base HPs", "were")
    return (
        f"{what} {formats.hp_values(hps)}, {picked} on a {contents.model} of width "
        f"{proxy.width}, {was} carried by {name} to width {target.width} "
        f"({grown:.3g}× the parameters) and not tuned there. {outcome(contents)}"
    )


def outcome(contents: StudyContents) -> str:
    """What came out at the target, and what the search cost."""
    run, facts = contents.target_run.record, contents.agreement
    if run.score is None:
        ending = f"The target diverged at step {run.diverged_step:,}"
    else:
        ending = f"The target ends at a validation loss of {formats.loss(run.score)}"
    if facts is not None:
        ending += (
            f", {formats.percent(facts.target_agreement)} of its samples show the class that "
            f"they were asked for (real images: {formats.percent(facts.held_out_accuracy)})"
        )
    elif contents.retrieval is not None:
        share = contents.retrieval.target
        ending += (
            f", {formats.percent(share.share)} of its samples are matched with their own caption "
            f"among {share.names} (by chance: {formats.percent(share.chance)})"
        )
    cost = formats.percent(contents.cost.eq1_ratio)
    return f"{ending}, and the search cost {cost} of training the target once."


def algorithm(contents: StudyContents) -> tuple[tuple[str, str], ...]:
    """[muDiT] Algorithm 4 in steps, each with a name."""
    proxy, target = contents.proxy, contents.target
    name = formats.parametrization_name(contents.parametrization)
    ranked = f"{RANKING} "
    for status, fate in (("diverged", "diverged"), ("pruned", "ended early")):
        if count := sum(trial.record.status == status for trial in contents.trials):
            ranked += f"{formats.plural(count, 'trial')} {fate} and cannot win. "
    return (
        (
            "Search.",
            f"{formats.plural(len(contents.trials), 'setting')} of the base HPs "
            f"({', '.join(varied_hps(contents.trials))}), each trained on a small proxy: width "
            f"{proxy.width}, batch {proxy.batch_size}, {proxy.steps:,} steps, under {name} with "
            f"base width {contents.base_width}.",
        ),
        (
            "Choose.",
            f"{ranked}The lowest is {formats.loss(contents.best.record.score)}, "
            f"at {formats.hp_values(_best_hps(contents))}.",
        ),
        *_confirm(contents),
        (
            "Transfer.",
            f"The plan turns these base HPs into those of width {target.width}; the target is "
            f"trained once, with batch {target.batch_size} for {target.steps:,} steps. Nothing is "
            f"tuned at this width.",
        ),
    )


def _best_hps(contents: StudyContents) -> dict[str, float]:
    """The search's best values, before any finals."""
    hps = contents.best.record.hps
    return {name: hps[name] for name in varied_hps(contents.trials) if name in hps}


def _confirm(contents: StudyContents) -> tuple[tuple[str, str], ...]:
    """The finals as a step, if there are any ([muDiT] E.4.2)."""
    finals = contents.finals
    if not finals:
        return ()
    names = varied_hps(finals)
    carried, best = contents.carried.record, contents.best.record
    values = formats.hp_values({name: carried.hps[name] for name in names})
    same = all(math.isclose(carried.hps[name], best.hps[name]) for name in names)
    tried = f", {', '.join(names)} varied around the best" if len(finals) > 1 else ""
    return (
        (
            "Confirm.",
            f"{formats.plural(len(finals), 'run')} of {finals[0].record.steps:,} steps instead of "
            f"{contents.proxy.steps:,}{tried}. The lowest is {formats.loss(carried.score)}, at "
            f"{values}: {'the same' if same else 'another'} optimum "
            f"{'as' if same else 'than'} in the search.",
        ),
    )


def final_loss(run: TrialCurve, weights: str) -> float | None:
    """The last validation loss on the `raw` or the `ema` weights."""
    rows = run.validation(weights)
    return rows[-1].denoising if rows else None


def control_outcome(contents: StudyContents) -> str:
    """Which target ended lower, and by how much; no word on why."""
    control = contents.control
    assert control is not None
    name = formats.parametrization_name(control.parametrization)
    ours = formats.parametrization_name(contents.parametrization)
    if control.target_run is None:
        return f"The {name} control has no target: all its trials diverged."
    one, other = contents.target_run.record.score, control.target_run.record.score
    if one is None or other is None:
        ended = [label for label, score in ((ours, one), (name, other)) if score is None]
        return f"The {' and the '.join(ended)} target diverged."
    if math.isclose(one, other, rel_tol=1e-9):
        return f"Both targets end at the same validation loss, {formats.loss(one)}."
    side = "below" if one < other else "above"
    return (
        f"The {ours} target ends at {formats.loss(one)}, {formats.percent(abs(one / other - 1))} "
        f"{side} the {name} target's {formats.loss(other)}."
    )


def control_words(contents: StudyContents) -> tuple[str, ...]:
    """What the control shows, and what it cannot."""
    control = contents.control
    assert control is not None
    name = formats.parametrization_name(control.parametrization)
    own, ours = len(control_trials(contents)), len(contents.trials)
    if not control.trials:
        budget = f"The {name} control shares the search"
        if contents.proxy.width == contents.base_width:
            budget += ": the proxy has the base width, where the plan changes nothing"
        budget += ", and trains a target of its own."
    elif own == ours:
        trials = formats.plural(own, "trial")
        budget = f"The {name} control had the same budget: {trials} of its own and one target."
    else:
        budget = f"The budgets differ: {own} trials for {name}, {ours} for the study."
    words = [budget, control_outcome(contents)]
    if contents.match is not None:
        words.append(match_sentence(contents))
    return tuple(words)


def match_sentence(contents: StudyContents) -> str:
    """When the target reached the control target's final loss."""
    match, control = contents.match, contents.control
    assert match is not None
    assert control is not None
    name = formats.parametrization_name(contents.parametrization)
    other = formats.parametrization_name(control.parametrization)
    return (
        f"The {name} target reached {formats.loss(match.loss)}, the {other} target's loss at step "
        f"{match.reference_step:,.0f}, at step {match.step:,.0f}: "
        f"{match.speed_up:.2f}× as fast in steps."
    )


ALTERNATIVES = {
    "search": "Validation loss of every trial against the searched hyperparameters.",
    "importance": "Importance of each searched hyperparameter.",
    "training": "Training loss over steps: the trials above, the targets below.",
    "updates": "Norm of updates over norm of weights, by role, over steps.",
    "samples": "Samples of the target beside real images.",
    "agreement": "Agreement of the samples with the class asked for, class by class.",
    "model": "The model's modules, each weight coloured by its role in the plan.",
    "cost": "Cost of the search in units of training the target once.",
}

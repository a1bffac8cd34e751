"""What the verbs print."""

from __future__ import annotations

from mudit.tuning import (
    Branch,
    Preview,
    StudyCost,
    TransferResult,
    TransferVerdict,
    VerifyPreview,
)


def cost_text(preview: StudyCost) -> str:
    """The cost of a study, before it is run."""
    measured = preview.search_flops / preview.target_flops
    least = ""
    if preview.least_flops < preview.search_flops:
        share = 100 * preview.least_flops / preview.target_flops
        least = f"\nThat is if no trial is ended early; it costs at least {share:.1f} %."
    elif preview.config.search.pruning.method == "halving":
        least = "\nThat is with the trials that halving ends early; where some diverge, less."
    finals = ""
    if preview.finals:
        finals = f" and {preview.finals} finals of {preview.config.search.finals.steps} steps"
    return (
        f"{preview.trials} trials on the proxy{finals}, {preview.search_flops:.3g} FLOPs in all; "
        f"one target training, {preview.target_flops:.3g} FLOPs.\n"
        f"The search costs {100 * preview.cost_ratio:.1f} % of one target training by Eq. (1), "
        f"{100 * measured:.1f} % by counted FLOPs.{least}"
    )


def preview_text(preview: Preview) -> str:
    """Config, plan and cost."""
    return (
        f"config:\n{preview.config.claim()}\ntarget's {preview.plan.to_markdown()}\n"
        f"{cost_text(preview)}"
    )


def transfer_line(result: TransferResult) -> str:
    """A finished study in a line or two."""
    best = ", ".join(f"{name} = {result.main.best.hps[name]:.4g}" for name in result.config.tuned)
    target = result.main.target
    if target.score is None:
        outcome = f"the target diverged at step {target.diverged_step}"
    else:
        outcome = f"target loss {target.score:.5f}"
        if result.retrieval is not None:
            share = result.retrieval.target
            outcome += (
                f", {100 * share.share:.0f} % of samples matched with their caption among "
                f"{share.names}"
            )
        elif result.agreement is not None:
            outcome += f", {100 * result.agreement:.0f} % of samples have the class asked for"
    if isinstance(result.control, Branch) and result.control.target.score is not None:
        outcome += f" (sp control: loss {result.control.target.score:.5f})"
    return (
        f"{best} → {outcome}; search cost {100 * result.cost_ratio:.1f} % of the target's.\n"
        f"{result.report}"
    )


def grid_text(preview: VerifyPreview) -> str:
    """Config and cost of a verify study."""
    runs = ", ".join(f"{count} under {name}" for name, count in preview.runs.items())
    ratio = preview.flops / preview.target_flops
    return (
        f"config:\n{preview.config.claim()}\n{sum(preview.runs.values())} runs ({runs}), "
        f"{preview.flops:.3g} FLOPs in all: as much as {ratio:.1f} runs at the target, "
        f"{preview.config.across} {preview.config.target_size}."
    )


def verdict_text(found: TransferVerdict) -> str:
    """A verify study's verdict and its findings."""
    config = found.config
    lines = [f"{found.verdict}: {config.hp} across {config.across}"]
    lines += [f"  {finding.message}" for finding in found.findings]
    return "\n".join([*lines, f"{config.folder}/report.html"])

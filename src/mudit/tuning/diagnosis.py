"""From slopes to a culprit: which parameter is at fault, and what was probably done to it.

What a parameter itself shows (initial scale, size of its own updates, decay) hardly depends on
other parameters, since Adam's step does not see the gradient's scale; so such rows are roots.
Features are consequences of all that comes before them, so without a root among the parameters the
first feature in the order of computation that goes astray names the weight that made it. A feature
that is astray before the first step, over right initial values, comes before all updates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from mudit.parametrization import Plan, PlanRow
from mudit.parametrization.rules import FAMILIES
from mudit.records import Finding
from mudit.tuning.check_rows import CheckRow
from mudit.tuning.measurement import Idle, Quantity
from mudit.tuning.probes import LOGITS

# Evidence about a parameter alone; the earlier names the cause, where several are astray.
_LOCAL: tuple[Quantity, ...] = ("initial", "update_rms", "decay")
_FORWARD: tuple[Quantity, ...] = ("activation", "change")
_OR_EPS = ", or its gradients fall below Adam's eps"


def slope_findings(rows: Sequence[CheckRow], plan: Plan) -> Iterator[Finding]:
    """What the failed rows say, the root first; rows in the order of computation."""
    failed = [row for row in rows if row.verdict == "FAIL"]
    if not failed:
        return
    forward = [row for row in failed if row.quantity in _FORWARD]
    at_rest = [row for row in forward if row.quantity == "activation"]
    local = _by_parameter(row for row in failed if row.quantity in _LOCAL)
    if local and not (at_rest and not any(row.quantity == "initial" for row in failed)):
        named = _worst_first(local.values())
        yield from (_local_finding(found, plan) for found in named)
        rest = [row for row in failed if row.parameter not in local or row in forward]
    elif forward:
        root = (at_rest or forward)[0]
        yield Finding(parameter=root.parameter, message=_forward_words(root))
        rest = [row for row in failed if row is not root]
    else:
        yield from (_local_finding([row], plan) for row in failed)
        rest = []
    if rest:
        yield Finding(message=_consequences(rest))


def idle_finding(parameter: str, reason: Idle, steps: int) -> Finding:
    """About a parameter that did not move."""
    words = {
        "frozen": "requires_grad is off, though the plan trains it: unfreeze it, or freeze it in "
        "build, so that the plan knows",
        "left out": "it is in no group of the optimizer: make the groups from plan.param_groups",
        "unreached": "no gradient reached it: the loss does not use it, or it is detached. If that "
        "is meant, name it in `unused`",
        "no signal": "its gradient was zero: something after it starts at zero, and needs more "
        "steps to wake up; or its result is not used: then name it in `unused`",
    }
    return Finding(parameter=parameter, message=f"did not move in {steps} steps: {words[reason]}.")


def _by_parameter(rows: Iterable[CheckRow]) -> dict[str, list[CheckRow]]:
    found: dict[str, list[CheckRow]] = {}
    for row in rows:
        found.setdefault(row.parameter or row.name, []).append(row)
    return found


def _worst_first(groups: Iterable[list[CheckRow]]) -> list[list[CheckRow]]:
    """Groups in which something is far astray first; stable, so else in the order of computation.

    Halves of an exponent are counted: errors are powers 1/2, 1, 3/2, ... of the width.
    """
    return sorted(groups, key=lambda rows: -max(round(2 * row.excess) for row in rows))


def _local_finding(rows: list[CheckRow], plan: Plan) -> Finding:
    order = (*_LOCAL, "update")
    row = min(rows, key=lambda row: order.index(row.quantity))
    facts = plan[row.name]
    words = {
        "initial": _initial_words,
        "update_rms": _update_words,
        "update": _alignment_words,
        "decay": _decay_words,
    }[row.quantity](_slope(row), facts, plan)
    return Finding(parameter=facts.name, message=f"{words} ({facts.role} {facts.kind})")


def _update_words(slope: float, row: PlanRow, plan: Plan) -> str:
    head = f"updates {_growth(slope)} over what μP asks for: "
    if not FAMILIES[plan.options.optimizer].has_eps:
        return head + "its lr, or the gradient that reaches it, has another power of width"
    asked = _asked_lr(row)
    if slope > 0 and asked and abs(slope - asked) < 0.3:
        return head + "its lr is not divided by width"
    if slope < 0 and not asked and abs(slope + 1) < 0.3:
        return (
            head
            + "its lr is divided by width as if it were hidden, or its gradients fall below eps"
        )
    if slope < 0 and asked and abs(slope + asked) < 0.3:
        return head + "its lr is divided by width twice, or its gradients fall below eps"
    return head + f"its lr is too {'large' if slope > 0 else 'small'} by that factor"


def _asked_lr(row: PlanRow) -> float:
    """The power of 1/width in the plan's Adam lr."""
    return 1.0 if row.role in ("hidden", "output") else 0.0


def _alignment_words(slope: float, row: PlanRow, plan: Plan) -> str:
    return (
        f"updates {_growth(slope)} in the spectral norm, though their entries have the right size: "
        "the gradient's rank changes with width. Use a smaller batch, or greater widths"
    )


def _initial_words(slope: float, row: PlanRow, plan: Plan) -> str:
    asked = {"hidden": -0.5, "output": -1.0}.get(row.role, 0.0)
    return (
        f"initial values scale as {_power(slope + asked)}, μP asks for {_power(asked)}: "
        "its initialiser, or a multiplier folded into it, has another power of width; "
        "plan.initialize_ was not called, or something was scaled after it"
    )


def _decay_words(slope: float, row: PlanRow, plan: Plan) -> str:
    rule = plan.options.wd
    cause = (
        "lr·λ is not constant over width"
        if rule == "independent"
        else "λ is not constant over width"
    )
    if slope > 0.3 and plan.options.optimizer == "adamw":
        cause += "; or the decay is coupled (L2 in the gradient, torch.optim.Adam), not AdamW's"
    return f"shares taken by weight decay {_growth(slope)} over what the plan asks for: {cause}"


def _forward_words(row: CheckRow) -> str:
    growth = _growth(_slope(row))
    if row.name.endswith(LOGITS):
        what = "attention logits" if row.quantity == "activation" else "changes of attention logits"
        return (
            f"{what} in {row.name.removesuffix(LOGITS)} {growth}: their scale has the wrong power "
            "of width. With a head_dim that grows, μP asks for 1/head_dim instead of "
            "1/sqrt(head_dim); or let the number of heads grow"
        )
    what = "values" if row.quantity == "activation" else "changes"
    return (
        f"{what} of {row.name}, the first feature to go astray, {growth}, though its initial scale "
        "and its updates are right: a forward multiplier behind it depends on width, or a sum over "
        "width is not averaged"
    )


def _consequences(rows: Sequence[CheckRow]) -> str:
    first = rows[0]
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return (
        f"astray, too: {first.quantity} of {first.name} ({_power(_slope(first))}){more}. Probably "
        "consequences of the above; check again when that is mended."
    )


def _slope(row: CheckRow) -> float:
    return math.nan if row.slope is None else row.slope


def _growth(slope: float) -> str:
    return f"{'grow' if slope > 0 else 'shrink'} as {_power(slope)}"


def _power(exponent: float) -> str:
    return f"n^{exponent:.2f}"

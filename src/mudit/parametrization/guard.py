"""Is a live optimizer still what the plan asked for?

`guard` is cheap and runs before each step; `audit` is a full report on an optimizer that somebody
else may have set up, parameter by parameter.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from mudit.errors import GroupRatioError, ParametrizationError
from mudit.parametrization.initial import root_mean_square
from mudit.parametrization.rules import FAMILIES, optimizer_name_of
from mudit.records import Finding

if TYPE_CHECKING:
    from mudit.parametrization.plan import Plan, PlanRow

# Relative; lr, weight decay and eps are products of a few float64 factors.
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What is wrong with an optimizer under a plan.

    Attributes:
        verdict: PASS if there are no findings.
        findings: One for each parameter and fault.
    """

    verdict: Literal["PASS", "FAIL"]
    findings: tuple[Finding, ...]

    def to_markdown(self) -> str:
        """The verdict and a line for each finding."""
        lines = [f"audit: {self.verdict}, {len(self.findings)} findings\n"]
        lines += [
            f"- {finding.parameter or '(all)'}: {finding.message}\n" for finding in self.findings
        ]
        return "".join(lines)

    def save(self, path: str | Path) -> None:
        """Write the audit as JSON."""
        Path(path).write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", "utf-8")


def audit(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    plan: Plan,
    *,
    max_norm: float | None = None,
) -> Audit:
    """What is wrong with an optimizer, and with the model's initial values, under a plan.

    Args:
        optimizer: A live optimizer, set up by anybody.
        model: The model that it trains. Initial values are checked only before the first step.
        plan: The plan that both should follow.
        max_norm: The clipping norm, if gradients are clipped; call then between clipping and the
            step, so that it can be seen which norm was used.

    Returns:
        FAIL with findings that name parameters, or PASS.

    Raises:
        ParametrizationError: The model is not the plan's.
    """
    parameters = plan.match(model)
    wrong_family = list(_wrong_family(optimizer, plan))
    findings = [
        *wrong_family,
        *_membership(optimizer, plan, parameters),
        # Another optimizer's groups have other ratios, if any: the plan has nothing to compare.
        *([] if wrong_family else _ratios(optimizer, plan, parameters)),
        *(_initial_values(plan, parameters) if _is_new(optimizer) else []),
        *([] if max_norm is None else _clipping(plan, model, max_norm)),
    ]
    return Audit(verdict="FAIL" if findings else "PASS", findings=tuple(findings))


def guard(optimizer: torch.optim.Optimizer, plan: Plan) -> RemovableHandle:
    """Check the ratios of an optimizer's groups now and before each step.

    Raises:
        GroupRatioError: The ratios are broken.
        ParametrizationError: The groups are not those of `plan.param_groups`, or the optimizer is
            not the plan's.
    """
    for finding in _wrong_family(optimizer, plan):
        raise ParametrizationError(finding.message)
    rows = {row.name: row for row in plan.rows}
    expected: list[tuple[PlanRow, ...]] = []
    for group in optimizer.param_groups:
        names = group.get("param_names")
        if names is None or any(name not in rows for name in names):
            raise ParametrizationError(
                "this optimizer's groups do not bear the plan's names. Make it from "
                "plan.param_groups(model, ...), or use mudit.audit(optimizer, model, plan)."
            )
        if len(names) != len(group["params"]):
            raise ParametrizationError(
                "a group of this optimizer has other parameters than those that it names: one was "
                "added or moved. Make the optimizer from plan.param_groups again."
            )
        expected.append(tuple(rows[name] for name in names))
        _require_one_kind(expected[-1], _keys(plan))
    _require_each_once(optimizer)

    def check(optimizer: torch.optim.Optimizer, args: Any = (), kwargs: Any = None) -> None:
        for key in _keys(plan):
            _require_equal_base(optimizer, expected, key)

    check(optimizer)
    return optimizer.register_step_pre_hook(check)


def _require_one_kind(rows: tuple[PlanRow, ...], keys: tuple[str, ...]) -> None:
    for row in rows[1:]:
        for key in keys:
            if getattr(row, key) != getattr(rows[0], key):
                raise GroupRatioError(
                    f"{row.name} is in one group with {rows[0].name}, but the plan gives them "
                    f"different multipliers of {key}, {getattr(row, key):.6g} and "
                    f"{getattr(rows[0], key):.6g}. Make the optimizer from plan.param_groups."
                )


def _require_each_once(optimizer: torch.optim.Optimizer) -> None:
    seen: set[int] = set()
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"]):
            if id(parameter) in seen:
                raise ParametrizationError(
                    f"{name} is in two groups or places, so it is stepped twice. Make the "
                    "optimizer from plan.param_groups again."
                )
            seen.add(id(parameter))


def require_own_scale(row: PlanRow, rms: float) -> None:
    """Refuse to scale a tensor that has been scaled already.

    Raises:
        ParametrizationError: Its RMS is what the plan asks for, and not what build gives.
    """
    if _close(rms, row.init_rms, row) and not _close(rms, row.own_rms, row):
        raise ParametrizationError(
            f"{row.name} already has the plan's initial RMS {row.init_rms:.6g}: scaling it twice "
            "would break the plan. plan.build() scales by itself; call initialize_ once only."
        )


# --- the checks ---------------------------------------------------------------------------------


def _is_new(optimizer: torch.optim.Optimizer) -> bool:
    """Whether no step has been taken; SGD without momentum keeps no trace of them."""
    traceless = "momentum" in optimizer.defaults and not optimizer.defaults["momentum"]
    return not optimizer.state and not traceless


def _keys(plan: Plan) -> tuple[str, ...]:
    eps = FAMILIES[plan.options.optimizer].has_eps
    return ("lr", "weight_decay", "eps") if eps else ("lr", "weight_decay")


def _wrong_family(optimizer: torch.optim.Optimizer, plan: Plan) -> Iterator[Finding]:
    try:
        name = optimizer_name_of(optimizer)
    except ParametrizationError as error:
        yield Finding(message=str(error))
        return
    if name != plan.options.optimizer:
        yield Finding(
            message=f"the optimizer is {name}, the plan is for {plan.options.optimizer}: "
            f"their rules differ. Make the plan with optimizer={name!r}."
        )


def _membership(
    optimizer: torch.optim.Optimizer, plan: Plan, parameters: Mapping[str, nn.Parameter]
) -> Iterator[Finding]:
    counts = Counter(id(p) for group in optimizer.param_groups for p in group["params"])
    for row in plan.rows:
        count = counts.pop(id(parameters[row.name]), 0)
        if row.trainable and count == 0:
            yield Finding(parameter=row.name, message="is in no group: it will not be trained.")
        elif count > 1:
            yield Finding(
                parameter=row.name, message=f"is in {count} groups or places: it is stepped twice."
            )
        elif not row.trainable and count:
            yield Finding(
                parameter=row.name, message="is frozen in the plan, but the optimizer has it."
            )
    if counts:
        yield Finding(
            message=f"{len(counts)} tensors of the optimizer are not the model's: was the model "
            "copied or moved after the optimizer was made?"
        )


def _ratios(
    optimizer: torch.optim.Optimizer, plan: Plan, parameters: Mapping[str, nn.Parameter]
) -> Iterator[Finding]:
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    rows = [row for row in plan.rows if row.trainable and id(parameters[row.name]) in groups]
    for key in _keys(plan):
        actual = {row.name: float(groups[id(parameters[row.name])][key]) for row in rows}
        # Decay may be switched off for chosen tensors.
        checked = [row for row in rows if key != "weight_decay" or actual[row.name] != 0.0]
        base = _base_value(checked, actual, key)
        for row in checked:
            value = actual[row.name]
            if _same(value, base * getattr(row, key)):
                continue
            yield Finding(parameter=row.name, message=_ratio_words(row, key, value, base))


def _base_value(rows: list[PlanRow], actual: Mapping[str, float], key: str) -> float:
    """The base HP that the groups speak of: that of unscaled tensors, else the commonest."""
    unscaled = [row for row in rows if getattr(row, key) == 1.0]
    votes = Counter(f"{actual[row.name] / getattr(row, key):.9e}" for row in unscaled or rows)
    return float(votes.most_common(1)[0][0]) if votes else 0.0


def _ratio_words(row: PlanRow, key: str, value: float, base: float) -> str:
    factor = getattr(row, key)
    words = (
        f"{key} is {value:.6g}, the plan asks for {base * factor:.6g} ({base:.6g} × {factor:.6g}"
    )
    words += f"; role {row.role}, r = {row.r:.6g})"
    if _same(value, base):
        return f"{words}: it was not scaled."
    if _same(value, base * factor**2):
        return f"{words}: it was scaled twice."
    return f"{words}."


def _initial_values(plan: Plan, parameters: Mapping[str, nn.Parameter]) -> Iterator[Finding]:
    for row in plan.rows:
        rms = root_mean_square(parameters[row.name])
        if _close(rms, row.init_rms, row):
            continue
        words = f"initial RMS is {rms:.6g}, the plan asks for {row.init_rms:.6g}"
        if _close(rms, row.own_rms, row):
            words += ": it was not scaled; use plan.build() or plan.initialize_(model)."
        elif _close(rms, row.init_rms * row.init_scale, row):
            words += ": it was scaled twice."
        else:
            continue  # a law of few independent values, or weights of another origin
        yield Finding(parameter=row.name, message=words)


def _clipping(plan: Plan, model: nn.Module, max_norm: float) -> Iterator[Finding]:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not gradients:
        return
    plain = float(nn.utils.get_total_norm(gradients))
    mine = float(plan.grad_norm(model))
    if mine > max_norm * (1 + 1e-4):
        yield Finding(
            message=f"the plan's gradient norm is {mine:.6g}, above max_norm {max_norm:.6g}: "
            "clip with plan.clip_grad_norm_(model, max_norm) before each step."
        )
    # torch scales by max_norm / (norm + 1e-6); a norm that lands on max_norm was clipped by it.
    elif math.isclose(plain, max_norm, rel_tol=1e-4) and not math.isclose(
        mine, max_norm, rel_tol=1e-3
    ):
        folded = ", ".join(row.name for row in plan.rows if row.clip != 1.0)
        yield Finding(
            message=f"gradients were clipped by their plain norm (torch.nn.utils.clip_grad_norm_), "
            f"which μP does not hold constant over width: the plan's norm is {mine:.6g}, because "
            f"{folded} count with another factor. Use plan.clip_grad_norm_(model, max_norm)."
        )


def _require_equal_base(
    optimizer: torch.optim.Optimizer, expected: list[tuple[PlanRow, ...]], key: str
) -> None:
    groups = optimizer.param_groups
    if len(groups) != len(expected):
        raise GroupRatioError(
            f"the optimizer has {len(groups)} groups, the plan made {len(expected)}: a loaded "
            "state or an added group has changed them. Make the optimizer from plan.param_groups "
            "again."
        )
    # All rows of a group share their multipliers.
    bases = [float(group[key]) / getattr(rows[0], key) for group, rows in zip(groups, expected)]
    if key == "weight_decay":
        bases = [base for base in bases if base != 0.0]
    if not bases or _same(min(bases), max(bases)):
        return
    found = "; ".join(
        f"{key} {float(group[key]):.6g} (the plan: base × {getattr(rows[0], key):.6g}) on "
        f"{rows[0].name} and {len(rows) - 1} more"
        for group, rows in zip(groups, expected)
    )
    raise GroupRatioError(
        f"the groups no longer have the plan's ratios of {key}: {found}. A scheduler or a loaded "
        "optimizer state has overwritten them; schedules must multiply each group's own value, as "
        "torch.optim.lr_scheduler.LambdaLR does."
    )


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_TOLERANCE)


def _close(rms: float, expected: float, row: PlanRow) -> bool:
    """Equal up to sampling: 6 standard errors of a normal sample's RMS, 1/sqrt(2N) each.

    Laws of initialisers have lighter tails than the normal; values estimated from a sample have an
    error of their own, hence the larger bound.
    """
    count = math.prod(row.shape)
    bound = 6.0 / math.sqrt(2 * max(count, 1)) * (1.0 if row.init_exact else 2.0)
    return math.isclose(rms, expected, rel_tol=max(bound, 1e-5), abs_tol=1e-12)

"""μP itself: rules, initial scales, plans, guards. Knows no model and no diffusion."""

from mudit.parametrization.base_shapes import read_base_shapes, write_base_shapes
from mudit.parametrization.certificate import Certificate, certify
from mudit.parametrization.guard import Audit, audit
from mudit.parametrization.plan import Plan, PlanDifference, PlanOptions, PlanRow, load_plan, plan
from mudit.parametrization.rules import (
    EpsRule,
    Multipliers,
    Optimizer,
    Parametrization,
    WeightDecayRule,
    multipliers,
)

__all__ = [
    "Audit",
    "Certificate",
    "EpsRule",
    "Multipliers",
    "Optimizer",
    "Parametrization",
    "Plan",
    "PlanDifference",
    "PlanOptions",
    "PlanRow",
    "WeightDecayRule",
    "audit",
    "certify",
    "load_plan",
    "multipliers",
    "plan",
    "read_base_shapes",
    "write_base_shapes",
]

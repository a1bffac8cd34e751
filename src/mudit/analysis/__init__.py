"""Statistics over records: costs and curves. NumPy only."""

from mudit.analysis.cost import (
    Workload,
    grouped_cost_ratio,
    measured_cost_ratio,
    tuning_cost_ratio,
)
from mudit.analysis.runs import StepsToMatch, smooth, steps_to_match
from mudit.analysis.shares import Share, clopper_pearson

__all__ = [
    "Share",
    "StepsToMatch",
    "Workload",
    "clopper_pearson",
    "grouped_cost_ratio",
    "measured_cost_ratio",
    "smooth",
    "steps_to_match",
    "tuning_cost_ratio",
]

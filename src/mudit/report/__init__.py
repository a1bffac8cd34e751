"""Reports: plain facts in, one self-contained page with its figures out."""

from mudit.report.advice import save_advice_figure
from mudit.report.contents import (
    Agreement,
    Control,
    CostFacts,
    DataFacts,
    PlanRowFacts,
    Prompts,
    Retrieval,
    SampleGrid,
    SizeFacts,
    StudyContents,
    TrialCurve,
    cost_facts,
)
from mudit.report.page import write_report
from mudit.report.program import save_program_drawing
from mudit.report.verify import write_verify_report
from mudit.report.verify_contents import VerifyContents

__all__ = [
    "Agreement",
    "Control",
    "CostFacts",
    "DataFacts",
    "PlanRowFacts",
    "Prompts",
    "Retrieval",
    "SampleGrid",
    "SizeFacts",
    "StudyContents",
    "TrialCurve",
    "VerifyContents",
    "cost_facts",
    "save_advice_figure",
    "save_program_drawing",
    "write_report",
    "write_verify_report",
]

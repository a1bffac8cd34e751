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
from mudit.report.formats import parametrization_name
from mudit.report.page import write_report
from mudit.report.program import save_program_drawing
from mudit.report.sheet import Sheet, draw_sheet, sheet_numbers
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
    "Sheet",
    "SizeFacts",
    "StudyContents",
    "TrialCurve",
    "VerifyContents",
    "cost_facts",
    "draw_sheet",
    "parametrization_name",
    "save_advice_figure",
    "save_program_drawing",
    "sheet_numbers",
    "write_report",
    "write_verify_report",
]

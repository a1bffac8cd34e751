"""All figures of a report, by name; each is computed (`*_info`) and drawn (`draw_*`) apart."""

from __future__ import annotations

from collections.abc import Iterator

from mudit.report.bars import (
    AgreementInfo,
    Bar,
    agreement_info,
    cost_info,
    draw_agreement,
    draw_cost,
    draw_importance,
    importance_info,
)
from mudit.report.contents import StudyContents
from mudit.report.curves import (
    CurvesInfo,
    UpdatesInfo,
    curves_info,
    draw_curves,
    draw_updates,
    updates_info,
)
from mudit.report.grids import GridsInfo, draw_grids, grids_info
from mudit.report.modelmap import ModelInfo, draw_model, model_info
from mudit.report.search import SearchInfo, draw_search, search_info
from mudit.report.shell import Drawing, Rendered, rendered

__all__ = [
    "NAMES",
    "AgreementInfo",
    "Bar",
    "CurvesInfo",
    "GridsInfo",
    "ModelInfo",
    "Rendered",
    "SearchInfo",
    "UpdatesInfo",
    "agreement_info",
    "cost_info",
    "curves_info",
    "draw_agreement",
    "draw_cost",
    "draw_curves",
    "draw_grids",
    "draw_importance",
    "draw_model",
    "draw_search",
    "draw_updates",
    "drawings",
    "grids_info",
    "importance_info",
    "model_info",
    "render",
    "search_info",
    "updates_info",
]

NAMES = (
    "search",
    "importance",
    "training",
    "updates",
    "samples",
    "agreement",
    "model",
    "cost",
)


def render(contents: StudyContents) -> Iterator[Rendered]:
    """The figures that these contents give reason to draw, in the order of `NAMES`."""
    return rendered(drawings(contents))


def drawings(contents: StudyContents) -> Iterator[Drawing]:
    """Name and drawing function of each of them. Call the functions inside `type_style`."""
    search, importance = search_info(contents), importance_info(contents)
    curves, updates = curves_info(contents), updates_info(contents)
    grids, agreement, model = grids_info(contents), agreement_info(contents), model_info(contents)
    if search.panels:
        yield "search", lambda theme: draw_search(search, theme)
    if importance:
        yield "importance", lambda theme: draw_importance(importance, theme)
    yield "training", lambda theme: draw_curves(curves, theme)
    if updates.target:
        yield "updates", lambda theme: draw_updates(updates, theme)
    if grids.lines:
        yield "samples", lambda theme: draw_grids(grids, theme)
    if agreement is not None:
        yield "agreement", lambda theme: draw_agreement(agreement, theme)
    if model.columns:
        yield "model", lambda theme: draw_model(model, theme)
    yield "cost", lambda theme: draw_cost(cost_info(contents), theme)

"""A coordinate check in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mudit.records import Finding
from mudit.tuning.check_rows import ALPHA, BOUND, CheckRow, CheckSettings, ControlResult

_SHOWN = 4


def markdown(
    verdict: str,
    findings: Sequence[Finding],
    notes: Sequence[str],
    *,
    settings: CheckSettings,
    rows: Sequence[CheckRow],
    control: ControlResult | None,
) -> str:
    """Verdict, findings, and for each quantity the slopes nearest to their bounds."""
    judged = [row for row in rows if row.verdict != "not judged"]
    parts = [
        f"# Coordinate check: {verdict}\n",
        _summary(settings, judged),
        _control_words(control),
        _list("Findings", [_finding_words(finding) for finding in findings]),
        _slopes(judged),
        _list("Notes", notes),
    ]
    return "\n".join(part for part in parts if part)


def _summary(settings: CheckSettings, judged: Sequence[CheckRow]) -> str:
    passed = sum(row.verdict == "PASS" for row in judged)
    late = ""
    if settings.late_steps:
        late = f" (late probe: {len(settings.late_seeds)} seeds, {settings.late_steps} steps)"
    return (
        f"Widths {', '.join(map(str, settings.widths))}, base {settings.base_width}; "
        f"{len(settings.seeds)} seeds, {settings.steps} steps{late}; lr {settings.lr:.4g}, weight "
        f"decay {settings.weight_decay:.4g}. {passed} of {len(judged)} slopes lie inside "
        f"±{BOUND} with their simultaneous {1 - ALPHA:.0%} intervals.\n"
    )


def _control_words(control: ControlResult | None) -> str:
    if control is None:
        return ""
    told = "so the check can tell" if control.grows else "so the check cannot tell"
    return (
        f"Control: under sp, the {control.quantity} of {control.name} grows as "
        f"n^{control.slope:.2f}, {told}.\n"
    )


def _finding_words(finding: Finding) -> str:
    return f"**{finding.parameter}**: {finding.message}" if finding.parameter else finding.message


def _list(title: str, items: Sequence[str]) -> str:
    return f"## {title}\n\n" + "".join(f"- {item}\n" for item in items) if items else ""


def _slopes(judged: Sequence[CheckRow]) -> str:
    return (
        "## Slopes nearest to their bounds, or beyond\n\n"
        "| quantity | step | of | slope | interval | verdict |\n|---|--:|---|--:|---|---|\n"
    ) + "".join(_line(row) for row in _nearest(judged))


def _line(row: CheckRow) -> str:
    interval = "–" if row.low is None else f"{row.low:+.2f} to {row.high:+.2f}"
    slope = "–" if row.slope is None else f"{row.slope:+.2f}"
    return f"| {row.quantity} | {row.step} | {row.name} | {slope} | {interval} | {row.verdict} |\n"


def _nearest(rows: Sequence[CheckRow]) -> Iterator[CheckRow]:
    """Of each quantity, those with the least room to a bound."""
    for quantity in dict.fromkeys(row.quantity for row in rows):
        of_it = [row for row in rows if row.quantity == quantity]
        yield from sorted(of_it, key=_room)[:_SHOWN]


def _room(row: CheckRow) -> float:
    if row.low is None or row.high is None:
        return -math.inf
    lower, upper = row.bounds
    above = upper - row.high if upper is not None else math.inf
    return min(above, row.low - lower) if lower is not None else above

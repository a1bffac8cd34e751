"""A verdict on transfer in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mudit.analysis.basin import Basin, Interval
from mudit.analysis.transferability import Transferability
from mudit.records import Finding
from mudit.tuning.grid import VerifyConfig

_ALGORITHMS = {"width": 1, "batch": 2, "steps": 3}


def markdown(
    config: VerifyConfig,
    main: Transferability,
    control: Transferability | None,
    findings: Sequence[Finding],
) -> str:
    """Verdict, findings, and the numbers of each size."""
    sizes = ", ".join(map(str, config.sizes))
    parts = [
        f"# Transfer of {config.hp} across {config.across}: {main.verdict}\n",
        f"Algorithm {_ALGORITHMS[config.across]}; {config.across} {sizes}, target "
        f"{config.target_size}; {config.hp} at {config.values}; {config.seeds} seeds.\n",
        "".join(f"- {finding.message}\n" for finding in findings),
        _numbers("μP", main),
    ]
    if control is not None:
        parts.append(_numbers("sp", control))
    return "\n".join(parts)


def _numbers(name: str, found: Transferability) -> str:
    rows = [
        f"## {name}: {found.verdict}\n",
        "| size | best tried | optimum (95 %) | loss there | basin | problem |",
        "| --: | --: | --- | --: | --- | --- |",
        *map(_row, found.basins),
        "",
        f"- drift: {_interval(found.drift, '+.3f')} octaves per doubling (98 %)",
        f"- at most {_number(found.reach, '.2f')} octaves on the way to {found.target:g}",
        f"- regret: {_interval(found.regret, '.1%')} of a doubling's gain (95 % each side)",
        f"- gain of the last doubling: {_number(found.gain, '.4g')}",
        f"- loss lost by an HP off by that much: {_number(found.extrapolation_cost, '.1%')} of it",
        f"- loss for ever larger sizes: {_interval(found.asymptote, '.4g')} (95 %)",
        f"- noise of a loss: {_number(found.noise, '.2g')} ({found.freedom} degrees of freedom)"
        + _misfit(found),
        "",
    ]
    return "\n".join(rows)


def _row(basin: Basin) -> str:
    cells = (
        f"{basin.size}",
        "" if basin.best is None else f"2^{basin.best:g}",
        "" if basin.optimum is None else _log2(basin.optimum),
        _number(basin.loss, ".5f") if basin.loss is not None else "",
        basin.form or "",
        basin.problem or "",
    )
    return f"| {' | '.join(cells)} |"


def _log2(interval: Interval) -> str:
    if math.isinf(interval.low) and math.isinf(interval.high):
        return "unknown"
    return (
        f"2^{_number(interval.value, '.2f')} (2^{_number(interval.low, '.2f')} to "
        f"2^{_number(interval.high, '.2f')})"
    )


def _misfit(found: Transferability) -> str:
    if found.misfit is None or found.misfit >= 0.05:
        return ""
    return f"; no basin fits (F test {found.misfit:.2g}), so this is the misfit"


def _interval(interval: Interval | None, form: str) -> str:
    if interval is None or (math.isinf(interval.low) and math.isinf(interval.high)):
        return "unknown"
    value, low, high = (_number(number, form) for number in interval)
    return f"{value} ({low} to {high})"


def _number(value: float | None, form: str) -> str:
    if value is None or math.isnan(value):
        return "unknown"
    return ("-∞" if value < 0 else "∞") if math.isinf(value) else format(value, form)

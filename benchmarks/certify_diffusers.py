"""Certify every diffusion Transformer of the installed diffusers, and plan it; `docs/certified.md`.

Each class is built in the small configuration of `mudit.models.foreign` at three widths; its
forward pass is recorded and read, and the plan is made from the certificate. Bar: at least 90 % of
the classes are certified; the rest is refused for a reason from the closed list. An exception, or
an op without a rule, is neither.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import describe, quick, table

import mudit
from mudit.models.foreign import TABLE, foreign
from mudit.program import REASONS

_PAGE = Path(__file__).parent.parent / "docs" / "certified.md"
_BAR = 0.9
_ROLES = ("input", "hidden", "output", "scalar")
_FLAW = "representable, with a size that μP does not have"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What came out for one class."""

    name: str
    verdict: str
    roles: Counter[str | None]
    ops: int
    seconds: float
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    reasons: tuple[str, ...]
    planned: bool


def certified(name: str) -> Row:
    """Certify and plan one class."""
    start = time.perf_counter()
    try:
        model = foreign(name)
        found = mudit.certify(model.build, model.inputs, model.widths)
        seconds = time.perf_counter() - start
        planned = found.verdict in ("PASS", "FAIL")
        if planned:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a FAIL warns; it is in the table
                mudit.plan(
                    model.build,
                    width=max(model.widths),
                    base_width=min(model.widths),
                    certificate=found,
                )
    except Exception:
        text = traceback.format_exc(limit=-1).strip().splitlines()[-1]
        return Row(
            name=name,
            verdict="EXCEPTION",
            roles=Counter(),
            ops=0,
            seconds=time.perf_counter() - start,
            findings=(text,),
            notes=(),
            reasons=(),
            planned=False,
        )
    return Row(
        name=name,
        verdict=found.verdict,
        roles=Counter(row.role for row in found.weights),
        ops=len(found.ops),
        seconds=seconds,
        findings=tuple(finding.message for finding in found.findings),
        notes=_notes(found, model.entry.note),
        reasons=found.reasons,
        planned=planned,
    )


def _notes(found: mudit.Certificate, table_note: str) -> tuple[str, ...]:
    """Notes in brief: parameters with the same one are counted."""
    counted = Counter(
        note.message.split(":")[0].split(",")[0] for note in found.notes if note.parameter
    )
    texts = [f"{count} parameters: {message}" for message, count in counted.items()]
    texts += [note.message for note in found.notes if not note.parameter]
    return (*texts, *([table_note] if table_note else []))


def page(rows: list[Row], machine: str) -> str:
    """The page `docs/certified.md`."""
    import diffusers

    passed = sum(row.verdict == "PASS" for row in rows)
    refused = [row for row in rows if row.verdict == "REFUSED"]
    flawed = [row for row in rows if row.verdict == "FAIL"]
    other = [row for row in rows if row.verdict not in ("PASS", "REFUSED", "FAIL")]
    bar = passed / len(rows) >= _BAR and not other
    summary = (
        f"{passed} of {len(rows)} classes ({100 * passed / len(rows):.0f} %) are certified, "
        f"{len(flawed)} {'is' if len(flawed) == 1 else 'are'} {_FLAW}, {len(refused)} refused from "
        f"the closed list, {len(other)} neither. Bar (at least {100 * _BAR:.0f} % certified, none "
        f"neither): {'PASS' if bar else 'FAIL'}. All but the refused have a plan from `mudit.plan`:"
        f" {'yes' if all(r.planned for r in rows if r.verdict in ('PASS', 'FAIL')) else 'NO'}."
    )
    body = table(
        ("class", "verdict", *(f">{role}" for role in _ROLES), ">not reached", ">ops", ">seconds"),
        (
            (
                f"`{row.name}`",
                row.verdict,
                *(row.roles[role] for role in _ROLES),
                row.roles[None],
                row.ops,
                f"{row.seconds:.1f}",
            )
            for row in rows
        ),
    )
    said = "\n".join(
        f"- `{row.name}`: {text}" for row in rows for text in dict.fromkeys(row.findings)
    )
    noted = "\n".join(
        f"- `{row.name}`: {'; '.join(note.rstrip('.') for note in row.notes)}."
        for row in rows
        if row.notes
    )
    reasons = "\n".join(f"- {key}: {text}" for key, text in REASONS.items())
    return (
        "# Certified: the diffusion Transformers of diffusers\n\n"
        f"Every class of diffusers {diffusers.__version__} that is a diffusion Transformer, in a "
        "small configuration, recorded at three widths on real tensors (`mudit certify "
        "diffusers:CLASS` does one of them). Weights are counted by role; ops are those that the "
        f"output depends on.\n\n{summary}\n\n{body}\n## Findings\n\n{said or 'None.'}\n\n"
        f"## Notes\n\n{noted or 'None.'}\n\n## The closed list of reasons for a refusal\n\n"
        f"{reasons}\n\n## The machine\n\n{machine}- one thread; made by: `python "
        f"benchmarks/certify_diffusers.py`, {time.strftime('%Y-%m-%d', time.gmtime())}\n"
    )


def main() -> None:
    """Certify all, or three for a smoke run."""
    smoke = quick(__doc__)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    machine = describe("mudit", "diffusers")
    names = sorted(TABLE)
    rows = []
    for name in names[:3] if smoke else names:
        rows.append(certified(name))
        print(f"{name}: {rows[-1].verdict} {rows[-1].seconds:.1f} s", flush=True)
    text = page(rows, machine)
    if smoke:
        print(text)
    else:
        _PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

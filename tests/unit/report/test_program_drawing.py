"""The drawing of a certificate: what it counts and collapses, and the files it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mudit.errors import UsageError
from mudit.report.program import draw_program, program_info, save_program_drawing
from mudit.report.theme import DARK, LIGHT, type_style


def certificate(**changes: Any) -> str:
    blocks = [
        {"operator": operator, "section": f"blocks.{number}"}
        for number in range(3)
        for operator in ("OuterNonlin", "MatMul", "MatMul", "OuterNonlin")
    ]
    weights = [{"name": f"blocks.{number}.fc.weight", "role": "hidden"} for number in range(3)] + [
        {"name": "embed.weight", "role": "input"},
        {"name": "embed.bias", "role": "input"},
        {"name": "embed.extra", "role": None},
    ]
    fields: dict[str, Any] = {
        "model": "Net",
        "verdict": "PASS",
        "widths": [8, 16, 24],
        "weights": weights,
        "canonical": [{"operator": "OuterNonlin", "section": "embed"}, *blocks],
        "ops": [{"source": "net.py:7 (in forward)", "module": "blocks.1.fc"}],
        "findings": [],
    }
    return json.dumps(fields | changes)


def test_alike_blocks_are_one_row_and_weights_are_counted_by_role() -> None:
    embed, blocks = program_info(certificate()).rows

    assert embed.roles == {"input": 2, "not reached": 1}
    assert (blocks.name, blocks.copies, blocks.roles) == ("blocks.0–2", 3, {"hidden": 1})
    assert blocks.operators == ("OuterNonlin", "MatMul", "MatMul", "OuterNonlin")


def test_a_block_with_a_finding_stands_alone() -> None:
    finding = {"message": "sort jumps, at net.py:7 (in forward).", "parameter": None}
    rows = program_info(certificate(verdict="REFUSED", findings=[finding])).rows

    assert [row.name for row in rows] == ["embed", "blocks.0", "blocks.1", "blocks.2"]
    assert [bool(row.against) for row in rows] == [False, False, True, False]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_certificate_without_rows_shows_what_was_said(theme: Any) -> None:
    finding = {"message": "the op sequences part", "parameter": None}
    text = certificate(verdict="INCONCLUSIVE", weights=[], canonical=[], ops=[], findings=[finding])
    with type_style(theme):
        figure = draw_program(program_info(text), theme)
    words = [item.get_text() for item in figure.axes[0].texts]

    assert "INCONCLUSIVE" in words
    assert "the op sequences part" in words


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"program{suffix}"
    save_program_drawing(certificate(), path)

    assert path.stat().st_size > 5_000
    assert path.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no picture"):
        save_program_drawing(certificate(), tmp_path / "program.txt")

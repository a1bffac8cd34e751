"""Modules in unusual forms, whose outcome was derived by hand before the certificate was run."""

from __future__ import annotations

import pytest
from tests.oddities import CERTIFIED, FLAWED, REFUSED, Case

import mudit


@pytest.mark.parametrize("case", [*CERTIFIED, *REFUSED, *FLAWED], ids=lambda case: case.name)
def test_outcome_is_the_one_derived_by_hand(case: Case) -> None:
    found = mudit.certify(case.build, case.inputs, (16, 24, 40))

    assert found.verdict == case.verdict, found.findings
    assert found.reasons == ((case.reason,) if case.reason else ())
    if case.roles is not None:
        assert {name: found.roles[name] for name in case.roles} == dict(case.roles)
    parts = {row.name: tuple(part.role for part in row.parts) for row in found.weights if row.parts}
    if case.verdict == "PASS":
        assert parts == dict(case.parts or {})

"""The certificate's roles of diffusers' classes are those written by hand from their sources."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from tests.reference.certified_roles import ROLES, SPLIT

import mudit
from mudit.models.foreign import foreign


def expected(name: str, parameter: str) -> tuple[str, str]:
    for pattern, role in ROLES[name].items():
        if fnmatchcase(parameter, pattern):
            return role
    raise AssertionError(f"{name}: no pattern fits {parameter}")


@pytest.mark.parametrize("name", ROLES)
def test_roles_are_those_written_by_hand(name: str) -> None:
    model = foreign(name)
    found = mudit.certify(model.build, model.inputs, model.widths)
    mine = {row.name: (row.role, row.kind) for row in found.weights if row.role is not None}
    unreached = [row.name for row in found.weights if row.role is None]

    assert found.verdict == "PASS"
    assert {k: v for k, v in mine.items() if v != expected(name, k)} == {}
    # Only this class makes a norm of text queries and then has none.
    moe = name == "NucleusMoEImageTransformer2DModel"
    assert [parameter.split(".")[-2] for parameter in unreached] == ["norm_added_q"] * 2 * moe
    parts = {
        row.name: [(part.stop, part.role) for part in row.parts]
        for row in found.weights
        if row.parts
    }
    assert parts == {
        parameter: [
            (tuple(fixed + times * n for n in found.widths), role) for fixed, times, role in ends
        ]
        for (cls, parameter), ends in SPLIT.items()
        if cls == name
    }

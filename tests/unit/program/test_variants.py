"""The variants that the paper names beyond its four are certified, with roles written by hand."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch
from tests.variants import VARIANTS

import mudit


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_the_paper_are_certified(name: str) -> None:
    variant = VARIANTS[name]
    found = mudit.certify(variant.build, variant.inputs, (16, 24, 40))

    def expected(parameter: str) -> tuple[str, str]:
        return next(role for p, role in variant.roles.items() if fnmatchcase(parameter, p))

    assert found.verdict == "PASS", found.findings
    roles = {row.name: (row.role, row.kind) for row in found.weights}
    assert {k: v for k, v in roles.items() if v != expected(k)} == {}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_train_under_their_plan(name: str) -> None:
    variant = VARIANTS[name]
    torch.manual_seed(0)
    plan = mudit.plan(variant.build, width=32, base_width=16, inputs=variant.inputs)
    model = plan.build()
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=2**-8))
    model(*variant.inputs(32)).square().mean().backward()
    plan.clip_grad_norm_(model, 1.0)
    optimizer.step()

    moved = [key for key, value in model.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > 0.7 * len(before)
    assert all(torch.isfinite(value).all() for value in model.parameters())

"""Corners that an attempt to refute the certificate found: none may pass with a wrong role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mudit
from mudit.errors import MuditError
from mudit.parametrization import Certificate, certify

WIDTHS = (16, 24, 40)


class Net(nn.Module):
    def __init__(self, n: int, run: Callable[[Any, Tensor], Any], parts: Any) -> None:
        super().__init__()
        self.n = n
        self.embed = nn.Linear(3, n)
        for name, part in parts(n).items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.run = run

    def forward(self, x: Tensor) -> Any:
        return self.run(self, self.embed(x))


def inputs(n: int) -> tuple[Tensor]:
    return (torch.randn(2, 4, 3),)


def certified(run: Callable[[Any, Tensor], Any], parts: Any = lambda n: {}) -> Certificate:
    return certify(lambda n: Net(n, run, parts), inputs, WIDTHS)


def normed(h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:])  # which would hide a wrong size


def test_a_product_written_as_multiply_and_sum_is_a_readout() -> None:
    found = certified(
        lambda self, h: normed((h[..., None, :] * self.w).sum(-1)),
        lambda n: {"w": torch.randn(5, n)},
    )

    assert found.verdict == "PASS"
    assert found.roles["w"] == "output"


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], Any]] = {
    "a product of weights": (
        lambda self, h: normed(h @ (self.a @ self.b)),
        lambda n: {"a": torch.randn(n, 2), "b": torch.randn(2, 5)},
    ),
    "an adapter merged by addmm": (
        lambda self, h: normed(h @ torch.addmm(self.w, self.a, self.b)),
        lambda n: {
            "w": torch.randn(n, n), "a": torch.randn(n, 2), "b": torch.randn(2, n)
        },
    ),
    "readouts side by side": (
        lambda self, h: normed(F.linear(h, torch.cat([self.a, self.b]))),
        lambda n: {"a": torch.randn(2, n), "b": torch.randn(3, n)},
    ),
    "a flat matrix": (
        lambda self, h: normed(h @ self.w.view(self.n, self.n)),
        lambda n: {"w": torch.randn(n * n)},
    ),
    "a slice of a matrix of fixed size": (
        lambda self, h: normed(h @ self.w[: self.n, : self.n]),
        lambda n: {"w": torch.randn(64, 64)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_weights_that_are_lost_from_sight_are_refused(name: str) -> None:
    found = certified(*REFUSED[name])

    assert found.verdict == "REFUSED"
    assert found.reasons == ("transformed",)


def test_a_foreign_op_is_not_taken_for_one_of_the_same_name() -> None:
    library = torch.library.Library("mudit_corners", "DEF")
    library.define("linear(Tensor x, Tensor w) -> Tensor")
    library.impl("linear", lambda x, w: x @ w, "CPU")  # (in, out), unlike torch's
    found = certified(
        lambda self, h: torch.ops.mudit_corners.linear(h, self.w),
        lambda n: {"w": torch.randn(n, 5)},
    )

    assert found.verdict == "INCONCLUSIVE"
    assert "mudit_corners::linear" in found.findings[0].message


def test_a_value_that_fills_a_tensor_is_followed() -> None:
    found = certified(
        lambda self, h: h + torch.zeros(self.n).fill_(self.g(h).mean()),
        lambda n: {"g": nn.Linear(n, 2)},
    )

    assert found.roles["g.weight"] == "output"


@pytest.mark.parametrize("returned", [None, 1.0])
def test_a_pass_that_returns_no_tensor_is_not_certified(returned: object) -> None:
    found = certified(lambda self, h: returned)

    assert found.verdict == "INCONCLUSIVE"
    assert "no parameter reaches" in found.findings[0].message


def test_a_shared_finite_weight_stays_a_scalar() -> None:
    def run(self: Any, h: Tensor) -> Tensor:
        split = h.unflatten(-1, (-1, 8)).permute(2, 0, 1, 3).flatten(1, 2)  # heads first
        return torch.bmm(split, self.w.expand(len(split), -1, -1))

    parts = lambda n: {"w": torch.randn(1, 8, 8)}  # noqa: E731
    found = certified(run, parts)
    plan = mudit.plan(lambda n: Net(n, run, parts), width=32, base_width=16, inputs=inputs)

    assert found.roles["w"] == plan["w"].role == "scalar"


STEPS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "two to the power": lambda self, h: 2.0**h,
    "whole numbers": lambda self, h: h.long().float(),
    "floor of a quotient": lambda self, h: torch.div(h, 2.0, rounding_mode="floor"),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_in_disguise_are_refused(name: str) -> None:
    found = certified(STEPS[name])

    assert found.reasons == ("lipschitz",)


def boom(n: int) -> tuple[Tensor]:
    raise ZeroDivisionError("no")


@pytest.mark.parametrize(
    ("given", "widths", "words"),
    [
        (boom, WIDTHS, r"inputs\(16\) fails"),
        (lambda n: None, WIDTHS, "expected a tuple"),
        (lambda n: torch.randn(2, 4, 3), WIDTHS, "expected a tuple"),
        (inputs, ("16", "24", "40"), "whole numbers"),
        (inputs, (0, 16, 24), "whole numbers"),
        (inputs, 16, "three different"),
    ],
)
def test_bad_inputs_and_widths_are_said_so(given: Any, widths: Any, words: str) -> None:
    with pytest.raises(MuditError, match=words):
        certify(lambda n: nn.Linear(3, n), given, widths)


def test_a_lazy_layer_is_said_to_be_lazy() -> None:
    with pytest.raises(mudit.ParametrizationError, match="lazy"):
        certify(lambda n: nn.LazyLinear(n), inputs, WIDTHS)


def test_a_constant_scale_that_meta_cannot_see_does_not_blame_the_model() -> None:
    class Scaled(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.q, self.read = nn.Linear(3, n), nn.Linear(n, 3)
            self.register_buffer("scale", torch.tensor(1.0 / n))

        def forward(self, x: Tensor) -> Tensor:
            h = self.q(x)
            return self.read((h @ h.mT * self.scale).softmax(-1) @ h)

    assert certify(Scaled, inputs, WIDTHS).verdict == "PASS"
    mudit.plan(Scaled, width=32, base_width=8, inputs=inputs)  # a warning would be an error here

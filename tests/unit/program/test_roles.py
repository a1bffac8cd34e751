from __future__ import annotations

import pytest
import torch
from torch import nn

from mudit.errors import ParametrizationError
from mudit.program import (
    canonical_name,
    canonical_parameters,
    growing_dimensions,
    roles_from_layers,
)


def roles_of(build, widths=(16, 32)):
    models = {width: build(width) for width in widths}
    growing = growing_dimensions(
        {
            width: {name: tuple(p.shape) for name, p in canonical_parameters(model).items()}
            for width, model in models.items()
        }
    )
    return roles_from_layers(models[widths[-1]], growing)


@pytest.mark.parametrize(
    ("layer", "roles"),
    [
        (lambda n: nn.Linear(n, 4 * n), {"weight": "hidden", "bias": "input"}),
        (lambda n: nn.Linear(256, n), {"weight": "input", "bias": "input"}),
        (lambda n: nn.Linear(n, 8), {"weight": "output", "bias": "scalar"}),
        (lambda n: nn.Conv2d(4, n, 2, 2), {"weight": "input", "bias": "input"}),
        (lambda n: nn.Conv2d(n, n, 3, groups=n), {"weight": "input", "bias": "input"}),
        (lambda n: nn.Conv2d(n, 4, 3), {"weight": "output", "bias": "scalar"}),
        (lambda n: nn.ConvTranspose2d(n, 4, 2), {"weight": "output", "bias": "scalar"}),
        (lambda n: nn.ConvTranspose2d(4, n, 2), {"weight": "input", "bias": "input"}),
        (lambda n: nn.Embedding(10, n), {"weight": "input"}),
        (lambda n: nn.LayerNorm(n), {"weight": "input", "bias": "input"}),
        (
            lambda n: nn.MultiheadAttention(n, 4),
            {"in_proj_weight": "hidden", "in_proj_bias": "input"},
        ),
    ],
)
def test_roles_follow_from_what_grows(layer, roles) -> None:
    class Two(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.layer = layer(n)
            self.fixed = nn.Linear(3, 3)

    found = roles_of(Two)
    assert {f"layer.{k}": v for k, v in roles.items()}.items() <= {
        k: v.role for k, v in found.items()
    }.items()
    assert {found["fixed.weight"].role, found["fixed.bias"].role} == {"scalar"}


def test_kinds() -> None:
    found = roles_of(
        lambda n: nn.ModuleDict(
            {"t": nn.Embedding(3, n), "g": nn.LayerNorm(n), "w": nn.Linear(n, n)}
        )
    )
    assert {name: role.kind for name, role in found.items()} == {
        "t.weight": "table",
        "g.weight": "gain",
        "g.bias": "bias",
        "w.weight": "weight",
        "w.bias": "bias",
    }


class Raw(nn.Module):
    def __init__(self, n: int, *, frozen: bool = False) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, n), requires_grad=not frozen)
        self.temperature = nn.Parameter(torch.zeros(()))


def test_a_raw_parameter_is_refused_by_name_unless_frozen() -> None:
    with pytest.raises(ParametrizationError, match=r"table.*ambiguous"):
        roles_of(Raw)
    found = roles_of(lambda n: Raw(n, frozen=True))
    assert found["table"].role == "input"
    assert found["temperature"].role == "scalar"


class Tied(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, n)
        self.readout = nn.Linear(n, 9, bias=False)
        self.readout.weight = self.embed.weight


def test_a_tensor_used_in_two_ways_is_refused_and_both_uses_named() -> None:
    with pytest.raises(ParametrizationError, match=r"embed\.weight and readout\.weight.*two ways"):
        roles_of(Tied)


def test_a_tensor_shared_by_equal_uses_is_one_tensor() -> None:
    def build(n: int) -> nn.Module:
        first, second = nn.Linear(n, n), nn.Linear(n, n)
        second.weight = first.weight
        return nn.Sequential(first, second)

    assert roles_of(build)["0.weight"].role == roles_of(build)["1.weight"].role == "hidden"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda n: nn.Linear(8, 8), "ignores its argument"),
        (lambda n: nn.Sequential(*[nn.Linear(n, n) for _ in range(n // 16)]), "different param"),
        (lambda n: nn.Linear(n, 512 // n), "shrinks"),
    ],
)
def test_builds_that_are_no_function_of_width_are_refused(build, message) -> None:
    with pytest.raises(ParametrizationError, match=message):
        roles_of(build)


def test_stepwise_growth_is_growth() -> None:
    shapes = {16: {"w": (256, 16)}, 32: {"w": (256, 32)}, 256: {"w": (768, 256)}}
    assert growing_dimensions(shapes) == {"w": (True, True)}


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("_orig_mod.blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.weight"),
        ("module.dense.bias", "dense.bias"),  # str.strip("module.") makes nse.bias of it
        ("blocks.1._checkpoint_wrapped_module.mlp.fc1.weight", "blocks.1.mlp.fc1.weight"),
        ("submodule.weight", "submodule.weight"),
    ],
)
def test_canonical_names(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical


def test_names_that_collide_without_their_wrapper_are_refused() -> None:
    model = nn.ModuleDict({"module": nn.ModuleDict({"a": nn.Linear(2, 2)}), "a": nn.Linear(2, 2)})
    with pytest.raises(ParametrizationError, match=r"a\.weight"):
        canonical_parameters(model)

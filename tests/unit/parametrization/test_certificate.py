"""The certificate against Appendix C of the paper, and its own promises."""

from __future__ import annotations

import dataclasses
import json
from itertools import groupby

import pytest
import torch
from torch import Tensor, nn

import mudit
from mudit.models import DiTConfig, builder, example_inputs
from mudit.parametrization import Certificate, certify

CONFIG = DiTConfig(
    depth=2,
    num_heads=2,
    head_dim=8,
    patch_size=4,
    input_size=8,
    in_channels=1,
    num_classes=10,
    init="dit_mup",
)
WIDTHS = (16, 24, 40)

# Appendix C.1 of the paper, transcribed section by section. Its attention has no output
# projection; C.2 and C.4 have one (MatMul after OuterNonlin), and DiT's code has it.
NORM = ["Avg", "OuterNonlin", "Avg", "OuterNonlin"]
MODULATE = ["OuterNonlin"]
GATED_RESIDUAL = ["OuterNonlin"]
C1 = {
    "t_embedder": ["Scalar", "OuterNonlin", "OuterNonlin", "MatMul"],
    "y_embedder": ["OuterNonlin"],
    "x_embedder": ["OuterNonlin"],
    "block": [
        *["OuterNonlin", *["MatMul"] * 6],  # adaLN: SiLU, and six projections
        *NORM,
        *MODULATE,
        *["MatMul"] * 3,  # key, query, value
        "OuterNonlin",  # attention
        "MatMul",  # its output projection
        *GATED_RESIDUAL,
        *NORM,
        *MODULATE,
        *["MatMul", "OuterNonlin", "MatMul"],  # MLP
        *GATED_RESIDUAL,
    ],
    "final_layer": [
        *["OuterNonlin", "MatMul", "MatMul"],  # adaLN
        *NORM,
        *MODULATE,
        *["OuterNonlin", "Avg"],  # the readout
    ],
}


def fused(operators: list[str]) -> list[str]:
    """Adjacent OuterNonlin steps as one."""
    found: list[str] = []
    for operator, group in groupby(operators):
        found.extend(["OuterNonlin"] if operator == "OuterNonlin" else list(group))
    return found


@pytest.fixture(scope="module")
def dit() -> Certificate:
    return certify(builder(CONFIG), example_inputs(CONFIG), WIDTHS)


def test_dit_is_the_program_of_appendix_c1(dit: Certificate) -> None:
    sections: dict[str, list[str]] = {}
    for row in dit.canonical:
        sections.setdefault(row.section, []).append(row.operator)

    assert dit.verdict == "PASS"
    assert list(sections) == [
        "t_embedder", "y_embedder", "", "x_embedder", "blocks.0", "blocks.1", "final_layer",
    ]  # fmt: skip
    for name in ("t_embedder", "y_embedder", "x_embedder", "final_layer"):
        assert sections[name] == fused(C1[name]), name
    for block in ("blocks.0", "blocks.1"):
        assert sections[block] == fused(C1["block"])
    # Merging the embeddings, and adding the positions.
    assert sections[""] == ["OuterNonlin", "OuterNonlin"]


def test_a_missing_projection_shows_in_the_program(dit: Certificate) -> None:
    def build(width: int) -> nn.Module:
        model = builder(CONFIG)(width)
        for block in model.blocks:
            block.attn.proj = nn.Identity()  # as C.1 has it
        return model

    found = certify(build, example_inputs(CONFIG), WIDTHS)
    mine, whole = ([row.operator for row in c.canonical] for c in (found, dit))

    assert whole.count("MatMul") == 1 + 2 * (6 + 3 + 1 + 2) + 2
    assert mine.count("MatMul") == whole.count("MatMul") - 2


def test_dit_roles_are_those_of_its_layers(dit: Certificate) -> None:
    plan = mudit.plan(builder(CONFIG), width=32, base_width=16)

    assert dit.roles == {row.name: row.role for row in plan.rows}
    assert {row.name: row.kind for row in dit.weights} == {row.name: row.kind for row in plan.rows}


def test_plan_from_inputs_equals_the_plan_from_layers_of_dit() -> None:
    measured = mudit.plan(builder(CONFIG), width=32, base_width=16, inputs=example_inputs(CONFIG))
    layered = mudit.plan(builder(CONFIG), width=32, base_width=16)

    assert {d.field for d in measured.diff(layered)} <= {"reason"}
    assert measured.at(64).diff(layered.at(64)) != ()
    assert {d.field for d in measured.at(64).diff(layered.at(64))} == {"reason"}


def test_table_5_stands_beside_each_weight(dit: Certificate) -> None:
    rules = {row.name: row.rule for row in dit.weights}

    assert rules["x_embedder.proj.weight"] == (0, 0, 0)
    assert rules["blocks.0.attn.qkv.weight"] == (0, 0.5, 1)
    assert rules["final_layer.linear.weight"] == (1, 0, 0)
    assert rules["final_layer.linear.bias"] == (0, 0, 0)


def test_certificate_as_json_and_markdown(dit: Certificate, tmp_path) -> None:  # type: ignore[no-untyped-def]
    dit.save(tmp_path / "certificate.json")
    fields = json.loads((tmp_path / "certificate.json").read_text())
    text = dit.to_markdown()

    assert fields["verdict"] == "PASS"
    assert len(fields["weights"]) == len(dit.weights)
    assert len(fields["ops"]) == len(dit.ops)
    assert all(row.name in text for row in dit.weights)
    assert "mudit/models/dit.py:" in text
    assert "blocks.0.attn" not in dit.to_markdown(ops=False).split("| parameter |")[0]


# --- where the passes part ------------------------------------------------------------------------


class Branching(nn.Module):
    """Takes another path where the width is not a multiple of `modulus`."""

    def __init__(self, width: int, modulus: int) -> None:
        super().__init__()
        self.embed = nn.Linear(3, width)
        self.read = nn.Linear(width, 3)
        self.modulus = modulus

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        if h.shape[-1] % self.modulus:
            h = torch.sin(h)
        return self.read(h)


def three(width: int) -> tuple[Tensor]:
    return (torch.randn(2, 3),)


def test_other_residues_are_tried_before_giving_up() -> None:
    found = certify(lambda n: Branching(n, 3), three, (8, 12, 20))

    assert found.verdict == "PASS"
    assert found.widths in [(8, 20, 32), (12, 24, 36)]
    assert "not one program" in found.notes[0].message


def test_a_pass_that_always_branches_is_said_to_part() -> None:
    class Odd(Branching):
        def forward(self, x: Tensor) -> Tensor:
            h = self.embed(x)
            for _ in range(h.shape[-1]):
                h = torch.sin(h)
            return self.read(h)

    found = certify(lambda n: Odd(n, 1), three, (8, 12, 20))

    assert found.verdict == "INCONCLUSIVE"
    assert "test_certificate.py" in found.findings[0].message
    assert "branches" in found.findings[0].message
    with pytest.raises(mudit.ParametrizationError, match="INCONCLUSIVE"):
        mudit.plan(lambda n: Odd(n, 1), width=24, base_width=8, inputs=three)


# --- bad input ------------------------------------------------------------------------------------


def test_build_that_ignores_its_width() -> None:
    with pytest.raises(mudit.ParametrizationError, match="ignores its argument"):
        certify(lambda n: nn.Linear(3, 4), three, WIDTHS)


def test_width_that_is_not_spread_to_all_parts() -> None:
    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(3, width), nn.Linear(16, 3))

    with pytest.raises(mudit.ParametrizationError, match="does not spread the width"):
        certify(build, three, WIDTHS)


def test_inputs_of_the_wrong_shape_name_the_shapes() -> None:
    with pytest.raises(mudit.ParametrizationError, match=r"inputs of shapes \[\(2, 5\)\]"):
        certify(lambda n: nn.Linear(3, n), lambda n: (torch.randn(2, 5),), WIDTHS)


def test_build_that_fails_on_the_meta_device_says_what_to_do() -> None:
    def build(width: int) -> nn.Module:
        model = nn.Linear(3, width)
        model.scale = float(model.weight.sum().item())
        return model

    with pytest.raises(mudit.ParametrizationError, match="without looking at values"):
        certify(build, three, WIDTHS, device="meta")
    assert certify(build, three, WIDTHS).verdict == "PASS"


def test_two_widths_are_not_enough() -> None:
    with pytest.raises(mudit.MuditError, match="three different"):
        certify(lambda n: nn.Linear(3, n), three, (8, 16, 16))


def test_kernel_without_a_cpu_version_is_refused() -> None:
    torch.library.define("mudit_test::absent", "(Tensor x) -> Tensor")

    class Custom(Branching):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.mudit_test.absent(self.embed(x))  # type: ignore[no-any-return]

    with pytest.raises(mudit.ParametrizationError, match="custom kernel"):
        certify(lambda n: Custom(n, 1), three, WIDTHS)


# --- what is said of parameters -------------------------------------------------------------------


def test_unreached_parameters_and_unknown_initialisers_are_named() -> None:
    class Partial(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.used = nn.Linear(3, width)
            self.unused = nn.Linear(width, 3)
            self.strange = nn.Parameter(torch.empty(width))

        def forward(self, x: Tensor) -> Tensor:
            self.unused(self.used(x))  # runs, but leads nowhere
            return self.used(x) * self.strange

    found = certify(Partial, three, WIDTHS)
    notes = {note.parameter: note.message for note in found.notes}

    assert found.verdict == "PASS"
    assert "not reached" in notes["unused.weight"]
    assert "unused.weight" not in found.roles
    assert "initialiser is unknown" in notes["strange"]
    assert "used.weight" not in notes


def test_numbers_that_depend_on_width_are_listed_with_their_exponent() -> None:
    class Scaled(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed = nn.Linear(3, width)
            self.factor = width**-0.5

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.embed(x) * self.factor)

    found = certify(Scaled, three, WIDTHS)

    assert [row.exponent for row in found.scalars] == [-0.5]
    assert found.scalars[0].values == tuple(n**-0.5 for n in WIDTHS)
    assert found.verdict == "FAIL"
    assert "n^-0.5" in found.findings[0].message


def test_global_random_state_and_training_mode_are_left_alone() -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    certify(builder(CONFIG), example_inputs(CONFIG), WIDTHS)

    assert torch.equal(torch.random.get_rng_state(), state)


def test_certificates_are_values(dit: Certificate) -> None:
    again = certify(builder(CONFIG), example_inputs(CONFIG), WIDTHS)

    assert again == dit
    assert dataclasses.replace(dit, verdict="FAIL") != dit


def test_meta_device_gives_the_same_roles(dit: Certificate) -> None:
    found = certify(builder(CONFIG), example_inputs(CONFIG), WIDTHS, device="meta")

    assert found.verdict == "PASS"
    assert found.roles == dit.roles


# --- plans from inputs ----------------------------------------------------------------------------


def test_zero_readout_finds_the_final_readout_among_several() -> None:
    class Two(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed = nn.Linear(3, width)
            self.down = nn.Linear(width, 4)  # a bottleneck: an output weight inside
            self.up = nn.Linear(4, width)
            self.read = nn.Linear(width, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.embed(x)
            return self.read(h + self.up(torch.relu(self.down(h)))).reshape(-1, 3, 1) * 2.0

    plan = mudit.plan(Two, width=32, base_width=8, inputs=three, zero_readout=True)

    assert plan["down.weight"].role == plan["read.weight"].role == "output"
    assert plan["up.weight"].role == "input"
    assert plan["read.weight"].init_rms == 0.0
    assert plan["down.weight"].init_rms > 0.0


def test_plan_refuses_what_the_certificate_refuses() -> None:
    class Tied(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, width)

        def forward(self, labels: Tensor) -> Tensor:
            return self.embed(labels) @ self.embed.weight.T

    with pytest.raises(mudit.ParametrizationError, match=r"embed\.weight is one tensor"):
        mudit.plan(Tied, width=32, base_width=8, inputs=lambda n: (torch.tensor([1, 2]),))


def test_plan_with_a_flawed_model_warns() -> None:
    class Growing(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.qkv = nn.Linear(3, 3 * width)
            self.read = nn.Linear(width, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x)[None].chunk(3, dim=-1)
            return self.read(nn.functional.scaled_dot_product_attention(q, k, v))

    with pytest.warns(UserWarning, match="1/d, not 1/√d"):
        mudit.plan(Growing, width=32, base_width=8, inputs=three)


def test_pass_that_needs_its_data_is_measured_on_real_tensors() -> None:
    class Looks(Branching):
        def forward(self, x: Tensor) -> Tensor:
            h = self.embed(x)
            return self.read(h[: int((x[:, 0] < 9).sum().item())])

    plan = mudit.plan(lambda n: Looks(n, 1), width=32, base_width=8, inputs=three)

    assert plan["read.weight"].role == "output"


@pytest.mark.parametrize("role", ["input", "hidden"])
def test_unknown_initialiser_of_a_model_too_large_to_be_built(role: str) -> None:
    class Huge(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            # No law is known of an exponential of a normal.
            sizes = (width, width) if role == "hidden" else (width, 3)
            self.odd = nn.Parameter(torch.randn(sizes).exp())
            self.huge = nn.Linear(3 if role == "input" else width, 40_000 * width // 10_000)
            self.back = nn.Linear(width, 40_000)

        def forward(self, x: Tensor) -> Tensor:
            h = nn.functional.linear(x, self.odd)
            return self.back(h) + self.huge(x if role == "input" else h).mean(-1, keepdim=True)

    def inputs(width: int) -> tuple[Tensor]:
        return (torch.randn(2, 3 if role == "input" else width),)

    arguments = {"width": 10_000, "base_width": 2_500, "inputs": inputs}
    if role == "hidden":
        with pytest.raises(mudit.ParametrizationError, match="initialiser of odd is not known"):
            mudit.plan(Huge, **arguments)
    else:
        row = mudit.plan(Huge, **arguments)["odd"]
        assert (row.initializer, row.init_scale) == ("unknown, left as built", 1.0)

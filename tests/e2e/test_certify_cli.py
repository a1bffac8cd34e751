"""`mudit certify` and `mudit plan` on presets, classes of diffusers and a user's own model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mudit.cli import main
from mudit.models.foreign import TABLE, foreign

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.embed = nn.Linear(3, n)
        self.mix = nn.Parameter(torch.randn(n, n) * n**-0.5)
        self.read = nn.Linear(n, 3)
    def forward(self, x):
        return self.read(STEP(self.embed(x) @ self.mix))

def build(n):
    return Net(n)

def inputs(n):
    return (torch.randn(2, 3),)

def wrong(n):
    return (torch.randn(2, 5),)
"""
WIDTHS = ["--widths", "[8, 12, 20]"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with a model of the user's own, importable from the current folder."""
    monkeypatch.chdir(tmp_path)
    name = f"own_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(OWN.replace("STEP", "torch.relu"))
    (tmp_path / f"{name}_sign.py").write_text(OWN.replace("STEP", "torch.sign"))
    return name


def test_certify_own_model_and_write_files(
    own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--json", "c.json", "--markdown", "c.md", "--svg", "c.svg"]
    code = main(["certify", f"{own}:build", "--inputs", f"{own}:inputs", *WIDTHS, *files])
    out = capsys.readouterr().out

    assert code == 0
    assert out.startswith("# PASS: Net")
    assert "| mix |" in out
    fields = json.loads((tmp_path / "c.json").read_text())
    assert {row["name"]: row["role"] for row in fields["weights"]}["mix"] == "hidden"
    assert "relu" in (tmp_path / "c.md").read_text()
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")


def test_certify_refuses_with_the_line(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["certify", f"{own}_sign:build", "--inputs", f"{own}_sign:inputs", *WIDTHS])
    out = capsys.readouterr().out

    assert code == 1
    assert "# REFUSED" in out
    assert "pseudo-Lipschitz" in out
    assert f"{own}_sign.py:12" in out


def test_plan_of_own_model_takes_its_inputs(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--width", "32", "--base_width", "8"]
    code = main(["plan", f"{own}:build", "--inputs", f"{own}:inputs", *arguments])
    assert code == 0
    assert "| mix | 32×32 | hidden | weight |" in capsys.readouterr().out

    code = main(["plan", f"{own}:build", *arguments])  # no inputs: a raw parameter is ambiguous
    assert code == 2
    assert "inputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["NAME:build"], "example inputs"),
        (["NAME:build", "--inputs", "NAME:inputs"], "needs --widths"),
        (["NAME:build", "--inputs", "NAME:wrong", *WIDTHS], "inputs of shapes"),
        (["NAME:build", "--inputs", "NAME:absent", *WIDTHS], "--inputs"),
        (["NAME:build", "--inputs", "NAME:inputs", "--widths", "[8, 8, 8]"], "three different"),
        (["NAME:build", "--inputs", "NAME:inputs", "--small", "true", *WIDTHS], "diffusers:CLASS"),
        (["diffusers:NoSuchTransformer"], "not in the table"),
        (["diffusers:DiTTransformer2DModel", "--widths", "[9, 18, 27]"], "not a whole number"),
        (["DiT-S/3"], "preset"),
        (["DiT-S/2", "--svg", "program.docx", "--device", "meta"], "no picture"),
    ],
)
def test_mistakes_are_one_paragraph(
    own: str, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["certify", *(text.replace("NAME", own) for text in arguments)])
    err = capsys.readouterr().err

    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_certify_and_plan_a_class_of_diffusers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", "diffusers:SD3Transformer2DModel"]) == 0
    assert "# PASS: SD3Transformer2DModel" in capsys.readouterr().out
    assert main(["plan", "diffusers:SD3Transformer2DModel", "--model_args", "{num_layers: 2}"]) == 0
    assert "| proj_out.weight | 64×1152 | output | weight | 3 |" in capsys.readouterr().out


def test_plan_of_a_class_that_needs_real_data_is_taken_from_its_small_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lumina2 reads lengths back, so its 26 full-size blocks are not run."""
    assert main(["plan", "diffusers:Lumina2Transformer2DModel"]) == 0
    rows = {line.split(" | ")[0][2:]: line for line in capsys.readouterr().out.splitlines()}

    assert "| hidden | weight |" in rows["layers.25.attn.to_q.weight"]
    assert "beside it" in rows["layers.25.attn.to_q.weight"]
    # At the small width the time embedding is as wide as the model; here it is capped at 1024, and
    # base width 576 has 576.
    assert "| 2304×1024 |" in rows["layers.0.norm1.linear.weight"].replace("9216", "2304")


def test_every_transformer_that_diffusers_exports_is_in_the_table() -> None:
    import diffusers

    exported = [n for n in dir(diffusers) if "Transformer" in n and n.endswith("Model")]

    assert len(exported) >= 60
    assert sorted(set(exported) - set(TABLE)) == []


@pytest.mark.parametrize(
    "name", ["FluxTransformer2DModel", "UVit2DModel", "OmniGenTransformer2DModel"]
)
def test_configurations_scale_in_proportion(name: str) -> None:
    model = foreign(name)
    small, large = model.config(model.widths[0]), model.config(3 * model.widths[0])
    scaled = {k for k in vars(small) if vars(small)[k] != vars(large)[k]}

    assert scaled == set(model.entry.scales)

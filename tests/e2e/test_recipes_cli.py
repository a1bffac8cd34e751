"""`--recipe NAME` and `mudit recipes`, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from mudit.cli import main
from mudit.recipes import RECIPES, recipe_named

TINY = [
    "--workers=1", "--threads=1", "--model.depth=1", "--model.head_dim=8", "--proxy.width=8",
    "--target.width=16", "--proxy.steps=2", "--target.steps=2", "--proxy.batch_size=8",
    "--target.batch_size=8", "--parametrization.base_width=8", "--training.bank_size=8",
    "--sampling.per_class=1", "--sampling.steps=2", "--search.space.lr=log2(-8, -8)",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fashion(tmp_path: Path) -> str:
    """A folder of IDX files, of noise."""
    rng, folder = np.random.default_rng(0), tmp_path / "fashion"
    folder.mkdir()
    for part, count in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        shape = np.array(images.shape, ">u4").tobytes()
        header = bytes([0, 0, 8, 3]) + shape
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = bytes([0, 0, 8, 1]) + np.array([count], ">u4").tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return f"--data.source=idx:{folder}"


def run(capsys, *argv: str) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as stopped:  # --print_config
        code = int(stopped.code or 0)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_the_table_and_one_in_full(capsys) -> None:
    code, out, _ = run(capsys, "recipes")
    assert code == 0
    assert all(f"\n{name} " in out for name in RECIPES)
    code, out, _ = run(capsys, "recipes", "fashion_dit")
    assert code == 0
    assert "mudit transfer --recipe fashion_dit" in out
    assert "The search costs" in out
    assert "Fashion-MNIST: MIT" in out
    code, _, err = run(capsys, "recipes", "fashion")
    assert (code, "Did you mean" in err) == (2, True)


def test_cost_is_the_studys_and_follows_overrides(capsys) -> None:
    code, out, _ = run(capsys, "cost", "--recipe", "emoji_mmdit")
    assert code == 0, "the data are not there, and need not be"
    own = recipe_named("emoji_mmdit").cost()
    assert f"{own.trials} trials on the proxy" in out
    assert f"{100 * own.cost_ratio:.1f} % of one target training by Eq. (1)" in out
    _, other, _ = run(capsys, "cost", "--recipe=emoji_mmdit", "--search.trials=1")
    # Halving: 16 · 125 + 8 · 125 + 4 · 250 + 2 · 500 steps of 16 trials; one trial takes its 1,000.
    assert f"{100 * own.cost_ratio / 5:.1f} % of one target training" in other
    # The published cost is the published study's.
    small = ["--model.depth=1", "--repa.encoder=none", "--search.space={lr: 'grid(1)'}"]
    code, out, err = run(
        capsys, "cost", "--recipe=mmdit_18b", *small, "--search.method=grid", "--hps.loss_weight={}"
    )
    assert code == 0, err
    assert "As published" not in out
    assert "1 trials on the proxy and 5 finals of 100000 steps" in out


@pytest.mark.parametrize("name", RECIPES)
def test_dry_run_without_data(capsys, name) -> None:
    """Every recipe, with a model of two blocks so that the plan takes a second."""
    code, out, err = run(
        capsys, "transfer", "--dry-run", "--recipe", name, "--model.depth=2", "--repa.encoder=none",
        "--search.space={lr: 'grid(0.001)'}", "--search.method=grid", "--hps.loss_weight={}",
    )  # fmt: skip
    assert code == 0, err
    study = recipe_named(name).study
    config = json.loads(out.partition("config:\n")[2].partition("\ntarget's")[0])
    assert config["target"]["width"] == study.target.width
    assert (config["model"]["depth"], config["hps"]["clip"]) == (2, study.hps.clip)
    assert "The search costs" in out
    assert not list(Path().iterdir())


def test_printed_config_is_the_recipe_and_yaml_lies_on_top(capsys) -> None:
    code, out, _ = run(capsys, "transfer", "--recipe=pixart_sam256", "--print_config")
    assert code == 0
    printed = yaml.safe_load(out)
    assert printed["hps"]["clip"] == 0.01
    assert printed["target"]["batch_size"] == 5632
    Path("mine.yaml").write_text("hps:\n  clip: 1.0\nfolder: runs/mine\n")
    options = ["--recipe=pixart_sam256", "--config=mine.yaml", "--hps.eps=1e-9", "--print_config"]
    _, out, _ = run(capsys, "transfer", *options)
    printed = yaml.safe_load(out)
    assert (printed["hps"]["clip"], printed["hps"]["eps"]) == (1.0, 1e-9)
    assert (printed["folder"], printed["hps"]["weight_decay"]) == ("runs/mine", 0.03)


@pytest.mark.parametrize("verb", ["transfer", "train", "verify"])
def test_a_run_without_data_says_how_to_prepare_them(capsys, verb) -> None:
    code, _, err = run(capsys, verb, "--recipe", "dit_imagenet256")
    assert code == 3
    assert "data/imagenet256" in err
    assert "mudit data latents" in err
    assert not list(Path().iterdir())


def test_verify_chooses_the_grid_by_axis_and_hp(capsys) -> None:
    small = ["--dry-run", "--recipe=dit_imagenet256", "--model.depth=1", "--model.head_dim=16"]
    small.append("--parametrization.base_width=32")
    code, out, err = run(
        capsys, "verify", *small, "--across=steps", "--hp", "phi.output", "--task.width=32"
    )
    assert code == 0, err
    assert '"hp": "phi.output"' in out
    assert "21 runs (21 under mup)" in out  # three lengths, seven values
    code, _, err = run(capsys, "verify", *small, "--across=batch", "--hp=clip")
    assert (code, "--across batch --hp lr" in err) == (2, True)
    # A file cannot choose, since the grid is what it lies on.
    Path("mine.yaml").write_text("across: batch\n")
    code, _, err = run(capsys, "verify", *small, "--across=width", "--hp=lr", "--config=mine.yaml")
    assert (code, "across batch and hp lr" in err) == (2, True), err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["cost", "--recipe", "mmdit18b"], "Did you mean mmdit_18b"),
        (["cost", "--recipe"], "there is no recipe ''"),
        (["cost", "--recipe=fashion_dit", "--recipe=emoji_mmdit"], "--recipe is given twice"),
        (["train", "--baseline"], "--baseline is a recipe's"),
        (["train", "--recipe=fashion_dit", "--baseline"], "no baseline tuned by hand"),
        (["cost", "--recipe=fashion_dit", "--proxy.witdh=8"], "Did you mean --proxy.width"),
        (["cost", "--recipe=fashion_dit", "--model.mlp=swiglu"], "only mmdit has"),
    ],
)
def test_mistakes_are_named(capsys, argv, message) -> None:
    code, _, err = run(capsys, *argv)
    assert (code, message in err) == (2, True), err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_recipe_runs_and_resumes(capsys, fashion) -> None:
    argv = ["transfer", "--recipe", "fashion_dit", fashion, *TINY, "--control=none"]
    code, out, _ = run(capsys, *argv)
    assert code == 0
    assert out.splitlines()[-1] == "runs/fashion_dit/report.html"
    assert "mudit transfer --recipe fashion_dit" in Path("runs/fashion_dit/report.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*.safetensors")}
    assert run(capsys, *argv)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    code, out, _ = run(capsys, "train", "--recipe", "fashion_dit", fashion, *TINY)
    assert (code, "runs/fashion_dit-target: validation loss" in out) == (0, True)
    target = json.loads(Path("runs/fashion_dit-target/config.json").read_text())
    assert target["hps"]["lr"] == recipe_named("fashion_dit").study.hps.lr

"""The command line as a user meets it: output, exit codes, one clear paragraph for each mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mudit
from exports import drawn_model, run_config
from mudit.cli import VERBS, main
from mudit.cli.parsing import without_secrets
from mudit.training import save_weights

SMALL = [
    "--workers=1", "--threads=1", "--model.depth=1", "--model.head_dim=8",
    "--parametrization.base_width=16", "--proxy.width=16", "--proxy.batch_size=16",
    "--proxy.steps=6", "--target.width=32", "--target.batch_size=16", "--target.steps=6",
    "--training.bank_size=16", "--sampling.per_class=1", "--sampling.steps=2",
    "--search.space.lr=log2(-8, -7)",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_help_lists_every_verb(capsys) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)
    assert run(capsys, "--version")[1] == f"mudit {mudit.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(capsys, verb) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"mudit {verb}" in capsys.readouterr().out


@pytest.mark.slow
def test_transfer_sample_report_and_resume(capsys, tmp_path) -> None:
    code, out, err = run(capsys, "transfer", "--folder=runs/x", *SMALL)
    assert code == 0
    assert out.splitlines()[-1] == "runs/x/report.html"
    assert re.search(r"mup_lr=2\^-8_\w+  validation loss 0\.\d+", err)
    page = Path("runs/x/report.html").read_text()
    assert "--folder=runs/x" in page
    code, _, err = run(capsys, "transfer", "--folder=runs/x", *SMALL)
    assert code == 0
    assert "validation loss" not in err.split("training the target")[0], "trials ran again"
    code, out, _ = run(capsys, "sample", "runs/x/target_mup", "--per_class=3", "--steps=2")
    assert (code, "30 images" in out) == (0, True)
    with Image.open("samples.png") as image:
        assert image.size[0] > 3 * 64
        assert image.size[1] > 10 * 64
    code, out, _ = run(capsys, "report", "runs/x")
    assert code == 0
    # Another config in the same folder: refused, and the difference shown.
    code, _, err = run(capsys, "transfer", "--folder=runs/x", *SMALL, "--seed=7")
    assert code == 2
    assert "seed: 0 there, 7 here" in err


@pytest.mark.slow
def test_train_reads_yaml_and_overrides(capsys) -> None:
    Path("study.yaml").write_text("model:\n  depth: 1\n  head_dim: 8\nhps:\n  lr: 0.5\n")
    options = [option for option in SMALL if not option.startswith("--model")]
    code, out, _ = run(
        capsys, "train", "--config=study.yaml", "--folder=r", *options, "--hps.lr=0.004"
    )
    assert code == 0
    assert "after 6 steps" in out
    config = json.loads(Path("r/config.json").read_text())
    assert config["hps"]["lr"] == 0.004
    assert config["model"]["depth"] == 1
    code, out, _ = run(
        capsys, "train", "--config=study.yaml", "--folder=r2", *options, "--hps.lr=1e18"
    )
    assert code == 1
    assert "diverged" in out


@pytest.mark.slow
def test_verify_says_what_it_found_and_advise_reads_it(capsys) -> None:
    small = [option for option in SMALL if re.match("--(w|m|par|tr)", option)]
    options = [
        "--folder=runs/v", *small, "--sizes=[8, 16, 24]", "--values=log2(-10, -7)", "--seeds=2",
        "--task.width=8", "--task.batch_size=8", "--task.steps=3", "--control=none",
    ]  # fmt: skip
    code, out, err = run(capsys, "verify", "--dry-run", *options)
    assert code == 0, err
    assert "24" in out
    assert not Path("runs").exists()
    code, out, _ = run(capsys, "verify", *options)
    assert code == 4, "six steps cannot place an optimum"
    assert "INCONCLUSIVE" in out
    assert Path("runs/v/report.html").exists()
    code, again, _ = run(capsys, "report", "runs/v")
    assert code == 4
    assert again == out
    code, out, _ = run(capsys, "advise", "runs/v")
    assert code in (0, 4)
    assert "16" in out
    assert out.splitlines()[-1] == "runs/v/advice.md"


def test_dry_run_prints_config_plan_and_cost_and_writes_nothing(capsys, tmp_path) -> None:
    code, out, _ = run(capsys, "transfer", "--dry-run", *SMALL)
    assert code == 0
    assert '"head_dim": 8' in out
    assert "| blocks.0.attn.qkv.weight |" in out
    assert "% of one target training by Eq. (1)" in out
    assert list(tmp_path.iterdir()) == []
    assert "Eq. (1)" in run(capsys, "cost", *SMALL)[1]


def test_plan_of_a_preset_and_of_a_users_own_model(capsys) -> None:
    code, out, _ = run(
        capsys, "plan", "--model=DiT-S/2", "--width=384", "--base_width=192", "--json=p.json",
        "--bsh=p.bsh",
    )  # fmt: skip
    assert code == 0
    assert "| final_layer.linear.weight | 32×384 | output | weight | 2 |" in out
    assert mudit.load_plan("p.json").width == 384
    assert mudit.read_base_shapes("p.bsh")["final_layer.linear.weight"] == (None, 192)
    Path("mine.py").write_text("from torch import nn\nbuild = lambda n: nn.Linear(n, 3)\n")
    code, out, _ = run(capsys, "plan", "--model=mine:build", "--width=8", "--base_width=4")
    assert code == 0
    assert "| weight | 3×8 | output |" in out


def test_sample_says_what_it_writes_and_what_it_cannot(capsys) -> None:
    for name in ("dit", "mmdit"):
        config = run_config(name)
        Path(name).mkdir()
        Path(f"{name}/config.json").write_text(config.to_json())
        save_weights(drawn_model(config), Path(f"{name}/ema.safetensors"))
    quick = ["--steps=2", "--per_class=1"]
    code, out, err = run(capsys, "sample", "dit", "--out=all", *quick)
    assert (code, out, err) == (0, "3 images from the model of width 32: all\n", "")
    Path("prompts.txt").write_text(f"a cat\n\n{'x' * 60}\n")
    code, out, err = run(capsys, "sample", "mmdit", "--prompts=prompts.txt", *quick)
    assert (code, out) == (0, "2 images from the model of width 32: samples.png\n")
    assert err.startswith("  the caption 'xxx"), "a line, not Python's form of a warning"
    assert "cut off after 40" in err
    Path("bad.jsonl").write_text("{\n")
    for argv, expected, words in (
        (["dit", "--prompts=prompts.txt"], 2, "told a class"),
        (["mmdit", "--prompts=bad.jsonl"], 3, "bad.jsonl, line 1"),
        (["dit", "--out=all", "--seed=1"], 2, "seed: 0 there, 1 here"),
        (["dit", "--out=prompts.txt/below"], 3, "could not write prompts.txt/below"),
        (["dit", "mmdit"], 2, "cannot stand beside each other"),
    ):
        code, out, err = run(capsys, "sample", *argv, *quick)
        assert (code, out) == (expected, "")
        assert words in err


MISTAKES = {
    "unknown verb": (["trian"], 2, ["trian", "transfer"]),
    "mistyped key": (["transfer", "--proxy.widht=3"], 2, ["proxy.widht", "--proxy.width"]),
    "wrong type": (["transfer", "--proxy.width=abc"], 2, ["proxy.width", "int", "abc"]),
    "width": (["transfer", "--proxy.width=50"], 2, ["50", "head_dim 16", "48 and 64"]),
    "empty grid": (["transfer", "--search.space={}"], 2, ["search.space", "nothing to tune"]),
    "empty range": (["transfer", "--search.space.lr=log2(2, 1)"], 2, ["log2(2, 1)"]),
    "no folder": (["transfer", "--data.source=idx:nowhere"], 3, ["nowhere"]),
    "nothing to prepare": (["data"], 2, ["mudit data", "emoji"]),
    "nothing known to prepare": (["data", "emojis"], 2, ["'emojis'", "emoji"]),
    "no font": (["data", "emoji", "--font=no.ttf"], 3, ["no.ttf", "--font"]),
    "no captions": (
        ["train", "--data.source=captions:no"],
        3,
        ["no folder or tar file no", "captions"],
    ),
    "no shards": (["train", "--data.source=shards:no.tar", "--data.size=8"], 3, ["no.tar"]),
    "no images": (["transfer", "--data.source=folder:.", "--data.size=32"], 3, ["folder"]),
    "batch": (["transfer", "--proxy.batch_size=99999"], 2, ["99999", "1438"]),
    "no study": (["report", "nowhere"], 3, ["nowhere", "config.json"]),
    "no run": (["sample", "nowhere"], 3, ["nowhere", "ema.safetensors"]),
    "preset": (["plan", "--model=DiT-Z/2"], 2, ["DiT-Z/2", "DiT-XL/2"]),
    "module": (["plan", "--model=nomodule:f"], 2, ["nomodule"]),
    "optimizer": (["plan", "--model=DiT-S/2", "--optimizer=lion"], 2, ["lion", "adamw"]),
    "config file": (["transfer", "--config=none.yaml"], 2, ["none.yaml"]),
    "sp": (["transfer", "--parametrization.parametrization=sp"], 2, ["--control sp"]),
    "steps to sample": (["transfer", "--sampling.steps=1"], 2, ["sampling.steps", "at least 2"]),
    "too many": (["transfer", "--sampling.steps=2000"], 2, ["sampling.steps", "1000"]),
    "device": (["transfer", "--training.device=gpu"], 2, ["training.device", "cuda"]),
    "no images asked": (["sample", "x", "--per_class=0"], 2, ["per_class"]),
    "no format": (["sample", "x", "--out=a.xyz"], 2, ["a.xyz", ".png"]),
    "no prompts": (["sample", "x", "--prompts=a cat"], 3, ["a cat", "does not exist", "a list"]),
    "both numbers": (["sample", "x", "--num_samples=3", "--per_class=2"], 2, ["Give one"]),
    "no batch": (["sample", "x", "--batch_size=0"], 2, ["batch_size"]),
    "one npz": (["sample", "x", "y", "--out=a.npz"], 2, ["a.npz", "one run"]),
    "empty run": (["sample"], 2, ["run"]),
    "negative seed": (["sample", "x", "--seed=-3"], 2, ["-3"]),
    "dotted": (["transfer", "--search.space.phi.output=grid(1)"], 2, ["mapping"]),
    "patch": (["transfer", "--model.patch_size=3"], 2, ["patch", "3", "8"]),
    "no storage": (["transfer", "--storage=db.example.org"], 2, ["--storage", "postgresql://"]),
    "storage away": (
        ["transfer", "--storage=postgresql://me:secret@127.0.0.1:9/d"],
        3,
        ["me:***@127.0.0.1:9/d", "does not answer"],
    ),
    "storage's folder": (["transfer", "--storage=sqlite:///no/such/a.db"], 3, ["no/such"]),
    "launcher": (["transfer", "--launcher=slurm"], 2, ["launcher", "ray"]),
    "GPUs": (["transfer", "--ray.gpus_per_trial=1.5"], 2, ["ray.gpus_per_trial", "1.5"]),
    "Ray's address": (
        ["transfer", "--launcher=ray", "--ray.address=head:port"],
        2,
        ["ray.address", "6379"],
    ),
    "one size": (["verify", "--sizes=[32]"], 2, ["sizes", "at least two"]),
    "unknown HP": (["verify", "--hp=learning_rate"], 2, ["learning_rate", "weight_decay"]),
    "one value": (["verify", "--values=grid(0.01)"], 2, ["values", "no optimum"]),
    "axis": (["verify", "--across=depth"], 2, ["across", "depth", "width"]),
    "width of a grid": (["verify", "--sizes=[32, 50, 64]"], 2, ["50", "48 and 64"]),
    "no grid": (["advise", "nowhere"], 3, ["nowhere", "config.json"]),
    "pruning": (["transfer", "--search.pruning.method=hyperband"], 2, ["pruning", "halving"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_clear_paragraph(capsys, tmp_path, mistake) -> None:
    argv, expected, words = MISTAKES[mistake]
    code, out, err = run(capsys, *argv)
    assert code == expected
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err, err
    assert not (tmp_path / "runs").exists(), "nothing is begun before the mistake is seen"


def test_a_shown_command_has_no_password() -> None:
    for argv in (
        ["--storage=postgresql://me:secret@h/d?password=secret"],
        ["--storage", "postgresql://me:secret@h/d"],
    ):
        shown = " ".join(without_secrets(["--seed", "1", *argv, "--workers=3"]))
        assert "secret" not in shown
        assert shown.startswith("--seed 1 --storage")
        assert shown.endswith("://me:***@h/d --workers=3")


def test_damaged_data_are_named(capsys) -> None:
    Path("set").mkdir()
    for part, count in (("train", 32), ("t10k", 16)):
        images = np.zeros((count, 8, 8), np.uint8)
        header = np.array([0x803, count, 8, 8], ">i4").tobytes()
        Path(f"set/{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(count) % 2).astype(np.uint8)
        header = np.array([0x801, count], ">i4").tobytes()
        Path(f"set/{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    assert run(capsys, "cost", "--data.source=idx:set", *SMALL)[0] == 0
    whole = Path("set/train-images-idx3-ubyte").read_bytes()
    Path("set/train-images-idx3-ubyte").write_bytes(whole[:-5])
    code, _, err = run(capsys, "transfer", "--data.source=idx:set")
    assert code == 3
    assert "set/train-images-idx3-ubyte" in err
    Path("photos/cat").mkdir(parents=True)
    Path("photos/dog").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save("photos/cat/a.png")
    Path("photos/dog/b.png").write_bytes(Path("photos/cat/a.png").read_bytes()[:60])
    Image.new("RGB", (40, 40)).save("photos/dog/c.png")
    code, _, err = run(
        capsys, "transfer", "--data.source=folder:photos", "--data.size=8", *SMALL,
        "--proxy.batch_size=2", "--target.batch_size=2",
    )  # fmt: skip
    assert code == 3
    assert "photos/dog/b.png" in err

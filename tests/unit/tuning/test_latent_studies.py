"""From `mudit data latents` to a report with decoded samples, on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from latents import write_classes, write_vae
from mudit.cli import main
from mudit.evaluation import SampleConfig
from mudit.evaluation.drawing import open_sources

pytest.importorskip("diffusers")

SIZES = [
    "--data.source=latents:latents", "--model.depth=1", "--model.head_dim=8",
    "--model.patch_size=4",
    "--parametrization.base_width=16", "--proxy={width: 16, batch_size: 4, steps: 3}",
    "--target={width: 32, batch_size: 4, steps: 3}", "--search.space={lr: 'log2(-8, -7)'}",
    "--training.bank_size=8", "--sampling.per_class=2", "--sampling.steps=2", "--workers=1",
    "--threads=1",
]  # fmt: skip


@pytest.mark.slow
def test_a_study_on_latents_shows_decoded_samples(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_classes(Path("images"))
    write_vae(Path("vae"))
    made = ["data", "latents", f"--source={source}", "--size=16", "--vae=vae", "--out=latents"]
    assert main(made) == 0
    assert "24 images in latents, 1 files written now" in capsys.readouterr().out
    assert main(made) == 0
    assert "0 files written now" in capsys.readouterr().out
    assert main(["transfer", "--folder=study", "--data.vae=vae", *SIZES]) == 0
    with np.load("study/samples/target_mup.npz") as arrays:
        assert arrays["arr_0"].shape == (4, 16, 16, 3)
        assert arrays["arr_0"].dtype == np.uint8
    assert "The data are latents of vae (hash" in Path("study/report.html").read_text()
    config = json.loads(Path("study/target_mup/config.json").read_text())
    assert config["data"]["latents"]["vae"] == "vae"
    assert (config["model"]["in_channels"], config["model"]["input_size"]) == (4, 8)
    (drawn,) = open_sources([Path("study/target_mup")], SampleConfig())
    assert drawn.image_size == 16, "a sheet has room for pictures, not for latents"
    capsys.readouterr()
    # Elsewhere, with the VAE alone.
    shutil.rmtree("latents")
    shutil.move("vae", "moved")
    sample = ["sample", "study/target_mup", "--per_class=1", "--steps=2", "--out=a.png"]
    assert main([*sample, "--vae=moved"]) == 0
    write_vae(Path("other"), seed=1)
    assert main([*sample, "--vae=other"]) == 2
    assert "the VAE other has the hash" in capsys.readouterr().err


def test_a_vae_that_is_not_there_is_refused_before_the_search(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_classes(Path("images"))
    write_vae(Path("vae"))
    main(["data", "latents", f"--source={source}", "--size=16", "--vae=vae", "--out=latents"])
    shutil.rmtree("vae")
    Path("vae").mkdir()
    assert main(["transfer", "--folder=study", *SIZES]) == 3
    assert "the folder vae holds no AutoencoderKL" in capsys.readouterr().err
    assert not list(Path("study").glob("mup_*"))

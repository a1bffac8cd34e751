"""What `mudit export` refuses, what it leaves alone, and what it says on the model card."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from exports import CAPTIONS, drawn_model, run_config
from mudit.cli import main
from mudit.data import encode_captions
from mudit.errors import DataError, EnvironmentFailure, UsageError
from mudit.export import export_run
from mudit.models.layouts import import_checkpoint

MakeRun = Callable[..., Path]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Refusals -----------------------------------------------------------------------------------------

REFUSED = {
    "U-ViT": (run_config("uvit"), "diffusers has no counterpart of U-ViT"),
    "a flow of DiT": (run_config("dit", kind="flow"), "objective.kind is flow; diffusers' DiT"),
    "a flow of PixArt": (run_config("pixart", kind="flow"), "PixArtAlphaPipeline tells a network"),
    "too many classes": (run_config("dit", num_classes=1001), "has 1001 classes"),
    "steps from 1": (run_config("dit", objective={"first_step": 1}), "counts steps from there"),
    "a side that is no multiple of 8": (run_config("pixart", size=12), "have 12 pixels a side"),
    "latents without their VAE": (run_config("dit", source="latents:x"), "with --vae"),
}


@pytest.mark.parametrize(("config", "words"), REFUSED.values(), ids=REFUSED)
def test_what_would_sample_otherwise_is_refused(config, words: str, make_run, tmp_path) -> None:
    run = make_run(config)
    with pytest.raises(UsageError, match=re.escape(words)):
        export_run(run, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}  # nothing half done


def test_pixels_need_no_vae(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pixels, which no VAE has to decode. Leave out --vae"):
        export_run(make_run(run_config("dit")), tmp_path / "out", vae="some/vae")


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")
def test_a_vae_that_is_nowhere_is_said_so(make_run: MakeRun, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # spares the retries
    run = make_run(run_config("dit", source="latents:x"))
    with pytest.raises(EnvironmentFailure, match="is no folder here, and could not be had"):
        export_run(run, tmp_path / "out", vae="nobody/vae")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no AutoencoderKL"):
        export_run(run, tmp_path / "out", vae=str(tmp_path / "empty"))


def test_runs_that_did_not_end_well_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    config = run_config("dit")
    for status, words in (("diverged", "not complete: diverged at step 2"), ("pruned", "pruned")):
        with pytest.raises(DataError, match=words):
            export_run(make_run(config, status=status, name=status), tmp_path / "out")
    run = make_run(config)
    (run / "trial.json").unlink()
    with pytest.raises(DataError, match=r"no trial.json"):
        export_run(run, tmp_path / "out")
    (run / "ema.safetensors").unlink()
    with pytest.raises(DataError, match=r"holds no finished run"):
        export_run(run, tmp_path / "out")


@pytest.mark.parametrize("name", ["diffusers", "huggingface_hub"])
def test_a_missing_extra_is_named(name: str, make_run, tmp_path: Path, monkeypatch) -> None:
    run = make_run(run_config("dit"))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'mudit\[diffusers\]'"):
        export_run(run, tmp_path / "out")


# Folders ------------------------------------------------------------------------------------------


def test_an_export_replaces_an_export(make_run: MakeRun, tmp_path: Path) -> None:
    run, out = make_run(run_config("dit")), tmp_path / "out"
    export_run(run, out, to="authors")
    export_run(run, out)
    first = files(out)
    assert "model.pth" not in first
    export_run(run, out)
    assert files(out) == first
    assert sorted(json.loads(first["export.json"])["files"]) == sorted(first)


def test_other_peoples_folders_are_left_alone(make_run: MakeRun, tmp_path: Path) -> None:
    run, out = make_run(run_config("dit")), tmp_path / "out"
    out.mkdir()
    export_run(run, out)  # an empty folder is nobody's
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"no export wrote notes.txt in it"):
        export_run(run, out)
    (out / "export.json").unlink()
    before = files(out)
    with pytest.raises(UsageError, match="is not an export"):
        export_run(run, out)
    assert files(out) == before
    with pytest.raises(UsageError, match="is a file"):
        export_run(run, out / "notes.txt")
    for nameless in (Path("."), Path("..")):
        with pytest.raises(UsageError, match="by its name"):
            export_run(run, nameless)
    with pytest.raises(EnvironmentFailure, match="could not write"):
        export_run(run, out / "notes.txt/below")


def test_a_failed_export_leaves_the_old_one(make_run: MakeRun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_run(make_run(run_config("dit")), out)
    before = files(out)
    with pytest.raises(UsageError):
        export_run(make_run(run_config("pixart", size=12), name="other"), out)
    assert files(out) == before
    assert not (tmp_path / ".out.tmp").exists()


@pytest.mark.parametrize("architecture", ["dit", "uvit", "pixart", "mmdit"])
def test_checkpoints_of_the_authors_come_back(architecture: str, make_run, tmp_path) -> None:
    config = run_config(architecture)
    export_run(make_run(config), tmp_path / "out", to="authors")
    (file,) = (tmp_path / "out").glob("model.*")
    back, expected = import_checkpoint(file, config.model), drawn_model(config)
    assert all(
        torch.equal(a, b) for a, b in zip(back.parameters(), expected.parameters(), strict=True)
    )
    assert f"`{file.name}` is a state dict" in (tmp_path / "out/README.md").read_text()


def test_features_of_the_captions_go_along(make_run: MakeRun, tmp_path: Path) -> None:
    export_run(make_run(run_config("mmdit")), tmp_path / "out")
    assert json.loads((tmp_path / "out/prompts.json").read_text()) == list(CAPTIONS)
    shapes = {k: tuple(v.shape) for k, v in load_file(tmp_path / "out/prompts.safetensors").items()}
    assert shapes == {
        "prompt_embeds": (3, 40, 24),
        "negative_prompt_embeds": (1, 40, 24),
        "pooled_prompt_embeds": (3, 24),
        "negative_pooled_prompt_embeds": (1, 24),
    }


def test_runs_on_captions_need_prompts(make_run: MakeRun, tmp_path: Path) -> None:
    config = dataclasses.replace(run_config("pixart"), captions=())
    run, out = make_run(config), tmp_path / "out"
    with pytest.raises(UsageError, match="was trained on captions: give prompts"):
        export_run(run, out)
    export_run(run, out, to="authors")  # weights alone
    with pytest.raises(UsageError, match=r"prompt 2, '\\ud800', is not Unicode"):
        export_run(run, out, prompts=["a red cat", "\ud800"])
    export_run(run, out, prompts=["a red cat", "nothing"])
    assert json.loads((out / "prompts.json").read_text()) == ["a red cat", "nothing"]
    texts = load_file(out / "prompts.safetensors")
    expected = encode_captions(["a red cat", "nothing"], length=40, dim=24, pooled_dim=24)
    assert torch.equal(texts["prompt_embeds"], expected.tokens)
    assert torch.equal(texts["prompt_attention_mask"].bool(), expected.mask)
    assert "from noise and a text" in (out / "README.md").read_text()


# Model cards --------------------------------------------------------------------------------------


def test_the_card_says_what_is_known(make_run: MakeRun, tmp_path: Path) -> None:
    run, out = make_run(run_config("dit")), tmp_path / "out"
    export_run(run, out, name="Pets", license="mit", data_license="CC0", command="mudit export run")
    text = (out / "README.md").read_text()
    _, metadata, body = text.split("---\n", 2)
    fields = yaml.safe_load(metadata)
    assert (fields["license"], fields["library_name"]) == ("mit", "diffusers")
    assert fields["tags"] == ["mudit", "mup", "dit", "diffusion"]
    for words in (
        "# Pets",
        "12,345 parameters",
        "base width 16",
        "The weights are vanilla",
        "| lr | 0.0078125 |",
        "| phi.output | 2 |",
        "| validation denoising | averaged | 0.125 |",
        "| validation denoising | raw | 0.25 |",  # the last one
        "`folder:pets` at 8 pixels. Licence of the data: CC0.",
        "## Intended use, risks and limitations",
        "mudit export run",
        "arXiv:2505.15270",
    ):
        assert words in body, words
    # At twice the base width: Adam's lr of hidden weights halves.
    (hidden,) = re.findall(r"^\| hidden \| weight \|.*$", body, flags=re.MULTILINE)
    assert hidden.split(" | ")[3] == "0.5"


def test_an_unknown_licence_is_said_to_be_unknown(make_run: MakeRun, tmp_path: Path) -> None:
    export_run(make_run(run_config("dit")), tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert "Licence of the data: **unknown**" in text
    assert "license" not in text.split("---\n")[1]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("dit", "ddpm"), ("pixart", "ddpm"), ("mmdit", "ddpm"), ("mmdit", "flow")],
)
def test_the_code_on_the_card_runs(
    architecture: str, kind: str, make_run, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export_run(make_run(run_config(architecture, kind=kind)), Path("out"))
    (code,) = re.findall(r"```python\n(.*?)```", Path("out/README.md").read_text(), re.DOTALL)
    assert max(map(len, code.splitlines())) <= 100
    exec(compile(code, "README.md", "exec"), {})
    assert Path("sample.png").exists()


# The command --------------------------------------------------------------------------------------


def test_the_command_exports(make_run: MakeRun, tmp_path: Path, capsys) -> None:
    run, out = make_run(run_config("dit")), tmp_path / "out"
    assert main(["export", str(run), "--out", str(out), "--data-license", "CC0"]) == 0
    assert capsys.readouterr().out == f"{run} for diffusers: {out}\n"
    assert f"mudit export {run} --out {out} --data-license CC0" in (out / "README.md").read_text()
    assert main(["export", str(run), "--out", str(out), "--to", "nobody"]) == 2
    assert main(["export", str(run)]) == 2
    assert main(["export", str(tmp_path), "--out", str(out)]) == 3
    assert "holds no finished run" in capsys.readouterr().err

"""Exported folders, loaded by the pipelines of diffusers, against our own samplers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file
from torch import Tensor, nn

from exports import drawn_model, run_config
from mudit.data import LatentSpace, open_autoencoder
from mudit.diffusion import SampleNoise, guided, make_objective, sample
from mudit.errors import UsageError
from mudit.evaluation import generate
from mudit.export import export_run, sigmas_of
from mudit.training import RunConfig, load_trained
from mudit.tuning import TaskConfig, train_target

# Of DPMSolverMultistepScheduler with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

LABELS = [0, 2, 1, 2]
STEPS = 7
SCALE = 3.0
ENCODERS = [f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")]


@pytest.fixture(autouse=True)
def _quiet():
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    yield
    diffusers_logging.enable_progress_bar()


def load(folder: Path, **changes: Any) -> Any:
    name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    options = {"trust_remote_code": True} | changes
    if name == "StableDiffusion3Pipeline":
        options |= dict.fromkeys(ENCODERS)
    pipeline = getattr(diffusers, name).from_pretrained(folder, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def initial(config: RunConfig, noise: SampleNoise) -> Tensor:
    return noise.initial((config.model.in_channels, *[config.model.input_size] * 2))


def ours(run: Path, noise: SampleNoise, *, scale: float) -> Tensor:
    trained = load_trained(run, device="cpu")
    objective = make_objective(trained.config.objective)
    return generate(
        trained.model,
        trained.conditioning,
        objective,
        torch.tensor(LABELS),
        noise=noise,
        steps=STEPS,
        method="euler" if objective.prediction == "velocity" else "dpm++",
        cfg_scale=scale,
    )


def theirs(
    pipeline: Any,
    folder: Path,
    config: RunConfig,
    noise: SampleNoise,
    *,
    scale: float,
    monkeypatch: pytest.MonkeyPatch,
    **changes: Any,
) -> Tensor:
    """Samples before the VAE; what DiTPipeline hands to it."""
    x_T, seen = initial(config, noise), []
    common = {"guidance_scale": scale, "num_inference_steps": STEPS}
    decode = pipeline.vae.decode
    monkeypatch.setattr(
        pipeline.vae, "decode", lambda z, *a, **k: seen.append(z) or decode(z, *a, **k)
    )
    if type(pipeline).__name__ == "DiTPipeline":  # draws its noise itself
        monkeypatch.setattr(
            "diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda *_, **__: x_T
        )
        pipeline(class_labels=LABELS, output_type="pt", **(common | changes))
        return seen[0] * pipeline.vae.config.scaling_factor
    prompts = load_file(folder / "prompts.safetensors")
    told = {
        name: rows.expand(len(LABELS), *rows.shape[1:]) if "negative" in name else rows[LABELS]
        for name, rows in prompts.items()
    }
    if type(pipeline).__name__ == "PixArtAlphaPipeline":
        common |= {"negative_prompt": None, "use_resolution_binning": False}
    elif config.objective.kind == "flow":
        common |= {"sigmas": sigmas_of(STEPS)}
    pipeline(**told, latents=x_T, output_type="pt", **(common | changes))
    vae = pipeline.vae.config
    return (seen[0] - (vae.shift_factor or 0)) * vae.scaling_factor


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


RUNS = {
    "DiT": run_config("dit"),
    "DiT, grey, scaled linear": run_config(
        "dit", channels=1, objective={"betas": "scaled_linear", "num_timesteps": 500}
    ),
    "DiT without variance": run_config("dit", learn_sigma=False),
    "PixArt": run_config("pixart"),
    "PixArt without variance": run_config("pixart", learn_sigma=False),
    # Where the pipeline tells the size of the image, too; no model here listens.
    "PixArt of 128": run_config("pixart", size=128, patch_size=16, channels=1),
    "MMDiT of noise": run_config("mmdit"),
    "MMDiT of a flow": run_config("mmdit", kind="flow"),
    "MMDiT of a shifted flow": run_config(
        "mmdit", kind="flow", size=6, objective={"shift": 3.0, "time_scale": 999.0}
    ),
}


@pytest.mark.parametrize("config", RUNS.values(), ids=RUNS)
def test_a_pipeline_samples_what_we_sample(
    config: RunConfig, make_run: Callable[..., Path], tmp_path: Path, monkeypatch
) -> None:
    run, out = make_run(config), tmp_path / "out"
    assert export_run(run, out) == str(out)
    pipeline, noise = load(out), SampleNoise.of(len(LABELS), seed=3)
    for scale in (1.0, SCALE):
        expected = ours(run, noise, scale=scale)
        found = theirs(pipeline, out, config, noise, scale=scale, monkeypatch=monkeypatch)
        assert relative_error(found, expected) < 1e-5
        monkeypatch.undo()


def test_a_trained_models_images_are_equal(study, tmp_path: Path) -> None:
    """After the pixel VAE and the clamp: what a user sees. The pipeline draws the noise itself."""
    run, out = tmp_path / "run", tmp_path / "out"
    target = TaskConfig(width=32, batch_size=64, steps=80)
    train_target(dataclasses.replace(study, folder=str(run), target=target))
    export_run(run, out)
    pipeline = load(out)
    assert pipeline.labels == {str(digit): digit for digit in range(10)}
    found = pipeline(
        class_labels=LABELS,
        guidance_scale=SCALE,
        num_inference_steps=20,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
    ).images
    trained = load_trained(run, device="cpu")
    network = guided(
        lambda x, t, y: trained.model(x, t, *trained.conditioning(y)),
        torch.tensor(LABELS),
        trained.conditioning.null_label,
        cfg_scale=SCALE,
    )
    x_T = torch.randn(len(LABELS), 1, 8, 8, generator=torch.Generator().manual_seed(5))
    objective = make_objective(trained.config.objective)
    expected = sample(network, x_T, objective, method="dpm++", sampling_steps=20)
    assert ((expected > -1) & (expected < 1)).float().mean() > 0.2  # not all at the clamp's ends
    torch.testing.assert_close(found, (expected / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0)
    image = pipeline(class_labels=[1], num_inference_steps=2).images[0]
    assert (image.size, image.mode) == ((8, 8), "L")


# Why the folders hold what they hold --------------------------------------------------------------


def test_stock_dit_spaces_the_frequencies_otherwise(make_run, tmp_path: Path, monkeypatch) -> None:
    config = run_config("dit")
    run, out = make_run(config), tmp_path / "out"
    export_run(run, out)
    stock = diffusers.DiTTransformer2DModel.from_pretrained(out / "transformer").eval()
    noise = SampleNoise.of(len(LABELS), seed=3)
    pipeline = load(out)
    pipeline.register_modules(transformer=stock)
    found = theirs(pipeline, out, config, noise, scale=1.0, monkeypatch=monkeypatch)
    assert relative_error(found, ours(run, noise, scale=1.0)) > 1e-3
    monkeypatch.undo()
    with pytest.raises(IndexError):  # class 1000 of 3
        theirs(pipeline, out, config, noise, scale=SCALE, monkeypatch=monkeypatch)


def test_stock_sd3_attends_to_padding(make_run, tmp_path: Path, monkeypatch) -> None:
    config = run_config("mmdit", kind="flow")
    run, out = make_run(config), tmp_path / "out"
    export_run(run, out)
    stock = diffusers.SD3Transformer2DModel.from_pretrained(out / "transformer").eval()
    noise = SampleNoise.of(len(LABELS), seed=3)
    pipeline = load(out)
    pipeline.register_modules(transformer=stock)
    found = theirs(pipeline, out, config, noise, scale=1.0, monkeypatch=monkeypatch)
    assert relative_error(found, ours(run, noise, scale=1.0)) > 1e-3


def test_a_flow_needs_its_sigmas(make_run, tmp_path: Path, monkeypatch) -> None:
    config = run_config("mmdit", kind="flow")
    run, out = make_run(config), tmp_path / "out"
    export_run(run, out)
    noise = SampleNoise.of(len(LABELS), seed=3)
    found = theirs(load(out), out, config, noise, scale=1.0, monkeypatch=monkeypatch, sigmas=None)
    assert relative_error(found, ours(run, noise, scale=1.0)) > 1e-3


@pytest.mark.parametrize("architecture", ["dit", "mmdit"])
def test_code_is_not_run_unasked(architecture: str, make_run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_run(make_run(run_config(architecture)), out)
    with pytest.raises(ValueError, match="trust_remote_code"):
        load(out, trust_remote_code=False)


def test_a_loaded_pipeline_can_be_saved_and_keeps_its_weights(make_run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_run(make_run(run_config("pixart")), out)
    load(out).save_pretrained(tmp_path / "again")
    first, second = (
        load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
        for folder in (out, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# Latents ------------------------------------------------------------------------------------------


def save_vae(folder: Path, *, channels: int = 4, **options: Any) -> Any:
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=channels,
        **options,
    ).eval()
    vae.save_pretrained(folder)
    return vae


@pytest.mark.parametrize("kind", ["dit", "pixart", "mmdit"])
@torch.no_grad()
def test_latents_are_decoded_by_the_vae_that_is_given(
    kind: str, make_run, tmp_path: Path, monkeypatch
) -> None:
    shift = {"shift_factor": 0.0609} if kind == "mmdit" else {}
    vae = save_vae(tmp_path / "vae", scaling_factor=0.5, **shift)
    config = run_config(kind, source="latents:cache", channels=4)
    run, out = make_run(config), tmp_path / "out"
    export_run(run, out, vae=str(tmp_path / "vae"))
    pipeline, noise = load(out), SampleNoise.of(len(LABELS), seed=3)
    found = theirs(pipeline, out, config, noise, scale=SCALE, monkeypatch=monkeypatch)
    expected = ours(run, noise, scale=SCALE)
    assert relative_error(found, expected) < 1e-5
    z = expected / 0.5 + shift.get("shift_factor", 0)
    torch.testing.assert_close(pipeline.vae.decode(z).sample, vae.decode(z).sample)
    assert vae.decode(z).sample.shape[-1] == 16


@pytest.mark.parametrize("kind", ["dit", "mmdit"])
def test_a_run_knows_its_vae_scale_and_shift(kind: str, make_run, tmp_path: Path) -> None:
    """`mudit data latents` may have been told others than the VAE's config has."""
    save_vae(tmp_path / "vae", scaling_factor=0.5)
    space = LatentSpace(
        vae=str(tmp_path / "vae"),
        vae_hash=open_autoencoder(str(tmp_path / "vae")).hash,
        scale=0.2301,
        shift=0.25 if kind == "mmdit" else 0.0,
        image_size=16,
        preprocessing="",
    )
    config = run_config(kind, source="latents:gone", channels=4)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, latents=space))
    run = make_run(config)
    export_run(run, tmp_path / "out")
    vae = load(tmp_path / "out").vae
    assert (vae.config.scaling_factor, vae.config.shift_factor) == (0.2301, space.shift)
    other = tmp_path / "other"
    wrong = load(tmp_path / "out").vae
    with torch.no_grad():
        wrong.decoder.conv_in.bias += 1
    wrong.save_pretrained(other)
    with pytest.raises(UsageError, match=r"other has the hash .* encoded by .*vae with the hash"):
        export_run(run, tmp_path / "again", vae=str(other))


def test_a_vae_inside_a_pipelines_folder_is_found(make_run, tmp_path: Path) -> None:
    save_vae(tmp_path / "whole/vae")
    run = make_run(run_config("dit", source="latents:cache", channels=4))
    export_run(run, tmp_path / "out", vae=str(tmp_path / "whole"))
    assert load(tmp_path / "out").vae.config.latent_channels == 4


REFUSED_VAES = {
    "other channels": ({"channels": 3}, "latents of 3 channels, and the run's model has 4"),
    "a shift": ({"shift_factor": 0.1}, "do not add when they decode"),
    "means": ({"latents_mean": [0.0] * 4}, "latents_mean, which no pipeline here applies"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED_VAES.values(), ids=REFUSED_VAES)
def test_a_vae_that_would_decode_wrongly_is_refused(options, words, make_run, tmp_path) -> None:
    save_vae(tmp_path / "vae", **options)
    run = make_run(run_config("dit", source="latents:cache", channels=4))
    with pytest.raises(UsageError, match=words):
        export_run(run, tmp_path / "out", vae=str(tmp_path / "vae"))
    assert not (tmp_path / "out").exists()


def test_the_weights_are_the_averaged_ones(make_run, tmp_path: Path) -> None:
    from mudit.models.layouts import import_checkpoint

    config = run_config("dit")
    export_run(make_run(config), tmp_path / "out")
    back: nn.Module = import_checkpoint(tmp_path / "out")
    expected = drawn_model(config).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in back.state_dict().items())
    assert load(tmp_path / "out").labels == {"0": 0, "1": 1, "2": 2}  # there is no folder:pets

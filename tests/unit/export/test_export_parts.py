"""Schedulers, the pixel VAE, text encoders: the parts of an exported folder on their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PixArtAlphaPipeline
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from exports import CAPTIONS, drawn_model, run_config
from mudit.data import open_text_encoder
from mudit.diffusion import ObjectiveConfig, make_objective, shifted
from mudit.errors import DataError, EnvironmentFailure, UsageError
from mudit.export import export_run, pixel_vae, scheduler_for, sigmas_of, write_pipeline
from mudit.export.text_encoders import write_text_encoder
from mudit.training import Conditioning, Trained


@pytest.mark.parametrize("channels", [1, 3, 4])
@torch.no_grad()
def test_the_pixel_vae_changes_nothing(channels: int) -> None:
    vae = pixel_vae(channels)
    x = 2 * torch.rand(5, channels, 8, 8, generator=torch.Generator().manual_seed(0)) - 1
    x[0] = 1.0  # of one colour: nothing averages out
    x[1, :, :4] = -1.0
    assert (vae.decode(x).sample - x).abs().max() < 1e-6
    posterior = vae.encode(x).latent_dist
    assert (posterior.mode() - x).abs().max() < 1e-6
    assert posterior.std.max() < 1e-6
    assert (vae.config.scaling_factor, vae.config.shift_factor) == (1.0, 0.0)


def test_a_pixel_vae_without_the_large_channels_would_not_do(monkeypatch) -> None:
    monkeypatch.setattr("mudit.export.identity._LARGE", 10.0)
    x = torch.full((1, 3, 8, 8), 0.5)
    with torch.no_grad():
        assert (pixel_vae(3).decode(x).sample - x).abs().max() > 1e-4


@pytest.mark.parametrize("steps", [1000, 250])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
def test_the_scheduler_has_our_noise(betas: Any, steps: int) -> None:
    config = ObjectiveConfig(betas=betas, num_timesteps=steps)
    scheduler = scheduler_for(config)
    expected = make_objective(config).schedule.alphas_cumprod  # type: ignore[attr-defined]
    np.testing.assert_allclose(scheduler.alphas_cumprod, expected, rtol=1e-4)
    again = type(scheduler).from_config(scheduler.config)
    assert torch.equal(again.alphas_cumprod, scheduler.alphas_cumprod)


def test_the_noise_is_that_of_another_library() -> None:
    scheduler = scheduler_for(ObjectiveConfig())
    stock = DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    assert torch.equal(scheduler.alphas_cumprod, stock.alphas_cumprod)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flows_times_are_ours_where_sigmas_are_given(shift: float) -> None:
    scheduler = scheduler_for(ObjectiveConfig(kind="flow", learn_sigma=False, shift=shift))
    scheduler.set_timesteps(sigmas=sigmas_of(4))
    by_hand = shifted(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]), shift)
    torch.testing.assert_close(scheduler.sigmas, by_hand)
    torch.testing.assert_close(scheduler.timesteps, 1000 * by_hand[:-1])


UNSUITABLE = {
    "continuous time": ({"kind": "vp_sde", "learn_sigma": False}, "objective.kind is vp_sde"),
    "steps from 1": ({"first_step": 1}, "objective.first_step is 1"),
    "time up to 1": (
        {"kind": "flow", "learn_sigma": False, "time_scale": 1.0},
        "objective.time_scale is 1;",
    ),
    "time up to a fraction": (
        {"kind": "flow", "learn_sigma": False, "time_scale": 999.5},
        "a whole number",
    ),
}


@pytest.mark.parametrize(("options", "words"), UNSUITABLE.values(), ids=UNSUITABLE)
def test_objectives_without_a_scheduler_are_refused(options, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scheduler_for(ObjectiveConfig(**options))


# Text encoders ------------------------------------------------------------------------------------


def save_t5(folder: Path, *, dim: int = 24, seed: int = 0) -> tuple[Any, Any]:
    """A T5 encoder with random weights, and a tokenizer that knows the captions' words."""
    words = ["<pad>", "</s>", "<unk>", *dict.fromkeys(" ".join(CAPTIONS).split())]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(words), d_model=dim, d_kv=4, d_ff=16, num_layers=1, num_heads=2
    )
    encoder = T5EncoderModel(config).eval()
    encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return tokenizer, encoder


@pytest.fixture
def pixart_on_t5(tmp_path: Path) -> Trained:
    """A PixArt whose texts were encoded by the T5 in tmp_path/t5."""
    tokenizer, encoder = save_t5(tmp_path / "t5")
    config = run_config("pixart")
    inputs = tokenizer([*CAPTIONS, ""], padding="max_length", max_length=40, return_tensors="pt")
    with torch.no_grad():
        text = encoder(inputs.input_ids, attention_mask=inputs.attention_mask)[0]
    mask = inputs.attention_mask.bool()
    tables = (text * mask.unsqueeze(-1), mask)
    conditioning = Conditioning(num_classes=len(CAPTIONS), tables=tables)
    return Trained(config, drawn_model(config), conditioning)


def test_the_text_encoder_of_the_run_goes_with_it(pixart_on_t5: Trained, tmp_path: Path) -> None:
    rows = write_text_encoder(pixart_on_t5, tmp_path, tmp_path / "t5", CAPTIONS)
    assert rows["text_encoder"] == ["transformers", "T5EncoderModel"]
    assert rows["tokenizer"][0] == "transformers"
    copy = T5EncoderModel.from_pretrained(tmp_path / "text_encoder")
    original = T5EncoderModel.from_pretrained(tmp_path / "t5/text_encoder")
    assert torch.equal(copy.shared.weight, original.shared.weight)


@torch.no_grad()
def test_a_pipeline_with_its_text_encoder_takes_prompts(
    pixart_on_t5: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write_pipeline(pixart_on_t5, folder, text_encoder=str(tmp_path / "t5"), captions=CAPTIONS)
    pipeline = PixArtAlphaPipeline.from_pretrained(folder)
    told, mask, *_ = pipeline.encode_prompt(
        list(CAPTIONS), do_classifier_free_guidance=False, max_sequence_length=40
    )
    assert pixart_on_t5.conditioning.tables is not None
    text, expected = (table[: len(CAPTIONS)] for table in pixart_on_t5.conditioning.tables)
    assert torch.equal(mask.bool(), expected)
    torch.testing.assert_close(told * mask.unsqueeze(-1), text)


def test_another_text_encoder_is_refused(pixart_on_t5: Trained, tmp_path: Path) -> None:
    save_t5(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match=r"were encoded by: .* off by up"):
        write_text_encoder(pixart_on_t5, tmp_path, tmp_path / "other", CAPTIONS)
    save_t5(tmp_path / "wide", dim=32)
    with pytest.raises(UsageError, match="of another shape"):
        write_text_encoder(pixart_on_t5, tmp_path, tmp_path / "wide", CAPTIONS)
    with pytest.raises(DataError, match="cannot be loaded"):
        write_text_encoder(pixart_on_t5, tmp_path, tmp_path / "nowhere", CAPTIONS)
    assert not (tmp_path / "text_encoder").exists()


def test_sd3_has_no_place_for_one_text_encoder(tmp_path: Path) -> None:
    config = run_config("mmdit")
    model = drawn_model(config)
    trained = Trained(config, model, Conditioning.of(config.model, config.captions, model))
    with pytest.raises(UsageError, match="only PixArt's has one encoder"):
        write_text_encoder(trained, tmp_path, tmp_path, CAPTIONS)


@pytest.mark.parametrize("architecture", ["pixart", "mmdit"])
def test_prompts_are_encoded_by_the_runs_encoder_where_it_is_now(
    make_run, tmp_path: Path, architecture: str
) -> None:
    place = tmp_path / "m2"
    for part in save_t5(tmp_path / "t5"):
        part.save_pretrained(place)
    config = run_config(architecture, kind="ddpm" if architecture == "pixart" else "flow")
    gone = dataclasses.replace(config.text, encoder=f"hf:{tmp_path}/gone")
    run = make_run(dataclasses.replace(config, text=gone))
    with pytest.raises(EnvironmentFailure, match=r"gone cannot be loaded.*--text_encoder"):
        export_run(run, tmp_path / "out", prompts=CAPTIONS)
    export_run(run, tmp_path / "out", prompts=CAPTIONS, text_encoder=f"hf:{place}")
    told = load_file(tmp_path / "out/prompts.safetensors")["prompt_embeds"]
    expected = open_text_encoder(f"hf:{place}").encode(CAPTIONS, tokens=40).tokens
    torch.testing.assert_close(told[: len(CAPTIONS)], expected)
    assert (tmp_path / "out/text_encoder").exists() == (architecture == "pixart")
    for part in save_t5(tmp_path / "wide", dim=32):
        part.save_pretrained(tmp_path / "m3")
    with pytest.raises(DataError, match=r"32 numbers for a token.*--text_encoder"):
        export_run(run, tmp_path / "out", prompts=CAPTIONS, text_encoder=str(tmp_path / "m3"))

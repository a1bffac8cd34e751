"""PixArt-α's checkpoints in the layouts of its authors and of diffusers."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from mudit.errors import UsageError
from mudit.models.layouts.pixart import EXCHANGES
from mudit.models.pixart import PRESETS, PixArt, PixArtConfig

TINY = PixArtConfig(
    depth=2,
    num_heads=2,
    head_dim=8,
    patch_size=2,
    input_size=8,
    in_channels=3,
    caption_dim=10,
    caption_tokens=120,
)
DIFFUSERS = EXCHANGES["diffusers"]
UNKEPT = {"pos_embed", "y_embedder.y_embedding"}


def randomised(config: PixArtConfig) -> PixArt:
    torch.manual_seed(0)
    model = PixArt(config)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(std=0.3)
    return model


def on_meta(config: PixArtConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return PixArt(config).state_dict()


@torch.no_grad()
def forward(model: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 8, generator=generator)
    t, text = torch.tensor([3.0, 800.0]), torch.randn(2, 4, 10, generator=generator)
    if isinstance(model, PixArt):
        output: Tensor = model(x, t, text)
        return output
    conditions = {"resolution": None, "aspect_ratio": None}
    stock: Tensor = model(
        x, encoder_hidden_states=text, timestep=t, added_cond_kwargs=conditions
    ).sample
    return stock


@pytest.mark.parametrize("layout", EXCHANGES)
def test_there_and_back_is_the_identity(layout: str) -> None:
    ours = randomised(TINY).state_dict()
    exchange = EXCHANGES[layout].layout
    theirs = exchange.export(ours, TINY.depth)
    back = exchange.load(theirs, on_meta(TINY), TINY.depth)

    assert set(ours) - set(back) == (UNKEPT if layout == "diffusers" else set())
    assert all(torch.equal(ours[name], back[name]) for name in back)
    again = exchange.export({**ours, **back}, TINY.depth)
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)


def test_a_folder_of_diffusers_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = PixArtTransformer2DModel.from_config(DIFFUSERS.config(TINY)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    theirs.save_pretrained(tmp_path)
    config = DIFFUSERS.read(json.loads((tmp_path / "config.json").read_text()))
    assert config == TINY
    model = PixArt(config)
    saved = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    state = DIFFUSERS.layout.load(saved, on_meta(config), config.depth)
    model.load_state_dict({**model.state_dict(), **state})

    torch.testing.assert_close(forward(model), forward(theirs), rtol=1e-5, atol=1e-5)


def test_diffusers_reads_what_is_written(tmp_path: Path) -> None:
    model = randomised(TINY)
    (tmp_path / "config.json").write_text(json.dumps(DIFFUSERS.config(TINY)))
    state = DIFFUSERS.layout.export(model.state_dict(), TINY.depth)
    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(contiguous, tmp_path / "diffusion_pytorch_model.safetensors")
    theirs, info = PixArtTransformer2DModel.from_pretrained(tmp_path, output_loading_info=True)

    # Their positions, which they compute: `forward` shows that they are ours.
    assert set(info["missing_keys"]) <= {"pos_embed.pos_embed"}
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    torch.testing.assert_close(forward(theirs), forward(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_configs_there_and_back(name: str) -> None:
    config = dataclasses.replace(PRESETS[name], init="pixart")
    assert DIFFUSERS.read(DIFFUSERS.config(config)) == config
    smaller = dataclasses.replace(config, learn_sigma=False, num_heads=3, depth=1)
    assert DIFFUSERS.read(DIFFUSERS.config(smaller)) == smaller


def test_defaults_are_those_of_diffusers() -> None:
    from mudit.models.layouts.pixart import _DEFAULTS

    parameters = inspect.signature(PixArtTransformer2DModel.__init__).parameters
    theirs = {name: value.default for name, value in parameters.items() if name != "self"}
    assert dict(_DEFAULTS) == theirs


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "DiTTransformer2DModel"),
        ("use_additional_conditions", True),
        ("interpolation_scale", 2),
        ("norm_type", "ada_norm"),
        ("attention_bias", False),
        ("cross_attention_dim", 15),
        ("caption_channels", None),
        ("out_channels", 4),
        ("no_such_key", 1),
    ],
)
def test_what_ours_cannot_be_is_refused(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=key):
        DIFFUSERS.read(DIFFUSERS.config(TINY) | {key: value})


def test_released_models_of_1024_pixels_are_refused_by_name() -> None:
    """Their config leaves it to the size of the latent, 128."""
    values = DIFFUSERS.config(dataclasses.replace(TINY, input_size=128))
    for key in ("interpolation_scale", "use_additional_conditions"):
        with pytest.raises(UsageError, match=key):
            DIFFUSERS.read(values | {key: None})


def test_every_tensor_that_does_not_fit_is_listed() -> None:
    theirs = DIFFUSERS.layout.export(randomised(TINY).state_dict(), TINY.depth)
    del theirs["proj_out.bias"]
    theirs["transformer_blocks.1.attn2.to_k.weight"] = torch.zeros(16, 9)
    theirs["lora.down"] = torch.zeros(2)
    with pytest.raises(UsageError, match="3 tensors") as caught:
        DIFFUSERS.layout.load(theirs, on_meta(TINY), TINY.depth)
    lines = str(caught.value).splitlines()
    assert "  proj_out.bias: missing, expected (24,)" in lines
    assert "  transformer_blocks.1.attn2.to_k.weight: (16, 9), expected (16, 16)" in lines
    assert "  lora.down: (2,), not expected" in lines

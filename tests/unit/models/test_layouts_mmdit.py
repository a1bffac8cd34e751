"""MMDiT's checkpoints in the layouts of SD3's files and of diffusers."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file

from mudit.errors import UsageError
from mudit.models.layouts.mmdit import EXCHANGES
from mudit.models.mmdit import PRESETS, MMDiT, MMDiTConfig

TINY = MMDiTConfig(
    depth=3,
    num_heads=2,
    head_dim=8,
    patch_size=2,
    input_size=8,
    in_channels=3,
    caption_dim=12,
    caption_tokens=333,
    pooled_dim=7,
    pos_embed_max_size=6,
    dual_attention_blocks=1,
)
PLAIN = dataclasses.replace(TINY, qk_norm=False, dual_attention_blocks=0)
CONFIGS = {"tiny": TINY, "plain": PLAIN}
DIFFUSERS, ORIGINAL = EXCHANGES["diffusers"], EXCHANGES["original"]


def randomised(config: MMDiTConfig) -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(config)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.normal_(std=0.3)
    return model


def on_meta(config: MMDiTConfig) -> MMDiT:
    with torch.device("meta"):
        return MMDiT(config)


def forward(model: Any, config: MMDiTConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 8, generator=generator)
    t = torch.tensor([3.0, 800.0])
    text = torch.randn(2, 4, config.caption_dim, generator=generator)
    pooled = torch.randn(2, config.pooled_dim, generator=generator)
    with torch.no_grad():
        if isinstance(model, MMDiT):
            return model(x, t, text, None, pooled)
        out = model(x, encoder_hidden_states=text, pooled_projections=pooled, timestep=t)
    return out.sample


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# Tensors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", EXCHANGES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_there_and_back_is_the_identity(config: MMDiTConfig, layout: str) -> None:
    ours = randomised(config).state_dict()
    exchange = EXCHANGES[layout].layout
    theirs = exchange.export(ours, config.depth)
    assert not theirs.keys() & ours.keys() - {"context_embedder.weight", "context_embedder.bias"}
    back = exchange.load(theirs, on_meta(config).state_dict(), config.depth)
    assert same(back, ours)
    assert same(exchange.export(back, config.depth), theirs)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_export_is_what_diffusers_makes_of_the_original(config: MMDiTConfig) -> None:
    ours = randomised(config).state_dict()
    original = ORIGINAL.layout.export(ours, config.depth)
    assert all(name.startswith("model.diffusion_model.") for name in original)
    converted = convert_sd3_transformer_checkpoint_to_diffusers(original)
    assert same(converted, DIFFUSERS.layout.export(ours, config.depth))


def test_swiglu_has_the_original_layout() -> None:
    config = dataclasses.replace(TINY, mlp="swiglu", pooled_dim=None)
    ours = randomised(config).state_dict()
    theirs = ORIGINAL.layout.export(ours, config.depth)
    assert same(ORIGINAL.layout.load(theirs, ours, config.depth), ours)


def test_other_parts_of_a_released_file_are_passed_over() -> None:
    ours = randomised(TINY).state_dict()
    theirs = ORIGINAL.layout.export(ours, TINY.depth)
    others = ("first_stage_model.decoder.conv_in.weight", "text_encoders.clip_l.logit_scale")
    theirs |= {name: torch.zeros(1) for name in others}
    assert same(ORIGINAL.layout.load(theirs, ours, TINY.depth), ours)
    with pytest.raises(UsageError, match=r"in 1 tensors:\n  elsewhere: \(1,\), not expected"):
        ORIGINAL.layout.load({**theirs, "elsewhere": torch.zeros(1)}, ours, TINY.depth)


@pytest.mark.parametrize("layout", EXCHANGES)
def test_all_differences_are_listed(layout: str) -> None:
    exchange, ours = EXCHANGES[layout].layout, randomised(TINY).state_dict()
    theirs = exchange.export(ours, TINY.depth)
    named = {
        "diffusers": ("norm_out.linear.bias", "transformer_blocks.0.attn2.to_k.weight"),
        "original": (
            "model.diffusion_model.final_layer.adaLN_modulation.1.bias",
            "model.diffusion_model.joint_blocks.0.x_block.attn2.qkv.weight",
        ),
    }
    missing, misshapen = named[layout]
    shape = tuple(theirs[misshapen].shape)
    del theirs[missing]
    theirs[misshapen] = torch.zeros(16, 5)
    extra = missing.removesuffix("bias") + "gain"
    theirs[extra] = torch.zeros(2)
    with pytest.raises(UsageError) as caught:
        exchange.load(theirs, ours, TINY.depth)
    for line in (
        "in 3 tensors",
        f"{missing}: missing, expected (32,)",
        f"{misshapen}: (16, 5), expected {shape}",
        f"{extra}: (2,), not expected",
    ):
        assert line in str(caught.value)


# Whole checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_model_that_diffusers_saved_loads_here(config: MMDiTConfig, tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = SD3Transformer2DModel(**class_arguments(config)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    theirs.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert DIFFUSERS.read(saved) == config
    model = on_meta(DIFFUSERS.read(saved)).to_empty(device="cpu")
    state = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    model.load_state_dict(DIFFUSERS.layout.load(state, model.state_dict(), config.depth))
    out = forward(model, config)
    assert out.std() > 0.3
    torch.testing.assert_close(out, forward(theirs, config), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_model_from_here_loads_in_diffusers(config: MMDiTConfig, tmp_path: Path) -> None:
    model = randomised(config)
    (tmp_path / "config.json").write_text(json.dumps(DIFFUSERS.config(config)))
    state = DIFFUSERS.layout.export(model.state_dict(), config.depth)
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        tmp_path / "diffusion_pytorch_model.safetensors",
    )
    theirs, info = SD3Transformer2DModel.from_pretrained(
        tmp_path, output_loading_info=True, low_cpu_mem_usage=False
    )
    assert not any(info.values())
    expected = forward(model, config)
    torch.testing.assert_close(forward(theirs.eval(), config), expected, rtol=1e-5, atol=1e-5)


def test_scales_and_shifts_in_their_order_are_needed() -> None:
    # The plain table, without what the class adds for the last block's text, is not the same.
    ours = randomised(TINY).state_dict()
    theirs = DIFFUSERS.layout.export(ours, TINY.depth)
    name = "joint_blocks.2.context_block.adaLN_modulation.1.bias"
    last = theirs["transformer_blocks.2.norm1_context.linear.bias"]
    assert torch.equal(last, torch.cat(ours[name].chunk(2)[::-1]))
    assert not torch.equal(last, ours[name])
    first = theirs["transformer_blocks.1.norm1_context.linear.bias"]
    assert torch.equal(first, ours["joint_blocks.1.context_block.adaLN_modulation.1.bias"])


# Configs ------------------------------------------------------------------------------------------


def class_arguments(config: MMDiTConfig) -> dict[str, Any]:
    return {
        key: value for key, value in DIFFUSERS.config(config).items() if not key.startswith("_")
    }


@pytest.mark.parametrize("name", ["SD3-medium", "SD3.5-medium", "SD3.5-large"])
def test_configs_of_the_released_models(name: str) -> None:
    config = PRESETS[name]
    theirs = DIFFUSERS.config(config)
    assert theirs["_class_name"] == "SD3Transformer2DModel"
    assert DIFFUSERS.read(json.loads(json.dumps(theirs))) == config


def test_keys_that_older_files_do_not_have() -> None:
    # The config.json of SD3 medium, of 2024.
    theirs = {
        "_class_name": "SD3Transformer2DModel",
        "_diffusers_version": "0.29.0.dev0",
        "attention_head_dim": 64,
        "caption_projection_dim": 1536,
        "in_channels": 16,
        "joint_attention_dim": 4096,
        "num_attention_heads": 24,
        "num_layers": 24,
        "out_channels": 16,
        "patch_size": 2,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192,
        "sample_size": 128,
    }
    assert DIFFUSERS.read(theirs) == PRESETS["SD3-medium"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "FluxTransformer2DModel"}, "_class_name = 'FluxTransformer2DModel'"),
        ({"out_channels": 32}, "out_channels = 32, .* expected in_channels, 3"),
        ({"caption_projection_dim": 24}, r"caption_projection_dim = 24, .*, 16\."),
        ({"dual_attention_layers": [1]}, r"dual_attention_layers = \[1\]"),
        ({"qk_norm": "layer_norm"}, "qk_norm = 'layer_norm'"),
        ({"pos_embed_max_size": None}, "pos_embed_max_size = None"),
        ({"pooled_projection_dim": None}, "pooled_projection_dim = None"),
        ({"rotary": 1, "axes": 2}, "the keys axes, rotary, which"),
        ({"sample_size": 9}, "input_size is 9"),
    ],
)
def test_read_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DIFFUSERS.read({**DIFFUSERS.config(TINY), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp": "swiglu"}, "mlp is 'swiglu', which .* it has 'gelu'"),
        ({"mlp_ratio": 2.0}, r"mlp_ratio is 2.0, which .* it has 4.0"),
        ({"pooled_dim": None}, "pooled_dim is None"),
    ],
)
def test_config_refuses_what_diffusers_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DIFFUSERS.config(dataclasses.replace(TINY, **changes))


def test_defaults_are_those_of_diffusers() -> None:
    arguments = inspect.signature(SD3Transformer2DModel.__init__).parameters.values()
    defaults = {a.name: a.default for a in arguments if a.name != "self"}
    theirs = {"_class_name": "SD3Transformer2DModel"}
    assert DIFFUSERS.read(theirs | defaults) == DIFFUSERS.read(theirs)
    assert DIFFUSERS.config(DIFFUSERS.read(theirs)).keys() == {"_class_name", *defaults}

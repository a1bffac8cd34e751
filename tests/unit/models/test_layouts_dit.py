"""DiT's checkpoints in the layouts of facebookresearch/DiT and of diffusers."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from safetensors.torch import load_file, save_file

from mudit.errors import UsageError
from mudit.models.dit import PRESETS, DiT, DiTConfig
from mudit.models.layouts.dit import EXCHANGES

TINY = DiTConfig(
    depth=3, num_heads=2, head_dim=8, patch_size=2, input_size=8, in_channels=3, num_classes=10
)
GREY = DiTConfig(
    depth=1,
    num_heads=3,
    head_dim=12,
    patch_size=4,
    input_size=16,
    in_channels=1,
    num_classes=2,
    learn_sigma=False,
)
CONFIGS = {"tiny": TINY, "grey": GREY}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
DIFFUSERS, ORIGINAL = EXCHANGES["diffusers"], EXCHANGES["original"]
# One of the embedders that each of diffusers' blocks has a copy of.
FIRST, LAST = (f"transformer_blocks.{i}.norm1.emb.timestep_embedder.linear_1.bias" for i in (0, 2))


def on_meta(config: DiTConfig) -> DiT:
    with torch.device("meta"):
        return DiT(config)


def randomise(model: torch.nn.Module) -> None:
    """Biases, gates and readout too, so that values are of order one; not the fixed positions."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                fan_in = parameter[0].numel()
                parameter.normal_(std=fan_in**-0.5 if parameter.ndim > 1 else 0.5)


def randomised(config: DiTConfig) -> DiT:
    torch.manual_seed(0)
    model = DiT(config)
    randomise(model)
    return model


def with_our_frequencies(stock: DiTTransformer2DModel) -> DiTTransformer2DModel:
    for block in stock.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return stock.eval()  # in training mode it drops labels


def forward(model: Any, config: DiTConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    side = config.input_size
    x = torch.randn(4, config.in_channels, side, side, generator=generator)
    t = torch.tensor([0, 7, 300, 999])
    labels = torch.arange(4) % (config.num_classes + 1)
    with torch.no_grad():
        if isinstance(model, DiT):
            return model(x, t, labels)
        return model(x, timestep=t, class_labels=labels).sample


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# Tensors ------------------------------------------------------------------------------------------


@each_config
def test_the_original_layout_is_the_identity(config: DiTConfig) -> None:
    ours = randomised(config).state_dict()
    theirs = ORIGINAL.layout.export(ours, config.depth)
    assert same(theirs, ours)
    assert same(ORIGINAL.layout.load(theirs, on_meta(config).state_dict(), config.depth), ours)


@each_config
def test_there_and_back_is_the_identity(config: DiTConfig) -> None:
    ours, layout = randomised(config).state_dict(), DIFFUSERS.layout
    theirs = layout.export(ours, config.depth)
    assert not theirs.keys() & ours.keys()
    back = layout.load(theirs, on_meta(config).state_dict(), config.depth)
    assert ours.keys() - back.keys() == {"pos_embed"}
    assert same({**back, "pos_embed": ours["pos_embed"]}, ours)
    assert same(layout.export(back, config.depth), theirs)


@each_config
def test_names_and_shapes_are_those_of_diffusers(config: DiTConfig) -> None:
    stock = DiTTransformer2DModel(**class_arguments(config)).state_dict()
    theirs = DIFFUSERS.layout.export(on_meta(config).state_dict(), config.depth)
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in stock.items()}


@each_config
def test_back_and_there_is_the_identity(config: DiTConfig) -> None:
    theirs = stock_model(config).state_dict()
    expected = on_meta(config).state_dict()
    ours = DIFFUSERS.layout.load(theirs, expected, config.depth)
    assert same(DIFFUSERS.layout.export(ours, config.depth), theirs)
    with_buffer = {**theirs, "pos_embed.pos_embed": torch.zeros(1, 1, 1)}
    assert same(DIFFUSERS.layout.load(with_buffer, expected, config.depth), ours)


def test_queries_keys_and_values_are_cut_in_their_order() -> None:
    ours = randomised(TINY).state_dict()
    theirs = DIFFUSERS.layout.export(ours, TINY.depth)
    fused = ours["blocks.1.attn.qkv.weight"]
    for number, letter in enumerate("qkv"):
        piece = theirs[f"transformer_blocks.1.attn1.to_{letter}.weight"]
        assert torch.equal(piece, fused[16 * number : 16 * (number + 1)])


@pytest.mark.parametrize("layout", EXCHANGES)
def test_all_differences_are_listed(layout: str) -> None:
    exchange, ours = EXCHANGES[layout].layout, randomised(TINY).state_dict()
    theirs = exchange.export(ours, TINY.depth)
    missing, misshapen = {
        "diffusers": (LAST, "transformer_blocks.0.attn1.to_k.weight"),
        "original": ("t_embedder.mlp.0.bias", "blocks.0.attn.qkv.weight"),
    }[layout]
    shape = tuple(theirs[misshapen].shape)
    del theirs[missing]
    theirs[misshapen] = torch.zeros(16, 5)
    extra = missing.removesuffix("bias") + "gain"
    theirs[extra] = torch.zeros(2)
    with pytest.raises(UsageError) as caught:
        exchange.load(theirs, ours, TINY.depth)
    for line in (
        "in 3 tensors",
        f"{missing}: missing, expected (16,)",
        f"{misshapen}: (16, 5), expected {shape}",
        f"{extra}: (2,), not expected",
    ):
        assert line in str(caught.value)


@pytest.mark.parametrize("block", [1, 2])
def test_copies_that_differ_are_refused(block: int) -> None:
    ours = randomised(TINY).state_dict()
    theirs = DIFFUSERS.layout.export(ours, TINY.depth)
    other = FIRST.replace(".0.norm1", f".{block}.norm1")
    theirs[other] = theirs[other].clone()
    theirs[other][3] += 1e-6
    with pytest.raises(UsageError) as caught:
        DIFFUSERS.layout.load(theirs, ours, TINY.depth)
    for name in (FIRST, other, "t_embedder.mlp.0.bias"):
        assert name in str(caught.value)


# Whole checkpoints --------------------------------------------------------------------------------


def class_arguments(config: DiTConfig) -> dict[str, Any]:
    return {
        key: value for key, value in DIFFUSERS.config(config).items() if not key.startswith("_")
    }


def stock_model(config: DiTConfig) -> DiTTransformer2DModel:
    """A model of diffusers, random throughout, whose blocks embed timestep and label alike."""
    torch.manual_seed(1)
    stock = DiTTransformer2DModel(**class_arguments(config))
    randomise(stock)
    embedders = stock.transformer_blocks[0].norm1.emb.state_dict()
    for block in stock.transformer_blocks:
        block.norm1.emb.load_state_dict(embedders)
    return with_our_frequencies(stock)


def loaded(config: DiTConfig, state: dict[str, torch.Tensor]) -> DiT:
    model = on_meta(config).to_empty(device="cpu")
    model.reset_parameters()  # positions, which no checkpoint of diffusers holds
    tensors = DIFFUSERS.layout.load(state, model.state_dict(), config.depth)
    model.load_state_dict({**model.state_dict(), **tensors})
    return model


@each_config
def test_a_model_that_diffusers_saved_loads_here(config: DiTConfig, tmp_path: Path) -> None:
    theirs = stock_model(config)
    theirs.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["_class_name"] in DIFFUSERS.class_names
    assert DIFFUSERS.read(saved) == config
    model = loaded(config, load_file(tmp_path / "diffusion_pytorch_model.safetensors"))
    out = forward(model, config)
    assert out.std() > 0.3
    torch.testing.assert_close(out, forward(theirs, config), rtol=1e-5, atol=1e-5)


@each_config
def test_a_model_from_here_loads_in_diffusers(config: DiTConfig, tmp_path: Path) -> None:
    model = randomised(config)
    (tmp_path / "config.json").write_text(json.dumps(DIFFUSERS.config(config)))
    state = DIFFUSERS.layout.export(model.state_dict(), config.depth)
    save_file(
        {name: tensor.detach().clone() for name, tensor in state.items()},
        tmp_path / "diffusion_pytorch_model.safetensors",
    )
    theirs, info = DiTTransformer2DModel.from_pretrained(
        tmp_path, output_loading_info=True, low_cpu_mem_usage=False
    )
    assert not any(info.values())
    expected = forward(model, config)
    got = forward(with_our_frequencies(theirs), config)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_wrong_place_shows_in_the_forward_pass() -> None:
    theirs = stock_model(TINY)
    expected = forward(theirs, TINY)
    for first, second in (("to_q", "to_k"), ("to_k", "to_v")):
        state = dict(theirs.state_dict())
        for kind in ("weight", "bias"):
            one, other = (f"transformer_blocks.1.attn1.{n}.{kind}" for n in (first, second))
            state[one], state[other] = state[other], state[one]
        assert not torch.allclose(forward(loaded(TINY, state), TINY), expected, atol=1e-2)


def test_frequencies_of_the_timestep_are_what_differs_from_diffusers() -> None:
    theirs = stock_model(TINY)
    model = loaded(TINY, theirs.state_dict())
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 1  # as it comes
    difference = (forward(theirs, TINY) - forward(model, TINY)).abs().amax((1, 2, 3))
    assert difference[0] < 1e-5  # t = 0, where all angles are 0
    assert (difference[1:] > 1e-3).all()


# Configs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["DiT-S/8", "DiT-B/4", "DiT-L/2", "DiT-XL/2"])
def test_configs_of_the_presets(name: str) -> None:
    theirs = DIFFUSERS.config(PRESETS[name])
    assert theirs["_class_name"] == "DiTTransformer2DModel"
    assert DIFFUSERS.read(json.loads(json.dumps(theirs))) == PRESETS[name]


@each_config
def test_the_initialisation_is_all_that_is_lost(config: DiTConfig) -> None:
    theirs = DIFFUSERS.config(dataclasses.replace(config, init="dit_mup"))
    assert DIFFUSERS.read(theirs) == config


def test_files_from_before_the_class_had_its_name() -> None:
    # As diffusers 0.12 wrote DiT-XL/2: no norm_eps, and keys of the class for all Transformers.
    theirs = {
        "_class_name": "Transformer2DModel",
        "_diffusers_version": "0.12.0.dev0",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": 72,
        "cross_attention_dim": None,
        "dropout": 0.0,
        "in_channels": 4,
        "norm_elementwise_affine": False,
        "norm_num_groups": 32,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": 16,
        "num_embeds_ada_norm": 1000,
        "num_layers": 28,
        "num_vector_embeds": None,
        "only_cross_attention": False,
        "out_channels": 8,
        "patch_size": 2,
        "sample_size": 32,
        "upcast_attention": False,
        "use_linear_projection": False,
    }
    assert theirs["_class_name"] in DIFFUSERS.class_names
    assert DIFFUSERS.read(theirs) == PRESETS["DiT-XL/2"]
    with pytest.raises(UsageError, match="norm_type = 'ada_norm_single'"):  # a PixArt
        DIFFUSERS.read({**theirs, "norm_type": "ada_norm_single"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "FluxTransformer2DModel"}, "_class_name = 'FluxTransformer2DModel'"),
        ({"out_channels": 4}, "out_channels = 4, .* expected in_channels, 3, or twice that"),
        ({"dropout": 0.1}, r"dropout = 0\.1, .* expected 0\.0\."),
        ({"attention_bias": False}, r"attention_bias = False, .* expected True\."),
        ({"activation_fn": "gelu"}, "activation_fn = 'gelu', .* expected 'gelu-approximate'"),
        ({"norm_type": "ada_norm"}, "norm_type = 'ada_norm', .* expected 'ada_norm_zero'"),
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine = True"),
        ({"norm_eps": 1e-3}, r"norm_eps = 0\.001, .* expected 1e-06 or 1e-05\."),
        ({"upcast_attention": True}, "upcast_attention = True"),
        ({"num_embeds_ada_norm": None}, "num_embeds_ada_norm = None, .* whole number from 1"),
        ({"sample_size": None}, "sample_size = None"),
        ({"cross_attention_dim": 768}, r"cross_attention_dim = 768, .* expected None\."),
        ({"rotary": 1, "axes": 2}, "the keys axes, rotary, which"),
        ({"sample_size": 9}, "input_size is 9"),
    ],
)
def test_read_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DIFFUSERS.read({**DIFFUSERS.config(TINY), **changes})


def test_config_refuses_what_diffusers_cannot_be() -> None:
    with pytest.raises(UsageError, match=r"mlp_ratio is 2\.0, which .* it has 4\.0"):
        DIFFUSERS.config(dataclasses.replace(TINY, mlp_ratio=2.0))


def test_defaults_are_those_of_diffusers() -> None:
    arguments = inspect.signature(DiTTransformer2DModel.__init__).parameters.values()
    defaults = {a.name: a.default for a in arguments if a.name != "self"}
    theirs = {"_class_name": "DiTTransformer2DModel"}
    assert DIFFUSERS.read(theirs | defaults) == DIFFUSERS.read(theirs)
    assert DIFFUSERS.config(DIFFUSERS.read(theirs)).keys() == {"_class_name", *defaults}

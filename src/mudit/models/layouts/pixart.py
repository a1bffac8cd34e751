"""PixArt-α's checkpoints: those of [PixArt] code, and diffusers' PixArtTransformer2DModel.

diffusers does not keep the text that stands for "nothing said" (`y_embedder.y_embedding`): its
pipelines encode an empty prompt instead. Imported from there, a model has a fresh one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mudit.errors import UsageError
from mudit.models.layouts.layout import Exchange, Layout, Row
from mudit.models.pixart import PixArtConfig


def _in_blocks(ours: str, *theirs: str) -> Row:
    return Row(f"blocks.*.{ours}", tuple(f"transformer_blocks.*.{name}" for name in theirs))


_DIFFUSERS = Layout(
    rows=(
        Row("x_embedder.proj", ("pos_embed.proj",)),
        Row("t_embedder.mlp.0", ("adaln_single.emb.timestep_embedder.linear_1",)),
        Row("t_embedder.mlp.2", ("adaln_single.emb.timestep_embedder.linear_2",)),
        Row("t_block.1", ("adaln_single.linear",)),
        Row("y_embedder.y_proj.fc1", ("caption_projection.linear_1",)),
        Row("y_embedder.y_proj.fc2", ("caption_projection.linear_2",)),
        _in_blocks("scale_shift_table", "scale_shift_table"),
        _in_blocks("attn.qkv", "attn1.to_q", "attn1.to_k", "attn1.to_v"),
        _in_blocks("attn.proj", "attn1.to_out.0"),
        _in_blocks("cross_attn.q_linear", "attn2.to_q"),
        _in_blocks("cross_attn.kv_linear", "attn2.to_k", "attn2.to_v"),
        _in_blocks("cross_attn.proj", "attn2.to_out.0"),
        _in_blocks("mlp.fc1", "ff.net.0.proj"),
        _in_blocks("mlp.fc2", "ff.net.2"),
        Row("final_layer.scale_shift_table", ("scale_shift_table",)),
        Row("final_layer.linear", ("proj_out",)),
    ),
    computed=("pos_embed", "y_embedder.y_embedding"),
    ignored=("pos_embed.pos_embed",),  # a buffer that they do not save either, by default
)


# Configs ------------------------------------------------------------------------------------------

_CLASS = "PixArtTransformer2DModel"
_OLD_CLASS = "Transformer2DModel"  # what diffusers called it when the released models were written
# What diffusers takes for a key that config.json does not have.
_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "dropout": 0.0,
        "norm_num_groups": 32,
        "cross_attention_dim": 1152,
        "attention_bias": True,
        "sample_size": 128,
        "patch_size": 2,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000,
        "upcast_attention": False,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "interpolation_scale": None,
        "use_additional_conditions": None,
        "caption_channels": None,
        "attention_type": "default",
    }
)
# Values that ours has, where theirs has a choice.
_FIXED: Mapping[str, Any] = MappingProxyType(
    {
        "dropout": 0.0,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "upcast_attention": False,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "interpolation_scale": 1,
        "use_additional_conditions": False,
        "attention_type": "default",
    }
)
# Keys of the old class that the new one does not have, and what they say of a PixArt-α.
_OLD: Mapping[str, Any] = MappingProxyType(
    {
        "num_vector_embeds": None,
        "only_cross_attention": False,
        "double_self_attention": False,
        "use_linear_projection": False,
    }
)
_MLP_RATIO = 4.0
_CAPTION_TOKENS = 120  # their config does not bound the text; [PixArt] code has 120 tokens


def _write(config: PixArtConfig) -> dict[str, Any]:
    if config.mlp_ratio != _MLP_RATIO:
        raise UsageError(
            f"PixArtConfig.mlp_ratio is {config.mlp_ratio!r}, which diffusers' {_CLASS} cannot be; "
            f"it has {_MLP_RATIO!r}. Write the checkpoint in this project's own layout."
        )
    ours = {
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_layers": config.depth,
        "cross_attention_dim": config.width,
        "sample_size": config.input_size,
        "patch_size": config.patch_size,
        "caption_channels": config.caption_dim,
    }
    return {"_class_name": _CLASS, **_DEFAULTS, **_FIXED, **ours}


def _read(theirs: Mapping[str, Any]) -> PixArtConfig:
    name = theirs.get("_class_name", _CLASS)
    if name not in (_CLASS, _OLD_CLASS):
        raise _refusal("_class_name", name, repr(_CLASS))
    own = {key: value for key, value in theirs.items() if not key.startswith("_")}
    if unknown := sorted(own.keys() - _DEFAULTS.keys() - _OLD.keys()):
        raise UsageError(
            f"The config of a {_CLASS} has the keys {', '.join(unknown)}, which this project does "
            f"not know; expected some of {', '.join(_DEFAULTS)}."
        )
    values = {**_DEFAULTS, **_OLD, **own}
    # What diffusers makes of None: both depend on the size of the latent.
    if values["interpolation_scale"] is None:
        values["interpolation_scale"] = max(values["sample_size"] // 64, 1)
    if values["use_additional_conditions"] is None:
        values["use_additional_conditions"] = values["sample_size"] == 128
    for key, expected in {**_FIXED, **_OLD}.items():
        if values[key] != expected:
            raise _refusal(key, values[key], repr(expected))
    width = values["num_attention_heads"] * values["attention_head_dim"]
    in_channels, out_channels = values["in_channels"], values["out_channels"]
    if out_channels not in (None, in_channels, 2 * in_channels):
        raise _refusal("out_channels", out_channels, f"in_channels, {in_channels}, or twice that")
    if values["cross_attention_dim"] != width:
        whole = f"num_attention_heads * attention_head_dim, {width}"
        raise _refusal("cross_attention_dim", values["cross_attention_dim"], whole)
    if values["caption_channels"] is None:
        raise _refusal("caption_channels", None, "a whole number from 1")
    return PixArtConfig(
        depth=values["num_layers"],
        num_heads=values["num_attention_heads"],
        head_dim=values["attention_head_dim"],
        patch_size=values["patch_size"],
        input_size=values["sample_size"],
        in_channels=in_channels,
        caption_dim=values["caption_channels"],
        caption_tokens=_CAPTION_TOKENS,
        learn_sigma=out_channels == 2 * in_channels,
    )


def _refusal(key: str, value: object, expected: str) -> UsageError:
    return UsageError(
        f"The config of a {_CLASS} has {key} = {value!r}, which a PixArt here cannot have; "
        f"expected {expected}."
    )


# A file of [PixArt] code holds no config, and all our names.
EXCHANGES: Mapping[str, Exchange] = MappingProxyType(
    {
        "original": Exchange(Layout()),
        "diffusers": Exchange(_DIFFUSERS, _write, _read, (_CLASS, _OLD_CLASS)),
    }
)

"""DiT's checkpoints: those of [DiT] code, and diffusers' DiTTransformer2DModel.

The two libraries do not compute quite the same from the same weights: diffusers spaces the
frequencies of the timestep by 1/127 of their range, [DiT] code and we by 1/128.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mudit.errors import UsageError
from mudit.models.dit import DiTConfig
from mudit.models.layouts.layout import Exchange, Layout, Row


def _in_blocks(ours: str, *theirs: str) -> Row:
    return Row(f"blocks.*.{ours}", tuple(f"transformer_blocks.*.{name}" for name in theirs))


def _in_each_block(ours: str, theirs: str) -> Row:
    # Every block of theirs embeds timestep and label itself, with copies of the same weights.
    return Row(ours, (f"transformer_blocks.*.norm1.emb.{theirs}",))


_DIFFUSERS = Layout(
    rows=(
        Row("x_embedder.proj", ("pos_embed.proj",)),
        _in_each_block("t_embedder.mlp.0", "timestep_embedder.linear_1"),
        _in_each_block("t_embedder.mlp.2", "timestep_embedder.linear_2"),
        _in_each_block("y_embedder.embedding_table", "class_embedder.embedding_table"),
        _in_blocks("adaLN_modulation.1", "norm1.linear"),
        _in_blocks("attn.qkv", "attn1.to_q", "attn1.to_k", "attn1.to_v"),
        _in_blocks("attn.proj", "attn1.to_out.0"),
        _in_blocks("mlp.fc1", "ff.net.0.proj"),
        _in_blocks("mlp.fc2", "ff.net.2"),
        Row("final_layer.adaLN_modulation.1", ("proj_out_1",)),
        Row("final_layer.linear", ("proj_out_2",)),
    ),
    computed=("pos_embed",),
    ignored=("pos_embed.pos_embed",),  # a buffer that they do not save either, by default
)


# Configs ------------------------------------------------------------------------------------------

_CLASS = "DiTTransformer2DModel"
_OLD_CLASS = "Transformer2DModel"  # what diffusers called it when the released models were written
# What diffusers takes for a key that config.json does not have.
_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": None,
        "num_layers": 28,
        "dropout": 0.0,
        "norm_num_groups": 32,
        "attention_bias": True,
        "sample_size": 32,
        "patch_size": 2,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000,
        "upcast_attention": False,
        "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-5,
    }
)
# Values that ours has, where theirs has a choice; the first is written.
_FIXED: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "dropout": (0.0,),
        "attention_bias": (True,),
        "activation_fn": ("gelu-approximate",),
        "upcast_attention": (False,),
        "norm_type": ("ada_norm_zero",),
        "norm_elementwise_affine": (False,),
        # Of the norm before the MLP. The released models say 1e-5, their default, but were trained
        # with [DiT] code's 1e-6, which ours has.
        "norm_eps": (1e-6, 1e-5),
    }
)
# Keys of the old class that the new one does not have, and what they say of a DiT.
_OLD: Mapping[str, Any] = MappingProxyType(
    {
        "cross_attention_dim": None,
        "num_vector_embeds": None,
        "only_cross_attention": False,
        "double_self_attention": False,
        "use_linear_projection": False,
        "attention_type": "default",
        "caption_channels": None,
        "interpolation_scale": None,
        "use_additional_conditions": None,
    }
)
_MLP_RATIO = 4.0


def _write(config: DiTConfig) -> dict[str, Any]:
    if config.mlp_ratio != _MLP_RATIO:
        raise UsageError(
            f"DiTConfig.mlp_ratio is {config.mlp_ratio!r}, which diffusers' {_CLASS} cannot be; it "
            f"has {_MLP_RATIO!r}. Write the checkpoint in this project's own layout."
        )
    ours = {
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_layers": config.depth,
        "sample_size": config.input_size,
        "patch_size": config.patch_size,
        "num_embeds_ada_norm": config.num_classes,
    }
    fixed = {key: values[0] for key, values in _FIXED.items()}
    return {"_class_name": _CLASS, **_DEFAULTS, **fixed, **ours}


def _read(theirs: Mapping[str, Any]) -> DiTConfig:
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
    for key, allowed in {**_FIXED, **{key: (value,) for key, value in _OLD.items()}}.items():
        if values[key] not in allowed:
            raise _refusal(key, values[key], " or ".join(map(repr, allowed)))
    for key in ("sample_size", "num_embeds_ada_norm"):
        if values[key] is None:
            raise _refusal(key, None, "a whole number from 1")
    in_channels, out_channels = values["in_channels"], values["out_channels"]
    if out_channels not in (None, in_channels, 2 * in_channels):
        expected = f"in_channels, {in_channels}, or twice that"
        raise _refusal("out_channels", out_channels, expected)
    return DiTConfig(
        depth=values["num_layers"],
        num_heads=values["num_attention_heads"],
        head_dim=values["attention_head_dim"],
        patch_size=values["patch_size"],
        input_size=values["sample_size"],
        in_channels=in_channels,
        num_classes=values["num_embeds_ada_norm"],
        learn_sigma=out_channels == 2 * in_channels,
    )


def _refusal(key: str, value: object, expected: str) -> UsageError:
    return UsageError(
        f"The config of a {_CLASS} has {key} = {value!r}, which a DiT here cannot have; expected "
        f"{expected}."
    )


# A file of [DiT] code holds no config, and all our names.
EXCHANGES: Mapping[str, Exchange] = MappingProxyType(
    {
        "original": Exchange(Layout()),
        "diffusers": Exchange(_DIFFUSERS, _write, _read, (_CLASS, _OLD_CLASS)),
    }
)

"""MMDiT's checkpoints: those of [SD3] code, and diffusers' SD3Transformer2DModel."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from mudit.errors import UsageError
from mudit.models.layouts.layout import Exchange, Layout, Row, State
from mudit.models.mmdit import MMDiTConfig

# Released files hold the transformer beside the autoencoder and the text encoders ([SD3] code).
_PREFIX = "model.diffusion_model."
_OTHER_PARTS = ("first_stage_model.", "text_encoders.")


class _Original(Layout):
    """Our own names, all under one prefix."""

    def place(self, name: str, depth: int) -> tuple[list[list[str]], tuple[int, ...]]:
        return [[_PREFIX + name]], ()

    def load(self, theirs: State, expected: State, depth: int) -> dict[str, Tensor]:
        part = {name: theirs[name] for name in theirs if not name.startswith(_OTHER_PARTS)}
        return super().load(part, expected, depth)


_SCALE_FIRST = (1, 0)  # diffusers' AdaLayerNormContinuous; [SD3] code has the shift first


class _Diffusers(Layout):
    """Rows, except that the last block's text is normalised by a class that has the scale first."""

    def place(self, name: str, depth: int) -> tuple[list[list[str]], tuple[int, ...]]:
        places, order = super().place(name, depth)
        last = f"joint_blocks.{depth - 1}.context_block.adaLN_modulation."
        return places, _SCALE_FIRST if name.startswith(last) else order


def _in_blocks(ours: str, *theirs: str) -> Row:
    return Row(f"joint_blocks.*.{ours}", tuple(f"transformer_blocks.*.{name}" for name in theirs))


_ROWS = (
    Row("pos_embed", ("pos_embed.pos_embed",)),
    Row("x_embedder.proj", ("pos_embed.proj",)),
    Row("t_embedder.mlp.0", ("time_text_embed.timestep_embedder.linear_1",)),
    Row("t_embedder.mlp.2", ("time_text_embed.timestep_embedder.linear_2",)),
    Row("y_embedder.mlp.0", ("time_text_embed.text_embedder.linear_1",)),
    Row("y_embedder.mlp.2", ("time_text_embed.text_embedder.linear_2",)),
    _in_blocks("x_block.adaLN_modulation.1", "norm1.linear"),
    _in_blocks("x_block.attn.qkv", "attn.to_q", "attn.to_k", "attn.to_v"),
    _in_blocks("x_block.attn.ln_q", "attn.norm_q"),
    _in_blocks("x_block.attn.ln_k", "attn.norm_k"),
    _in_blocks("x_block.attn.proj", "attn.to_out.0"),
    _in_blocks("x_block.attn2.qkv", "attn2.to_q", "attn2.to_k", "attn2.to_v"),
    _in_blocks("x_block.attn2.ln_q", "attn2.norm_q"),
    _in_blocks("x_block.attn2.ln_k", "attn2.norm_k"),
    _in_blocks("x_block.attn2.proj", "attn2.to_out.0"),
    _in_blocks("x_block.mlp.fc1", "ff.net.0.proj"),
    _in_blocks("x_block.mlp.fc2", "ff.net.2"),
    _in_blocks("context_block.adaLN_modulation.1", "norm1_context.linear"),
    _in_blocks("context_block.attn.qkv", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    _in_blocks("context_block.attn.ln_q", "attn.norm_added_q"),
    _in_blocks("context_block.attn.ln_k", "attn.norm_added_k"),
    _in_blocks("context_block.attn.proj", "attn.to_add_out"),
    _in_blocks("context_block.mlp.fc1", "ff_context.net.0.proj"),
    _in_blocks("context_block.mlp.fc2", "ff_context.net.2"),
    Row("final_layer.adaLN_modulation.1", ("norm_out.linear",), _SCALE_FIRST),
    Row("final_layer.linear", ("proj_out",)),
)


# Configs ------------------------------------------------------------------------------------------

_CLASS = "SD3Transformer2DModel"
# What diffusers takes for a key that config.json does not have; SD3's own lacks the last two.
_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "num_layers": 18,
        "attention_head_dim": 64,
        "num_attention_heads": 18,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1152,
        "pooled_projection_dim": 2048,
        "out_channels": 16,
        "pos_embed_max_size": 96,
        "dual_attention_layers": (),
        "qk_norm": None,
    }
)
# Their config does not bound the text: 77 tokens of CLIP and 256 of T5 is what their pipeline has.
_CAPTION_TOKENS = 333


def _write(config: MMDiTConfig) -> dict[str, Any]:
    fixed = {"mlp": "gelu", "mlp_ratio": 4.0}
    for name, value in fixed.items():
        if getattr(config, name) != value:
            raise UsageError(
                f"MMDiTConfig.{name} is {getattr(config, name)!r}, which diffusers' {_CLASS} "
                f"cannot be; it has {value!r}. Write the checkpoint in this project's own layout."
            )
    if config.pooled_dim is None:
        raise UsageError(
            f"MMDiTConfig.pooled_dim is None, which diffusers' {_CLASS} cannot be; it always has a "
            "pooled vector. Write the checkpoint in this project's own layout."
        )
    return {
        "_class_name": _CLASS,
        "sample_size": config.input_size,
        "patch_size": config.patch_size,
        "in_channels": config.in_channels,
        "num_layers": config.depth,
        "attention_head_dim": config.head_dim,
        "num_attention_heads": config.num_heads,
        "joint_attention_dim": config.caption_dim,
        "caption_projection_dim": config.width,
        "pooled_projection_dim": config.pooled_dim,
        "out_channels": config.out_channels,
        "pos_embed_max_size": config.pos_embed_max_size,
        "dual_attention_layers": list(range(config.dual_attention_blocks)),
        "qk_norm": "rms_norm" if config.qk_norm else None,
    }


def _read(theirs: Mapping[str, Any]) -> MMDiTConfig:
    name = theirs.get("_class_name", _CLASS)
    if name != _CLASS:
        raise _refusal("_class_name", name, repr(_CLASS))
    own = {key: value for key, value in theirs.items() if not key.startswith("_")}
    if unknown := sorted(own.keys() - _DEFAULTS.keys()):
        raise UsageError(
            f"The config of a {_CLASS} has the keys {', '.join(unknown)}, which this project does "
            f"not know; expected some of {', '.join(_DEFAULTS)}."
        )
    values = {**_DEFAULTS, **own}
    width = values["num_attention_heads"] * values["attention_head_dim"]
    dual = list(values["dual_attention_layers"])
    if values["out_channels"] not in (None, values["in_channels"]):
        expected = f"in_channels, {values['in_channels']}"
        raise _refusal("out_channels", values["out_channels"], expected)
    if values["caption_projection_dim"] != width:
        expected = f"num_attention_heads * attention_head_dim, {width}"
        raise _refusal("caption_projection_dim", values["caption_projection_dim"], expected)
    if dual != list(range(len(dual))):
        raise _refusal("dual_attention_layers", dual, "the first layers, [0, 1, ...]")
    if values["qk_norm"] not in (None, "rms_norm"):
        raise _refusal("qk_norm", values["qk_norm"], "None or 'rms_norm'")
    for key in ("pos_embed_max_size", "pooled_projection_dim"):
        if values[key] is None:
            raise _refusal(key, None, "a whole number from 1")
    return MMDiTConfig(
        depth=values["num_layers"],
        num_heads=values["num_attention_heads"],
        head_dim=values["attention_head_dim"],
        patch_size=values["patch_size"],
        input_size=values["sample_size"],
        in_channels=values["in_channels"],
        caption_dim=values["joint_attention_dim"],
        caption_tokens=_CAPTION_TOKENS,
        pooled_dim=values["pooled_projection_dim"],
        pos_embed_max_size=values["pos_embed_max_size"],
        qk_norm=values["qk_norm"] is not None,
        dual_attention_blocks=len(dual),
    )


def _refusal(key: str, value: object, expected: str) -> UsageError:
    return UsageError(
        f"The config of a {_CLASS} has {key} = {value!r}, which an MMDiT here cannot have; "
        f"expected {expected}."
    )


# A file of [SD3] code holds no config.
EXCHANGES: Mapping[str, Exchange] = MappingProxyType(
    {
        "original": Exchange(_Original()),
        "diffusers": Exchange(_Diffusers(_ROWS), _write, _read, (_CLASS,)),
    }
)

"""How diffusers' image Transformers from DiT to HiDream scale, in one table.

Facts (field names, shapes of inputs) are from the classes' sources in diffusers 0.42.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mudit.models.foreign.form import Config, Foreign

# Sizes of every input: samples, text tokens, patches on each side of an image.
BATCH, WORDS, SIDE = 2, 3, 2


def _image(c: Config, side: int = 0) -> Tensor:
    side = side or SIDE * c.patch_size
    return torch.randn(BATCH, c.in_channels, side, side)


def _text(width: int, words: int = WORDS) -> Tensor:
    return torch.randn(BATCH, words, width)


def _time() -> Tensor:
    return torch.randint(1000, (BATCH,))


def _dit(c: Config) -> dict[str, Any]:
    # The class's positions are made for one size of image.
    return {
        "hidden_states": _image(c, c.sample_size),
        "timestep": _time(),
        "class_labels": torch.randint(c.num_embeds_ada_norm, (BATCH,)),
    }


def _pixart(c: Config) -> dict[str, Any]:
    sizes = {
        "resolution": torch.full((BATCH, 2), 64.0),
        "aspect_ratio": torch.ones(BATCH, 1),
    }
    alone = {"resolution": None, "aspect_ratio": None}
    micro = c.use_additional_conditions or (
        c.use_additional_conditions is None and c.sample_size == 128
    )
    return {
        "hidden_states": _image(c),
        "encoder_hidden_states": _text(c.caption_channels or c.cross_attention_dim),
        "encoder_attention_mask": torch.ones(BATCH, WORDS),
        "timestep": _time(),
        "added_cond_kwargs": sizes if micro else alone,
    }


def _continuous(c: Config) -> dict[str, Any]:
    text = None if c.double_self_attention else c.cross_attention_dim
    return {
        "hidden_states": torch.randn(BATCH, c.in_channels, 4, 4),
        **({"encoder_hidden_states": _text(text)} if text else {}),
    }


def _uvit(c: Config) -> dict[str, Any]:
    return {
        "input_ids": torch.randint(c.codebook_size, (BATCH, c.sample_size, c.sample_size)),
        "encoder_hidden_states": _text(c.encoder_hidden_size),
        "pooled_text_emb": torch.randn(BATCH, c.cond_embed_dim),
        "micro_conds": torch.full((BATCH, 5), 64.0),
    }


def _hunyuan_dit(c: Config) -> dict[str, Any]:
    style = {
        "image_meta_size": torch.full((BATCH, 6), 64.0),
        "style": torch.zeros(BATCH, dtype=torch.long),
    }
    patches = (c.sample_size // c.patch_size) ** 2
    head = c.hidden_size // c.num_attention_heads
    return {
        "hidden_states": _image(c, c.sample_size),
        "timestep": _time().float(),
        "encoder_hidden_states": _text(c.cross_attention_dim, c.text_len),
        "text_embedding_mask": torch.ones(BATCH, c.text_len),
        "encoder_hidden_states_t5": _text(c.cross_attention_dim_t5, c.text_len_t5),
        "text_embedding_mask_t5": torch.ones(BATCH, c.text_len_t5),
        "image_rotary_emb": (torch.ones(patches, head), torch.zeros(patches, head)),
        **(style if c.use_style_cond_and_image_meta_size else {}),
    }


def _lumina_next(c: Config) -> dict[str, Any]:
    head = c.hidden_size // c.num_attention_heads
    angles = torch.randn(384, 384, head // 2)
    return {
        "hidden_states": _image(c),
        "timestep": torch.rand(BATCH),
        "encoder_hidden_states": _text(c.cross_attention_dim),
        "encoder_mask": torch.ones(BATCH, WORDS),
        "image_rotary_emb": torch.polar(torch.ones_like(angles), angles),
        "cross_attention_kwargs": {},
    }


def _lumina2(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _image(c),
        "timestep": torch.rand(BATCH),
        "encoder_hidden_states": _text(c.cap_feat_dim),
        "encoder_attention_mask": torch.ones(BATCH, WORDS, dtype=torch.bool),
    }


def _sd3(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _image(c),
        "encoder_hidden_states": _text(c.joint_attention_dim),
        "pooled_projections": torch.randn(BATCH, c.pooled_projection_dim),
        "timestep": _time(),
    }


def _aura_flow(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _image(c),
        "encoder_hidden_states": _text(c.joint_attention_dim),
        "timestep": torch.rand(BATCH),
    }


def _hidream(c: Config) -> dict[str, Any]:
    side = 4 * c.patch_size  # enough tokens that each expert gets some
    layers = max(c.llama_layers) + 1
    return {
        "hidden_states": _image(c, side),
        "timesteps": _time(),
        "encoder_hidden_states_t5": _text(c.caption_channels[0], 8),
        "encoder_hidden_states_llama3": torch.randn(layers, BATCH, 8, c.caption_channels[1]),
        "pooled_embeds": torch.randn(BATCH, c.text_emb_dim),
    }


def _omnigen(c: Config) -> dict[str, Any]:
    """Text whose first tokens stand for an input image, a time token, and the image."""
    side, words = SIDE * c.patch_size, 6
    length = words + 1 + SIDE * SIDE
    return {
        "hidden_states": _image(c),
        "timestep": torch.rand(BATCH),
        "input_ids": torch.randint(10, (BATCH, words)),
        "input_img_latents": [torch.randn(1, c.in_channels, side, side)],
        "input_image_sizes": {0: [[0, SIDE * SIDE]]},
        "attention_mask": torch.ones(BATCH, length, length),
        "position_ids": torch.arange(length).repeat(BATCH, 1),
    }


_HEADS = ("num_attention_heads", "attention_head_dim")
_DIT_SMALL = {
    "in_channels": 4, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2,
    "sample_size": 4, "patch_size": 2,
}  # fmt: skip
_MMDIT_SMALL = {
    **_DIT_SMALL, "out_channels": 4, "joint_attention_dim": 12, "caption_projection_dim": 16,
}  # fmt: skip

# fmt: off
TABLE: Mapping[str, Foreign] = {
    "DiTTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_dit, unit=8, small=_DIT_SMALL,
    ),
    "PixArtTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "cross_attention_dim"), inputs=_pixart,
        unit=24,
        small={
            **_DIT_SMALL, "attention_head_dim": 24, "num_attention_heads": 1,
            "cross_attention_dim": 24, "out_channels": 8, "caption_channels": 12,
            "use_additional_conditions": True,
        },
        note="By default it has no caption_channels, and takes text of the model's own width.",
    ),
    "Transformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "in_channels"), inputs=_continuous, unit=32,
        small={
            "in_channels": 32, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 4,
            "cross_attention_dim": 12,
        },
        needs={"in_channels": 1408},
        note="A block of a U-Net: its channels are the model's width. Its other inputs (patches, "
        "vectors) are those of DiT and PixArt.",
    ),
    "DreamLiteTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "num_kv_heads", "in_channels"),
        inputs=_continuous, unit=32,
        small={
            "in_channels": 32, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 4,
            "cross_attention_dim": 12,
        },
        needs={"in_channels": 1408},
        note="A block of a U-Net: its channels are the model's width. Its attention as built "
        "cannot run fewer num_kv_heads than heads.",
    ),
    "UVit2DModel": Foreign(
        width=("hidden_size",), inputs=_uvit, unit=32,
        scales=(
            "hidden_size", "block_out_channels", "block_num_heads", "num_attention_heads",
            "intermediate_size",
        ),
        small={
            "hidden_size": 32, "cond_embed_dim": 10, "micro_cond_encode_dim": 4,
            "micro_cond_embed_dim": 20, "encoder_hidden_size": 12, "vocab_size": 20,
            "codebook_size": 16, "in_channels": 12, "block_out_channels": 32, "num_res_blocks": 1,
            "downsample": True, "upsample": True, "block_num_heads": 2, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 64, "sample_size": 4,
        },
    ),
    "HunyuanDiT2DModel": Foreign(
        width=("hidden_size",), scales=("hidden_size", "num_attention_heads"),
        inputs=_hunyuan_dit, unit=8,
        small={
            **_DIT_SMALL, "hidden_size": 16, "num_layers": 4, "cross_attention_dim": 12,
            "cross_attention_dim_t5": 16, "pooled_projection_dim": 4, "text_len": 4,
            "text_len_t5": 4,
        },
        needs={"in_channels": 4, "patch_size": 2, "hidden_size": 1408, "num_layers": 40},
        note="in_channels and patch_size have no default, and the default hidden_size is not that "
        "of its heads.",
    ),
    "LuminaNextDiT2DModel": Foreign(
        width=("hidden_size",), scales=("hidden_size", "num_attention_heads", "num_kv_heads"),
        inputs=_lumina_next, unit=16,
        small={
            "sample_size": 16, "in_channels": 4, "hidden_size": 32, "num_layers": 2,
            "num_attention_heads": 4, "num_kv_heads": 2, "multiple_of": 1,
            "cross_attention_dim": 12,
        },
        needs={"num_kv_heads": 8},
        multiples=(3, 6, 9),  # its feed-forward width is rounded
        unset={"pad_token": 0.02},
        note="num_kv_heads has no default that builds. Nothing uses pad_token. The embedding of "
        "time and text is as wide as the model up to 1024, and no wider.",
    ),
    "Lumina2Transformer2DModel": Foreign(
        width=("hidden_size",), scales=("hidden_size", "num_attention_heads", "num_kv_heads"),
        inputs=_lumina2, unit=24,
        small={
            "sample_size": 16, "in_channels": 4, "hidden_size": 48, "num_layers": 1,
            "num_refiner_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2,
            "multiple_of": 1, "axes_dim_rope": (4, 4, 4), "axes_lens": (64, 32, 32),
            "cap_feat_dim": 12,
        },
        multiples=(3, 6, 9),
        note="The embedding of time is as wide as the model up to 1024, and no wider.",
    ),
    "SD3Transformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "caption_projection_dim"), inputs=_sd3,
        unit=8,
        small={
            **_MMDIT_SMALL, "num_layers": 3, "pooled_projection_dim": 10,
            "pos_embed_max_size": 8, "dual_attention_layers": (0,), "qk_norm": "rms_norm",
        },
    ),
    "AuraFlowTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "caption_projection_dim"),
        inputs=_aura_flow, unit=32,
        small={
            "sample_size": 4, "in_channels": 4, "out_channels": 4, "num_mmdit_layers": 1,
            "num_single_dit_layers": 1, "attention_head_dim": 8, "num_attention_heads": 4,
            "joint_attention_dim": 12, "caption_projection_dim": 32, "pos_embed_max_size": 16,
        },
        multiples=(3, 6, 9),  # its feed-forward width is rounded up to steps of 256
    ),
    "HiDreamImageTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_hidream, unit=64,
        small={
            "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 1,
            "num_single_layers": 1, "attention_head_dim": 8, "num_attention_heads": 8,
            "caption_channels": (8, 4), "text_emb_dim": 8, "num_routed_experts": 3,
            "num_activated_experts": 2, "axes_dims_rope": (4, 2, 2), "max_resolution": (32, 32),
            "llama_layers": (0, 1), "force_inference_output": True,
        },
        needs={
            "patch_size": 2, "in_channels": 16, "axes_dims_rope": (64, 32, 32),
            "caption_channels": (4096, 4096), "llama_layers": (*range(32), *[31] * 16),
            "force_inference_output": True,
        },
        multiples=(3, 6, 9),  # its feed-forward width is rounded up to steps of 256
        note="patch_size, caption_channels and llama_layers have no default, and the default "
        "axes_dims_rope lacks one of the three axes.",
    ),
    "OmniGenTransformer2DModel": Foreign(
        width=("hidden_size",),
        scales=("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size"),
        inputs=_omnigen, unit=8,
        small={
            "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 4,
            "intermediate_size": 32, "num_layers": 2, "pad_token_id": 0, "vocab_size": 50,
            "time_step_dim": 4,
            "rope_scaling": {"long_factor": [1, 2], "short_factor": [1, 2]},
        },
        needs={"rope_scaling": {"long_factor": [1] * 48, "short_factor": [1] * 48}},
        note="rope_scaling has no default that builds.",
    ),
}
# fmt: on

"""How diffusers' Flux and the image Transformers built after it scale, in one table.

Facts (field names, shapes of inputs) are from the classes' sources in diffusers 0.42.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mudit.models.foreign.form import Config, Foreign

# Sizes of every input: samples, text tokens, patches on each side of an image.
BATCH, WORDS, SIDE = 2, 3, 2
PATCHES = SIDE * SIDE


def _places(axes: int) -> dict[str, Any]:
    """Positions of image and text tokens on so many axes."""
    row, column = torch.arange(PATCHES) // SIDE, torch.arange(PATCHES) % SIDE
    image = torch.zeros(PATCHES, axes)
    image[:, 1], image[:, 2] = row, column
    return {"img_ids": image, "txt_ids": torch.zeros(WORDS, axes)}


def _text(c: Config) -> torch.Tensor:
    return torch.randn(BATCH, WORDS, c.joint_attention_dim)


def _tokens(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(BATCH, PATCHES, c.in_channels),
        "encoder_hidden_states": _text(c),
        "timestep": torch.rand(BATCH),
    }


def _guided(c: Config) -> dict[str, Any]:
    return {"guidance": torch.rand(BATCH)} if c.guidance_embeds else {}


def _plain(c: Config) -> dict[str, Any]:
    return {**_tokens(c), **_places(len(c.axes_dims_rope))}


def _flux(c: Config) -> dict[str, Any]:
    pooled = torch.randn(BATCH, c.pooled_projection_dim)
    return {**_plain(c), "pooled_projections": pooled, **_guided(c)}


def _flux2(c: Config) -> dict[str, Any]:
    return {**_plain(c), **_guided(c)}


def _flux3(c: Config) -> dict[str, Any]:
    places = _places(len(c.axes_dims_rope))
    return {
        **_tokens(c),
        **places,
        "image_cond_hidden_states": torch.randn(BATCH, PATCHES, c.cond_in_channels),
        "image_cond_ids": places["img_ids"],
        **({"target_timestep": torch.rand(BATCH)} if c.flow_map else {}),
    }


def _chroma(c: Config) -> dict[str, Any]:
    mask = torch.ones(BATCH, WORDS + PATCHES, dtype=torch.bool)
    return {**_plain(c), "attention_mask": mask}


def _bria(c: Config) -> dict[str, Any]:
    return {**_plain(c), **_guided(c)}


def _bria_fibo(c: Config) -> dict[str, Any]:
    layers = c.num_layers + c.num_single_layers
    texts = [torch.randn(BATCH, WORDS, c.text_encoder_dim) for _ in range(layers)]
    return {**_bria(c), "text_encoder_layers": texts}


def _bria_fibo2(c: Config) -> dict[str, Any]:
    side, bundles = SIDE * c.patch_size, 1 + len(c.injection_layer_ids)
    return {
        "hidden_states": torch.randn(1, c.in_channels, side, side),
        "timestep": torch.rand(1),
        "encoder_hidden_states": torch.randn(1, bundles, 6, c.cap_feat_dim),
    }


def _qwen21(c: Config) -> dict[str, Any]:
    # One slot of the text encoder for each 2 x 2 patches, after the text.
    slots = torch.zeros(BATCH, WORDS + PATCHES // 4, dtype=torch.bool)
    slots[:, WORDS:] = True
    return {
        "hidden_states": torch.randn(BATCH, PATCHES, c.in_channels),
        "encoder_hidden_states": torch.randn(BATCH, WORDS, c.context_in_dim),
        "encoder_hidden_states_mask": torch.ones(BATCH, WORDS, dtype=torch.long),
        "timestep": torch.ones(BATCH),
        "img_shapes": [[(1, SIDE, SIDE)]] * BATCH,
        "img_mask": slots,
    }


def _qwen(c: Config) -> dict[str, Any]:
    mask = torch.ones(BATCH, WORDS, dtype=torch.long)
    return {
        **_tokens(c),
        "encoder_hidden_states_mask": mask,
        "img_shapes": [[(1, SIDE, SIDE)]] * BATCH,
        # One for all: with zero_cond_t the class doubles the times, and would not double these.
        **({"additional_t_cond": torch.tensor([1])} if c.use_additional_t_cond else {}),
    }


def _prx(c: Config) -> dict[str, Any]:
    side = SIDE * c.patch_size
    return {
        "hidden_states": torch.randn(BATCH, c.in_channels, side, side),
        "timestep": torch.rand(BATCH),
        "encoder_hidden_states": torch.randn(BATCH, WORDS, c.context_in_dim),
        "attention_mask": torch.ones(BATCH, WORDS, dtype=torch.bool),
    }


def _z_image(c: Config) -> dict[str, Any]:
    frames, patch = c.all_f_patch_size[0], c.all_patch_size[0]
    side = SIDE * patch
    return {
        "x": [torch.randn(c.in_channels, frames, side, side) for _ in range(BATCH)],
        "t": torch.rand(BATCH),
        "cap_feats": [torch.randn(WORDS, c.cap_feat_dim) for _ in range(BATCH)],
        "patch_size": patch,
        "f_patch_size": frames,
    }


_HEADS = ("num_attention_heads", "attention_head_dim")
_SMALL = {
    "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": 12,
}  # fmt: skip
_THREE_AXES = {"axes_dims_rope": (4, 4, 8)}

# fmt: off
TABLE: Mapping[str, Foreign] = {
    "FluxTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_flux, unit=16,
        small={**_SMALL, **_THREE_AXES, "pooled_projection_dim": 10, "guidance_embeds": True},
    ),
    "Flux2Transformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_flux2, unit=16,
        small={**_SMALL, "axes_dims_rope": (4, 4, 4, 4), "timestep_guidance_channels": 16},
    ),
    "Flux3Transformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_flux3, unit=16,
        small={
            **_SMALL, "axes_dims_rope": (4, 4, 4, 4), "timestep_channels": 16,
            "cond_in_channels": 6, "flow_map": True,
        },
    ),
    "ChromaTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_chroma, unit=16,
        small={
            **_SMALL, **_THREE_AXES, "approximator_num_channels": 8,
            "approximator_hidden_dim": 12, "approximator_layers": 1,
        },
        note="The approximator has a width of its own, which stays.",
    ),
    "BriaTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_bria, unit=16,
        small={**_SMALL, **_THREE_AXES},
        note="The class cannot be built with guidance_embeds.",
    ),
    "BriaFiboTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_bria_fibo, unit=16,
        small={**_SMALL, **_THREE_AXES, "text_encoder_dim": 12, "guidance_embeds": True},
    ),
    "LongCatImageTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_plain, unit=16,
        small={**_SMALL, **_THREE_AXES, "pooled_projection_dim": 12},
    ),
    "OvisImageTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_plain, unit=16,
        small={**_SMALL, **_THREE_AXES, "out_channels": 4},
    ),
    "QwenImageTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_qwen, unit=16,
        small={
            "in_channels": 16, "out_channels": 4, "num_layers": 2, "attention_head_dim": 16,
            "num_attention_heads": 2, "joint_attention_dim": 12, "axes_dims_rope": (4, 4, 8),
            "use_additional_t_cond": True,
        },
        note="The last block's text output is not used, so what only leads to it is not reached; "
        "guidance_embeds changes nothing, and the class takes no guidance.",
    ),
    "QwenImage21Transformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_qwen21, unit=16,
        small={
            "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 16,
            "num_attention_heads": 2, "context_in_dim": 8, "mlp_ratio": 2,
            "axes_dims_rope": (4, 6, 6),
        },
    ),
    "BriaFibo2Transformer2DModel": Foreign(
        width=("dim",), scales=("dim", "n_heads"), inputs=_bria_fibo2, unit=192,
        small={
            "in_channels": 4, "dim": 192, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 12,
            "cap_feat_dim": 24, "injection_layer_ids": (1,), "perceiver_num_layers": 1,
            "min_num_gist_tokens": 4, "max_num_gist_tokens": 8, "gist_step": 4,
            "gist_min_text_len": 4, "gist_max_text_len": 16, "axes_dims": (4, 6, 6),
            "axes_lens": (16, 16, 16),
        },
        # Feed-forward widths are 8/3 of the width, rounded down to steps of 64; from width 256 on
        # the time embedding's width is 256, before it is the width.
        multiples=(2, 4, 6),
    ),
    "PRXTransformer2DModel": Foreign(
        width=("hidden_size",), scales=("hidden_size", "num_heads"), inputs=_prx, unit=16,
        small={
            "in_channels": 4, "context_in_dim": 12, "hidden_size": 32, "num_heads": 2, "depth": 2,
            "mlp_ratio": 2.0, "axes_dim": (8, 8), "bottleneck_size": 6, "resolution_embeds": True,
        },
    ),
    "ZImageTransformer2DModel": Foreign(
        width=("dim",), scales=("dim", "n_heads", "n_kv_heads"), inputs=_z_image, unit=96,
        small={
            "in_channels": 4, "dim": 96, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 6,
            "n_kv_heads": 6, "cap_feat_dim": 12, "axes_dims": (8, 4, 4), "axes_lens": (256, 32, 32),
        },
        # The feed-forward width is 8/3 of the width, rounded down; from width 256 on the time
        # embedding's width is 256, before it is the width.
        multiples=(3, 6, 9),
    ),
}
# fmt: on

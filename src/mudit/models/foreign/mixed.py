"""How the video and large image Transformers of diffusers scale: CogView to Hunyuan, in one table.

Facts (field names, shapes of inputs) are from the classes' sources in diffusers 0.42.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mudit.models.foreign.form import Config, Foreign

# Sizes of every input: samples, text tokens, latent frames, patches on each side of a frame.
BATCH, WORDS, FRAMES, SIDE = 2, 3, 2, 2
PATCHES = SIDE * SIDE
TOKENS = FRAMES * PATCHES


def _patch(c: Config) -> tuple[int, int, int]:
    """Patch size as (frames, height, width), however the class writes it."""
    size = c.patch_size
    if isinstance(size, int):
        return (getattr(c, "patch_size_t", None) or 1, size, size)
    return (1, *size)[-3:]


def _image(c: Config) -> Tensor:
    _, height, width = _patch(c)
    return torch.randn(BATCH, c.in_channels, SIDE * height, SIDE * width)


def _video(c: Config, channels: int | None = None, frames: int = FRAMES) -> Tensor:
    time, height, width = _patch(c)
    return torch.randn(BATCH, channels or c.in_channels, frames * time, SIDE * height, SIDE * width)


def _text(width: int, words: int = WORDS) -> Tensor:
    return torch.randn(BATCH, words, width)


def _mask(words: int = WORDS) -> Tensor:
    """Which text tokens count: all but the last one of the last sample."""
    mask = torch.ones(BATCH, words, dtype=torch.bool)
    mask[-1, -1] = False
    return mask


def _time() -> Tensor:
    return 1000 * torch.rand(BATCH)


def _sizes(*names: str) -> dict[str, Tensor]:
    return {name: torch.full((BATCH, 2), 64.0) for name in names}


def _rotary(*shape: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of some angles, each for two neighbouring features."""
    angles = torch.randn(*shape[:-1], shape[-1] // 2).repeat_interleave(2, dim=-1)
    return angles.cos(), angles.sin()


def _width(c: Config) -> int:
    return int(c.num_attention_heads * c.attention_head_dim)


def _given(wanted: object, **inputs: Any) -> dict[str, Any]:
    """Inputs of a branch that the configuration may lack."""
    return inputs if wanted else {}


def _texts(**widths: int | None) -> dict[str, Tensor]:
    """Texts of these widths, without those that the configuration lacks."""
    return {name: _text(width) for name, width in widths.items() if width}


def _cogview(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _image(c),
        "encoder_hidden_states": _text(c.text_embed_dim),
        "timestep": _time(),
        **_sizes("original_size", "target_size", "crop_coords"),
    }


def _cogview4(c: Config) -> dict[str, Any]:
    return {**_cogview(c), "attention_mask": _mask()}


def _cogvideox(c: Config) -> dict[str, Any]:
    # The text is as long as the class says: its positions are part of one table with the video's.
    return {
        "hidden_states": _video(c).transpose(1, 2),
        "encoder_hidden_states": _text(c.text_embed_dim, c.max_text_seq_length),
        "timestep": _time(),
        **_given(
            c.use_rotary_positional_embeddings,
            image_rotary_emb=_rotary(TOKENS, c.attention_head_dim),
        ),
    }


def _cogvideox_offset(c: Config) -> dict[str, Any]:
    return {**_cogvideox(c), **_given(c.ofs_embed_dim, ofs=_time())}


def _consisid(c: Config) -> dict[str, Any]:
    face = {
        "id_cond": torch.randn(BATCH, c.LFE_id_dim),
        "id_vit_hidden": [_text(c.LFE_vit_dim) for _ in range(c.LFE_num_scale)],
    }
    return {**_cogvideox(c), **_given(c.is_train_face, **face)}


def _easyanimate(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _video(c),
        "timestep": _time(),
        "encoder_hidden_states": _text(c.text_embed_dim),
        **_texts(encoder_hidden_states_t5=c.text_embed_dim_t5),
    }


def _captioned(c: Config) -> dict[str, Any]:
    return {
        "encoder_hidden_states": _text(c.caption_channels),
        "encoder_attention_mask": _mask(),
        "timestep": _time(),
    }


def _guided(c: Config) -> dict[str, Any]:
    return _given(c.guidance_embeds, guidance=_time())


def _sana(c: Config) -> dict[str, Any]:
    return {"hidden_states": _image(c), **_captioned(c), **_guided(c)}


def _sana_video(c: Config) -> dict[str, Any]:
    return {"hidden_states": _video(c), **_captioned(c), **_guided(c)}


def _sana_wm(c: Config) -> dict[str, Any]:
    # A camera: where it stands in each frame (a matrix of 4 x 4, row by row), then its lens.
    _, height, width = _patch(c)
    pose = torch.eye(4).repeat(BATCH, FRAMES, 1, 1)
    pose[..., 2, 3] = torch.arange(FRAMES) / 10
    sides = SIDE * torch.tensor([width, height, width / 2, height / 2])
    camera = torch.cat([pose.flatten(-2), sides.expand(BATCH, FRAMES, 4)], dim=-1)
    return {
        "hidden_states": _video(c),
        "timestep": _time().reshape(BATCH, 1, 1).repeat(1, 1, FRAMES),
        "encoder_hidden_states": _text(c.caption_channels).unsqueeze(1),
        "encoder_attention_mask": _mask(),
        "camera_conditions": camera,
        **_given(c.use_chunk_plucker_post_attn, chunk_plucker=_video(c, c.chunk_plucker_channels)),
    }


def _ltx(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(BATCH, TOKENS, c.in_channels),
        **_captioned(c),
        "num_frames": FRAMES,
        "height": SIDE,
        "width": SIDE,
    }


def _ltx2(c: Config) -> dict[str, Any]:
    return {
        **_ltx(c),
        "audio_hidden_states": torch.randn(BATCH, FRAMES, c.audio_in_channels),
        "audio_encoder_hidden_states": _text(c.caption_channels),
        "audio_encoder_attention_mask": _mask(),
        "audio_num_frames": FRAMES,
        "sigma": _time(),
        **_given(
            c.use_keyframes_abs_pos_embedding,
            video_keyframes_mask=torch.ones(BATCH, TOKENS, 1),
        ),
    }


def _ltx2_refiner(c: Config) -> dict[str, Any]:
    # The rotary table spans the whole width, and is an input.
    return {
        "hidden_states": torch.randn(BATCH, TOKENS, c.in_channels),
        **_captioned(c),
        "video_rotary_emb": _rotary(BATCH, TOKENS, _width(c)),
    }


def _latte(c: Config) -> dict[str, Any]:
    # As many frames as the temporal position table has.
    return {
        "hidden_states": _video(c, frames=c.video_length),
        "encoder_hidden_states": _text(c.caption_channels),
        "timestep": _time(),
    }


def _allegro(c: Config) -> dict[str, Any]:
    video = _video(c)
    axes = [torch.arange(n) for n in (FRAMES, SIDE, SIDE)]
    tables = tuple(_rotary(len(axis), c.attention_head_dim // 3) for axis in axes)
    places = torch.cartesian_prod(*axes).T.unsqueeze(1)  # (3, 1, tokens)
    return {
        "hidden_states": video,
        **_captioned(c),
        "attention_mask": torch.ones(BATCH, *video.shape[2:]),
        "image_rotary_emb": (tables, tuple(places)),
    }


def _mochi(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _video(c),
        "encoder_hidden_states": _text(c.text_embed_dim),
        "timestep": _time(),
        "encoder_attention_mask": _mask(),
    }


def _cosmos(c: Config) -> dict[str, Any]:
    video = _video(c)
    projected = c.use_crossattn_projection
    text = _text(c.crossattn_proj_in_channels if projected else c.text_embed_dim)
    picture = c.img_context_dim_in
    return {
        "hidden_states": video,
        "timestep": _time(),
        "encoder_hidden_states": (text, _text(picture)) if picture else text,
        "fps": 24,
        **_given(c.concat_padding_mask, padding_mask=torch.zeros(1, 1, *video.shape[3:])),
    }


def _cosmos3(c: Config) -> dict[str, Any]:
    """One sequence of text, a video frame, and sound and actions if the class builds them."""
    parts = [WORDS, PATCHES, FRAMES * bool(c.sound_gen), FRAMES * bool(c.action_gen)]
    length = sum(parts)
    text, vision, hum, move = torch.split(torch.arange(length), parts)
    side = SIDE * c.latent_patch_size
    inputs = {
        "input_ids": torch.arange(WORDS),
        "text_indexes": text,
        "position_ids": torch.arange(length).repeat(3, 1),
        "und_len": WORDS,
        "sequence_length": length,
        "vision_tokens": [torch.randn(1, c.latent_channel, 1, side, side)],
        "vision_token_shapes": [(1, SIDE, SIDE)],
        **_noisy("vision", vision, frames=1),
    }
    if c.sound_gen:
        inputs["sound_tokens"] = [torch.randn(c.sound_dim, FRAMES)]
        inputs["sound_token_shapes"] = [(FRAMES, 1, 1)]
        inputs |= _noisy("sound", hum, frames=FRAMES)
    if c.action_gen:
        inputs["action_tokens"] = [torch.randn(FRAMES, c.action_dim)]
        inputs["action_token_shapes"] = [(FRAMES, 1, 1)]
        inputs["action_domain_ids"] = [torch.tensor(0)]
        inputs |= _noisy("action", move, frames=FRAMES)
    return inputs


def _noisy(kind: str, places: Tensor, frames: int) -> dict[str, Any]:
    """Every token at these places is noisy, and is predicted."""
    return {
        f"{kind}_sequence_indexes": places,
        f"{kind}_mse_loss_indexes": places,
        f"{kind}_timesteps": 1000 * torch.rand(len(places)),
        f"{kind}_noisy_frame_indexes": [torch.arange(frames)],
    }


def _glm_image(c: Config) -> dict[str, Any]:
    dropped = torch.zeros(BATCH, PATCHES, dtype=torch.bool)
    dropped[-1] = True  # the last sample has no prior
    return {
        "hidden_states": _image(c),
        "encoder_hidden_states": _text(c.text_embed_dim),
        "prior_token_id": torch.randint(c.prior_vq_quantizer_codebook_size, (BATCH, PATCHES)),
        "prior_token_drop": dropped,
        "timestep": _time(),
        **_sizes("target_size", "crop_coords"),
        "attention_mask": _mask(),
    }


def _ernie_image(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _image(c),
        "timestep": _time(),
        "text_bth": _text(c.text_in_dim),
        "text_lens": _mask().sum(dim=1),
    }


def _ideogram4(c: Config) -> dict[str, Any]:
    length = WORDS + PATCHES
    kinds = torch.tensor([3] * WORDS + [2] * PATCHES)  # the class's marks of text and image
    return {
        "hidden_states": torch.randn(BATCH, length, c.in_channels),
        "timestep": torch.rand(BATCH),
        "encoder_hidden_states": torch.randn(BATCH, length, c.llm_features_dim),
        "position_ids": torch.arange(length).reshape(1, length, 1).repeat(BATCH, 1, 3),
        "segment_ids": torch.ones(BATCH, length, dtype=torch.long),
        "indicator": kinds.repeat(BATCH, 1),
    }


def _krea2(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(BATCH, PATCHES, c.in_channels),
        "encoder_hidden_states": torch.randn(BATCH, WORDS, c.num_text_layers, c.text_hidden_dim),
        "timestep": torch.rand(BATCH),
        "position_ids": torch.arange(WORDS + PATCHES).unsqueeze(1).repeat(1, 3),
        "encoder_attention_mask": _mask(),
    }


def _nucleus(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(BATCH, PATCHES, c.in_channels),
        "img_shapes": [(1, SIDE, SIDE)] * BATCH,
        "encoder_hidden_states": _text(c.joint_attention_dim),
        "encoder_hidden_states_mask": _mask(),
        "timestep": torch.rand(BATCH),
    }


def _texted(c: Config) -> dict[str, Any]:
    return {
        "timestep": _time(),
        "encoder_hidden_states": _text(c.text_embed_dim),
        "encoder_attention_mask": _mask(),
    }


def _twice_texted(c: Config) -> dict[str, Any]:
    return {
        **_texted(c),
        **_texts(encoder_hidden_states_2=c.text_embed_2_dim),
        **_given(c.text_embed_2_dim, encoder_attention_mask_2=_mask()),
        **_given(c.use_meanflow, timestep_r=_time()),
    }


def _hunyuan_image(c: Config) -> dict[str, Any]:
    return {"hidden_states": _image(c), **_twice_texted(c), **_guided(c)}


def _hunyuan_video(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _video(c),
        **_texted(c),
        "pooled_projections": torch.randn(BATCH, c.pooled_projection_dim),
        **_guided(c),
    }


def _hunyuan_video15(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _video(c),
        **_twice_texted(c),
        "image_embeds": _text(c.image_embed_dim),
    }


def _framepack(c: Config) -> dict[str, Any]:
    past = {"latents_history_4x": 4, "latents_history_2x": 2, "latents_clean": 1}
    return {
        **_hunyuan_video(c),
        "image_embeds": _text(c.image_proj_dim),
        "indices_latents": torch.arange(FRAMES),
        **{name: _video(c, frames=count) for name, count in past.items()},
        **{f"indices_{name}": torch.arange(count) for name, count in past.items()},
    }


# Fields share lines, so that a class is seen whole.
# fmt: off
_HEADS = ("num_attention_heads", "attention_head_dim")
_LTX2_SCALES = (
    "num_attention_heads", "cross_attention_dim", "audio_num_attention_heads",
    "audio_cross_attention_dim",
)
_COGVIEW_SMALL = {
    "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2,
    "attention_head_dim": 8, "text_embed_dim": 6, "time_embed_dim": 12, "condition_dim": 4,
}
_COGVIDEOX_SMALL = {
    "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2,
    "attention_head_dim": 8, "text_embed_dim": 6, "time_embed_dim": 12,
    "max_text_seq_length": WORDS, "sample_width": 8, "sample_height": 8, "sample_frames": 5,
}
_SANA_SMALL = {
    "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2,
    "attention_head_dim": 8, "num_cross_attention_heads": 2, "cross_attention_head_dim": 8,
    "cross_attention_dim": 16, "caption_channels": 6, "guidance_embeds": True,
    "qk_norm": "rms_norm_across_heads",
}
_LTX2_SMALL = {
    "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2,
    "attention_head_dim": 16, "cross_attention_dim": 32, "gated_attn": True, "audio_in_channels": 4,
    "audio_out_channels": 4, "audio_num_attention_heads": 2, "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 16, "audio_gated_attn": True, "caption_channels": 6,
}
_HUNYUAN_SMALL = {
    "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_refiner_layers": 1,
    "num_attention_heads": 2, "attention_head_dim": 8, "text_embed_dim": 6,
    "rope_axes_dim": (4, 2, 2),
}
_SANA_SCALES = ("num_attention_heads", "num_cross_attention_heads", "cross_attention_dim")

TABLE: Mapping[str, Foreign] = {
    "CogView3PlusTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_cogview, unit=8,
        small={**_COGVIEW_SMALL, "pos_embed_max_size": 8, "sample_size": 8},
    ),
    "CogView4Transformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_cogview4, unit=8,
        small={**_COGVIEW_SMALL, "rope_axes_dim": (8, 8), "sample_size": 8},
    ),
    "CogVideoXTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_cogvideox_offset, unit=16,
        small={**_COGVIDEOX_SMALL, "ofs_embed_dim": 12},
    ),
    "ConsisIDTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "cross_attn_num_heads", "LFE_output_dim"),
        inputs=_consisid, unit=48,
        small={
            **_COGVIDEOX_SMALL, "num_attention_heads": 6, "is_train_face": True,
            "cross_attn_num_heads": 4, "cross_attn_dim_head": 8, "LFE_id_dim": 6, "LFE_vit_dim": 10,
            "LFE_depth": 2, "LFE_dim_head": 4, "LFE_num_heads": 2, "LFE_num_id_token": 2,
            "LFE_num_querie": 3, "LFE_output_dim": 32, "LFE_ff_mult": 2, "LFE_num_scale": 2,
        },
        floors=("LFE_output_dim",),
        note="The face's tokens have two thirds of the width, rounded down; the face extractor "
        "itself has sizes of its own.",
    ),
    "EasyAnimateTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_easyanimate, unit=16,
        small={
            "in_channels": 4, "out_channels": 4, "patch_size": 2, "num_layers": 2,
            "mmdit_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16,
            "text_embed_dim": 6, "text_embed_dim_t5": 6, "time_embed_dim": 12,
            "add_norm_text_encoder": True, "after_norm": True,
        },
        needs={"in_channels": 16, "out_channels": 16, "patch_size": 2},
    ),
    "SanaTransformer2DModel": Foreign(
        width=_HEADS, scales=_SANA_SCALES, inputs=_sana, unit=8,
        small={**_SANA_SMALL, "sample_size": 4, "interpolation_scale": 1},
    ),
    "SanaVideoTransformer3DModel": Foreign(
        width=_HEADS, scales=_SANA_SCALES, inputs=_sana_video, unit=8,
        small={**_SANA_SMALL, "rope_max_seq_len": 8},
    ),
    "SanaWMTransformer3DModel": Foreign(
        width=("hidden_size",), scales=("hidden_size", "num_attention_heads"), inputs=_sana_wm,
        unit=16,
        small={
            "in_channels": 4, "num_layers": 2, "hidden_size": 32, "num_attention_heads": 2,
            "linear_head_dim": 16, "softmax_every_n": 2, "k_conv_only": False,
            "chunk_plucker_channels": 6, "caption_channels": 6,
        },
        note="raymap_embedder is used only where use_chunk_plucker_post_attn is off; the blocks "
        "with softmax attention have gates (A_log, dt_bias, beta_proj, gate_proj) that they do "
        "not use.",
    ),
    "SanaWMLTX2RefinerTransformer3DModel": Foreign(
        width=_HEADS, scales=_LTX2_SCALES, inputs=_ltx2_refiner, unit=16,
        small=_LTX2_SMALL,
        multiples=(2, 5, 8),  # as for LTX
        note="The class builds LTX2's audio half and never uses it; the rotary table, over the "
        "whole width, is an input.",
    ),
    "LTXVideoTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "cross_attention_dim"), inputs=_ltx, unit=8,
        small={
            "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2,
            "attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 6,
        },
        multiples=(2, 5, 8),  # the rotary table's padding is the width modulo 6
    ),
    "LTX2VideoTransformer3DModel": Foreign(
        width=_HEADS, scales=_LTX2_SCALES, inputs=_ltx2, unit=16,
        small={
            **_LTX2_SMALL, "cross_attn_mod": True, "audio_cross_attn_mod": True,
            "use_keyframes_abs_pos_embedding": True,
        },
        multiples=(2, 5, 8),  # as for LTX
    ),
    "LatteTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "cross_attention_dim"), inputs=_latte, unit=8,
        small={
            "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8,
            "cross_attention_dim": 16, "caption_channels": 6, "attention_bias": True,
            "sample_size": 8, "patch_size": 2, "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False, "video_length": FRAMES,
        },
        needs={
            "num_attention_heads": 16, "attention_head_dim": 72, "num_layers": 28,
            "in_channels": 4, "out_channels": 8, "cross_attention_dim": 1152,
            "caption_channels": 4096, "patch_size": 2, "attention_bias": True,
            "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
        },
    ),
    "AllegroTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "cross_attention_dim"), inputs=_allegro,
        unit=12,
        small={
            "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12,
            "cross_attention_dim": 24, "caption_channels": 6, "sample_height": 8, "sample_width": 8,
            "sample_frames": 2,
        },
    ),
    "MochiTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "pooled_projection_dim"), inputs=_mochi,
        unit=8,
        small={
            "in_channels": 4, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8,
            "pooled_projection_dim": 8, "text_embed_dim": 16, "time_embed_dim": 12,
        },
        multiples=(3, 6, 9),  # both feed-forward widths are 8/3 of their stream's, rounded down
        note="pooled_projection_dim is the width of the text stream.",
    ),
    "CosmosTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "img_context_dim_out"), inputs=_cosmos,
        unit=16,
        small={
            "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2,
            "attention_head_dim": 16, "text_embed_dim": 6, "adaln_lora_dim": 4,
            "max_size": (4, 8, 8), "use_crossattn_projection": True,
            "crossattn_proj_in_channels": 10, "encoder_hidden_states_channels": 6,
            "img_context_dim_in": 7, "img_context_dim_out": 32,
        },
    ),
    "Cosmos3OmniTransformer": Foreign(
        width=("hidden_size",),
        scales=("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
        inputs=_cosmos3, unit=16,
        small={
            "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 2, "latent_channel": 3,
            "patch_latent_dim": 12, "vocab_size": 7, "rope_axes_dim": (2, 1, 1), "action_gen": True,
            "action_dim": 5, "num_embodiment_domains": 3, "sound_gen": True, "sound_dim": 6,
        },
        note="lm_head is not used by the denoiser.",
    ),
    "GlmImageTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_glm_image, unit=8,
        small={**_COGVIEW_SMALL, "prior_vq_quantizer_codebook_size": 7},
    ),
    "ErnieImageTransformer2DModel": Foreign(
        width=("hidden_size",), scales=("hidden_size", "num_attention_heads", "ffn_hidden_size"),
        inputs=_ernie_image, unit=16,
        small={
            "hidden_size": 32, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 64,
            "in_channels": 4, "out_channels": 4, "text_in_dim": 6, "rope_axes_dim": (4, 6, 6),
        },
    ),
    "Ideogram4Transformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "intermediate_size"), inputs=_ideogram4,
        unit=16,
        small={
            "in_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
            "intermediate_size": 64, "adaln_dim": 12, "llm_features_dim": 6,
            "mrope_section": (4, 2, 2),
        },
    ),
    "Krea2Transformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "num_key_value_heads", "intermediate_size"),
        inputs=_krea2, unit=16,
        small={
            "in_channels": 4, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 64, "timestep_embed_dim": 12,
            "text_hidden_dim": 6, "num_text_layers": 3, "text_num_attention_heads": 2,
            "text_num_key_value_heads": 1, "text_intermediate_size": 10,
            "num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1,
            "axes_dims_rope": (4, 2, 2),
        },
        note="text_fusion works on the text encoder's features, at their width.",
    ),
    "NucleusMoEImageTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "num_key_value_heads", "moe_intermediate_dim"),
        inputs=_nucleus, unit=32,
        small={
            "in_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
            "num_key_value_heads": 1, "joint_attention_dim": 6, "axes_dims_rope": (4, 6, 6),
            "dense_moe_strategy": "leave_first_block_dense", "num_experts": 4,
            "moe_intermediate_dim": 64, "capacity_factors": 2.0,
        },
        multiples=(3, 6, 9),  # the dense feed-forward width is rounded down to steps of 128
        unset={"*.experts.*": 0.02},
        note="Nothing uses norm_added_q.",
    ),
    "HunyuanImageTransformer2DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_hunyuan_image, unit=8,
        small={
            **_HUNYUAN_SMALL, "num_single_layers": 1, "rope_axes_dim": (4, 4),
            "text_embed_2_dim": 10, "guidance_embeds": True, "use_meanflow": True,
        },
    ),
    "HunyuanVideoTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_hunyuan_video, unit=8,
        small={**_HUNYUAN_SMALL, "num_single_layers": 1, "pooled_projection_dim": 10},
    ),
    "HunyuanVideo15Transformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_hunyuan_video15, unit=8,
        small={
            **_HUNYUAN_SMALL, "text_embed_2_dim": 10, "image_embed_dim": 7, "use_meanflow": True,
        },
    ),
    "HunyuanVideoFramepackTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_framepack, unit=8,
        small={
            **_HUNYUAN_SMALL, "num_single_layers": 1, "pooled_projection_dim": 10,
            "has_image_proj": True, "image_proj_dim": 7, "has_clean_x_embedder": True,
        },
        note="Runs only with has_image_proj and has_clean_x_embedder, which the defaults leave "
        "off.",
    ),
}

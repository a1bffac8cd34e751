"""How the video, audio and other sequence Transformers of diffusers scale: Wan to T5Film.

Facts (field names, shapes of inputs) are from the classes' sources in diffusers 0.42.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mudit.models.foreign.form import Config, Foreign

# Sizes of every input: samples, text or image tokens, latent frames, patches on a frame's side.
BATCH, WORDS, FRAMES, SIDE = 2, 3, 2, 2
TOKENS = FRAMES * SIDE * SIDE


def _size(c: Config) -> tuple[int, int, int]:
    """Latent (frames, height, width) of an input of TOKENS patches."""
    patch = c.patch_size
    time, height, width = (c.patch_size_t, patch, patch) if isinstance(patch, int) else patch
    return FRAMES * time, SIDE * height, SIDE * width


def _video(c: Config, channels: int | None = None) -> Tensor:
    return torch.randn(BATCH, channels or c.in_channels, *_size(c))


def _tokens(width: int, count: int = WORDS) -> Tensor:
    return torch.randn(BATCH, count, width)


def _mask(count: int = WORDS) -> Tensor:
    """Which tokens count: all but the last one of the last sample."""
    mask = torch.ones(BATCH, count, dtype=torch.bool)
    mask[-1, -1] = False
    return mask


def _time(*shape: int) -> Tensor:
    return 1000 * torch.rand(BATCH, *shape)


def _given(wanted: object, **inputs: Any) -> dict[str, Any]:
    """Inputs of a branch that the configuration may lack."""
    return inputs if wanted else {}


def _tokens_of(**widths: int | None) -> dict[str, Tensor]:
    """Tokens of these widths, without those that the configuration lacks."""
    return {name: _tokens(width) for name, width in widths.items() if width}


def _encoded(c: Config) -> dict[str, Any]:
    """Text, and for a class with an image encoder the features of an image."""
    # With keys of their own for image tokens, the Wan family takes the last 512 tokens for text.
    text = _tokens(c.text_dim, 512 if getattr(c, "added_kv_proj_dim", None) else WORDS)
    image = _tokens_of(encoder_hidden_states_image=c.image_dim)
    if image and (length := getattr(c, "pos_embed_seq_len", None)):
        # A position table over two images: the two of each sample stand one after the other.
        image = {name: torch.randn(2 * BATCH, length // 2, c.image_dim) for name in image}
    return {"encoder_hidden_states": text, **image}


def _wan(c: Config) -> dict[str, Any]:
    return {"hidden_states": _video(c), "timestep": _time(), **_encoded(c)}


def _vace(c: Config) -> dict[str, Any]:
    return {**_wan(c), "control_hidden_states": _video(c, c.vace_in_channels)}


def _animate(c: Config) -> dict[str, Any]:
    # One image of a face becomes one frame of motion; the class puts an empty frame before it.
    side = c.motion_encoder_size
    return {
        **_wan(c),
        "pose_hidden_states": _video(c, c.latent_channels)[:, :, 1:],
        "face_pixel_values": torch.randn(BATCH, 3, 1, side, side),
    }


def _animate2(c: Config) -> dict[str, Any]:
    from diffusers.models.transformers.transformer_wan_animate_2 import WanAnimate2KVCache

    return {
        "hidden_states": list(_video(c, c.out_dim)),
        "condition_latents": list(_video(c, c.in_dim - c.out_dim)),
        "timestep": _time(),
        "encoder_hidden_states": list(_tokens(c.text_dim)),
        **_given(c.use_img_emb, encoder_hidden_states_image=_tokens(1280)),
        "kv_cache": WanAnimate2KVCache(c.num_layers),
        "kv_cache_mode": "extract",
        "seq_len": TOKENS,
        "offset_grid_sizes": torch.tensor([[FRAMES, SIDE, SIDE]] * BATCH),
    }


def _skyreels(c: Config) -> dict[str, Any]:
    return {**_wan(c), **_given(c.inject_sample_info, fps=[0, 1])}


def _anyflow(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _video(c).transpose(1, 2),
        "timestep": _time(FRAMES),
        "r_timestep": _time(FRAMES),
        **_encoded(c),
    }


def _anyflow_far(c: Config) -> dict[str, Any]:
    # The last chunks are seen in full, noisy and clean; those before only in larger patches.
    frames, clean = sum(c.chunk_partition), sum(c.chunk_partition[-c.full_chunk_limit :])
    sides = [SIDE * size for size in c.compressed_patch_size[1:]]
    return {
        "hidden_states": torch.randn(BATCH, frames, c.in_channels, *sides),
        "timestep": _time(frames),
        "r_timestep": _time(frames),
        "chunk_partition": list(c.chunk_partition),
        "clean_hidden_states": torch.randn(BATCH, clean, c.in_channels, *sides),
        "clean_timestep": _time(clean),
        **_encoded(c),
    }


def _helios(c: Config) -> dict[str, Any]:
    past = ("short", "mid", "long") if c.has_multi_term_memory_patch else ()
    places = torch.arange(FRAMES).expand(BATCH, FRAMES)
    return {
        "hidden_states": _video(c),
        "timestep": _time(),
        "encoder_hidden_states": _tokens(c.text_dim),
        **{f"latents_history_{term}": _video(c) for term in past},
        **{f"indices_latents_history_{term}": places for term in past},
    }


def _kandinsky_video(c: Config) -> Tensor:
    """Latents, and for an edited video its original and a mask, with channels last."""
    edited = getattr(c, "visual_cond", True)
    return torch.randn(BATCH, *_size(c), c.in_visual_dim * (1 + edited) + edited)


def _kandinsky(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _kandinsky_video(c),
        "timestep": _time(),
        "encoder_hidden_states": _tokens(c.in_text_dim),
        "pooled_projections": torch.randn(BATCH, c.in_text_dim2),
    }


def _kandinsky5(c: Config) -> dict[str, Any]:
    return {
        **_kandinsky(c),
        "visual_rope_pos": tuple(torch.arange(count) for count in (FRAMES, SIDE, SIDE)),
        "text_rope_pos": torch.arange(WORDS),
    }


def _kandinsky6(c: Config) -> dict[str, Any]:
    kinds = c.visual_token_type_num_embeddings
    return {
        **_kandinsky(c),
        "audio_hidden_states": _tokens(c.in_audio_dim),
        "encoder_attention_mask": _mask(),
        **_given(kinds, visual_token_type_ids=torch.zeros(BATCH, FRAMES, dtype=torch.long)),
    }


def _kandinsky6_sr(c: Config) -> dict[str, Any]:
    # Attention is over blocks of 8 x 8 tokens: one in each frame.
    time, height, width = c.patch_size
    shape = (BATCH, FRAMES * time, 8 * height, 8 * width, 2 * c.in_visual_dim + 1)
    return {"hidden_states": torch.randn(shape), "timestep": _time()}


def _joyimage(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _video(c),
        "timestep": _time(),
        "encoder_hidden_states": _tokens(c.text_dim),
    }


def _joyimage_plus(c: Config) -> dict[str, Any]:
    # A sample is a list of pictures: FRAMES in the first one, a single one in the second.
    picture = (1, SIDE, SIDE)
    return {
        "hidden_states": torch.randn(BATCH, TOKENS, c.in_channels, *c.patch_size),
        "timestep": _time(),
        "encoder_hidden_states": _tokens(c.text_dim),
        "encoder_hidden_states_mask": _mask().float(),
        "shape_list": [[picture] * FRAMES, [picture]],
    }


def _minimax_h3(c: Config) -> dict[str, Any]:
    """One sequence of text, sound and video, each with the class's mark; text has its own time."""
    parts = [WORDS, FRAMES, TOKENS]
    text, sound, video = torch.split(torch.arange(sum(parts)), parts)
    tags = torch.cat([torch.full((count,), tag) for count, tag in zip(parts, (1, 2, 0))])
    time, height, width = c.patch_size
    return {
        "hidden_states": _tokens(c.in_channels * time * height * width, TOKENS),
        "audio_hidden_states": _tokens(c.audio_in_channels, FRAMES),
        "encoder_hidden_states": _tokens(c.text_dim),
        "timestep": torch.rand(2),
        "timestep_indices": (tags != 1).long(),
        "token_tags": tags,
        "position_ids": torch.arange(sum(parts)).unsqueeze(1).repeat(1, 3),
        "video_indices": video,
        "audio_indices": sound,
        "text_indices": text,
    }


def _minimax_music3(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(BATCH, c.in_channels, TOKENS),
        "timestep": torch.rand(BATCH),
        "encoder_hidden_states": _tokens(c.condition_dim, TOKENS),
    }


def _depth_decoder(c: Config) -> dict[str, Any]:
    return {"inputs_embeds": _tokens(c.hidden_size)}


def _motif(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _video(c),
        "timestep": _time(),
        "encoder_hidden_states": _tokens(c.text_embed_dim),
        "encoder_attention_mask": _mask(),
        **_tokens_of(image_embeds=c.image_embed_dim),
    }


def _ace_step(c: Config) -> dict[str, Any]:
    sound = c.audio_acoustic_hidden_dim
    return {
        "hidden_states": _tokens(sound, TOKENS),
        "context_latents": _tokens(c.in_channels - sound, TOKENS),
        "timestep": torch.rand(BATCH),
        "timestep_r": torch.rand(BATCH),
        "encoder_hidden_states": _tokens(c.encoder_hidden_size or c.hidden_size),
    }


def _longcat(c: Config) -> dict[str, Any]:
    return {
        "hidden_states": _tokens(c.latent_dim, TOKENS),
        "attention_mask": _mask(TOKENS),
        "encoder_hidden_states": _tokens(c.dit_text_dim),
        "encoder_attention_mask": _mask(),
        "timestep": torch.rand(BATCH),
        **_given(c.use_latent_condition, latent_cond=_tokens(c.latent_dim, TOKENS)),
    }


def _stable_audio(c: Config) -> dict[str, Any]:
    # The global token stands first; half of a head's features turn.
    angles = torch.randn(1 + TOKENS, c.attention_head_dim // 4).repeat(1, 2)
    return {
        "hidden_states": torch.randn(BATCH, c.in_channels, TOKENS),
        "timestep": torch.rand(BATCH),
        "encoder_hidden_states": _tokens(c.cross_attention_input_dim),
        "global_hidden_states": _tokens(c.global_states_input_dim, 1),
        "rotary_embedding": (angles.cos(), angles.sin()),
        "return_dict": False,  # the class's output type warns that it is deprecated
    }


def _stable_audio3(c: Config) -> dict[str, Any]:
    local = torch.randn(BATCH, c.local_add_cond_dim, TOKENS)
    return {
        "hidden_states": torch.randn(BATCH, c.io_channels, c.patch_size * TOKENS),
        "timestep": torch.rand(BATCH),
        "encoder_hidden_states": _tokens(c.cond_token_dim),
        "global_hidden_states": torch.randn(BATCH, c.global_cond_dim),
        "encoder_attention_mask": _mask(),
        **_given(c.patch_size == 1, local_add_cond=local),
    }


def _prior(c: Config) -> dict[str, Any]:
    text = _tokens(c.embedding_dim, c.num_embeddings)
    return {
        "hidden_states": torch.randn(BATCH, c.embedding_dim),
        "timestep": _time(),
        "proj_embedding": torch.randn(BATCH, c.embedding_proj_dim or c.embedding_dim),
        **_given(c.encoder_hid_proj_type, encoder_hidden_states=text),
        "attention_mask": _mask(c.num_embeddings),
    }


def _temporal(c: Config) -> dict[str, Any]:
    video = torch.randn(BATCH * FRAMES, c.in_channels, SIDE, SIDE)
    return {"hidden_states": video, "num_frames": FRAMES}


def _proteina(c: Config) -> dict[str, Any]:
    """A molecule of WORDS tokens with 37 atoms each, and every label that has its own embedding."""
    tokens = (BATCH, WORDS)
    bonds = ("hbond", "pistack", "pication", "saltbridge", "hydrophobic", "metal-coord")
    groups = ("condition_index-group_1_token", "molecule_iid", "molecule_entity_id")
    labels = {
        **{f"condition_{name}_1_atom": torch.randint(4, (*tokens, 37)) for name in bonds},
        **{name: torch.randint(2, tokens) for name in groups},
        **{name: torch.randint(5, (*tokens, 2)) for name in ("charge", "element")},
        "condition_secondary-structure_1_residue": torch.randint(4, tokens),
        "condition_cath-label_1_residue": torch.randint(5, (*tokens, 3)),
        "token_bond_path_length": torch.randint(c.seq_sep_dim, (*tokens, WORDS)),
        "is_in_context_conditioning": torch.zeros(tokens, dtype=torch.bool),
        "supports_local_latent": torch.ones(tokens, dtype=torch.bool),
    }
    return {
        "bb_ca": _tokens(3),
        "local_latents": _tokens(c.latent_dim),
        "bb_ca_time": torch.rand(BATCH),
        "local_latents_time": torch.rand(BATCH),
        "padding_mask": _mask(),
        "token_type": torch.full(tokens, 3),  # single atoms: the only ones with charge and element
        "atom37_mask": torch.ones(*tokens, 37),
        "conditioning": labels,
        "recycle_depth": 2,
    }


def _t5_film(c: Config) -> dict[str, Any]:
    return {
        "encodings_and_masks": [(_tokens(c.d_model), _mask().float())],
        "decoder_input_tokens": _tokens(c.input_dims, TOKENS),
        "decoder_noise_time": torch.rand(BATCH),
    }


# Fields share lines, so that a class is seen whole.
# fmt: off
_HEADS = ("num_attention_heads", "attention_head_dim")
_WAN_SCALES = ("num_attention_heads", "ffn_dim", "added_kv_proj_dim")
_ANYFLOW_SMALL = {
    "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2,
    "attention_head_dim": 12, "ffn_dim": 48, "text_dim": 6, "freq_dim": 8, "image_dim": 5,
    "rope_max_seq_len": 32,
}
_WAN_SMALL = {**_ANYFLOW_SMALL, "added_kv_proj_dim": 24}
_KANDINSKY_SMALL = {
    "in_visual_dim": 4, "out_visual_dim": 4, "time_dim": 12, "model_dim": 16, "ff_dim": 64,
    "num_visual_blocks": 2, "axes_dims": (4, 2, 2),
}
_JOYIMAGE_SMALL = {
    "in_channels": 4, "hidden_size": 16, "num_attention_heads": 2, "text_dim": 6, "num_layers": 2,
    "rope_dim_list": [4, 2, 2],
}

TABLE: Mapping[str, Foreign] = {
    "WanTransformer3DModel": Foreign(
        width=_HEADS, scales=_WAN_SCALES, inputs=_wan, unit=12,
        small={**_WAN_SMALL, "pos_embed_seq_len": 4},
    ),
    "WanVACETransformer3DModel": Foreign(
        width=_HEADS, scales=_WAN_SCALES, inputs=_vace, unit=12,
        small={**_WAN_SMALL, "vace_layers": [0, 1], "vace_in_channels": 7},
    ),
    "WanAnimateTransformer3DModel": Foreign(
        width=_HEADS, scales=_WAN_SCALES, inputs=_animate, unit=12,
        small={
            **_WAN_SMALL, "in_channels": 12, "latent_channels": 4,
            "motion_encoder_channel_sizes": {"4": 4, "8": 4}, "motion_encoder_size": 8,
            "motion_style_dim": 5, "motion_dim": 3, "motion_encoder_dim": 7,
            "face_encoder_hidden_dim": 8, "face_encoder_num_heads": 2,
            "inject_face_latents_blocks": 2,
        },
    ),
    "WanAnimate2Transformer3DModel": Foreign(
        width=("dim",), scales=("dim", "ffn_dim", "num_heads"), inputs=_animate2, unit=12,
        small={
            "in_dim": 9, "out_dim": 4, "dim": 24, "ffn_dim": 48, "num_heads": 2, "num_layers": 2,
            "text_dim": 6, "text_len": 4, "freq_dim": 8,
        },
        note="Runs as over the reference video (kv_cache_mode='extract'), which uses all weights; "
        "the other mode compiles its attention mask.",
    ),
    "SkyReelsV2Transformer3DModel": Foreign(
        width=_HEADS, scales=_WAN_SCALES, inputs=_skyreels, unit=12,
        small={**_WAN_SMALL, "inject_sample_info": True},
    ),
    "ChronoEditTransformer3DModel": Foreign(
        width=_HEADS, scales=_WAN_SCALES, inputs=_wan, unit=12, small=_WAN_SMALL,
    ),
    "AnyFlowTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "ffn_dim"), inputs=_anyflow, unit=12,
        small=_ANYFLOW_SMALL,
    ),
    "AnyFlowFARTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "ffn_dim"), inputs=_anyflow_far, unit=12,
        small={**_ANYFLOW_SMALL, "full_chunk_limit": 2, "chunk_partition": (1, 1, 1)},
    ),
    "HeliosTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "ffn_dim"), inputs=_helios, unit=8,
        small={
            "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2,
            "attention_head_dim": 8, "ffn_dim": 32, "text_dim": 6, "freq_dim": 10,
            "rope_dim": (4, 2, 2), "is_amplify_history": True,
        },
    ),
    "Kandinsky5Transformer3DModel": Foreign(
        width=("model_dim",), scales=("model_dim", "ff_dim"), inputs=_kandinsky5, unit=8,
        head="axes_dims",
        small={**_KANDINSKY_SMALL, "in_text_dim": 6, "in_text_dim2": 5, "num_text_blocks": 1},
        note="time_dim, the width of the conditioning alone, is held fixed.",
    ),
    "Kandinsky6Transformer3DModel": Foreign(
        width=("model_dim",), scales=("model_dim", "ff_dim", "model_dim_a", "ff_dim_a"),
        inputs=_kandinsky6, unit=16, head="axes_dims",
        small={
            **_KANDINSKY_SMALL, "in_text_dim": 6, "in_text_dim2": 5, "num_text_blocks": 1,
            "in_audio_dim": 7, "out_audio_dim": 7, "model_dim_a": 8, "time_dim_a": 10,
            "ff_dim_a": 32, "ca_rope": True, "cross_gates": True, "fix_modulation": True,
            "visual_token_type_num_embeddings": 2,
        },
        note="time_dim and time_dim_a, the widths of the conditioning alone, are held fixed.",
    ),
    "Kandinsky6SRTransformer3DModel": Foreign(
        width=("model_dim",), scales=("model_dim", "ff_dim"), inputs=_kandinsky6_sr, unit=8,
        head="axes_dims",
        small=_KANDINSKY_SMALL,
        note="time_dim, the width of the conditioning alone, is held fixed.",
    ),
    "JoyImageEditTransformer3DModel": Foreign(
        width=("hidden_size",), scales=("hidden_size", "num_attention_heads"), inputs=_joyimage,
        unit=8, small=_JOYIMAGE_SMALL,
    ),
    "JoyImageEditPlusTransformer3DModel": Foreign(
        width=("hidden_size",), scales=("hidden_size", "num_attention_heads"),
        inputs=_joyimage_plus, unit=8, small=_JOYIMAGE_SMALL,
    ),
    "MiniMaxH3Transformer3DModel": Foreign(
        width=("hidden_size",), scales=("hidden_size", "num_attention_heads", "ffn_dim"),
        inputs=_minimax_h3, unit=12,
        small={
            "hidden_size": 12, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2,
            "num_refiner_layers": 1, "ffn_dim": 36, "in_channels": 3, "audio_in_channels": 4,
            "text_dim": 6, "freq_dim": 10, "time_embed_hidden_dim": 14, "time_embed_dim": 7,
            "rope_freq_dim": 1,
        },
        note="time_embed_hidden_dim and time_embed_dim, the widths of the conditioning alone, are "
        "held fixed.",
    ),
    "MiniMaxMusic3Transformer1DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "ff_inner_dim"), inputs=_minimax_music3,
        unit=8,
        small={
            "in_channels": 4, "condition_dim": 6, "num_layers": 2, "num_attention_heads": 2,
            "attention_head_dim": 8, "ff_inner_dim": 32, "rotary_dim": 4,
            "fourier_embedding_dim": 10,
        },
    ),
    "MiniMaxMusic3RVQDepthDecoder": Foreign(
        width=("hidden_size",), scales=("hidden_size", "num_attention_heads", "intermediate_size"),
        inputs=_depth_decoder, unit=8,
        small={
            "hidden_size": 16, "num_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
            "audio_vocab_size": 7, "num_codebooks": 3, "max_position_embeddings": 4,
        },
        note="forward takes embeddings of the model's width; audio_embeddings, projection and "
        "audio_heads are used by the pipeline around it.",
    ),
    "MotifVideoTransformer3DModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_motif, unit=8,
        small={
            "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8,
            "num_layers": 1, "num_single_layers": 2, "num_decoder_layers": 1, "text_embed_dim": 6,
            "image_embed_dim": 5, "rope_axes_dim": (4, 2, 2),
            "enable_text_cross_attention_dual": True, "enable_text_cross_attention_single": True,
        },
    ),
    "AceStepTransformer1DModel": Foreign(
        width=("hidden_size",),
        scales=("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
        inputs=_ace_step, unit=16,
        small={
            "hidden_size": 16, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "in_channels": 10,
            "audio_acoustic_hidden_dim": 4, "encoder_hidden_size": 6, "sliding_window": 2,
        },
        note="Without encoder_hidden_size the condition, an input, is as wide as the model.",
    ),
    "LongCatAudioDiTTransformer": Foreign(
        width=("dit_dim",), scales=("dit_dim", "dit_heads"), inputs=_longcat, unit=8,
        small={
            "dit_dim": 16, "dit_depth": 2, "dit_heads": 2, "dit_text_dim": 6, "latent_dim": 4,
        },
    ),
    "StableAudioDiTModel": Foreign(
        width=_HEADS, scales=("num_attention_heads", "num_key_value_attention_heads"),
        inputs=_stable_audio, unit=16,
        small={
            "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 8,
            "num_attention_heads": 2, "num_key_value_attention_heads": 1, "cross_attention_dim": 9,
            "time_proj_dim": 10, "global_states_input_dim": 5, "cross_attention_input_dim": 6,
        },
    ),
    "StableAudio3DiTModel": Foreign(
        width=("embed_dim",), scales=("embed_dim", "num_heads"), inputs=_stable_audio3, unit=8,
        small={
            "io_channels": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "cond_token_dim": 6,
            "global_cond_dim": 5, "local_add_cond_dim": 7, "timestep_features_dim": 10,
            "num_memory_tokens": 3,
        },
    ),
    "PriorTransformer": Foreign(
        width=_HEADS, scales=("num_attention_heads", "time_embed_dim"), inputs=_prior, unit=8,
        small={
            "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": 6,
            "num_embeddings": 3,
        },
        note="clip_mean and clip_std are used after the last step, not by forward.",
    ),
    "TransformerTemporalModel": Foreign(
        width=_HEADS, scales=("num_attention_heads",), inputs=_temporal, unit=8,
        small={
            "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "num_layers": 2,
            "norm_num_groups": 2,
        },
        needs={"in_channels": 320},
        note="in_channels is held fixed, as any data dimension.",
    ),
    "RFD4ProteinaTransformer": Foreign(
        width=("token_dim",),
        scales=("token_dim", "nheads", "dim_cond", "pair_repr_dim", "tri_mult_c"),
        inputs=_proteina, unit=16,
        small={
            "nlayers": 2, "token_dim": 16, "nheads": 2, "dim_cond": 12, "pair_repr_dim": 8,
            "latent_dim": 3, "token_type_emb_dim": 5, "cath_emb_dim": 4, "t_emb_dim": 10,
            "seq_sep_dim": 6, "xt_pair_dist_dim": 7, "tri_mult_c": 4, "num_sequence_classes": 9,
        },
        note="The pairs and the conditioning are streams of their own widths, which grow too. "
        "Labels without an embedding of their own are left out: the class puts zeros.",
    ),
    "T5FilmDecoder": Foreign(
        width=("d_model",), scales=("d_model", "num_heads", "d_ff"), inputs=_t5_film, unit=8,
        small={
            "input_dims": 4, "targets_length": 12, "d_model": 16, "num_layers": 2, "num_heads": 2,
            "d_kv": 8, "d_ff": 40,
        },
        note="The encodings, an input, are as wide as the model.",
    ),
}
# fmt: on

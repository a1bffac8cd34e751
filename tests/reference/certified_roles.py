"""Roles of eleven classes' parameters, written by hand from their sources in diffusers 0.42.

Of the certificate, only how many parameters have which role had been seen; a second reader derived
them again from the sources, without difference. Patterns are those of fnmatch, the first that fits
counts; together they cover every parameter. What grows is the number of heads (head sizes stay)
with the fields that `mudit.models.foreign` says.
"""

from __future__ import annotations

INPUT, HIDDEN, OUTPUT = ("input", "weight"), ("hidden", "weight"), ("output", "weight")
FINITE = ("scalar", "weight")
BIAS, GAIN, TABLE = ("input", "bias"), ("input", "gain"), ("input", "table")
FINITE_BIAS, FINITE_GAIN, FINITE_TABLE = ("scalar", "bias"), ("scalar", "gain"), ("scalar", "table")

ROLES: dict[str, dict[str, tuple[str, str]]] = {
    "SD3Transformer2DModel": {
        "pos_embed.proj.weight": INPUT,
        # Timestep features (256) and pooled text (fixed) into the width, then width to width.
        "time_text_embed.*.linear_1.weight": INPUT,
        "time_text_embed.*.linear_2.weight": HIDDEN,
        "context_embedder.weight": INPUT,
        "*.norm_*.weight": FINITE_GAIN,  # of queries and keys: as long as a head
        "proj_out.weight": OUTPUT,
        "proj_out.bias": FINITE_BIAS,
        "*.bias": BIAS,
        "norm_out.linear.weight": HIDDEN,
        "transformer_blocks.*.weight": HIDDEN,
    },
    "FluxTransformer2DModel": {
        "x_embedder.weight": INPUT,
        "context_embedder.weight": INPUT,
        "time_text_embed.*.linear_1.weight": INPUT,
        "time_text_embed.*.linear_2.weight": HIDDEN,
        "*.attn.norm_*.weight": FINITE_GAIN,
        "proj_out.weight": OUTPUT,  # the blocks' own proj_out is hidden, below
        "proj_out.bias": FINITE_BIAS,
        "*.bias": BIAS,
        "norm_out.linear.weight": HIDDEN,
        # proj_out of a single block stands over attention and MLP together, both of which grow.
        "*transformer_blocks.*.weight": HIDDEN,
    },
    "HunyuanDiT2DModel": {
        # The text towers' widths are fixed.
        "text_embedding_padding": FINITE_TABLE,
        "text_embedder.*.weight": FINITE,
        "text_embedder.*.bias": FINITE_BIAS,
        "time_extra_emb.pooler.positional_embedding": FINITE_TABLE,
        "time_extra_emb.pooler.*.weight": FINITE,
        "time_extra_emb.pooler.*.bias": FINITE_BIAS,
        "pos_embed.proj.weight": INPUT,
        "time_extra_emb.timestep_embedder.linear_1.weight": INPUT,
        "time_extra_emb.timestep_embedder.linear_2.weight": HIDDEN,
        "time_extra_emb.style_embedder.weight": TABLE,
        # Over pooled text (4), sizes (6 x 256) and the style's n features: see SPLIT.
        "time_extra_emb.extra_embedder.linear_1.weight": HIDDEN,
        "time_extra_emb.extra_embedder.linear_2.weight": HIDDEN,
        "blocks.*.norm1.linear.weight": HIDDEN,
        "blocks.*.norm1.norm.weight": GAIN,
        "blocks.*.attn?.norm_?.weight": FINITE_GAIN,
        "blocks.*.attn?.norm_?.bias": FINITE_BIAS,
        "blocks.*.attn2.to_[kv].weight": INPUT,  # of text, whose width is fixed
        "blocks.*.norm[23].weight": GAIN,
        "blocks.*.skip_norm.weight": GAIN,
        "proj_out.weight": OUTPUT,
        "proj_out.bias": FINITE_BIAS,
        "*.bias": BIAS,
        "norm_out.linear.weight": HIDDEN,
        "blocks.*.weight": HIDDEN,
    },
    "SanaTransformer2DModel": {
        "*scale_shift_table": TABLE,
        "patch_embed.proj.weight": INPUT,
        "time_embed.*.linear_1.weight": INPUT,
        "time_embed.*linear_2.weight": HIDDEN,
        "time_embed.linear.weight": HIDDEN,
        "caption_projection.linear_1.weight": INPUT,
        "caption_projection.linear_2.weight": HIDDEN,
        "caption_norm.weight": GAIN,
        "*.attn?.norm_?.weight": GAIN,  # over all heads
        "*.ff.conv_depth.weight": INPUT,  # one kernel for each channel: fan-in 9
        "proj_out.weight": OUTPUT,
        "proj_out.bias": FINITE_BIAS,
        "*.bias": BIAS,
        "transformer_blocks.*.weight": HIDDEN,
    },
    "HiDreamImageTransformer2DModel": {
        "t_embedder.*.linear_1.weight": INPUT,
        "p_embedder.*.linear_1.weight": INPUT,
        "[tp]_embedder.*.linear_2.weight": HIDDEN,
        "x_embedder.proj.weight": INPUT,
        "caption_projection.*.weight": INPUT,
        "*.attn1.?_rms_norm*.weight": GAIN,  # over all heads
        "*.ff_i.gate.weight": OUTPUT,  # the router: width to the number of experts
        "final_layer.linear.weight": OUTPUT,
        "final_layer.linear.bias": FINITE_BIAS,
        "*.bias": BIAS,
        "*.weight": HIDDEN,  # attention, adaLN, experts
    },
    "CogVideoXTransformer3DModel": {
        "patch_embed.proj.weight": INPUT,
        "patch_embed.text_proj.weight": INPUT,
        # time_embed_dim is fixed, while the sinusoid is as long as the width.
        "time_embedding.linear_1.weight": OUTPUT,
        "time_embedding.linear_2.weight": FINITE,
        "time_embedding.*.bias": FINITE_BIAS,
        "ofs_embedding.*.weight": FINITE,  # its sinusoid has a fixed length
        "ofs_embedding.*.bias": FINITE_BIAS,
        "*.norm[12].linear.weight": INPUT,  # from the fixed time embedding
        "norm_out.linear.weight": INPUT,
        "*.norm[12].norm.weight": GAIN,
        "norm_out.norm.weight": GAIN,
        "norm_final.weight": GAIN,
        "*.attn1.norm_?.weight": FINITE_GAIN,
        "*.attn1.norm_?.bias": FINITE_BIAS,
        "proj_out.weight": OUTPUT,
        "proj_out.bias": FINITE_BIAS,
        "*.bias": BIAS,
        "transformer_blocks.*.weight": HIDDEN,
    },
    "CosmosTransformer3DModel": {
        "patch_embed.proj.weight": INPUT,
        "learnable_pos_embed.*": TABLE,
        "time_embed.t_embedder.linear_?.weight": HIDDEN,  # the sinusoid is as long as the width
        "time_embed.norm.weight": GAIN,
        # adaLN through a bottleneck of fixed size.
        "*.norm?.linear_1.weight": OUTPUT,
        "*.norm?.linear_2.weight": INPUT,
        "norm_out.linear_1.weight": OUTPUT,
        "norm_out.linear_2.weight": INPUT,
        "*.attn?.norm_?.weight": FINITE_GAIN,
        "*.attn2.?_img_norm.weight": FINITE_GAIN,
        "*.attn2.to_[kv].weight": INPUT,  # of text, whose width is fixed
        "proj_out.weight": OUTPUT,
        "crossattn_proj.*.weight": FINITE,
        "crossattn_proj.*.bias": FINITE_BIAS,
        "img_context_proj.*.weight": INPUT,
        "*.bias": BIAS,
        "transformer_blocks.*.weight": HIDDEN,
    },
    "AuraFlowTransformer2DModel": {
        "register_tokens": TABLE,
        "pos_embed.pos_embed": TABLE,
        "pos_embed.proj.weight": INPUT,
        "context_embedder.weight": INPUT,
        "time_step_proj.linear_1.weight": INPUT,
        "time_step_proj.linear_2.weight": HIDDEN,
        "proj_out.weight": OUTPUT,
        "*.bias": BIAS,
        "*.weight": HIDDEN,  # its norms have no gains
    },
    "UVit2DModel": {
        "encoder_proj.weight": INPUT,
        "embed.embeddings.weight": FINITE_TABLE,  # of fixed length, before embed.conv
        "embed.layer_norm.weight": FINITE_GAIN,
        "embed.conv.weight": INPUT,
        "cond_embed.linear_1.weight": INPUT,
        "cond_embed.linear_2.weight": HIDDEN,
        "*.depthwise.weight": INPUT,  # one kernel for each channel: fan-in 9
        "*.channelwise_norm.gamma": GAIN,
        "*.channelwise_norm.beta": TABLE,  # (1, 1, 1, 4n): added, and not one-dimensional
        "mlm_layer.conv1.weight": OUTPUT,
        "mlm_layer.layer_norm.weight": FINITE_GAIN,
        "mlm_layer.conv2.weight": FINITE,
        "*.norm?.linear.weight": HIDDEN,
        "*norm.weight": GAIN,
        "*norm?.weight": GAIN,
        "*.weight": HIDDEN,
    },
    "WanTransformer3DModel": {
        "*scale_shift_table": TABLE,
        "patch_embedding.weight": INPUT,
        "condition_embedder.t*_embedder.linear_1.weight": INPUT,
        "condition_embedder.t*_embedder.linear_2.weight": HIDDEN,
        "condition_embedder.time_proj.weight": HIDDEN,
        # The image's features have a fixed length until the second layer.
        "condition_embedder.image_embedder.pos_embed": FINITE_TABLE,
        "condition_embedder.image_embedder.norm1.weight": FINITE_GAIN,
        "condition_embedder.image_embedder.norm1.bias": FINITE_BIAS,
        "condition_embedder.image_embedder.ff.net.0.proj.weight": FINITE,
        "condition_embedder.image_embedder.ff.net.0.proj.bias": FINITE_BIAS,
        "condition_embedder.image_embedder.ff.net.2.weight": INPUT,
        "condition_embedder.image_embedder.norm2.weight": GAIN,
        "*.attn?.norm_*.weight": GAIN,  # over all heads
        "blocks.*.norm2.weight": GAIN,
        "proj_out.weight": OUTPUT,
        "proj_out.bias": FINITE_BIAS,
        "*.bias": BIAS,
        "blocks.*.weight": HIDDEN,
    },
    "NucleusMoEImageTransformer2DModel": {
        "time_text_embed.timestep_embedder.linear_?.weight": HIDDEN,  # of a sinusoid of length n
        "time_text_embed.norm.weight": GAIN,
        "txt_norm.weight": FINITE_GAIN,
        "img_in.weight": INPUT,
        "*.encoder_proj.weight": INPUT,
        "*.attn.norm_*.weight": FINITE_GAIN,
        "*.img_mlp.gate.weight": OUTPUT,  # the router, over image and time features
        "proj_out.weight": OUTPUT,
        "*.bias": BIAS,
        "*.experts.gate_up_proj": HIDDEN,
        "*.experts.down_proj": HIDDEN,
        "*.weight": HIDDEN,
    },
}

# A weight over finite and growing features: the last column (and one) of each part at width n, and
# the part's role. HunyuanDiT: pooled text of 4, six sizes of 256 features each, n of style.
SPLIT: dict[tuple[str, str], list[tuple[int, int, str]]] = {
    ("HunyuanDiT2DModel", "time_extra_emb.extra_embedder.linear_1.weight"): [
        (4 + 6 * 256, 0, "input"),  # ends at 1540 + 0·n
        (4 + 6 * 256, 1, "hidden"),  # ends at 1540 + 1·n
    ],
}

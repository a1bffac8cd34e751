"""What each parameter's role and initial std are, written out by hand from the papers and codes.

`n` is the width. Stds are those of the model as it initialises itself, at its base width; μP's
rules do the rest. Sources: facebookresearch/DiT, baofff/U-ViT, PixArt-alpha/PixArt-alpha, and
[muDiT]'s code for DiT and PixArt ("_mup"); the other two follow its DiT. The first pattern that
fits decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Golden(NamedTuple):
    """Role and initial std at width n."""

    role: str
    std: Callable[[int], float]


def root(size: float) -> float:
    return size**-0.5


def xavier(fan_in: float, fan_out: float) -> float:
    return math.sqrt(2 / (fan_in + fan_out))


def inputs(std: float | Callable[[int], float]) -> Golden:
    return Golden("input", std if callable(std) else lambda n: std)


def hidden(std: float | Callable[[int], float]) -> Golden:
    return Golden("hidden", std if callable(std) else lambda n: std)


CHANNELS, PATCH, CAPTION, POOLED = 3, 2, 10, 12
PIXELS = CHANNELS * PATCH**2

ZERO_OUTPUT = Golden("output", lambda n: 0.0)
ZERO_SCALAR = Golden("scalar", lambda n: 0.0)
SINCOS = inputs(math.sqrt(0.5))

GOLDEN: Mapping[str, Mapping[str, Golden]] = {
    "dit": {
        "pos_embed": SINCOS,
        "final_layer.linear.weight": ZERO_OUTPUT,
        "final_layer.linear.bias": ZERO_SCALAR,
        "*.bias": inputs(0.0),
        "x_embedder.proj.weight": inputs(lambda n: xavier(PIXELS, n)),
        "t_embedder.mlp.0.weight": inputs(0.02),
        "t_embedder.mlp.2.weight": hidden(0.02),
        "y_embedder.embedding_table.weight": inputs(0.02),
        "*.attn.qkv.weight": hidden(lambda n: xavier(n, 3 * n)),
        "*.attn.proj.weight": hidden(lambda n: xavier(n, n)),
        "*.mlp.fc?.weight": hidden(lambda n: xavier(n, 4 * n)),
        "*.adaLN_modulation.1.weight": hidden(0.0),
    },
    "dit_mup": {
        "pos_embed": SINCOS,
        "final_layer.linear.weight": ZERO_OUTPUT,
        "final_layer.linear.bias": ZERO_SCALAR,
        "*.bias": inputs(0.0),
        "x_embedder.proj.weight": inputs(root(PIXELS)),
        "t_embedder.mlp.0.weight": inputs(root(256)),
        "t_embedder.mlp.2.weight": hidden(root),
        "y_embedder.embedding_table.weight": inputs(1.0),
        "*.mlp.fc2.weight": hidden(lambda n: root(4 * n)),
        "*.attn.*.weight": hidden(root),
        "*.mlp.fc1.weight": hidden(root),
        "*.adaLN_modulation.1.weight": hidden(root),
    },
    "uvit": {
        "pos_embed": inputs(0.02),
        "decoder_pred.weight": Golden("output", lambda n: 0.02),
        "decoder_pred.bias": ZERO_SCALAR,
        # torch's default: U(±1/sqrt(fan_in)), whose std is that over sqrt(3); the bias, too
        "final_layer.*": Golden("scalar", lambda n: root(3 * 9 * CHANNELS)),
        "patch_embed.proj.*": inputs(root(3 * PIXELS)),
        "label_emb.weight": inputs(1.0),
        "*norm*.weight": inputs(1.0),
        "*.bias": inputs(0.0),
        "*.weight": hidden(0.02),
    },
    "uvit_mup": {
        "pos_embed": inputs(0.02),
        "decoder_pred.weight": ZERO_OUTPUT,
        "decoder_pred.bias": ZERO_SCALAR,
        "final_layer.weight": Golden("scalar", lambda n: root(9 * CHANNELS)),
        "final_layer.bias": ZERO_SCALAR,
        "patch_embed.proj.weight": inputs(root(PIXELS)),
        "label_emb.weight": inputs(1.0),
        "*norm*.weight": inputs(1.0),
        "*.bias": inputs(0.0),
        "*.skip_linear.weight": hidden(lambda n: root(2 * n)),
        "*.mlp.fc2.weight": hidden(lambda n: root(4 * n)),
        "*.weight": hidden(root),
    },
    "pixart": {
        "final_layer.linear.weight": ZERO_OUTPUT,
        "final_layer.linear.bias": ZERO_SCALAR,
        "*.bias": inputs(0.0),
        "*scale_shift_table": inputs(root),
        "x_embedder.proj.weight": inputs(lambda n: xavier(PIXELS, n)),
        "t_embedder.mlp.0.weight": inputs(0.02),
        "t_embedder.mlp.2.weight": hidden(0.02),
        "t_block.1.weight": hidden(0.02),
        "y_embedder.y_proj.fc1.weight": inputs(0.02),
        "y_embedder.y_proj.fc2.weight": hidden(0.02),
        "*.attn.qkv.weight": hidden(lambda n: xavier(n, 3 * n)),
        "*.attn.proj.weight": hidden(lambda n: xavier(n, n)),
        "*.cross_attn.q_linear.weight": hidden(lambda n: xavier(n, n)),
        "*.cross_attn.kv_linear.weight": hidden(lambda n: xavier(n, 2 * n)),
        "*.cross_attn.proj.weight": hidden(0.0),
        "*.mlp.fc?.weight": hidden(lambda n: xavier(n, 4 * n)),
    },
    "mmdit": {
        "final_layer.linear.weight": ZERO_OUTPUT,
        "final_layer.linear.bias": ZERO_SCALAR,
        "*.ln_[qk].weight": Golden("scalar", lambda n: 1.0),
        "*.bias": inputs(0.0),
        "x_embedder.proj.weight": inputs(lambda n: xavier(PIXELS, n)),
        "[ty]_embedder.mlp.0.weight": inputs(0.02),
        "[ty]_embedder.mlp.2.weight": hidden(0.02),
        "context_embedder.weight": inputs(lambda n: xavier(CAPTION, n)),
        "*.attn.qkv.weight": hidden(lambda n: xavier(n, 3 * n)),
        "*.attn.proj.weight": hidden(lambda n: xavier(n, n)),
        "*.mlp.fc?.weight": hidden(lambda n: xavier(n, 4 * n)),
        "*.adaLN_modulation.1.weight": hidden(0.0),
    },
    "mmdit_mup": {
        "final_layer.linear.weight": ZERO_OUTPUT,
        "final_layer.linear.bias": ZERO_SCALAR,
        "*.ln_[qk].weight": Golden("scalar", lambda n: 1.0),
        "*.bias": inputs(0.0),
        "x_embedder.proj.weight": inputs(root(PIXELS)),
        "t_embedder.mlp.0.weight": inputs(root(256)),
        "y_embedder.mlp.0.weight": inputs(root(POOLED)),
        "[ty]_embedder.mlp.2.weight": hidden(root),
        "context_embedder.weight": inputs(root(CAPTION)),
        "*.mlp.fc2.weight": hidden(lambda n: root(4 * n)),
        "*.weight": hidden(root),
    },
}
# The same but for two: its code draws the tables from N(0, 0.02²), and Xavier of the patch kernel
# is mup's, on the tensor of four dimensions.
GOLDEN = {
    **GOLDEN,
    "pixart_mup": {
        **GOLDEN["pixart"],
        "x_embedder.proj.weight": inputs(lambda n: xavier(PIXELS, n * PATCH**2)),
        "*scale_shift_table": inputs(0.02),
    },
}

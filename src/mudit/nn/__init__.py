"""Blocks that the architectures share."""

from mudit.nn.attention import Attention
from mudit.nn.cross_attention import CrossAttention
from mudit.nn.embeddings import (
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    sincos_positions,
    unpatchify,
)
from mudit.nn.final_layer import FinalLayer
from mudit.nn.initialisers import (
    Initialiser,
    initialise,
    kaiming,
    normal,
    ones,
    sincos,
    torch_linear,
    truncated_normal,
    xavier,
    zeros,
)
from mudit.nn.joint_attention import StreamAttention, joint_attention
from mudit.nn.mlp import MLP
from mudit.nn.modulation import AdaLN, modulate
from mudit.nn.projector import Projector
from mudit.nn.swiglu import SwiGLU

__all__ = [
    "MLP",
    "AdaLN",
    "Attention",
    "CrossAttention",
    "FinalLayer",
    "Initialiser",
    "LabelEmbedder",
    "PatchEmbed",
    "Projector",
    "StreamAttention",
    "SwiGLU",
    "TimestepEmbedder",
    "initialise",
    "joint_attention",
    "kaiming",
    "modulate",
    "normal",
    "ones",
    "sincos",
    "sincos_positions",
    "torch_linear",
    "truncated_normal",
    "unpatchify",
    "xavier",
    "zeros",
]

"""Blocks that the architectures share."""

from mudit.nn.attention import Attention
from mudit.nn.embeddings import (
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    sincos_positions,
    unpatchify,
)
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
from mudit.nn.mlp import MLP
from mudit.nn.modulation import AdaLN, modulate

__all__ = [
    "MLP",
    "AdaLN",
    "Attention",
    "Initialiser",
    "LabelEmbedder",
    "PatchEmbed",
    "TimestepEmbedder",
    "initialise",
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

"""Blocks that the architectures share."""

from mudit.nn.attention import Attention
from mudit.nn.embeddings import (
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    sincos_positions,
    unpatchify,
)
from mudit.nn.mlp import MLP
from mudit.nn.modulation import AdaLN, modulate

__all__ = [
    "MLP",
    "AdaLN",
    "Attention",
    "LabelEmbedder",
    "PatchEmbed",
    "TimestepEmbedder",
    "modulate",
    "sincos_positions",
    "unpatchify",
]

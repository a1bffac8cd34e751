"""The architectures, a config, a class and presets each; and other libraries' classes."""

from mudit.models.architectures import (
    ARCHITECTURES,
    PRESETS,
    ModelConfig,
    architecture_named,
    architecture_of,
    builder,
    config_for,
    example_inputs,
    is_text_conditioned,
    preset,
    scale_to_width,
)
from mudit.models.dit import DiT, DiTConfig
from mudit.models.mmdit import MMDiT, MMDiTConfig
from mudit.models.pixart import PixArt, PixArtConfig
from mudit.models.uvit import UViT, UViTConfig

__all__ = [
    "ARCHITECTURES",
    "PRESETS",
    "DiT",
    "DiTConfig",
    "MMDiT",
    "MMDiTConfig",
    "ModelConfig",
    "PixArt",
    "PixArtConfig",
    "UViT",
    "UViTConfig",
    "architecture_named",
    "architecture_of",
    "builder",
    "config_for",
    "example_inputs",
    "is_text_conditioned",
    "preset",
    "scale_to_width",
]

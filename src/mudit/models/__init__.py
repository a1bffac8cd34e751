"""The architectures, a config, a class and presets each; and other libraries' classes."""

from mudit.models.architectures import (
    ARCHITECTURES,
    PRESETS,
    ModelConfig,
    architecture_of,
    builder,
    example_inputs,
    preset,
    scale_to_width,
)
from mudit.models.dit import DiT, DiTConfig

__all__ = [
    "ARCHITECTURES",
    "PRESETS",
    "DiT",
    "DiTConfig",
    "ModelConfig",
    "architecture_of",
    "builder",
    "example_inputs",
    "preset",
    "scale_to_width",
]

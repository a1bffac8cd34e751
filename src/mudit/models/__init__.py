"""The architectures, a config, a class and presets each; and other libraries' classes."""

from mudit.models.dit import (
    PRESETS,
    DiT,
    DiTConfig,
    builder,
    example_inputs,
    preset,
    scale_to_width,
)

__all__ = [
    "PRESETS",
    "DiT",
    "DiTConfig",
    "builder",
    "example_inputs",
    "preset",
    "scale_to_width",
]

"""The architectures: a config, a class and presets each."""

from mudit.models.dit import PRESETS, DiT, DiTConfig, builder, preset, scale_to_width

__all__ = ["PRESETS", "DiT", "DiTConfig", "builder", "preset", "scale_to_width"]

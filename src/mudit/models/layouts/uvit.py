"""U-ViT's checkpoints: those of [U-ViT] code, whose names ours are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mudit.models.layouts.layout import Exchange, Layout

# A file of [U-ViT] code holds no config.
EXCHANGES: Mapping[str, Exchange] = MappingProxyType({"original": Exchange(Layout())})

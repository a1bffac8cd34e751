"""The objective of a config."""

from __future__ import annotations

from mudit.diffusion.config import ObjectiveConfig
from mudit.diffusion.ddpm import DDPM
from mudit.diffusion.flow import Flow
from mudit.diffusion.objective import Objective
from mudit.diffusion.vp_sde import VPSDE


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective of `config.kind`."""
    if config.kind == "ddpm":
        return DDPM(config)
    return Flow(config) if config.kind == "flow" else VPSDE(config)

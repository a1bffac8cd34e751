"""The architectures by name: what builds, scales and tries each of them.

Everything that works on any architecture (commands, trainer, tests) goes through here, and tells
them apart by the type of their config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeGuard, TypeVar

from torch import Tensor, nn

from mudit.errors import UsageError
from mudit.models import dit, mmdit, pixart, uvit
from mudit.models.dit import DiT, DiTConfig
from mudit.models.mmdit import MMDiT, MMDiTConfig
from mudit.models.pixart import PixArt, PixArtConfig
from mudit.models.uvit import UViT, UViTConfig

ModelConfig: TypeAlias = DiTConfig | UViTConfig | PixArtConfig | MMDiTConfig
TextConfig: TypeAlias = UViTConfig | PixArtConfig | MMDiTConfig
AnyConfig = TypeVar("AnyConfig", bound=ModelConfig)


class Architecture(NamedTuple):
    """One architecture.

    Attributes:
        model: Class; its constructor takes a config.
        config: Class of the config.
        block: Class of a block, the unit of activation checkpointing.
        presets: Configs that papers and released checkpoints use, by name.
        example_inputs: From a config and a batch size to the function width → arguments of
            `forward`.
        eps: Adam's, as its authors train it. PixArt's text starts without effect, so the first
            gradients of what reads it are as small as 1e-8.
        least_depth: Of a model that has all kinds of its blocks.
        idle: From the depth to patterns of parameters that no output depends on.
    """

    model: type[nn.Module]
    config: type[ModelConfig]
    block: type[nn.Module]
    presets: Mapping[str, Any]
    example_inputs: Callable[..., Callable[[int], tuple[Tensor, ...]]]
    eps: float = 1e-8
    least_depth: int = 1
    idle: Callable[[int], tuple[str, ...]] = lambda depth: ()


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "dit": Architecture(DiT, DiTConfig, dit.DiTBlock, dit.PRESETS, dit.example_inputs),
        "uvit": Architecture(
            UViT,
            UViTConfig,
            uvit.UViTBlock,
            uvit.PRESETS,
            uvit.example_inputs,
            least_depth=2,
        ),
        "pixart": Architecture(
            PixArt,
            PixArtConfig,
            pixart.PixArtBlock,
            pixart.PRESETS,
            pixart.example_inputs,
            eps=1e-10,  # [muDiT] E.3
        ),
        "mmdit": Architecture(
            MMDiT,
            MMDiTConfig,
            mmdit.JointBlock,
            mmdit.PRESETS,
            mmdit.example_inputs,
            # In the last block the text asks for nothing: only its keys and values are used.
            idle=lambda depth: (f"joint_blocks.{depth - 1}.context_block.attn.ln_q.weight",),
        ),
    }
)
PRESETS: Mapping[str, ModelConfig] = MappingProxyType(
    {name: config for entry in ARCHITECTURES.values() for name, config in entry.presets.items()}
)


def architecture_of(config: ModelConfig) -> Architecture:
    """Returns the architecture that `config` configures."""
    return next(entry for entry in ARCHITECTURES.values() if type(config) is entry.config)


def architecture_named(name: str) -> Architecture:
    """Returns the architecture of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in ARCHITECTURES:
        raise UsageError(
            f"No architecture is named {name!r}; expected one of {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[name]


def preset(name: str, **overrides: Any) -> Any:
    """Returns the preset `name`, with fields replaced.

    Args:
        name: A key of `PRESETS`, e.g. "DiT-XL/2", or "DiT-ladder-288/2" ([muDiT] 4.1).
        overrides: Fields of the preset's config and their new values.

    Raises:
        UsageError: There is no such preset or field, or the result is not valid.
    """
    if name not in PRESETS:
        raise UsageError(f"No preset is named {name!r}; expected one of {', '.join(PRESETS)}.")
    fields = [field.name for field in dataclasses.fields(PRESETS[name])]
    if unknown := sorted(overrides.keys() - set(fields)):
        raise UsageError(
            f"{type(PRESETS[name]).__name__} has no field {', '.join(unknown)}; expected some of "
            f"{', '.join(fields)}."
        )
    return dataclasses.replace(PRESETS[name], **overrides)


def scale_to_width(config: AnyConfig, width: int) -> AnyConfig:
    """Returns `config` at another width: more or fewer heads of the same size.

    Raises:
        UsageError: `width` is not a positive multiple of `config.head_dim`.
    """
    num_heads, rest = divmod(width, config.head_dim)
    if rest or num_heads < 1:
        nearest = [h * config.head_dim for h in (num_heads, max(num_heads + 1, 1)) if h > 0]
        raise UsageError(
            f"Width {width} is not a positive multiple of head_dim {config.head_dim}; "
            f"the nearest valid widths are {' and '.join(map(str, nearest))}."
        )
    return dataclasses.replace(config, num_heads=num_heads)


def config_for(architecture: str, *, init: str | None, learn_sigma: bool, **sizes: Any) -> Any:
    """Returns the config of an architecture from sizes that all of them understand.

    Args:
        architecture: A key of `ARCHITECTURES`.
        init: The initialisation; None: the one that is meant for μP.
        learn_sigma: Whether it predicts a variance beside the noise.
        sizes: Fields of `TransformerConfig`, `num_classes`, `caption_dim` and `caption_tokens`;
            those that the architecture does not have are left out. One that takes a class or a
            text takes the class, unless `num_classes` is None: then there are only texts.

    Raises:
        UsageError: There is no such architecture, it predicts no variance, or the result is not
            valid.
    """
    cls = architecture_named(architecture).config
    fields = {field.name for field in dataclasses.fields(cls)}
    if learn_sigma and "learn_sigma" not in fields:
        raise UsageError(
            f"{architecture} predicts no variance; set objective.learn_sigma to false "
            f"(--model {architecture} on the command line does)."
        )
    if sizes["num_classes"] is None and "caption_dim" not in fields:
        raise UsageError(
            f"{architecture} is told a class, but the data have captions; take an architecture "
            "that is told a text: --model pixart, mmdit or uvit."
        )
    if "num_classes" in fields and sizes["num_classes"] is not None:
        fields -= {"caption_dim", "caption_tokens"}
    # Of a model for one size of image and one encoder: no larger grid, one size of text features.
    derived = {
        "pooled_dim": sizes["caption_dim"],
        "pos_embed_max_size": sizes["input_size"] // sizes["patch_size"],
    }
    given = derived | sizes | {"init": init or f"{architecture}_mup", "learn_sigma": learn_sigma}
    return cls(**{name: value for name, value in given.items() if name in fields})


def is_text_conditioned(config: ModelConfig) -> TypeGuard[TextConfig]:
    """Returns whether the model takes a text where others take a class."""
    return not isinstance(config, DiTConfig) and config.caption_dim is not None


def example_inputs(config: ModelConfig, batch: int = 2) -> Callable[[int], tuple[Tensor, ...]]:
    """Returns the function width → arguments of `forward`, from torch's global generator."""
    return architecture_of(config).example_inputs(config, batch)


def _build(config: ModelConfig, width: int) -> nn.Module:
    return architecture_of(config).model(scale_to_width(config, width))


def builder(config: ModelConfig) -> Callable[[int], Any]:
    """Returns the function width → model of `config` at that width; it can be pickled."""
    return partial(_build, config)

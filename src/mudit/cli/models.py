"""The model that a verb is about: a preset, a class of diffusers, or a user's own function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from mudit.errors import ParametrizationError, UsageError
from mudit.models import ModelConfig, builder, example_inputs, preset
from mudit.models.foreign import PREFIX, ForeignModel, foreign
from mudit.parametrization import Certificate, certify
from mudit.program import Build, Inputs


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What a verb needs to know of a model.

    Attributes:
        name: As the user wrote it.
        build: Makes it at a width.
        inputs: Example inputs at a width; None if there are none.
        width: Its own width; None if it has none.
        base_width: A smaller width that it takes; likewise.
        widths: Small widths at which its forward pass is recorded; likewise.
        small: A class of diffusers in its small configuration, with all kinds of its blocks.
    """

    name: str
    build: Build
    inputs: Inputs | None
    width: int | None = None
    base_width: int | None = None
    widths: tuple[int, ...] | None = None
    small: ForeignModel | None = None


def add_model_arguments(parser: ArgumentParser, default: str) -> None:
    """The options that name a model."""
    parser.add_argument(
        "name",
        nargs="?",
        type=str,
        default=default,
        help="a preset's name, diffusers:CLASS, or package.module:function, where function(width) "
        "builds a model",
    )
    parser.add_argument("--model", type=str, default="", help="the same, as an option")
    parser.add_argument(
        "--inputs",
        type=str,
        default="",
        help="package.module:function, where function(width) returns example inputs of forward: a "
        "tuple, or a dict of keyword arguments",
    )
    parser.add_argument(
        "--model_args",
        type=dict[str, Any],
        default={},
        help="arguments of a diffusers class that replace its defaults, e.g. '{num_layers: 4}'",
    )
    parser.add_argument(
        "--small", type=bool, default=False, help="a diffusers class in its small configuration"
    )
    parser.add_argument(
        "--init", type=str, default="", help="of a preset, e.g. dit or dit_mup; default: its own"
    )


def model_source(options: Namespace, *, small: bool = False) -> ModelSource:
    """The model that the options name.

    Raises:
        UsageError: There is none of that name.
    """
    name = options.model or options.name
    if name.startswith(PREFIX):
        return _foreign_source(name, options.model_args, small=small or options.small)
    if options.model_args or options.small:
        raise UsageError("--model_args and --small are about a diffusers:CLASS.")
    if ":" not in name:
        return _preset_source(name, options.init)
    inputs = imported(options.inputs, "--inputs") if options.inputs else None
    return ModelSource(name=name, build=imported(name, "--model"), inputs=inputs)


def _preset_source(name: str, init: str) -> ModelSource:
    config: ModelConfig = preset(name, init=init) if init else preset(name)
    heads = config.num_heads
    base = next(heads // share for share in (4, 2, 3, 1) if heads % share == 0)
    return ModelSource(
        name=name,
        build=builder(config),
        inputs=example_inputs(config),
        width=config.width,
        base_width=base * config.head_dim,
        widths=tuple(config.head_dim * multiple for multiple in (1, 2, 3)),
    )


def _foreign_source(name: str, overrides: Mapping[str, Any], *, small: bool) -> ModelSource:
    model = foreign(name, small=small)
    model = ForeignModel(model.name, {**model.overrides, **overrides})
    width = max(model.widths) if small else model.own_width
    shares = (share for share in (4, 3, 2) if width % (share * model.grain) == 0)
    base = min(model.widths) if small else width // next(shares, 1)
    return ModelSource(
        name=name,
        build=model.build,
        inputs=model.inputs,
        width=width,
        base_width=base,
        widths=model.widths,
        small=foreign(name),
    )


def imported(name: str, option: str) -> Any:
    """The function `package.module:function`, importable from the current folder.

    Raises:
        UsageError: There is none.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{option} {name!r}: {error}. Expected package.module:function, importable from here, "
            "where function takes a width."
        ) from None
    finally:
        sys.path.pop(0)


def certificate_for(source: ModelSource, widths: tuple[int, ...]) -> Certificate | None:
    """The certificate at these widths, without memory for weights; else of a small model, for real.

    Returns:
        None if the model has no example inputs.
    """
    if source.inputs is None:
        return None
    try:
        return certify(source.build, source.inputs, widths, device="meta")
    except ParametrizationError:
        if source.small is None:
            raise
        return certify(source.small.build, source.small.inputs, source.small.widths)

"""How the classes of other libraries scale with width: one declarative table, and what it builds.

The table speaks of diffusers' classes by name; diffusers is imported when one is built.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from torch import nn

from mudit.errors import EnvironmentFailure, UsageError
from mudit.models.foreign import flux, images, mixed, videos
from mudit.models.foreign.form import Config, Foreign

PREFIX = "diffusers:"
TABLE: Mapping[str, Foreign] = {**images.TABLE, **flux.TABLE, **mixed.TABLE, **videos.TABLE}


@dataclass(frozen=True)
class ForeignModel:
    """One class of another library, at any width.

    Attributes:
        name: The class's name.
        overrides: Arguments of its constructor that differ from its defaults.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def entry(self) -> Foreign:
        """The class's row of the table."""
        return TABLE[self.name]

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The constructor's arguments with their defaults, overridden."""
        parameters = inspect.signature(self._class().__init__).parameters
        named = {
            name: None if parameter.default is parameter.empty else parameter.default
            for name, parameter in parameters.items()
            if name != "self" and parameter.kind not in (2, 4)  # neither *args nor **kwargs
        }
        return named | dict(self.overrides)

    @property
    def own_width(self) -> int:
        """The width of the configuration as it stands."""
        width = 1
        for name in self.entry.width:
            value = self.defaults[name]
            if not isinstance(value, int):
                raise UsageError(
                    f"{self.name} has no default for {name}, so it has no width of its own. "
                    "Give its small configuration, or arguments of yours."
                )
            width *= value
        return width

    def config(self, width: int) -> Config:
        """The complete configuration at a width.

        Raises:
            UsageError: A field's share of the width is not a whole number.
        """
        own = self.own_width
        values = dict(self.defaults)
        for name in self.entry.scales:
            values[name] = self._scaled(name, values[name], width, own)
        return Config(**values)

    def build(self, width: int) -> nn.Module:
        """The model at a width."""
        model: nn.Module = self._class()(**vars(self.config(width)))
        for name, parameter in model.named_parameters():
            for pattern, std in self.entry.unset.items():
                if fnmatchcase(name, pattern):
                    nn.init.normal_(parameter, std=std)
        return model

    def inputs(self, width: int) -> dict[str, Any]:
        """Example inputs at a width: keyword arguments of its forward."""
        return self.entry.inputs(self.config(width))

    @cached_property
    def grain(self) -> int:
        """The width of which every valid width is a multiple."""
        own = self.own_width
        shares = [
            value
            for name in self.entry.scales
            if name not in self.entry.floors
            for value in _numbers(self.defaults[name])
        ]
        head = sum(_numbers(self.defaults[self.entry.head])) if self.entry.head else 1
        return math.lcm(head, *(own // math.gcd(own, share) for share in shares))

    @property
    def widths(self) -> tuple[int, int, int]:
        """Small widths at which its forward pass is recorded."""
        small = all(self.defaults[name] == value for name, value in self.entry.small.items())
        unit = self.entry.unit if small else self.grain
        a, b, c = (unit * multiple for multiple in (self.entry.multiples if small else (1, 2, 3)))
        return a, b, c

    def _scaled(self, name: str, value: Any, width: int, own: int) -> Any:
        if value is None:
            return None
        if isinstance(value, list | tuple):
            return type(value)(self._scaled(name, item, width, own) for item in value)
        share, rest = divmod(value * width, own)
        if rest and name not in self.entry.floors:
            raise UsageError(
                f"{self.name} at width {width}: {name} would be {value} · {width}/{own}, which is "
                "not a whole number. Give a width at which it is."
            )
        return share

    def _class(self) -> Any:
        try:
            library = importlib.import_module("diffusers")
        except ImportError as error:
            raise EnvironmentFailure(
                f"{self.name} is a class of diffusers, which cannot be imported ({error}). "
                'Install the extra: pip install "mudit[diffusers]".'
            ) from None
        found = getattr(library, self.name, None)
        if found is None:
            raise UsageError(
                f"the installed diffusers {library.__version__} has no class {self.name}; "
                "update diffusers, or take a class that it has."
            )
        return found


def _numbers(value: Any) -> list[int]:
    return [v for v in (value if isinstance(value, list | tuple) else [value]) if v is not None]


def foreign(name: str, *, small: bool = True) -> ForeignModel:
    """A class of the table.

    Args:
        name: The class's name, with or without the prefix `diffusers:`.
        small: Its small configuration; otherwise its own defaults.

    Raises:
        UsageError: The table does not have it.
    """
    short = name.removeprefix(PREFIX)
    if short not in TABLE:
        raise UsageError(
            f"{name} is not in the table of diffusers' classes. Known: {', '.join(sorted(TABLE))}."
        )
    entry = TABLE[short]
    return ForeignModel(short, dict(entry.small if small else entry.needs))


__all__ = ["PREFIX", "TABLE", "Config", "Foreign", "ForeignModel", "foreign"]

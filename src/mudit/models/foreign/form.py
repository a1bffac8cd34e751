"""The form in which a class of another library says how it scales with width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

# A complete configuration: every argument of the class's constructor, defaults included.
Config: TypeAlias = SimpleNamespace
Inputs: TypeAlias = Callable[[Config], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """How one class scales with width, and what its forward pass takes.

    Attributes:
        width: Fields whose product is the width, e.g. `("num_attention_heads",
            "attention_head_dim")`.
        scales: Fields in proportion to the width; lists element by element. Head sizes, depths,
            data and text dimensions stay.
        small: Overrides of the class's defaults that make a model small enough to be run at three
            widths in a second; its scaling fields are for the width of its own `width` product.
        needs: Arguments without which the class's defaults make no model; sizes of a published one.
        inputs: Keyword arguments of `forward` for a configuration; real CPU tensors, from torch's
            global generator. Holds for any configuration, the class's defaults included.
        unit: The widths at which `small` is valid are multiples of this.
        multiples: At which multiples of `unit` the small model is certified; three, unlike in
            residue unless the class asks for it.
        head: A field whose sum is the head size, where the width alone says how many heads there
            are; the width is a multiple of it.
        floors: Fields in `scales` that the class rounds down, so that a share need not be whole.
        unset: Patterns of parameters that the class allocates and never sets, since a checkpoint
            would; they are drawn from a normal law with this std.
        note: What a user should know, e.g. why a branch is not reached.
    """

    width: tuple[str, ...]
    scales: tuple[str, ...]
    small: Mapping[str, Any]
    inputs: Inputs
    unit: int
    multiples: tuple[int, int, int] = (2, 3, 5)
    head: str = ""
    floors: tuple[str, ...] = field(default=())
    needs: Mapping[str, Any] = field(default_factory=dict)
    unset: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

"""Which dimensions of which parameters grow with width: builds at several widths compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import nn

from mudit.errors import ParametrizationError

Build: TypeAlias = Callable[[int], nn.Module]
Shape: TypeAlias = tuple[int, ...]

# Path components that wrappers insert: torch.compile, DDP and FSDP1, activation checkpointing.
_WRAPPERS = frozenset({"_orig_mod", "module", "_checkpoint_wrapped_module"})


def canonical_name(name: str) -> str:
    """`name` without the path components that wrappers insert.

    Components are compared whole: `module.dense.bias` is `dense.bias`, and `submodule.x` stays.
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def canonical_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter under every name it has, canonical names, in registration order.

    Raises:
        ParametrizationError: Two different parameters share a canonical name.
    """
    parameters: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        short = canonical_name(name)
        if parameters.setdefault(short, parameter) is not parameter:
            raise ParametrizationError(
                f"two parameters are called {short!r} once the wrapper prefixes "
                f"{sorted(_WRAPPERS)} are stripped. Rename the submodule that bears such a name."
            )
    return parameters


def tied_names(parameters: Mapping[str, nn.Parameter]) -> list[tuple[str, ...]]:
    """The names of each distinct parameter, first registered first; longer than one if tied."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for name, parameter in parameters.items():
        names[id(parameter)].append(name)
    return [tuple(group) for group in names.values()]


def growing_dimensions(shapes: Mapping[int, Mapping[str, Shape]]) -> dict[str, tuple[bool, ...]]:
    """For every parameter, which of its dimensions grow with width.

    Growth may be stepwise (a feed-forward width rounded up to a multiple of 256, say), but must
    not be reversed anywhere.

    Args:
        shapes: By width, by canonical name: the shape. At least two widths.

    Raises:
        ParametrizationError: Names or ranks differ between widths, a dimension shrinks, or nothing
            grows at all. The message names the parameter.
    """
    widths = sorted(shapes)
    smallest, *others = (shapes[width] for width in widths)
    for width, other in zip(widths[1:], others):
        _require_same_layout(smallest, other, widths[0], width)
    growing = {
        name: _growth(name, [shapes[width][name] for width in widths], widths) for name in smallest
    }
    if not any(any(dims) for dims in growing.values()):
        raise ParametrizationError(
            f"build(width) returned the same shapes at widths {widths}: it ignores its argument. "
            "build must be a function of width, e.g. lambda n: DiT(replace(c, num_heads=n // 64))."
        )
    return growing


def _require_same_layout(
    first: Mapping[str, Shape], other: Mapping[str, Shape], first_width: int, width: int
) -> None:
    if odd := sorted(first.keys() ^ other.keys()):
        raise ParametrizationError(
            f"build({first_width}) and build({width}) have different parameters, e.g. {odd[0]!r} "
            f"({len(odd)} differ). Only widths may change with `width`; hold depth and options."
        )


def _growth(name: str, shapes: list[Shape], widths: list[int]) -> tuple[bool, ...]:
    if len({len(shape) for shape in shapes}) > 1:
        raise ParametrizationError(
            f"{name} changes its number of dimensions with width: {dict(zip(widths, shapes))}."
        )
    grows = []
    for sizes in zip(*shapes):
        if list(sizes) != sorted(sizes):
            raise ParametrizationError(
                f"{name} has a dimension that shrinks as width grows: {dict(zip(widths, shapes))}."
            )
        grows.append(sizes[-1] > sizes[0])
    return tuple(grows)

"""One forward pass at several widths, its ops matched one to one: the trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import nn

from mudit.errors import MuditError, ParametrizationError, UsageError
from mudit.program.dims import (
    Build,
    Shape,
    canonical_parameters,
    growing_dimensions,
    tied_names,
)
from mudit.program.tape import Op, Tape, Value, record, tensors_in

# Example inputs at a width: a tuple of positional or a mapping of keyword arguments of forward.
Inputs: TypeAlias = Callable[[int], "tuple[Any, ...] | Mapping[str, Any]"]
Device: TypeAlias = Literal["cpu", "meta"]

_SEED = 0
# Further seeds for a pass whose shapes follow its data (routing to experts): a size that changes
# with the seed is no size that grows.
_OTHER_SEEDS = (1, 2)
_DYNAMIC = (torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output)
# Widths of other residues, in multiples of the widths' greatest common divisor: some models round
# or pad, and take another path at 2, 3 and 5 than at 2, 5 and 8.
_OTHER_MULTIPLES = ((2, 3, 5), (2, 5, 8), (3, 6, 9), (4, 8, 12))


@dataclass(frozen=True)
class Trace:
    """The tapes of one model at three widths; they agree op by op.

    Attributes:
        widths: The widths, rising.
        tapes: One for each width.
        shapes: By width, by canonical name: the parameters' shapes.
        growing: By canonical name, which dimensions of the parameter grow.
        tied: The names of each distinct parameter.
        trainable: By canonical name.
        model: The class's name.
        loose: Dimensions of values whose sizes follow the data; they count as finite.
    """

    widths: tuple[int, ...]
    tapes: tuple[Tape, ...]
    shapes: Mapping[int, Mapping[str, Shape]]
    growing: Mapping[str, tuple[bool, ...]]
    tied: Sequence[tuple[str, ...]]
    trainable: Mapping[str, bool]
    model: str
    loose: frozenset[tuple[int, int]] = frozenset()

    @property
    def ops(self) -> list[Op]:
        """The ops, as recorded at the smallest width."""
        return self.tapes[0].ops

    @property
    def values(self) -> list[Value]:
        """The values, with their shapes at the smallest width."""
        return self.tapes[0].values

    @cached_property
    def sizes(self) -> list[tuple[tuple[int, ...], ...]]:
        """By value, by dimension: its size at each width; one that follows the data is constant."""
        found = [
            tuple(zip(*(value.shape for value in row)))
            for row in zip(*(tape.values for tape in self.tapes))
        ]
        for value, dim in self.loose:
            sizes = list(found[value])
            sizes[dim] = (sizes[dim][0],) * len(self.widths)
            found[value] = tuple(sizes)
        return found

    @cached_property
    def grows(self) -> list[tuple[bool, ...]]:
        """By value: which dimensions grow with width."""
        return [tuple(size[-1] > size[0] for size in sizes) for sizes in self.sizes]

    def numbers(self, op: int, *path: int | str) -> tuple[Any, ...]:
        """One argument of an op at each width; the path's first item is a position or a keyword."""
        found = []
        for tape in self.tapes:
            first, *rest = path
            row = tape.ops[op]
            if isinstance(first, str):
                thing = row.kwargs.get(first)
            else:
                thing = row.args[first] if first < len(row.args) else None
            for step in rest:
                thing = None if thing is None else thing[step]
            found.append(thing)
        return tuple(found)

    def exponent(self, numbers: Sequence[Any]) -> float:
        """The power of the width as which a number grows over the widths; 0 if it is constant."""
        return power(self.widths, numbers)

    def constant_exponent(self, value: int) -> float:
        """The power of the width as which a constant's RMS grows."""
        return power(self.widths, [tape.sizes.get(value, math.nan) for tape in self.tapes])


@dataclass(frozen=True)
class Mismatch:
    """Where the tapes of two widths part.

    Attributes:
        widths: The two widths.
        ops: The op at each; None where the tape has ended.
        what: What differs, in words.
    """

    widths: tuple[int, int]
    ops: tuple[Op | None, Op | None]
    what: str

    def __str__(self) -> str:
        (a, b), (first, second) = self.widths, self.ops
        here, there = (
            "nothing more" if op is None else f"{op.name} at {op.source}" for op in (first, second)
        )
        return f"{self.what}: width {a} runs {here}, width {b} runs {there}"


def power(widths: Sequence[int], numbers: Sequence[Any]) -> float:
    """The slope of log|number| against log(width), rounded to a hundredth; 0 if it has none."""
    sizes = [abs(x) if isinstance(x, int | float) else math.nan for x in numbers]
    if len(set(sizes)) == 1 or not all(0.0 < size < math.inf for size in sizes):
        return 0.0
    slope = np.polyfit(np.log(np.asarray(widths, float)), np.log(np.asarray(sizes, float)), 1)[0]
    return round(float(slope), 2) + 0.0


def trace(
    build: Build, inputs: Inputs, widths: Sequence[int], *, device: Device = "cpu"
) -> tuple[Trace | Mismatch, list[Mismatch]]:
    """Record the forward pass at three widths and match the ops.

    Where the tapes part, triples of widths with other residues are tried, in multiples of the
    given widths' greatest common divisor.

    Args:
        build: Makes the model at a width.
        inputs: Example inputs at a width.
        widths: What `build` takes; three, or more.
        device: `meta` records shapes alone, at any size; a pass that looks at its data needs `cpu`.

    Returns:
        The trace, or the first mismatch; and the mismatches met on the way.

    Raises:
        ParametrizationError: `build` ignores its width, or the parts of what it builds do not fit;
            the forward pass fails on the inputs.
        UsageError: Fewer than three widths.
    """
    listed = list(widths) if isinstance(widths, Iterable) else [widths]
    if wrong := [w for w in listed if type(w) is not int or w < 1]:
        raise UsageError(f"widths has {wrong[0]!r}; expected whole numbers from 1.")
    asked = tuple(sorted(set(listed)))
    if len(asked) < 3:
        raise UsageError(
            f"widths are {listed}; three different ones are needed, to tell a dimension that "
            "grows from one that happens to be equal."
        )
    met: list[Mismatch] = []
    unit = math.gcd(*asked)
    tried = [asked]
    found = _attempt(build, inputs, asked, device)
    if isinstance(found, Trace):
        return found, met
    met.append(found)
    for multiples in _OTHER_MULTIPLES:
        other = tuple(unit * multiple for multiple in multiples)
        if other in tried:
            continue
        tried.append(other)
        try:
            found = _attempt(build, inputs, other, device)
        except MuditError:
            continue  # not a width that this build takes
        if isinstance(found, Trace):
            return found, met
        met.append(found)
    return met[0], met


def _attempt(
    build: Build, inputs: Inputs, widths: tuple[int, ...], device: Device
) -> Trace | Mismatch:
    shapes: dict[int, dict[str, Shape]] = {}
    tapes = []
    for width in widths:
        model = _built(build, width, device)
        parameters = canonical_parameters(model)
        shapes[width] = {name: tuple(p.shape) for name, p in parameters.items()}
        tapes.append(_recorded(model, inputs, width, device))
    growing = growing_dimensions(shapes)
    for tape in tapes[1:]:
        if (mismatch := _compare(tapes[0], tape)) is not None:
            return mismatch
    loose: frozenset[tuple[int, int]] = frozenset()
    if _is_dynamic(tapes[0]):
        found = _loose(build, inputs, widths, device, tapes)
        if isinstance(found, Mismatch):
            return found
        loose = found
    shrinking = _shrinking(tapes, loose)
    if shrinking is not None:
        return shrinking
    return Trace(
        widths=widths,
        tapes=tuple(tapes),
        shapes=shapes,
        growing=growing,
        tied=tied_names(parameters),
        trainable={name: p.requires_grad for name, p in parameters.items()},
        model=type(model).__name__,
        loose=loose,
    )


def _is_dynamic(tape: Tape) -> bool:
    """Whether shapes may follow the data."""
    return bool(tape.syncs) or any(
        op.overload is not None and any(tag in op.overload.tags for tag in _DYNAMIC)
        for op in tape.ops
    )


def _loose(
    build: Build,
    inputs: Inputs,
    widths: tuple[int, ...],
    device: Device,
    tapes: Sequence[Tape],
) -> frozenset[tuple[int, int]] | Mismatch:
    """Dimensions whose sizes change with the seed of weights and inputs."""
    found: set[tuple[int, int]] = set()
    for width, tape in zip(widths, tapes):
        for seed in _OTHER_SEEDS:
            model = _built(build, width, device, seed=seed)
            other = _recorded(model, inputs, width, device, seed=seed)
            if (mismatch := _compare(tape, other)) is not None:
                return mismatch
            for index, (one, two) in enumerate(zip(tape.values, other.values)):
                found |= {
                    (index, dim) for dim, (a, b) in enumerate(zip(one.shape, two.shape)) if a != b
                }
    return frozenset(found)


def _built(build: Build, width: int, device: Device, seed: int = _SEED) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with torch.device(device):
                model = build(width)
        except MuditError:
            raise
        except Exception as error:
            where = " on the meta device" if device == "meta" else ""
            fix = (
                "Build without looking at values (no .item(), no numpy), or record on real tensors "
                "at small widths: mudit.certify(build, inputs, widths)."
                if device == "meta"
                else "Give widths that build takes, e.g. multiples of head_dim."
            )
            raise ParametrizationError(
                f"build({width}) fails{where}: {_said(error)}. {fix}"
            ) from error
    if not isinstance(model, nn.Module):
        raise ParametrizationError(
            f"build({width}) returned {type(model).__name__}, expected a torch.nn.Module."
        )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ParametrizationError(
                f"{name} is lazy and has no shape yet. Run one forward pass in build, or use a "
                "layer whose sizes are given."
            )
    return model


def _recorded(
    model: nn.Module, inputs: Inputs, width: int, device: Device, seed: int = _SEED
) -> Tape:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        given = _given(inputs, width)
        args, kwargs = ((), given) if isinstance(given, Mapping) else (tuple(given), {})
        if device == "meta":
            args, kwargs = _on_meta(args), _on_meta(dict(kwargs))
        try:
            return record(model, args, kwargs, width=width)
        except Exception as error:
            raise _refusal(error, model, args, kwargs, width, device) from error


def _given(inputs: Inputs, width: int) -> tuple[Any, ...] | list[Any] | Mapping[str, Any]:
    try:
        given = inputs(width)
    except MuditError:
        raise
    except Exception as error:
        raise ParametrizationError(
            f"inputs({width}) fails: {_said(error)}. It is called with a width and returns what "
            "the model's forward takes: a tuple, or a dict of keyword arguments."
        ) from error
    if not isinstance(given, tuple | list | Mapping):
        raise ParametrizationError(
            f"inputs({width}) returned {type(given).__name__}; expected a tuple of the forward's "
            "arguments, e.g. (x,), or a dict of keyword arguments."
        )
    return given


def _on_meta(thing: Any) -> Any:
    if isinstance(thing, torch.Tensor):
        return thing.to("meta")
    if isinstance(thing, Mapping):
        return {key: _on_meta(item) for key, item in thing.items()}
    if isinstance(thing, list | tuple) and not hasattr(thing, "_fields"):
        return type(thing)(_on_meta(item) for item in thing)
    return thing


def _refusal(
    error: Exception,
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    width: int,
    device: Device,
) -> ParametrizationError:
    given = [tuple(tensor.shape) for tensor in tensors_in((args, kwargs))]
    head = f"the forward pass of {type(model).__name__} fails at width {width}"
    if device == "meta":
        return ParametrizationError(
            f"{head} on the meta device: {_said(error)}. It looks at its data (item(), nonzero, a "
            "boolean mask) or runs a kernel that has no shape rule. Certify it on real tensors at "
            "small widths and hand the certificate on: mudit.plan(..., certificate=...)."
        )
    text = str(error)
    if isinstance(error, NotImplementedError) or "dispatch" in text.lower():
        return ParametrizationError(
            f"{head}: {_said(error)}. A custom kernel that has no CPU version cannot be recorded: "
            "give build an option that takes torch's own ops instead, e.g. its reference path."
        )
    return ParametrizationError(
        f"{head} on inputs of shapes {given}: {_said(error)}. Either inputs({width}) does not fit "
        "the model, or build does not spread the width to all of its parts (e.g. a text "
        "projection that must be as wide as the blocks)."
    )


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    text = lines[0] if len(lines[0]) < 300 else lines[0][:300] + " ..."
    return f"{type(error).__name__}: {text}".rstrip(": ")


def _compare(first: Tape, second: Tape) -> Mismatch | None:
    widths = first.width, second.width
    for a, b in zip(first.ops, second.ops):
        if a.name != b.name:
            return Mismatch(widths, (a, b), "the op sequences part")
        if a.inputs != b.inputs or len(a.outputs) != len(b.outputs):
            return Mismatch(widths, (a, b), f"{a.name} is wired differently")
        if any(
            len(first.values[v].shape) != len(second.values[v].shape)
            for v in (*a.inputs, *a.outputs)
        ):
            return Mismatch(widths, (a, b), f"{a.name} gets tensors of other ranks")
    if len(first.ops) != len(second.ops):
        at = min(len(first.ops), len(second.ops))
        rest = [tape.ops[at] if len(tape.ops) > at else None for tape in (first, second)]
        return Mismatch(widths, (rest[0], rest[1]), "one pass is longer")
    return None


def _shrinking(tapes: Sequence[Tape], loose: frozenset[tuple[int, int]]) -> Mismatch | None:
    """A dimension whose size does not rise with the width, or where different things meet."""
    for index, op in enumerate(tapes[0].ops):
        for value in op.outputs:
            for dim, sizes in enumerate(zip(*(tape.values[value].shape for tape in tapes))):
                if list(sizes) != sorted(sizes) and (value, dim) not in loose:
                    return Mismatch(
                        (tapes[0].width, tapes[-1].width),
                        (op, tapes[-1].ops[index]),
                        f"a dimension of {op.name}'s result has sizes {list(sizes)}, which do not "
                        "rise with width",
                    )
    return None

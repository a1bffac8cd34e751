"""How one architecture's tensors are named and cut in another library's checkpoints.

A `Layout` is a table. Exporting walks our tensors and writes theirs, importing walks our names and
reads theirs, so both ways come from the same rows, and one after the other is the identity, bit
for bit.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mudit.errors import UsageError

State = Mapping[str, Tensor]


class Row(NamedTuple):
    """One of our modules or tensors, and where the other library keeps it.

    Attributes:
        ours: Name of a parameter, a buffer, or a module, which stands for all its tensors. A `*`
            is a whole number, the same in `theirs`.
        theirs: One name; or several, for a tensor that they keep in equal pieces along its first
            dimension (a fused qkv). A `*` where `ours` has none: a copy for every block.
        order: How they order the equal pieces of the first dimension, e.g. (1, 0) for scale
            before shift; only with one name.
    """

    ours: str
    theirs: tuple[str, ...]
    order: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """A table of rows; the first that fits a tensor of ours decides.

    Attributes:
        rows: Where our tensors are. A tensor that no row fits keeps its name.
        computed: Tensors of ours that they do not store, since they follow from the config
            (fixed positions).
        ignored: Tensors of theirs that we do not store, for the same reason. Patterns with `*`.
    """

    rows: tuple[Row, ...] = ()
    computed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def place(self, name: str, depth: int) -> tuple[list[list[str]], tuple[int, ...]]:
        """Returns where our tensor `name` is kept: names of the pieces, once per copy; the order.

        Args:
            name: One of our state dict's keys.
            depth: Number of blocks, for tensors that they repeat in each.
        """
        if name in self.computed:
            return [], ()
        for row in self.rows:
            match = re.fullmatch(_regex(row.ours) + r"(\.[^.]+)?", name)
            if match:
                *numbers, leaf = match.groups()
                repeated = "*" in row.theirs[0] and not numbers
                copies = [[str(block)] for block in range(depth)] if repeated else [numbers]
                return [[_fill(t, n) + (leaf or "") for t in row.theirs] for n in copies], row.order
        return [[name]], ()

    def export(self, state: State, depth: int) -> dict[str, Tensor]:
        """Returns our tensors under their names.

        Args:
            state: Our state dict; on the meta device it gives the shapes that they expect.
            depth: Number of blocks.
        """
        theirs: dict[str, Tensor] = {}
        for name, tensor in state.items():
            copies, order = self.place(name, depth)
            for names in copies:
                pieces = tensor.chunk(max(len(names), len(order), 1))
                ordered = torch.cat([pieces[i] for i in order]) if order else tensor
                theirs.update(zip(names, pieces if len(names) > 1 else [ordered], strict=True))
        return theirs

    def load(self, theirs: State, expected: State, depth: int) -> dict[str, Tensor]:
        """Returns their tensors under our names; those of `computed` are not among them.

        Args:
            theirs: Their state dict.
            expected: Our state dict, for names and shapes; it may be on the meta device.
            depth: Number of blocks.

        Raises:
            UsageError: Tensors are missing, unknown, of another shape, or copies differ. All are
                listed.
        """
        problems = _differences(theirs, self.export(_on_meta(expected), depth), self.ignored)
        if problems:
            raise UsageError(
                f"The checkpoint does not fit the config in {len(problems)} tensors:\n"
                + "\n".join(f"  {problem}" for problem in problems)
                + "\nChange the config, or name the layout that the file has."
            )
        ours: dict[str, Tensor] = {}
        unequal: list[str] = []
        for name in expected:
            copies, order = self.place(name, depth)
            for names in copies[:1]:
                parts = [theirs[piece] for piece in names]
                tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
                if order:
                    pieces = tensor.chunk(len(order))
                    tensor = torch.cat([pieces[order.index(i)] for i in range(len(order))])
                ours[name] = tensor
            unequal += [
                f"{first} and {other} differ, and are one tensor here, {name}"
                for names in copies[1:]
                for first, other in zip(copies[0], names, strict=True)
                if not torch.equal(theirs[first], theirs[other])
            ]
        if unequal:
            raise UsageError(
                "The checkpoint cannot be imported:\n"
                + "\n".join(f"  {problem}" for problem in unequal)
            )
        return ours


class Exchange(NamedTuple):
    """How one architecture's configs and tensors are written by one library.

    Attributes:
        layout: The tensors.
        config: From our config to their `config.json`, `_class_name` included; None: their
            checkpoints hold no config.
        read: From their `config.json` to our config; raises `UsageError` for what ours cannot be.
        class_names: Their `_class_name`, today's and older ones.
    """

    layout: Layout
    config: Callable[[Any], dict[str, Any]] | None = None
    read: Callable[[Mapping[str, Any]], Any] | None = None
    class_names: tuple[str, ...] = ()


def _on_meta(state: State) -> dict[str, Tensor]:
    return {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}


def _regex(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", r"(\d+)")


def _fill(pattern: str, numbers: list[str]) -> str:
    left = iter(numbers)
    return re.sub(r"\*", lambda _: next(left), pattern)


def _differences(got: State, expected: State, ignored: tuple[str, ...]) -> list[str]:
    problems = [
        f"{name}: missing, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name not in got
    ]
    problems += [
        f"{name}: {tuple(got[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in got and got[name].shape != tensor.shape
    ]
    problems += [
        f"{name}: {tuple(tensor.shape)}, not expected"
        for name, tensor in got.items()
        if name not in expected and not any(re.fullmatch(_regex(i), name) for i in ignored)
    ]
    return problems

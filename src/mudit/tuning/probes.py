"""What a forward pass computes and how far weights have moved, as numbers of one model.

A probe runs a loss on fixed data under hooks and keeps every floating-point tensor that a module
returns, by the module's name and the tensor's place in what it returned, in the order in which they
were computed; and the logits of every attention. The hooks are gone afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mudit.program import canonical_name

OUTPUT = "(model)"
LOGITS = "[logits]"
_DEPTH = 4  # how deep containers are searched for tensors


class Seen(NamedTuple):
    """A tensor of a forward pass, and the parameter that made it (None: none came before)."""

    value: Tensor
    parameter: str | None


@contextlib.contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, Seen]]:
    """Collects the tensors that the model's modules return, while the context lasts.

    A tensor that several modules hand on bears the name of the first. A module that is called again
    gets `#2`. Logits bear the name of the innermost module that computed them.

    Args:
        model: Any module; nothing is left on it.

    Yields:
        By name, in the order of computation; filled by forward passes.
    """
    recorder = _Recorder()
    handles = []
    for name, module in model.named_modules():
        short = canonical_name(name)
        handles.append(module.register_forward_pre_hook(recorder.entering(short)))
        handles.append(module.register_forward_hook(recorder.leaving(short), always_call=True))
    try:
        with _LogitsMode(recorder):
            yield recorder.seen
    finally:
        for handle in handles:
            handle.remove()


class _Recorder:
    """The tensors of one forward pass, and the stack of modules that are being called."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self._kept: dict[int, Tensor] = {}  # holds them, so that an id stays one tensor's
        self._calls: Counter[str] = Counter()
        self._stack: list[tuple[str, int]] = []
        self._used: list[str] = []  # parameters, in the order in which their modules returned

    def entering(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            self._stack.append((name, len(self._used)))

        return hook

    def leaving(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            _, before = self._stack.pop()
            if len(self._used) == before:  # no weight was used by a module inside it
                self._used.extend(_main_parameter(name, module))
            for path, tensor in _tensors(output):
                self._keep(name or OUTPUT, path, tensor, self._used[-1:])

        return hook

    def logits(self, tensor: Tensor) -> None:
        name, before = self._stack[-1] if self._stack else ("", 0)
        # The first weight used in the attention: that of the queries.
        self._keep(name or OUTPUT, LOGITS, tensor, self._used[before:][:1] or self._used[-1:])

    def _keep(self, name: str, path: str, tensor: Tensor, made_by: list[str]) -> None:
        if not tensor.is_floating_point() or tensor.numel() == 0 or id(tensor) in self._kept:
            return
        self._kept[id(tensor)] = tensor
        self._calls[name + path] += 1
        count = self._calls[name + path]
        again = f"#{count}" if count > 1 else ""
        self.seen[name + again + path] = Seen(tensor.detach(), made_by[0] if made_by else None)


def _main_parameter(name: str, module: nn.Module) -> list[str]:
    """The module's first weight of two dimensions or more, else its first parameter."""
    found = list(module.named_parameters(prefix=name))
    weights = [canonical_name(path) for path, parameter in found if parameter.ndim >= 2]
    return weights[:1] or [canonical_name(path) for path, _ in found[:1]]


class _LogitsMode(TorchFunctionMode):
    """Sees the calls that turn queries and keys into attention weights."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            with contextlib.suppress(TypeError, RuntimeError, ValueError):  # shapes we do not know
                self._recorder.logits(_sdpa_logits(*args, **kwargs))
        elif func in _SOFTMAX:
            given = args[0] if args else kwargs.get("input")
            if isinstance(given, Tensor) and given.ndim >= 3:
                self._recorder.logits(given)
        return func(*args, **kwargs)


_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


def _sdpa_logits(
    query: Tensor, key: Tensor, value: Tensor, *rest: Any, scale: float | None = None, **named: Any
) -> Tensor:
    """The scaled products before the mask, as `F.scaled_dot_product_attention` computes them."""
    if key.shape[:-2] != query.shape[:-2] and named.get("enable_gqa"):
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return (query.detach() @ key.detach().transpose(-1, -2)) * factor


def _tensors(value: Any, path: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested tuples, lists, mappings and dataclasses, each with its place."""
    if isinstance(value, Tensor):
        yield path, value
    elif depth == 0:
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{path}[{key}]", depth - 1)
    elif isinstance(value, tuple | list):
        for place, item in enumerate(value):
            yield from _tensors(item, f"{path}[{place}]", depth - 1)
    elif dataclasses.is_dataclass(value) and not inspect.isclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name), f"{path}[{field.name}]", depth - 1)


def rms(tensor: Tensor) -> float:
    """Root mean square about zero."""
    return float(tensor.double().square().mean().sqrt())


def spectral_norm(tensor: Tensor, grows: tuple[bool, ...]) -> float:
    """The largest singular value of a weight, as the matrix that it acts as.

    Computed from the smaller Gram matrix in float64.

    Args:
        tensor: The weight.
        grows: Which of its dimensions grow with width.

    Returns:
        NaN if the weight is not finite; of a stack of matrices the largest.
    """
    matrices = _matrices(tensor.double(), grows)
    gram = (
        matrices @ matrices.mT
        if matrices.shape[-2] < matrices.shape[-1]
        else (matrices.mT @ matrices)
    )
    if not bool(torch.isfinite(gram).all()):
        return math.nan
    return float(torch.linalg.eigvalsh(gram)[..., -1].max().clamp(min=0).sqrt())


def _matrices(tensor: Tensor, grows: tuple[bool, ...]) -> Tensor:
    """One matrix, or a stack of them, with growing dimensions on different sides."""
    if tensor.ndim <= 2:
        return tensor.reshape(tensor.shape[0] if tensor.ndim else 1, -1)
    growing = [dim for dim, grow in enumerate(grows) if grow]
    if len(growing) == 2 and growing[0] > 0:  # e.g. the weights of all experts, fused
        return tensor.movedim(growing, (-2, -1)).flatten(0, -3)
    front = growing[0] if len(growing) == 1 else 0  # convolutions: (fan-out, fan-in, kernel)
    return tensor.movedim(front, 0).flatten(1)

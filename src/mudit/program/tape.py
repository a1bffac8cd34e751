"""Records every ATen op of one forward pass: the tape.

The pass runs eagerly, so whatever Python does between ops (routing, loops, host syncs) just
happens, and what is recorded is what ran. Values are in single-assignment form: an in-place op
makes a new value, and every alias of the storage it wrote to becomes a new value when it is next
read.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mudit.program.dims import Shape, canonical_name

Origin: TypeAlias = Literal["parameter", "input", "constant", "op"]

# An alias of a written storage, read again: its old value and what was written since.
WRITE = "write"
_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)


class Ref(NamedTuple):
    """A tensor argument of an op: the index of its value on the tape."""

    value: int


class Source(NamedTuple):
    """A line of the model's source."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{short_path(self.file)}:{self.line} (in {self.function})"


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor of the pass.

    Attributes:
        shape: Its shape at the tape's width.
        origin: Where it comes from.
        name: Canonical name, of a parameter.
        is_float: Whether its dtype is floating or complex.
    """

    shape: Shape
    origin: Origin
    name: str
    is_float: bool


@dataclass(frozen=True, slots=True)
class Op:
    """One op of the pass.

    Attributes:
        name: Of the overload, without namespace and variant mark: "addmm", "add_".
        overload: The overload itself; None for a write and for higher-order ops.
        args: Positional arguments, tensors as `Ref`.
        kwargs: Keyword arguments, likewise.
        inputs: Values of all tensor arguments, in order.
        outputs: Values that it makes.
        module: Canonical path of the innermost module whose forward was running.
        source: The innermost line outside torch.
    """

    name: str
    overload: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: str
    source: Source


@dataclass(slots=True)
class Tape:
    """The ops of one forward pass at one width, in order.

    Attributes:
        width: What `build` was called with.
        values: All values; an op's inputs and outputs index into them.
        ops: All ops.
        outputs: Values that the model returned.
        sizes: By value: RMS of a constant, where it was measured; NaN elsewhere.
        syncs: Lines that read a value of the data back into Python.
    """

    width: int
    values: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    outputs: tuple[int, ...] = ()
    sizes: dict[int, float] = field(default_factory=dict)
    syncs: list[Source] = field(default_factory=list)


def record(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], *, width: int) -> Tape:
    """Run `model(*args, **kwargs)` in evaluation mode without gradients, and record it.

    Args:
        model: On the CPU or the meta device; left in the mode it was in.
        args: Positional arguments of its forward.
        kwargs: Keyword arguments of its forward.
        width: For the tape's label.
    """
    tape = Tape(width)
    recorder = _Recorder(tape, model, (args, kwargs))
    training = model.training
    model.eval()
    try:
        with (
            torch.no_grad(),
            _eager_kernels(),
            recorder.modules(model),
            _Readers(tape),
            recorder,
        ):
            result = model(*args, **kwargs)
        tape.outputs = tuple(recorder.read(tensor) for tensor in tensors_in(result))
    finally:
        model.train(training)
    recorder.measure_constants()
    return tape


def tensors_in(thing: Any, depth: int = 6) -> Iterator[Tensor]:
    """All tensors in nested containers, dataclasses and plain objects, in order."""
    if isinstance(thing, Tensor):
        yield thing
    elif depth == 0 or isinstance(thing, str | bytes | int | float | type(None)):
        return
    elif isinstance(thing, Mapping):
        for item in thing.values():
            yield from tensors_in(item, depth - 1)
    elif isinstance(thing, list | tuple | set):
        for item in thing:
            yield from tensors_in(item, depth - 1)
    elif is_dataclass(thing):
        for f in fields(thing):
            yield from tensors_in(getattr(thing, f.name), depth - 1)
    elif not isinstance(thing, nn.Module) and hasattr(thing, "__dict__"):
        for item in vars(thing).values():
            yield from tensors_in(item, depth - 1)


@cache
def short_path(file: str) -> str:
    """A source file's path from its package on, or from the current folder."""
    path = Path(file)
    for root in (*map(Path, sys.path), Path.cwd()):
        if root != Path(".") and root.is_absolute() and path.is_relative_to(root):
            return str(path.relative_to(root))
    return path.name


@contextmanager
def _eager_kernels() -> Iterator[None]:
    """Keep torch from replacing layers by fused kernels that hide their steps."""
    fast = torch.backends.mha.get_fastpath_enabled()
    onednn: Any = torch.backends.mkldnn  # has recurrent layers as one op
    fused = onednn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    flex: Any = sys.modules.get("torch.nn.attention.flex_attention")
    switch = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    compiled = getattr(flex, switch, None)
    if compiled is not None:
        setattr(flex, switch, True)  # eager flex_attention, which a dispatch mode can see
    onednn.enabled = False
    try:
        yield
    finally:
        onednn.enabled = fused
        torch.backends.mha.set_fastpath_enabled(fast)
        if compiled is not None:
            setattr(flex, switch, compiled)


class _Readers(TorchFunctionMode):
    """Notes reads that do not dispatch: a tensor turned into a list or an array."""

    _NAMES = frozenset({"numpy", "tolist", "__array__"})

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in self._NAMES:
            self._tape.syncs.append(_source())
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    supports_higher_order_operators = True

    def __init__(self, tape: Tape, model: nn.Module, inputs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tape = tape
        self._stack: list[str] = []
        self._kept: list[Tensor] = []  # ids and storages must not be used again
        self._known: dict[int, tuple[int, int]] = {}  # id(tensor) -> value, writes it has seen
        self._writes: defaultdict[int, list[int]] = defaultdict(list)  # storage -> values
        self._storages: dict[int, str] = {}  # storage -> parameter
        self._constants: dict[int, Tensor] = {}
        self._layouts: dict[Any, tuple[Any, Any, torch.dtype]] = {}
        for name, parameter in model.named_parameters():
            self._add(parameter, "parameter", canonical_name(name))
            self._storages.setdefault(_storage(parameter), canonical_name(name))
        for tensor in tensors_in(inputs):
            if id(tensor) not in self._known:
                self._add(tensor, "input")

    # --- the mode ---------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs: list[int] = []
        ref_args = tuple(self._refs(arg, inputs) for arg in args)
        ref_kwargs = {key: self._refs(arg, inputs) for key, arg in kwargs.items()}
        result = self._run(func, args, kwargs)
        written = _written(func, args, kwargs)
        produced = [*written, *(t for t in tensors_in(result) if all(t is not w for w in written))]
        outputs = tuple(self._value(tensor, "op") for tensor in produced)
        name, overload = _name(func)
        source = _source()
        self._tape.ops.append(
            Op(
                name,
                overload,
                ref_args,
                ref_kwargs,
                tuple(inputs),
                outputs,
                self._stack[-1] if self._stack else "",
                source,
            )
        )
        if name == "_local_scalar_dense":
            self._tape.syncs.append(source)
        for tensor, value in zip(produced, outputs):
            if any(tensor is w for w in written):
                self._writes[_storage(tensor)].append(value)
            self._know(tensor, value)
            if all(v in self._constants for v in inputs):
                self._constants[value] = tensor
        return result

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run an op; on the meta device, one that was run before on such tensors is looked up.

        A deep model repeats its blocks, and most meta kernels are slow Python.
        """
        key = _signature(func, args, kwargs)
        if key is None:
            return func(*args, **kwargs)
        layout = self._layouts.get(key)
        if layout is None:
            result = func(*args, **kwargs)
            if isinstance(result, Tensor):
                self._layouts[key] = (result.shape, result.stride(), result.dtype)
            return result
        shape, stride, dtype = layout
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")

    @contextmanager
    def modules(self, model: nn.Module) -> Iterator[None]:
        """Follow which module's forward is running, by torch's global hooks."""
        names = {
            id(module): canonical_name(name)
            for name, module in model.named_modules(remove_duplicate=True)
        }

        def enter(module: nn.Module, _: Any) -> None:
            self._stack.append(names.get(id(module), self._stack[-1] if self._stack else ""))

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            self._stack.pop()

        handles = (
            torch_module.register_module_forward_pre_hook(enter),
            torch_module.register_module_forward_hook(leave, always_call=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    # --- values -----------------------------------------------------------------------------------

    def read(self, tensor: Tensor) -> int:
        """The value that a tensor holds now."""
        if id(tensor) not in self._known:
            return self._add_unknown(tensor)
        value, seen = self._known[id(tensor)]
        writes = self._writes.get(_storage(tensor), ())
        if seen == len(writes):
            return value
        inputs = (value, *writes[seen:])
        now = self._value(tensor, "op")
        source = self._tape.ops[-1].source
        module = self._stack[-1] if self._stack else ""
        args = tuple(map(Ref, inputs))
        self._tape.ops.append(Op(WRITE, None, args, {}, inputs, (now,), module, source))
        self._know(tensor, now)
        return now

    def measure_constants(self) -> None:
        """Note the RMS of the constants; the meta device has none."""
        for value, tensor in self._constants.items():
            if tensor.device.type != "meta" and tensor.numel() and tensor.is_floating_point():
                size = tensor.detach().abs().double()
                finite = size[size.isfinite()]
                rms = math.sqrt(float(finite.square().mean())) if finite.numel() else math.nan
                self._tape.sizes[value] = rms

    def _refs(self, thing: Any, inputs: list[int]) -> Any:
        if isinstance(thing, Tensor):
            value = self.read(thing)
            inputs.append(value)
            return Ref(value)
        if isinstance(thing, list | tuple):
            return tuple(self._refs(item, inputs) for item in thing)
        return thing

    def _value(self, tensor: Tensor, origin: Origin, name: str = "") -> int:
        self._tape.values.append(
            Value(
                tuple(tensor.shape),
                origin,
                name,
                tensor.is_floating_point() or tensor.is_complex(),
            )
        )
        return len(self._tape.values) - 1

    def _add(self, tensor: Tensor, origin: Origin, name: str = "") -> int:
        value = self._value(tensor, origin, name)
        self._know(tensor, value)
        if origin == "constant":
            self._constants[value] = tensor
        return value

    def _add_unknown(self, tensor: Tensor) -> int:
        """A tensor that the pass did not make: a buffer or attribute, or a view of a parameter."""
        name = self._storages.get(_storage(tensor))
        if name is None:
            return self._add(tensor, "constant")
        return self._add(tensor, "parameter", name)

    def _know(self, tensor: Tensor, value: int) -> None:
        self._kept.append(tensor)
        self._known[id(tensor)] = (value, len(self._writes.get(_storage(tensor), ())))


def _storage(tensor: Tensor) -> int:
    with suppress(NotImplementedError, RuntimeError):
        return int(tensor.untyped_storage()._cdata)
    return -id(tensor)  # a tensor without storage, e.g. a sparse one, has no aliases


def _signature(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the result's layout follows from; None for views, writes and other devices."""
    if not isinstance(func, torch._ops.OpOverload) or not _is_functional(func):
        return None
    found: list[Any] = [func]
    meta = False
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, Tensor):
            if arg.device.type != "meta":
                return None
            meta = True
            found.append((arg.shape, arg.stride(), arg.dtype))
        elif isinstance(arg, list | tuple):
            if any(isinstance(item, Tensor) for item in arg):
                return None
            found.append(tuple(arg))
        else:
            found.append((type(arg), arg))
    return (*found, *kwargs) if meta else None


@cache
def _is_functional(func: Any) -> bool:
    schema = func._schema
    return not schema.is_mutable and not any(a.alias_info for a in schema.arguments)


def _name(func: Any) -> tuple[str, Any]:
    if isinstance(func, torch._ops.OpOverload):
        space, _, name = func._schema.name.partition("::")
        return (name if space in ("aten", "prims", "mkldnn") else f"{space}::{name}"), func
    return str(getattr(func, "__name__", func)), None


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensor arguments that an op writes to."""
    if not isinstance(func, torch._ops.OpOverload) or not func._schema.is_mutable:
        return []
    found: list[Tensor] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = kwargs.get(argument.name, args[position] if position < len(args) else None)
            found.extend(tensors_in(given))
    return found


_library: dict[str, bool] = {}


def _source() -> Source:
    """The innermost line that is neither torch's nor ours."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        library = _library.get(file)
        if library is None:
            library = _library[file] = file.startswith((_TORCH, _HERE, "<"))
        if not library:
            return Source(file, frame.f_lineno, frame.f_code.co_name)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return Source("torch", 0, "?")

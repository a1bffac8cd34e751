"""Initial RMS of every tensor, read exactly by watching the initialisers run.

A model is built on the meta device, where nothing is stored, under a dispatch mode that follows
each storage: which random law or constant was last written to which part of it. The RMS then comes
from the law (a normal's std, a uniform's bounds), not from a sample. What is not recognised is
estimated from a real build, and the result says so.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mudit.errors import ParametrizationError
from mudit.program import Build, canonical_parameters

_MOST_ESTIMATED = 3 * 10**8  # parameters of the largest model that is built to be measured


@dataclass(frozen=True, kw_only=True, slots=True)
class InitialScale:
    """The RMS (about zero) of a tensor's initial values.

    Attributes:
        rms: Root mean square.
        exact: From the initialiser's law; if False, the RMS of one real sample.
        law: The initialiser in words, e.g. `normal(0, 0.02)`.
    """

    rms: float
    exact: bool
    law: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """A model as built on the meta device, and the initial scale of its parameters by name."""

    model: nn.Module
    scales: dict[str, InitialScale]


def observe(build: Build, width: int, *, estimate: bool = True) -> Observation:
    """Build at `width` without memory for weights, and read every initial scale.

    A build that cannot run on the meta device runs on the CPU instead; the laws are read the same
    way. The global random state is left as it was.

    Args:
        build: Makes the model.
        width: At which width.
        estimate: Whether to measure what no law is known of on a real build. Otherwise, and for a
            model too large to be built for this, its RMS is NaN.

    Raises:
        ParametrizationError: build returned no module, or a parameter was never initialised.
    """
    watcher = _Watcher()
    with _untouched_rng():
        try:
            with torch.device("meta"), watcher, _watched_initialisers(watcher):
                model = build(width)
        except (NotImplementedError, RuntimeError, TypeError):
            # E.g. .item() or .numpy() in a constructor.
            watcher = _Watcher()
            with watcher, _watched_initialisers(watcher):
                model = build(width)
    if not isinstance(model, nn.Module):
        raise ParametrizationError(
            f"build({width}) returned {type(model).__name__}, expected a torch.nn.Module."
        )
    parameters = canonical_parameters(model)
    laws = {name: watcher.law(parameter) for name, parameter in parameters.items()}
    scales = {
        name: InitialScale(rms=law.rms, exact=True, law=law.words)
        for name, law in laws.items()
        if law is not None
    }
    if missing := [name for name in parameters if name not in scales]:
        unknown = InitialScale(rms=math.nan, exact=False, law="unknown")
        small = sum(parameter.numel() for parameter in parameters.values()) <= _MOST_ESTIMATED
        can = estimate and small
        scales |= _estimate(build, width, missing) if can else dict.fromkeys(missing, unknown)
    return Observation(model=model, scales={name: scales[name] for name in parameters})


def _estimate(build: Build, width: int, names: list[str]) -> dict[str, InitialScale]:
    with _untouched_rng():
        parameters = canonical_parameters(build(width))
    return {name: _measure(name, parameters[name]) for name in names}


def _measure(name: str, parameter: Tensor) -> InitialScale:
    rms = root_mean_square(parameter)
    if not math.isfinite(rms):
        raise ParametrizationError(
            f"{name} holds non-finite values after build(): it looks uninitialised (torch.empty). "
            "Initialise it in the model's constructor."
        )
    return InitialScale(rms=rms, exact=False, law=f"estimated from {parameter.numel():,} values")


def root_mean_square(tensor: Tensor) -> float:
    """RMS about zero of a tensor's values, accumulated in float64; 0 if it is empty."""
    if tensor.numel() == 0:
        return 0.0
    norm = float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64))
    return norm / math.sqrt(tensor.numel())


@contextmanager
def _untouched_rng() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


# --- Laws: what is known of the values in a region of memory -------------------------------------


@dataclass(frozen=True, slots=True)
class _Law:
    """First two moments of independent values, in words, and the support of a plain uniform."""

    mean: float
    mean_square: float
    words: str
    random: bool = True
    support: tuple[float, float] | None = None  # of a plain uniform
    bounds: tuple[float, float] | None = None  # of a truncated normal
    mixed: bool = False  # of several regions together: says nothing of a part

    @property
    def rms(self) -> float:
        return math.sqrt(self.mean_square)

    def affine(self, scale: float, shift: float) -> _Law:
        """The law of scale·x + shift."""

        def moved(edges: tuple[float, float] | None) -> tuple[float, float] | None:
            if edges is None:
                return None
            ends = (scale * edges[0] + shift, scale * edges[1] + shift)
            return min(ends), max(ends)

        scaled = f"{scale:.6g}·" if scale != 1.0 else ""
        shifted = f" + {shift:.6g}" if shift != 0.0 else ""
        return _Law(
            mean=scale * self.mean + shift,
            mean_square=scale**2 * self.mean_square + 2 * scale * shift * self.mean + shift**2,
            words=f"{scaled}{self.words}{shifted}",
            random=self.random,
            support=moved(self.support),
            bounds=moved(self.bounds),
            mixed=self.mixed,
        )


# Memory that nothing was written to yet; its moments are not numbers.
_UNSET = _Law(math.nan, math.nan, "uninitialised", random=False)


def _constant(value: float) -> _Law:
    return _Law(value, value**2, f"constant {value:.6g}", random=False)


def _normal(mean: float = 0.0, std: float = 1.0) -> _Law:
    return _Law(mean, mean**2 + std**2, f"normal({mean:.6g}, {std:.6g})")


def _uniform(low: float = 0.0, high: float = 1.0) -> _Law:
    square = (low**2 + low * high + high**2) / 3
    return _Law((low + high) / 2, square, f"uniform({low:.6g}, {high:.6g})", support=(low, high))


def _truncated_normal(mean: float, std: float, low: float, high: float) -> _Law:
    """Moments of N(mean, std²) cut at [low, high] (Johnson, Kotz & Balakrishnan, §10.1)."""
    alpha, beta = (low - mean) / std, (high - mean) / std
    mass = _normal_cdf(beta) - _normal_cdf(alpha)
    if not mass > 0.0:
        middle = min(max(mean, low), high)
        return _Law(middle, middle**2, f"truncated normal({mean:.6g}, {std:.6g})")
    d_alpha, d_beta = _normal_pdf(alpha), _normal_pdf(beta)
    first = (d_alpha - d_beta) / mass
    edges = (alpha * d_alpha if math.isfinite(alpha) else 0.0) - (
        beta * d_beta if math.isfinite(beta) else 0.0
    )
    second = 1.0 + edges / mass
    return _Law(
        mean + std * first,
        mean**2 + 2 * mean * std * first + std**2 * second,
        f"truncated normal({mean:.6g}, {std:.6g}) on [{low:.6g}, {high:.6g}]",
        bounds=(low, high),
    )


def _normal_pdf(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) if math.isfinite(x) else 0.0


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _inverse_erf(law: _Law) -> _Law | None:
    """Erfinv of a uniform on [a, b] is a truncated normal of std 1/√2."""
    if law.support is None:
        return None
    low, high = (
        math.sqrt(0.5) * _normal_quantile((1 + min(max(edge, -1.0), 1.0)) / 2)
        for edge in law.support
    )
    return _truncated_normal(0.0, math.sqrt(0.5), low, high)


def _normal_quantile(probability: float) -> float:
    value = torch.special.ndtri(torch.tensor(probability, dtype=torch.float64, device="cpu"))
    return float(value)


def _mixture(parts: list[tuple[int, _Law]]) -> _Law:
    """The law of all values of several regions together."""
    if len({law for _, law in parts}) == 1:
        return parts[0][1]
    total = sum(count for count, _ in parts)
    words = dict.fromkeys(law.words for _, law in parts)
    return _Law(
        sum(count * law.mean for count, law in parts) / total,
        sum(count * law.mean_square for count, law in parts) / total,
        " | ".join(words),
        random=any(law.random for _, law in parts),
        mixed=True,
    )


class _Regions:
    """One storage: disjoint intervals of elements, each with its law (None: not known)."""

    def __init__(self, storage: torch.UntypedStorage, size: int) -> None:
        self.storage = storage  # held, so that its address is not given to another
        self.size = size
        self.intervals: list[tuple[int, int, _Law | None]] = [(0, size, None)]

    @property
    def is_random(self) -> bool:
        """True if any values come from a random law or from one that was lost track of."""
        return any(law is None or law.random for _, _, law in self.intervals)

    def write(self, start: int, stop: int, law: _Law | None) -> None:
        kept = []
        for a, b, old in self.intervals:
            kept += [(a, min(b, start), old)] if a < start else []
            kept += [(max(a, stop), b, old)] if b > stop else []
        self.intervals = [*kept, (start, stop, law)]

    def read(self, start: int, stop: int) -> _Law | None:
        parts: list[tuple[int, _Law]] = []
        for a, b, law in self.intervals:
            overlap = min(b, stop) - max(a, start)
            if overlap > 0:
                if law is None or (law.mixed and overlap < b - a):
                    return None
                parts.append((overlap, law))
        return _mixture(parts) if parts else None


def _span(tensor: Tensor) -> tuple[int, int] | None:
    """The elements of its storage that a tensor covers, if they are without gaps."""
    start = int(tensor.storage_offset())
    extent = 1 + sum((size - 1) * abs(step) for size, step in zip(tensor.shape, tensor.stride()))
    count = int(tensor.numel())
    return (start, start + count) if extent == count else None


# --- The watcher --------------------------------------------------------------------------------

_Args = tuple[Any, ...]


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the law of every storage through a constructor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._regions: dict[int, _Regions] = {}
        self.paused = False

    def law(self, tensor: Tensor) -> _Law | None:
        """What is known of the tensor's values; values that are there to read are read."""
        regions = self._regions.get(tensor.untyped_storage()._cdata)
        size = tensor.untyped_storage().nbytes() // tensor.element_size()
        if not tensor.is_floating_point():
            return None
        if regions is not None:
            span = _span(tensor) if regions.size == size else None  # another dtype's view
            law = regions.read(*span) if span else None
            return None if law is None or math.isnan(law.mean) else law
        return None if tensor.is_meta or tensor.numel() == 0 else _data_law(tensor)

    def write(self, tensor: Tensor, law: _Law | None) -> None:
        storage = tensor.untyped_storage()
        size = storage.nbytes() // tensor.element_size()
        regions = self._regions.setdefault(storage._cdata, _Regions(storage, size))
        span = _span(tensor) if regions.size == size else None  # another dtype's view
        if not tensor.is_floating_point():
            law = None  # its bits may be read as floats
        if span is not None:
            regions.write(*span, law)
        elif tensor.is_meta or law is None or law.random or regions.is_random:
            regions.write(0, regions.size, None)  # values with gaps between them: given up
        else:
            self._forget(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: _Args = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name.endswith("_") and name[:-1] in _RULES and args[0].is_meta:
            out = args[0]  # nothing to compute, and torch's own meta kernels take long
        else:
            out = func(*args, **(kwargs or {}))
        if not self.paused:
            self._follow(func, args, kwargs or {}, out)
        return out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its compiler (seconds) to keep it out of __torch_dispatch__.
        return False

    def _follow(self, func: Any, args: _Args, kwargs: dict[str, Any], out: Any) -> None:
        name = func.overloadpacket.__name__
        rule = _RULES.get(name.removesuffix("_"))
        if (name in _DRAWN and not name.endswith("_")) or kwargs.get("rounding_mode"):
            rule = None  # torch.normal takes tensors for its mean and std
        if name in _EMPTY:
            self.write(out, _UNSET)
        elif func.is_view:
            return  # the same storage
        elif rule is not None and (law := rule(self, args, kwargs)) is not None:
            self.write(out, law)
        else:
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            lost = torch.Tag.nondeterministic_seeded in func.tags or any(
                tensor.is_meta or self.is_random(tensor) for tensor in inputs
            )
            for tensor in _results(func, args, kwargs, out):
                if lost or tensor.is_meta:
                    self.write(tensor, None)
                else:
                    self._forget(tensor)

    def _forget(self, tensor: Tensor) -> None:
        """The values depend on nothing random and are there: read them when asked."""
        self._regions.pop(tensor.untyped_storage()._cdata, None)

    def is_random(self, tensor: Tensor) -> bool:
        """Whether the values, or some beside them in memory, come from a random law."""
        regions = self._regions.get(tensor.untyped_storage()._cdata)
        return regions is not None and regions.is_random


def _results(func: Any, args: _Args, kwargs: dict[str, Any], out: Any) -> Iterator[Tensor]:
    """The tensors that an op makes or, by its schema, changes."""
    yield from (leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _data_law(tensor: Tensor) -> _Law | None:
    if not tensor.is_floating_point():
        return None
    values = tensor.detach().double()
    square = float((values * values).mean())
    return _Law(float(values.mean()), square, f"data, RMS {math.sqrt(square):.6g}", random=False)


def _scalar(value: Any) -> float | None:
    """A Python number, or a real tensor with one element; None otherwise."""
    if isinstance(value, Tensor):
        return None if value.is_meta or value.numel() != 1 else float(value)
    return float(value)


_Rule = Callable[[_Watcher, _Args, dict[str, Any]], "_Law | None"]


def _affine_rule(scale: Callable[[float], float], shift: Callable[[float], float]) -> _Rule:
    def rule(watcher: _Watcher, args: _Args, kwargs: dict[str, Any]) -> _Law | None:
        law = watcher.law(args[0])
        drawn = isinstance(args[1], Tensor) and watcher.is_random(args[1])
        value = None if drawn else _scalar(args[1])
        if law is None or value is None:
            return None
        value *= kwargs.get("alpha", 1)
        return law.affine(scale(value), shift(value))

    return rule


def _copied(watcher: _Watcher, args: _Args, kwargs: dict[str, Any]) -> _Law | None:
    del kwargs
    return watcher.law(args[1] if len(args) > 1 and isinstance(args[1], Tensor) else args[0])


def _joined(watcher: _Watcher, args: _Args, kwargs: dict[str, Any]) -> _Law | None:
    del kwargs
    laws = [(tensor.numel(), watcher.law(tensor)) for tensor in args[0]]
    known = [(count, law) for count, law in laws if law is not None]
    return _mixture(known) if len(known) == len(laws) else None


def _erfinv(watcher: _Watcher, args: _Args, kwargs: dict[str, Any]) -> _Law | None:
    del kwargs
    law = watcher.law(args[0])
    return law and _inverse_erf(law)


def _clamped(watcher: _Watcher, args: _Args, kwargs: dict[str, Any]) -> _Law | None:
    """Clamping a truncated normal to its own bounds only mends rounding (trunc_normal_)."""
    law = watcher.law(args[0])
    if law is None or law.bounds is None:
        return None
    low = kwargs.get("min", args[1] if len(args) > 1 else None)
    high = kwargs.get("max", args[2] if len(args) > 2 else None)
    slack = 1e-5 * (law.bounds[1] - law.bounds[0])
    inside = (low is None or low <= law.bounds[0] + slack) and (
        high is None or high >= law.bounds[1] - slack
    )
    return law if inside else None


def _filled(index: int) -> _Rule:
    def rule(watcher: _Watcher, args: _Args, kwargs: dict[str, Any]) -> _Law | None:
        del watcher
        value = _scalar(args[index] if len(args) > index else kwargs["fill_value"])
        return None if value is None else _constant(value)

    return rule


def _always(value: float) -> _Rule:
    return lambda watcher, args, kwargs: _constant(value)


def _drawn_normal(watcher: _Watcher, args: _Args, kwargs: dict[str, Any]) -> _Law | None:
    del watcher
    return _normal(_argument(args, kwargs, 1, "mean", 0.0), _argument(args, kwargs, 2, "std", 1.0))


def _drawn_uniform(watcher: _Watcher, args: _Args, kwargs: dict[str, Any]) -> _Law | None:
    del watcher
    return _uniform(_argument(args, kwargs, 1, "from", 0.0), _argument(args, kwargs, 2, "to", 1.0))


def _argument(args: _Args, kwargs: dict[str, Any], index: int, name: str, default: float) -> float:
    return float(args[index] if len(args) > index else kwargs.get(name, default))


_DRAWN = frozenset({"normal", "uniform"})
_EMPTY = frozenset({"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"})
_RULES: dict[str, _Rule] = {
    "zeros": _always(0.0),
    "zeros_like": _always(0.0),
    "new_zeros": _always(0.0),
    "zero": _always(0.0),
    "ones": _always(1.0),
    "ones_like": _always(1.0),
    "new_ones": _always(1.0),
    "full": _filled(1),
    "full_like": _filled(1),
    "fill": _filled(1),
    "new_full": _filled(2),
    "normal": _drawn_normal,
    "uniform": _drawn_uniform,
    "randn": lambda watcher, args, kwargs: _normal(),
    "randn_like": lambda watcher, args, kwargs: _normal(),
    "rand": lambda watcher, args, kwargs: _uniform(),
    "rand_like": lambda watcher, args, kwargs: _uniform(),
    "mul": _affine_rule(lambda value: value, lambda value: 0.0),
    "div": _affine_rule(lambda value: 1.0 / value, lambda value: 0.0),
    "add": _affine_rule(lambda value: 1.0, lambda value: value),
    "sub": _affine_rule(lambda value: 1.0, lambda value: -value),
    "neg": lambda watcher, args, kwargs: (law := watcher.law(args[0])) and law.affine(-1.0, 0.0),
    "erfinv": _erfinv,
    "clamp": _clamped,
    "copy": _copied,
    "clone": _copied,
    "_to_copy": _copied,
    "lift_fresh_copy": _copied,
    "cat": _joined,
    "stack": _joined,
}


# --- Initialisers that hide from the dispatcher ---------------------------------------------------


@contextmanager
def _watched_initialisers(watcher: _Watcher) -> Iterator[None]:
    """Announce the laws of initialisers that return at once on meta or sample by rejection.

    Trap: torch 2.14 rewrote `nn.init.trunc_normal_` so (FACTS: a no-op on meta); `orthogonal_` is a
    no-op there, too. `trunc_normal_` calls the private function that is replaced here, so callers
    who imported it by name are seen as well.
    """

    def orthogonal_law(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> _Law:
        rows, columns = tensor.shape[0], tensor[0].numel()
        square = gain**2 / max(rows, columns)  # orthonormal rows or columns, the shorter side
        return _Law(0.0, square, f"orthogonal(gain {gain:.6g})")

    def truncated_law(
        tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any = None
    ) -> _Law:
        return _truncated_normal(mean, std, a, b)

    def unknown_law(tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        return None

    laws: dict[str, Callable[..., _Law | None]] = {
        "_no_grad_trunc_normal_": truncated_law,
        "orthogonal_": orthogonal_law,
        "sparse_": unknown_law,
    }
    originals = {name: getattr(nn.init, name) for name in laws if hasattr(nn.init, name)}

    def announce(name: str) -> Callable[..., Tensor]:
        def wrapper(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            outer, watcher.paused = watcher.paused, True
            try:
                result: Tensor = originals[name](tensor, *args, **kwargs)
                law = laws[name](tensor, *args, **kwargs)
            finally:
                watcher.paused = outer
            watcher.write(tensor, law)
            return result

        return wrapper

    for name in originals:
        setattr(nn.init, name, announce(name))
    try:
        with warnings.catch_warnings():
            # nn.init warns of zero-element tensors and of odd truncations; the real build will too.
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for name, original in originals.items():
            setattr(nn.init, name, original)

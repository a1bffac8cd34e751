"""One small model, trained for a few steps: how large its features are and how far its weights go.

A `Measurement` is what the coordinate check takes from one width and one seed. Everything is a
function of the arguments: draws come from the streams of (seed, purpose, step).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from mudit.parametrization import Plan, PlanRow
from mudit.parametrization.rules import exponents
from mudit.program import Build
from mudit.training import generator, stream_seed
from mudit.tuning.probes import LOGITS, recording, rms, spectral_norm

Loss: TypeAlias = Callable[[nn.Module, torch.Generator], Tensor]
Prepare: TypeAlias = Callable[[nn.Module, Plan], None]
MakeOptimizer: TypeAlias = Callable[[nn.Module, Plan], torch.optim.Optimizer]
MakeScheduler: TypeAlias = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
Quantity: TypeAlias = Literal[
    "activation", "change", "largest", "initial", "update", "update_rms", "decay"
]
Idle: TypeAlias = Literal["frozen", "left out", "unreached", "no signal"]

_OPTIMIZERS: Mapping[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
# A gradient this far below the usual one of its kind is rounding: a key bias has none in theory.
_ROUNDING = 1e-5
_DWARFED = 1.0


class Key(NamedTuple):
    """One number of a measurement: what, of which tensor or parameter, after how many steps."""

    quantity: Quantity
    name: str
    step: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFacts:
    """A tensor that the forward pass computes.

    Attributes:
        shape: Its shape.
        parameter: The weight that made it: of its own module, or else the last one before it.
    """

    shape: tuple[int, ...]
    parameter: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How the models of a check are trained.

    Attributes:
        loss: Of a model on a batch that it draws from the generator.
        probes: Steps after which to measure, from 0.
        late: Whether the last of them is the late one, where decay is measured.
        prepare: Gives a freshly built model its initial values.
        optimizer: Makes its optimizer.
        scheduler: Makes a schedule, stepped after each step.
        max_norm: Clip the plan's gradient norm at it; None: no clipping.
    """

    loss: Loss
    probes: tuple[int, ...]
    late: bool = False
    prepare: Prepare
    optimizer: MakeOptimizer
    scheduler: MakeScheduler | None = None
    max_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The numbers of one width and seed.

    Attributes:
        values: All of them; not finite where training has diverged.
        tensors: By name, in the order of computation.
        idle: Trainable parameters that did not move, and why.
        negligible: Parameters whose gradient was rounding.
        losses: On each training batch.
    """

    values: dict[Key, float] = field(default_factory=dict)
    tensors: dict[str, TensorFacts] = field(default_factory=dict)
    idle: dict[str, Idle] = field(default_factory=dict)
    negligible: set[str] = field(default_factory=set)
    losses: list[float] = field(default_factory=list)


def default_prepare(model: nn.Module, plan: Plan) -> None:
    """The plan's initial scale."""
    plan.initialize_(model)


def default_optimizer(*, lr: float, weight_decay: float, eps: float) -> MakeOptimizer:
    """The plan's own optimizer with the plan's groups."""

    def make(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
        groups = plan.param_groups(model, lr=lr, weight_decay=weight_decay, eps=eps)
        return _OPTIMIZERS[plan.options.optimizer](groups)

    return make


def measure(build: Build, plan: Plan, training: Training, *, seed: int) -> Measurement:
    """Train a model at the plan's width and measure it on the way.

    Args:
        build: Makes the model; need not be the plan's.
        plan: At the model's width.
        training: How, and when to measure.
        seed: Of initial values, batches and the probe.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "initial"))
        model = build(plan.width)
        training.prepare(model, plan)
        return _Run(model, plan, training, seed).measured()


class _Run:
    """The training of one model."""

    def __init__(self, model: nn.Module, plan: Plan, training: Training, seed: int) -> None:
        self._model, self._plan, self._training, self._seed = model, plan, training, seed
        parameters = plan.match(model)
        self._rows = [row for row in plan.rows if row.trainable]
        self._weights = {row.name: parameters[row.name] for row in self._rows}
        self._initial = {name: p.detach().clone() for name, p in self._weights.items()}
        self._features: dict[str, Tensor] = {}
        self._largest_gradient: dict[str, float] = {}
        self._result = Measurement()

    def measured(self) -> Measurement:
        training = self._training
        optimizer = training.optimizer(self._model, self._plan)
        scheduler = training.scheduler(optimizer) if training.scheduler else None
        for step in range(training.probes[-1] + 1):
            if step in training.probes:
                self._probe(step)
            if step < training.probes[-1]:
                self._step(step, optimizer)
                if scheduler is not None:
                    scheduler.step()
        self._note_idle(optimizer)
        return self._result

    def _step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        torch.manual_seed(stream_seed(self._seed, "step", step))  # for dropout
        optimizer.zero_grad(set_to_none=True)
        loss = self._training.loss(self._model, generator(self._seed, "step", step))
        torch.autograd.backward(loss)
        for name, parameter in self._weights.items():
            if parameter.grad is not None:
                size = rms(parameter.grad)
                self._largest_gradient[name] = max(size, self._largest_gradient.get(name, 0.0))
        if self._training.max_norm is not None:
            self._plan.clip_grad_norm_(self._model, self._training.max_norm)
        optimizer.step()
        self._result.losses.append(float(loss.detach()))

    def _probe(self, step: int) -> None:
        torch.manual_seed(stream_seed(self._seed, "bank"))
        with torch.no_grad(), recording(self._model) as found:
            self._training.loss(self._model, generator(self._seed, "bank"))
        values = self._result.values
        for name, tensor in found.items():
            values[Key("activation", name, step)] = rms(tensor.value)
            if name.endswith(LOGITS):
                values[Key("largest", name, step)] = float(tensor.value.abs().max())
            first = self._features.get(name)
            if first is not None and first.shape == tensor.value.shape:
                values[Key("change", name, step)] = rms(tensor.value - first)
        if step == 0:
            self._features = {name: tensor.value for name, tensor in found.items()}
            self._result.tensors.update(
                (name, TensorFacts(shape=tuple(tensor.value.shape), parameter=tensor.parameter))
                for name, tensor in found.items()
            )
        for row in self._rows:
            values.update(self._weight_values(row, step))

    def _weight_values(self, row: PlanRow, step: int) -> Iterator[tuple[Key, float]]:
        first, now = self._initial[row.name], self._weights[row.name].detach()
        if step == 0:
            a, b, _ = exponents(row.role, self._plan.options.optimizer)
            yield Key("initial", row.name, 0), rms(first) * row.r ** (a + b)
            return
        if self._training.late and step == self._training.probes[-1] and bool(first.any()):
            yield Key("decay", row.name, step), _decay(first, now)
        if row.kind not in ("weight", "table"):
            yield Key("update_rms", row.name, step), rms(now - first) * row.r
            return
        moved = now - _share(first, now) * first  # without what decay has taken
        yield Key("update_rms", row.name, step), rms(moved) * row.r
        size = spectral_norm(moved, row.grows) / math.sqrt(row.fan_out_ratio / row.r)
        yield Key("update", row.name, step), size

    def _note_idle(self, optimizer: torch.optim.Optimizer) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for row in self._rows:
            parameter = self._weights[row.name]
            if not torch.equal(parameter.detach(), self._initial[row.name]):
                continue
            self._result.idle[row.name] = (
                "frozen"
                if not parameter.requires_grad
                else "left out"
                if id(parameter) not in held
                else "no signal"
                if row.name in self._largest_gradient
                else "unreached"
            )
        for kinds in (("weight", "table"), ("gain", "bias")):
            names = [row.name for row in self._rows if row.kind in kinds]
            self._result.negligible.update(_negligible(names, self._largest_gradient))


def _decay(first: Tensor, now: Tensor) -> float:
    """Minus the logarithm of the share of the initial value that is left.

    NaN where that cannot be told: none is left, or what training added dwarfs it, and correlates
    with it by chance.
    """
    share = _share(first, now)
    added = rms(now - share * first)
    return -math.log(share) if share > 0 and added <= _DWARFED * rms(first) else math.nan


def _share(first: Tensor, now: Tensor) -> float:
    """How much of the initial value is left in a tensor: its projection on it; 1 of zeros."""
    first, now = first.double(), now.double()
    square = float(first.square().sum())
    return float((first * now).sum()) / square if square else 1.0


def _negligible(names: Sequence[str], gradients: Mapping[str, float]) -> set[str]:
    sizes = sorted(gradients[name] for name in names if name in gradients)
    usual = sizes[len(sizes) // 2] if sizes else 0.0
    return {name for name in names if 0 < gradients.get(name, 0.0) < _ROUNDING * usual}

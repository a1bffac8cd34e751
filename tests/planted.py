"""Mistakes that people make with μP, planted one by one into a model that is right without them.

Each `Planted` row says which detectors must catch it. A detector is

    audit        mudit.audit before the first step, plan.guard before each step, plan's own errors
    certificate  mudit.certify, which sees the model's forward pass and nothing else
    early        the coordinate check after a few steps
    late         the coordinate check after 150 steps

and one that is not named is not expected to; `benchmarks/planted_bugs.py` runs them all, and shows
that audit stays silent where only training can tell.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mudit
from mudit.data.digits import open_digits
from mudit.diffusion import DDPM, ObjectiveConfig
from mudit.errors import ParametrizationError
from mudit.models import DiTConfig, builder
from mudit.parametrization import Plan, plan
from mudit.program import Build, canonical_parameters
from mudit.records import Finding
from mudit.tuning.coordinate_check import CoordinateCheck, coordinate_check
from mudit.tuning.measurement import default_prepare

Detector: TypeAlias = Literal["audit", "certificate", "early", "late"]

BASE_WIDTH = 32
WIDTHS = (32, 64, 128)
CERTIFIED_WIDTHS = (64, 96, 160)
LR = 2**-8
STEPS = 8
LATE_STEPS = 150
WEIGHT_DECAY = math.log(2) / (LR * LATE_STEPS)
COUPLED_DECAY = 1e-3  # λW is then of about the gradient's size

CONFIG = DiTConfig(
    depth=1,
    num_heads=4,
    head_dim=8,
    patch_size=4,
    input_size=8,
    in_channels=1,
    num_classes=10,
    learn_sigma=False,
    init="dit_mup",
)
DEEP = dataclasses.replace(CONFIG, depth=4)


def ratio(width: int) -> float:
    return width / BASE_WIDTH


# --- the models, right ---------------------------------------------------------------------------


def dit(width: int) -> nn.Module:
    return builder(CONFIG)(width)


def deep_dit(width: int) -> nn.Module:
    return builder(DEEP)(width)


def loud_dit(width: int) -> nn.Module:
    """With a readout that starts as torch's Linear does, but normal."""
    model = builder(CONFIG)(width)
    nn.init.normal_(model.final_layer.linear.weight, std=width**-0.5)
    return model


def gained_dit(width: int) -> nn.Module:
    """With affine norms in its block."""
    model = builder(CONFIG)(width)
    for name in ("norm1", "norm2"):
        norm = nn.LayerNorm(width)
        nn.init.normal_(norm.weight, mean=1.0, std=0.02)
        setattr(model.blocks[0], name, norm)
    return model


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    data = open_digits().train
    return data.batch(np.arange(data.num_samples))


def digits_loss(model: nn.Module, generator: torch.Generator) -> Tensor:
    """DDPM's loss on 16 digits."""
    images, labels = _digits()
    ddpm = DDPM(ObjectiveConfig(learn_sigma=False))
    chosen = torch.randint(len(labels), (16,), generator=generator)
    t = ddpm.draw_t(16, generator)
    noise = torch.randn(16, *images.shape[1:], generator=generator)
    terms = ddpm.loss(lambda x, t: model(x, t, labels[chosen]), images[chosen], t, noise=noise)
    return terms.total.mean()


def inputs(width: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 1, 8, 8), torch.tensor([10.0, 500.0]), torch.tensor([1, 2])


# --- the rows ------------------------------------------------------------------------------------


def adamw(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
    return torch.optim.AdamW(made.param_groups(model, lr=LR, weight_decay=WEIGHT_DECAY))


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One mistake.

    Attributes:
        name: What was done wrong.
        kind: Where: lr, initial, multiplier, schedule, decay, frozen, program.
        parameter: The parameter that a finding must name, or None if the mistake has no one.
        detectors: Who must catch it.
        right: The model without the mistake; the plan is made of it.
        wrong: The model with it, if it is in the model.
        prepare: The initialiser, mistake included.
        optimizer: The optimizer, mistake included.
        scheduler: The schedule, mistake included.
        words: What the finding's message must say.
    """

    name: str
    kind: str
    parameter: str | None
    detectors: tuple[Detector, ...]
    right: Build = dit
    wrong: Build | None = None
    prepare: Callable[[nn.Module, Plan], None] = default_prepare
    optimizer: Callable[[nn.Module, Plan], torch.optim.Optimizer] = adamw
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    words: str = ""

    @property
    def build(self) -> Build:
        return self.wrong or self.right

    def plan(self, width: int = BASE_WIDTH) -> Plan:
        return plan(self.right, width=width, base_width=BASE_WIDTH)


@dataclass(frozen=True, kw_only=True)
class Caught:
    """What a detector said."""

    verdict: str
    findings: tuple[Finding, ...] = field(default=())

    @property
    def speaks(self) -> bool:
        """Whether it says more than that it cannot tell: FAIL, REFUSED, or a name."""
        named = any(finding.parameter is not None for finding in self.findings)
        return self.verdict in ("FAIL", "REFUSED") or (self.verdict == "INCONCLUSIVE" and named)

    def names(self, bug: Planted) -> bool:
        """Whether the mistake is caught, and the culprit among those that are named."""
        return self.speaks and any(
            bug.parameter in (None, finding.parameter) and bug.words in finding.message
            for finding in self.findings
        )


def detect(bug: Planted, detector: Detector) -> Caught:
    """Let one detector look at one mistake."""
    if detector == "audit":
        return _audit(bug)
    if detector == "certificate":
        found = mudit.certify(bug.build, inputs, CERTIFIED_WIDTHS)
        return Caught(verdict=found.verdict, findings=found.findings)
    try:
        check = run_check(bug, late=detector == "late")
    except ParametrizationError as error:
        return Caught(verdict="FAIL", findings=(Finding(message=str(error)),))
    return Caught(verdict=check.verdict, findings=check.findings)


def run_check(
    bug: Planted,
    *,
    late: bool,
    seeds: int = 8,
    widths: tuple[int, ...] = WIDTHS,
    control: bool = False,
) -> CoordinateCheck:
    return coordinate_check(
        bug.build,
        digits_loss,
        plan=bug.plan(),
        widths=widths,
        steps=STEPS,
        seeds=4 if late else seeds,
        late_steps=LATE_STEPS if late else None,
        late_seeds=3,
        lr=LR,
        weight_decay=WEIGHT_DECAY,
        prepare=bug.prepare,
        optimizer=bug.optimizer,
        scheduler=bug.scheduler,
        control=control,
    )


def _audit(bug: Planted) -> Caught:
    """Audit before the first step, then the guard, and whatever a plan refuses by itself."""
    torch.manual_seed(0)
    made = bug.plan(WIDTHS[-1])
    model = bug.build(WIDTHS[-1])
    try:
        bug.prepare(model, made)
        optimizer = bug.optimizer(model, made)
        report = mudit.audit(optimizer, model, made)
        if report.findings:
            return Caught(verdict=report.verdict, findings=report.findings)
        made.guard(optimizer)
        scheduler = bug.scheduler(optimizer) if bug.scheduler else None
        for step in range(3):
            optimizer.zero_grad()
            digits_loss(model, torch.Generator().manual_seed(step)).backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    except ParametrizationError as error:
        text = str(error)
        named = [name for name in canonical_parameters(model) if name in text]
        findings = tuple(Finding(message=text, parameter=name) for name in named)
        return Caught(verdict="FAIL", findings=findings)
    return Caught(verdict="PASS")


# --- ways of going wrong -------------------------------------------------------------------------


def lr_times(power: float, *names: str) -> Callable[[nn.Module, Plan], torch.optim.Optimizer]:
    """The plan's groups, with the lr of some parameters times a power of the width ratio."""

    def make(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
        parameters = made.match(model)
        groups = []
        for row in made.rows:
            if row.trainable:
                factor = ratio(made.width) ** power if row.name in names else 1.0
                groups.append(
                    {
                        "params": [parameters[row.name]],
                        "lr": LR * row.lr * factor,
                        "weight_decay": WEIGHT_DECAY * row.weight_decay,
                    }
                )
        return torch.optim.AdamW(groups)

    return make


def initial_times(power: float, name: str) -> Callable[[nn.Module, Plan], None]:
    """The plan's initial scale, with one parameter times a power of the width ratio."""

    def prepare(model: nn.Module, made: Plan) -> None:
        made.initialize_(model)
        with torch.no_grad():
            made.match(model)[name].mul_(ratio(made.width) ** power)

    return prepare


def output_times(power: float, name: str, place: int | None = None) -> Build:
    """The model, with a module's output (or one of several) times a power of the width ratio."""

    def build(width: int) -> nn.Module:
        model = dit(width)
        factor = ratio(width) ** power

        def scale(module: nn.Module, args: Any, output: Any) -> Any:
            if place is None:
                return output * factor
            return tuple(x * factor if i == place else x for i, x in enumerate(output))

        model.get_submodule(name).register_forward_hook(scale)
        return model

    return build


def plain_adamw(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)


def coupled_adam(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
    groups = made.param_groups(model, lr=LR, weight_decay=COUPLED_DECAY)
    return torch.optim.Adam(groups)


def hidden_by_class(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
    """Every Linear is hidden, by its class."""
    linears = {
        f"{path}.weight" for path, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    names = [row.name for row in made.rows if row.name in linears and row.role == "input"]
    return lr_times(-1, *names)(model, made)


def constant_decay(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
    groups = made.param_groups(model, lr=LR, weight_decay=WEIGHT_DECAY)
    for group in groups:
        group["weight_decay"] = WEIGHT_DECAY
    return torch.optim.AdamW(groups)


def decay_scaled_twice(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
    groups = made.param_groups(model, lr=LR, weight_decay=WEIGHT_DECAY)
    for group in groups:
        group["weight_decay"] **= 2
        group["weight_decay"] /= WEIGHT_DECAY
    return torch.optim.AdamW(groups)


def l2_in_the_gradient(name: str) -> Callable[[nn.Module, Plan], torch.optim.Optimizer]:
    """The plan's optimizer without decay of one weight; a hook adds it to the gradient."""

    def make(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
        groups = made.param_groups(model, lr=LR, weight_decay=0.0)
        weight = made.match(model)[name]
        weight.register_hook(lambda gradient: gradient + COUPLED_DECAY * weight.detach())
        return torch.optim.AdamW(groups)

    return make


def shrinking_by_hand(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
    """Decay in a hook after the step, with the group's lr: it falls with width."""
    optimizer = torch.optim.AdamW(made.param_groups(model, lr=LR, weight_decay=0.0))

    def shrink(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(1 - group["lr"] * WEIGHT_DECAY)

    optimizer.register_step_post_hook(shrink)
    return optimizer


class _Again(torch.optim.AdamW):
    """Divides the steps of one parameter by the width ratio, on top of its group's lr."""

    def __init__(self, groups: Any, parameter: nn.Parameter, factor: float) -> None:
        super().__init__(groups)
        self._parameter, self._factor = parameter, factor

    def step(self, closure: Any = None) -> Any:
        before = self._parameter.detach().clone()
        result = super().step(closure)
        with torch.no_grad():
            self._parameter.copy_(before.lerp(self._parameter, self._factor))
        return result


def step_times(power: float, name: str) -> Callable[[nn.Module, Plan], torch.optim.Optimizer]:
    """An optimizer that scales a parameter's step inside, where no group shows it."""

    def make(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
        groups = made.param_groups(model, lr=LR, weight_decay=WEIGHT_DECAY)
        return _Again(groups, made.match(model)[name], ratio(made.width) ** power)

    return make


class _Levelled(torch.optim.lr_scheduler.LRScheduler):
    """Writes one absolute lr into every group, from some step on."""

    def __init__(self, optimizer: torch.optim.Optimizer, start: int) -> None:
        self._start = start
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        lrs = [group["lr"] for group in self.optimizer.param_groups]
        return [LR] * len(lrs) if self.last_epoch >= self._start else lrs


def levelled_after(start: int) -> Callable[[torch.optim.Optimizer], _Levelled]:
    return functools.partial(_Levelled, start=start)


def frozen(name: str) -> Callable[[nn.Module, Plan], None]:
    def prepare(model: nn.Module, made: Plan) -> None:
        made.initialize_(model)
        made.match(model)[name].requires_grad_(False)

    return prepare


def left_out(name: str) -> Callable[[nn.Module, Plan], torch.optim.Optimizer]:
    def make(model: nn.Module, made: Plan) -> torch.optim.Optimizer:
        groups = made.param_groups(model, lr=LR, weight_decay=WEIGHT_DECAY)
        weight = made.match(model)[name]
        for group in groups:
            group["params"] = [p for p in group["params"] if p is not weight]
            del group["param_names"]
        return torch.optim.AdamW(groups)

    return make


def scaled_twice(model: nn.Module, made: Plan) -> None:
    made.initialize_(model)
    made.initialize_(model)


def xavier_by_hand(model: nn.Module, made: Plan) -> None:
    """Somebody's own initialiser after the plan's: input weights shrink with their fan-out."""
    made.initialize_(model)
    nn.init.xavier_normal_(model.x_embedder.proj.weight.flatten(1))


def kaiming_readout(model: nn.Module, made: Plan) -> None:
    """The readout as a hidden weight: 1/sqrt(n)."""
    made.initialize_(model)
    nn.init.normal_(model.final_layer.linear.weight, std=made.width**-0.5)


def gain_by_width(model: nn.Module, made: Plan) -> None:
    made.initialize_(model)
    nn.init.normal_(model.blocks[0].norm1.weight, std=made.width**-0.5)


class _GrownHeads(nn.Module):
    """Attention with a fixed number of heads, whose size grows; scaled as usual."""

    def __init__(self, attention: nn.Module, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self._heads = attention.qkv, attention.proj, heads

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self._heads, width // self._heads)
        query, key, value = (z.transpose(1, 2) for z in qkv.unbind(2))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


def grown_heads(width: int) -> nn.Module:
    model = dit(width)
    model.blocks[0].attn = _GrownHeads(model.blocks[0].attn, heads=2)
    return model


class _FlatAttention(nn.Module):
    """Softmax attention by hand, its logits divided by sqrt(width) instead of sqrt(head_dim)."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.qkv, self.proj, self._heads = attention.qkv, attention.proj, attention.num_heads

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self._heads, width // self._heads)
        query, key, value = (z.transpose(1, 2) for z in qkv.unbind(2))
        weights = (query @ key.transpose(-1, -2) * width**-0.5 * 2).softmax(dim=-1)
        return self.proj((weights @ value).transpose(1, 2).reshape(batch, tokens, width))


def flat_attention(width: int) -> nn.Module:
    model = dit(width)
    model.blocks[0].attn = _FlatAttention(model.blocks[0].attn)
    return model


class _Detached(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.detach(), self.bias)


def detached(width: int) -> nn.Module:
    """A weight that gradients do not reach, though nothing is frozen."""
    model = dit(width)
    model.blocks[0].mlp.fc1 = _Detached(model.blocks[0].mlp.fc1)
    return model


class _UnitNorm(nn.Module):
    """Divides by the length instead of the RMS."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * 4


def unit_norm(width: int) -> nn.Module:
    model = dit(width)
    model.blocks[0].norm2 = _UnitNorm()
    return model


class _ChannelAttention(nn.Module):
    """A softmax over the features."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2 = mlp.fc1, mlp.fc2

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        return self.fc2(hidden.softmax(dim=-1) * hidden)


def channel_attention(width: int) -> nn.Module:
    model = dit(width)
    model.blocks[0].mlp = _ChannelAttention(model.blocks[0].mlp)
    return model


_PROJ = "blocks.0.attn.proj.weight"
_QKV = "blocks.0.attn.qkv.weight"
_FC1 = "blocks.0.mlp.fc1.weight"
_FC2 = "blocks.0.mlp.fc2.weight"
_ADALN = "blocks.0.adaLN_modulation.1.weight"
_PATCH = "x_embedder.proj.weight"
_TIME_OUT = "t_embedder.mlp.2.weight"
_TIME = "t_embedder.mlp.0.weight"
_LABELS = "y_embedder.embedding_table.weight"
_READOUT = "final_layer.linear.weight"

_both: tuple[Detector, ...] = ("audit", "early")

SUITE: tuple[Planted, ...] = (
    # lr
    Planted(name="hidden lr not divided by width", kind="lr", parameter=_PROJ, detectors=_both,
            optimizer=lr_times(1, _PROJ)),
    Planted(name="hidden lr divided by sqrt(width)", kind="lr", parameter=_FC2, detectors=_both,
            optimizer=lr_times(0.5, _FC2)),
    Planted(name="hidden lr divided by width twice", kind="lr", parameter=_QKV, detectors=_both,
            optimizer=lr_times(-1, _QKV)),
    Planted(name="output lr not divided by width", kind="lr", parameter=_READOUT, detectors=_both,
            optimizer=lr_times(1, _READOUT)),
    Planted(name="every Linear is hidden, the time MLP's first too", kind="lr", parameter=_TIME,
            detectors=_both, optimizer=hidden_by_class),
    Planted(name="input table's lr divided by width", kind="lr", parameter=_LABELS,
            detectors=_both, optimizer=lr_times(-1, _LABELS)),
    Planted(name="bias lr divided by width as its weight's", kind="lr",
            parameter="blocks.0.mlp.fc1.bias", detectors=_both,
            optimizer=lr_times(-1, "blocks.0.mlp.fc1.bias")),
    Planted(name="plain AdamW on all", kind="lr", parameter=_QKV, detectors=_both,
            optimizer=plain_adamw),
    Planted(name="one block of four with an undivided lr", kind="lr",
            parameter="blocks.2.mlp.fc1.weight", detectors=_both, right=deep_dit,
            optimizer=lr_times(1, "blocks.2.mlp.fc1.weight")),
    Planted(name="step divided by width again inside the optimizer", kind="lr", parameter=_ADALN,
            detectors=("early",), optimizer=step_times(-1, _ADALN)),
    # initial values
    Planted(name="hidden initial scale constant", kind="initial", parameter=_FC1,
            detectors=("early",), prepare=initial_times(0.5, _FC1)),
    Planted(name="hidden initial scale 1/width", kind="initial", parameter=_ADALN,
            detectors=("early",), prepare=initial_times(-0.5, _ADALN)),
    Planted(name="input initial scale shrinks (xavier)", kind="initial", parameter=_PATCH,
            detectors=("early",), prepare=xavier_by_hand),
    Planted(name="readout treated as hidden: 1/sqrt(width)", kind="initial", parameter=_READOUT,
            detectors=_both, right=loud_dit, prepare=kaiming_readout),
    Planted(name="gain initialised by width", kind="initial", parameter="blocks.0.norm1.weight",
            detectors=("early",), right=gained_dit, prepare=gain_by_width),
    Planted(name="plan's initial scale applied twice", kind="initial", parameter=_READOUT,
            detectors=("audit",), right=loud_dit, prepare=scaled_twice),
    # forward multipliers
    Planted(name="hidden output times 1/sqrt(width)", kind="multiplier", parameter=_FC2,
            detectors=("early",), wrong=output_times(-0.5, "blocks.0.mlp.fc2")),
    Planted(name="hidden output times sqrt(width)", kind="multiplier", parameter=_PROJ,
            detectors=("early",), wrong=output_times(0.5, "blocks.0.attn.proj")),
    Planted(name="embedding times sqrt(width)", kind="multiplier", parameter=_LABELS,
            detectors=("early",), wrong=output_times(0.5, "y_embedder")),
    Planted(name="readout divided by width in the model, too", kind="multiplier",
            parameter=_READOUT, detectors=("early",), wrong=output_times(-1, "final_layer.linear")),
    Planted(name="readout multiplied by sqrt(width) in the model", kind="multiplier",
            parameter=_READOUT, detectors=("early",),
            wrong=output_times(0.5, "final_layer.linear")),
    Planted(name="adaLN gate alone times 1/sqrt(width)", kind="multiplier", parameter=_ADALN,
            detectors=("early",), wrong=output_times(-0.5, "blocks.0.adaLN_modulation", place=2),
            words="adaLN_modulation[2]"),
    # the program
    # A check at these widths cannot see it: the aligned part of q·k is still small.
    Planted(name="1/sqrt(d) with growing head_dim", kind="program", parameter=None,
            detectors=("certificate",), right=grown_heads),
    Planted(name="logits divided by sqrt(width), head_dim fixed", kind="program", parameter=_QKV,
            detectors=("early",), wrong=flat_attention, words="logits"),
    Planted(name="norm by length instead of RMS", kind="program", parameter=None,
            detectors=("early",), wrong=unit_norm, words="blocks.0.norm2"),
    Planted(name="softmax over the features", kind="program", parameter=None,
            detectors=("certificate",), right=channel_attention),
    # never trained
    Planted(name="weight frozen after the plan was made", kind="frozen", parameter=_FC1,
            detectors=("early",), prepare=frozen(_FC1)),
    Planted(name="weight detached in the forward pass", kind="frozen", parameter=_FC1,
            detectors=("early",), wrong=detached),
    Planted(name="weight left out of the optimizer", kind="frozen", parameter=_PROJ,
            detectors=_both, optimizer=left_out(_PROJ)),
    # schedules
    Planted(name="scheduler writes one lr into all groups", kind="schedule",
            parameter=_TIME_OUT, detectors=_both, scheduler=levelled_after(1)),
    Planted(name="scheduler levels the lrs after a warm-up", kind="schedule", parameter=_QKV,
            detectors=("late",), scheduler=levelled_after(40)),
    # weight decay
    Planted(name="weight decay constant where lr is divided", kind="decay", parameter=_FC2,
            detectors=("audit", "late"), optimizer=constant_decay),
    Planted(name="weight decay scaled twice", kind="decay", parameter=_PROJ,
            detectors=("audit", "late"), optimizer=decay_scaled_twice),
    Planted(name="coupled decay: Adam for AdamW", kind="decay", parameter=None,
            detectors=("audit",), optimizer=coupled_adam),
    Planted(name="coupled decay: Adam for AdamW, by what it does", kind="decay", parameter=_PATCH,
            detectors=("late",), optimizer=coupled_adam),
    Planted(name="coupled decay of one weight, by a gradient hook", kind="decay", parameter=_PATCH,
            detectors=("late",), optimizer=l2_in_the_gradient(_PATCH)),
    Planted(name="decay by hand after the step, by the group's lr", kind="decay", parameter=_QKV,
            detectors=("late",), optimizer=shrinking_by_hand),
)  # fmt: skip

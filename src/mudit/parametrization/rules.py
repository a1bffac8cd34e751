"""The one place where μP's exponents live.

Notation. A weight is W = m·W̃. W̃ is what μP speaks of: initial RMS σ·RMS(base)·r^-b, learning rate
η·r_in^-c·r_out^d; m = φ·r^-a is its forward multiplier. r_in and r_out are the ratios of the
tensor's measured fan-in and fan-out to those at base width; where only one of them grows, the
other is 1. Nothing is inserted into the model: m is folded into the initial scale, lr, weight
decay, eps and the clipping norm (`fold`), which gives the same training.

    Adam, AdamW         a (fwd)   b (init)   c (lr)   d (lr)   gradient shrinks as
    input               0         0          0        0        1/r_out
    hidden              0         1/2        1        0        1/r_out
    output              1         0          0        0        1/r_in
    scalar              0         0          0        0        1
                        [muDiT] Tables 1 and 5; the last column [CompleteP] (eps), [TP5] App. B

    SGD                 a         b          c        d
    input               0         0          0        1
    hidden              0         1/2        1        1
    output              1         0         -1        0
    scalar              0         0          0        0
                        [TP5] Table 8; [mup] mup/optim.py, MuSGD

Under `sp` all exponents are 0, and each tensor keeps its own initial scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch

from mudit.errors import ParametrizationError
from mudit.program import Role

Parametrization: TypeAlias = Literal["sp", "mup"]
Optimizer: TypeAlias = Literal["adam", "adamw", "sgd"]
WeightDecayRule: TypeAlias = Literal["independent", "constant"]
EpsRule: TypeAlias = Literal["constant", "scaled"]


@dataclass(frozen=True, slots=True)
class Exponents:
    """One row of the table above; `grad_in`, `grad_out`: the gradient's powers of 1/r."""

    a: float = 0.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    grad_in: float = 0.0
    grad_out: float = 0.0


_ADAM: dict[Role, Exponents] = {
    "input": Exponents(a=0, b=0, c=0, d=0, grad_out=1),
    "hidden": Exponents(a=0, b=0.5, c=1, d=0, grad_out=1),
    "output": Exponents(a=1, b=0, c=0, d=0, grad_in=1),
    "scalar": Exponents(),
}
_SGD: dict[Role, Exponents] = {
    "input": Exponents(a=0, b=0, c=0, d=1),
    "hidden": Exponents(a=0, b=0.5, c=1, d=1),
    "output": Exponents(a=1, b=0, c=-1, d=0),
    "scalar": Exponents(),
}


@dataclass(frozen=True, slots=True)
class OptimizerFamily:
    """How an optimizer responds to a forward multiplier folded into its weight.

    With W = m·W̃: the lr of W is m^lr_power times W̃'s, its decay λ/m^decay_power, eps ε/m.
    """

    exponents: Mapping[Role, Exponents]
    lr_power: int
    decay_power: int
    has_eps: bool
    decoupled: bool


# Adam's step does not see the gradient's scale: ΔW = m·ΔW̃, so lr·m. Decoupled decay shrinks W by
# lr·λ: λ/m keeps it. Coupled decay enters the gradient: m·(g + λ/m²·W). SGD's step is m times a
# gradient that is m times larger: lr·m².
FAMILIES: dict[Optimizer, OptimizerFamily] = {
    "adamw": OptimizerFamily(_ADAM, lr_power=1, decay_power=1, has_eps=True, decoupled=True),
    "adam": OptimizerFamily(_ADAM, lr_power=1, decay_power=2, has_eps=True, decoupled=False),
    "sgd": OptimizerFamily(_SGD, lr_power=2, decay_power=2, has_eps=False, decoupled=False),
}
_CLASSES: dict[type[torch.optim.Optimizer], Optimizer] = {
    torch.optim.AdamW: "adamw",
    torch.optim.Adam: "adam",
    torch.optim.SGD: "sgd",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Multipliers:
    """What a plan does to one tensor, relative to the base HPs.

    Attributes:
        init: RMS of the tensor's initial values, over RMS(base) under `mup`, over its own under
            `sp`.
        lr: Times η.
        weight_decay: Times λ.
        eps: Times ε.
        clip: Times the gradient, in the global norm that clipping looks at.
    """

    init: float
    lr: float
    weight_decay: float
    eps: float
    clip: float


def exponents(role: Role, optimizer: Optimizer = "adamw") -> tuple[float, float, float]:
    """(a, b, c) of a role: forward multiplier n^-a, initial scale n^-b, learning rate n^-c."""
    row = FAMILIES[optimizer].exponents[role]
    return row.a, row.b, row.c


def optimizer_name(optimizer: str | type[torch.optim.Optimizer]) -> Optimizer:
    """The name under which an optimizer has a rule.

    Raises:
        ParametrizationError: It has none.
    """
    if isinstance(optimizer, str):
        if optimizer in FAMILIES:
            return optimizer
        refused = repr(optimizer)
    else:
        for cls in optimizer.__mro__:  # a subclass counts as its torch class
            if cls in _CLASSES:
                return _CLASSES[cls]
        refused = f"{optimizer.__module__}.{optimizer.__qualname__}"
    raise ParametrizationError(
        f"no μP rule is known for the optimizer {refused}, and none is guessed: rules exist for "
        f"{', '.join(FAMILIES)} (torch.optim.Adam, AdamW, SGD). Use one of them."
    )


def optimizer_name_of(optimizer: torch.optim.Optimizer) -> Optimizer:
    """The rule's name for a live optimizer; a subclass counts as its torch class.

    Raises:
        ParametrizationError: It has no rule.
    """
    name = optimizer_name(type(optimizer))
    # torch's AdamW is Adam with this switch on.
    decoupled = optimizer.defaults.get("decoupled_weight_decay", False)
    return "adamw" if name == "adam" and decoupled else name


def multipliers(
    role: Role,
    *,
    fan_in_ratio: float,
    fan_out_ratio: float,
    parametrization: Parametrization = "mup",
    optimizer: Optimizer = "adamw",
    wd: WeightDecayRule = "independent",
    eps_rule: EpsRule = "constant",
    phi: float = 1.0,
    sigma: float = 1.0,
    lr_multiplier: float = 1.0,
) -> Multipliers:
    """The folded multipliers of one tensor.

    Args:
        role: The tensor's role.
        fan_in_ratio: Fan-in over fan-in at base width; 1 if fan-in does not grow.
        fan_out_ratio: The same for fan-out.
        parametrization: `mup`, or `sp`, the control.
        optimizer: Whose table applies.
        wd: `independent` holds lr·λ over width ([mup] MuAdamW, and the paper's PixArt runs);
            `constant` holds λ ([muDiT] B.4, read literally). Both speak of W̃.
        eps_rule: `constant` ([mup], the paper) or `scaled` (with the gradient, [CompleteP]).
        phi: φ, the base forward multiplier.
        sigma: σ, the base initial scale.
        lr_multiplier: Base HP: the role's lr over η. It does not enter the decay rule, which is
            about width.
    """
    family = FAMILIES[optimizer]
    row = family.exponents[role] if parametrization == "mup" else Exponents()
    m = phi * fan_in_ratio**-row.a
    lr = fan_in_ratio**-row.c * fan_out_ratio**row.d
    decay = 1.0 / lr if wd == "independent" else 1.0
    shrink = fan_in_ratio**row.grad_in * fan_out_ratio**row.grad_out
    eps = 1.0 / shrink if eps_rule == "scaled" else 1.0
    return Multipliers(
        init=m * sigma * fan_in_ratio**-row.b,
        lr=lr * lr_multiplier * m**family.lr_power,
        weight_decay=decay / m**family.decay_power,
        eps=eps / m,
        clip=m,
    )


def require_option(name: str, value: str, options: object) -> None:
    """Refuse a value that is not one of a Literal's.

    Raises:
        ParametrizationError: It is not; the message lists them.
    """
    if value not in get_args(options):
        known = ", ".join(map(repr, get_args(options)))
        raise ParametrizationError(f"{name} is {value!r}, expected one of {known}.")

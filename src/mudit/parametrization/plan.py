"""The plan: μP as a table keyed by parameter name, computed once and saved as JSON.

Nothing is attached to a parameter or a module. A plan scales a freshly built model's initial
values, makes ordinary parameter groups for a torch optimizer, and measures the gradient norm that
μP holds constant over width. Forward multipliers are folded into these (rules.py), so checkpoints
are vanilla.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mudit.errors import ParametrizationError
from mudit.parametrization import guard as _guard
from mudit.parametrization.base_shapes import base_shape, read_base_shapes
from mudit.parametrization.certificate import Certificate, certify
from mudit.parametrization.initial import InitialScale, observe, root_mean_square
from mudit.parametrization.rules import (
    FAMILIES,
    EpsRule,
    Multipliers,
    Optimizer,
    Parametrization,
    WeightDecayRule,
    multipliers,
    optimizer_name,
    require_option,
)
from mudit.program import (
    Build,
    Inputs,
    Kind,
    MeasuredRoles,
    ParameterRole,
    Role,
    Shape,
    canonical_parameters,
    growing_dimensions,
    roles_for,
    roles_from_layers,
    tied_names,
)

ByRole: TypeAlias = Mapping[Role, float]
_FORMAT = 1
_REAL_PARAMETERS = 10**8  # up to here a pass that needs real tensors is run on them


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRow:
    """What the plan does to one parameter.

    Attributes:
        name: Canonical name (the first, if the tensor is tied).
        aliases: Its other names.
        shape: At the plan's width.
        base_shape: At base width.
        role: `input`, `hidden`, `output` or `scalar`.
        kind: `weight`, `gain`, `bias` or `table`.
        reason: Why it has this role, in words.
        trainable: Frozen parameters get their initial scale only.
        grows: Which dimensions grow with width.
        r: Fan-in over fan-in at base width, measured.
        fan_out_ratio: The same for fan-out.
        initializer: The tensor's own initialiser at this width, in words.
        init_exact: Whether the RMS values come from the initialisers' laws; otherwise estimated.
        base_rms: RMS (about zero) of the initial values at base width.
        own_rms: RMS that the model's own initialiser gives at this width.
        init_rms: RMS that the plan gives.
        lr: Multiplier of the base learning rate.
        weight_decay: Multiplier of the base weight decay.
        eps: Multiplier of the base eps.
        clip: Multiplier of the gradient in the global norm.
    """

    name: str
    aliases: tuple[str, ...]
    shape: Shape
    base_shape: Shape
    role: Role
    kind: Kind
    reason: str
    trainable: bool
    grows: tuple[bool, ...]
    r: float
    fan_out_ratio: float
    initializer: str
    init_exact: bool
    base_rms: float
    own_rms: float
    init_rms: float
    lr: float
    weight_decay: float
    eps: float
    clip: float

    @property
    def init_scale(self) -> float:
        """The factor from the model's own initial values to the plan's; 1 for zeros."""
        return self.init_rms / self.own_rms if self.own_rms else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """All choices behind a plan; the defaults are DESIGN's, sources in rules.py.

    Attributes:
        parametrization: `mup`, or the control `sp`.
        optimizer: `adamw`, `adam` or `sgd`.
        wd: Weight-decay rule.
        eps_rule: Rule for Adam's eps.
        zero_readout: Zero the final readout's initial values, under both parametrizations.
        phi: Base forward multiplier φ by role; 1 where absent. Acts on weights and tables.
        sigma: Base initial scale σ by role; likewise.
        lr_multiplier: Base lr multiplier by role; acts on every tensor of the role.
    """

    parametrization: Parametrization = "mup"
    optimizer: Optimizer = "adamw"
    wd: WeightDecayRule = "independent"
    eps_rule: EpsRule = "constant"
    zero_readout: bool = False
    phi: ByRole = field(default_factory=dict)
    sigma: ByRole = field(default_factory=dict)
    lr_multiplier: ByRole = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_option("parametrization", self.parametrization, Parametrization)
        require_option("wd", self.wd, WeightDecayRule)
        require_option("eps_rule", self.eps_rule, EpsRule)
        for name in ("phi", "sigma", "lr_multiplier"):
            for role, value in getattr(self, name).items():
                require_option(f"{name}'s role", role, Role)
                if not (math.isfinite(value) and value > 0):
                    raise ParametrizationError(
                        f"{name}.{role} is {value}, expected a positive number."
                    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanDifference:
    """One field of one parameter in which two plans differ; None: the parameter is absent."""

    parameter: str
    field: str
    mine: Any
    other: Any


@dataclass(frozen=True, kw_only=True)
class Plan:
    """μP (or the sp control) for one model at one width.

    Attributes:
        width: Width of the model that the plan is for.
        base_width: Width at which all multipliers are 1.
        options: The choices behind it.
        rows: One for each distinct parameter, in registration order.
    """

    width: int
    base_width: int
    options: PlanOptions
    rows: tuple[PlanRow, ...]
    _build: Build | None = field(default=None, repr=False, compare=False)
    _measured: MeasuredRoles | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, name: str) -> PlanRow:
        """The row of a parameter, by its name or an alias."""
        for row in self.rows:
            if name == row.name or name in row.aliases:
                return row
        raise KeyError(name)

    # --- using it --------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """The model at the plan's width, with the plan's initial scale.

        Raises:
            ParametrizationError: The plan was loaded without its build function.
        """
        model = self._require_build()(self.width)
        self.initialize_(model)
        return model

    def initialize_(self, model: nn.Module) -> None:
        """Scale a freshly built model's initial values in place.

        Raises:
            ParametrizationError: The model is not the plan's, or its values are not those that
                build gives, e.g. because they have been scaled already.
        """
        parameters = self.match(model)
        scaled = [row for row in self.rows if row.init_scale != 1.0]
        for row in scaled:
            _guard.require_own_scale(row, root_mean_square(parameters[row.name]))
        with torch.no_grad():
            for row in scaled:
                parameters[row.name].mul_(row.init_scale)

    def param_groups(
        self,
        model: nn.Module,
        *,
        lr: float,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> list[dict[str, Any]]:
        """Ordinary groups for the plan's torch optimizer, e.g. `torch.optim.AdamW(groups)`.

        Args:
            model: The plan's model; wrappers' prefixes do not matter.
            lr: Base learning rate η.
            weight_decay: Base weight decay λ.
            eps: Base ε; optimizers without one do not get it.

        Returns:
            One dict for each distinct set of multipliers: params, param_names, lr, weight_decay and
            eps.

        Raises:
            ParametrizationError: The model is not the plan's.
        """
        family = FAMILIES[self.options.optimizer]
        if weight_decay and not family.decoupled:
            warnings.warn(
                f"{self.options.optimizer} couples weight decay with the gradient; its best value "
                "does not transfer over width [muDiT] App. B.4. Use AdamW.",
                stacklevel=2,
            )
        parameters = self.match(model)
        grouped: defaultdict[tuple[float, float, float], list[str]] = defaultdict(list)
        for row in self.rows:
            if row.trainable:
                grouped[row.lr, row.weight_decay, row.eps].append(row.name)
        groups = []
        for (by_lr, by_decay, by_eps), names in grouped.items():
            group: dict[str, Any] = {
                "params": [parameters[name] for name in names],
                "param_names": names,
                "lr": lr * by_lr,
                "weight_decay": weight_decay * by_decay,
            }
            if family.has_eps:
                group["eps"] = eps * by_eps
            groups.append(group)
        return groups

    def grad_norm(self, model: nn.Module) -> Tensor:
        """The global gradient norm of the unfolded weights, which μP holds constant over width.

        Returns:
            A scalar tensor; parameters without a gradient do not count.
        """
        parameters = canonical_parameters(model)  # each step: the names alone are checked
        found = [
            (gradient, row.clip)
            for row in self.rows
            if (gradient := parameters[row.name].grad) is not None
        ]
        if not found:
            return torch.zeros(())
        gradients, factors = zip(*found)
        norms = torch.stack(torch._foreach_norm(gradients))
        norm: Tensor = torch.linalg.vector_norm(norms * norms.new_tensor(factors))
        return norm

    def clip_grad_norm_(self, model: nn.Module, max_norm: float) -> Tensor:
        """Scale all gradients so that `grad_norm` is at most `max_norm`; returns it as it was."""
        norm = self.grad_norm(model)
        nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)
        return norm

    def guard(self, optimizer: torch.optim.Optimizer) -> RemovableHandle:
        """Check the groups' ratios before each step from now on; see `mudit.audit` for a report.

        Returns:
            A handle whose `remove()` ends it.

        Raises:
            GroupRatioError: Now or at a later step: a scheduler or a loaded state has broken the
                ratios.
        """
        return _guard.guard(optimizer, self)

    def match(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The model's parameters by the plan's names.

        Raises:
            ParametrizationError: A parameter has no row, a row has no parameter, or shapes differ.
        """
        parameters = canonical_parameters(model)
        mine = {name: row for row in self.rows for name in (row.name, *row.aliases)}
        for name in parameters.keys() ^ mine.keys():
            where = "the model" if name in parameters else "the plan"
            raise ParametrizationError(
                f"{name} is only in {where}; the plan is for another model. "
                "Make the plan from the build function that makes this model."
            )
        for name, row in mine.items():
            if tuple(parameters[name].shape) != row.shape:
                raise ParametrizationError(
                    f"{name} has shape {tuple(parameters[name].shape)}, the plan for width "
                    f"{self.width} expects {row.shape}. Use plan.at(width)."
                )
        return parameters

    # --- relating it -----------------------------------------------------------------------------

    def at(self, width: int) -> Plan:
        """The plan of the same model and options at another width."""
        return _make(self._require_build(), width, self.base_width, self.options, self._measured)

    def diff(self, other: Plan) -> tuple[PlanDifference, ...]:
        """Every field of every parameter in which `other` differs."""
        mine = {row.name: row for row in self.rows}
        theirs = {row.name: row for row in other.rows}
        found = []
        for name in dict.fromkeys([*mine, *theirs]):
            if name not in mine or name not in theirs:
                found.append(
                    PlanDifference(
                        parameter=name, field="", mine=mine.get(name), other=theirs.get(name)
                    )
                )
                continue
            for f in dataclasses.fields(PlanRow):
                values = getattr(mine[name], f.name), getattr(theirs[name], f.name)
                if values[0] != values[1]:
                    found.append(
                        PlanDifference(
                            parameter=name, field=f.name, mine=values[0], other=values[1]
                        )
                    )
        return tuple(found)

    # --- keeping it ------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The plan as JSON text; floats are exact."""
        fields = {
            "format": _FORMAT,
            "width": self.width,
            "base_width": self.base_width,
            "options": dataclasses.asdict(self.options),
            "rows": [dataclasses.asdict(row) for row in self.rows],
        }
        return json.dumps(fields, indent=1, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write `to_json()` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def to_markdown(self) -> str:
        """A table for people, one line for each parameter."""
        head = (
            f"{self.options.parametrization} plan, width {self.width}, base width "
            f"{self.base_width}, {self.options.optimizer}, wd {self.options.wd}, "
            f"eps {self.options.eps_rule}\n\n"
            "| parameter | shape | role | kind | r | initial RMS | lr × | wd × | eps × | clip × "
            "| why |\n|---|---|---|---|--:|--:|--:|--:|--:|--:|---|\n"
        )
        return head + "".join(_markdown_row(row) for row in self.rows)

    def _require_build(self) -> Build:
        if self._build is None:
            raise ParametrizationError(
                "this plan was loaded from a file without its build function, so it can neither "
                "build nor be moved to another width. Pass it: load_plan(path, build=build)."
            )
        return self._build


def plan(
    build: Build,
    *,
    width: int,
    base_width: int,
    inputs: Inputs | None = None,
    certificate: Certificate | None = None,
    parametrization: Parametrization = "mup",
    optimizer: str | type[torch.optim.Optimizer] = "adamw",
    wd: WeightDecayRule = "independent",
    eps_rule: EpsRule = "constant",
    zero_readout: bool = False,
    phi: ByRole | None = None,
    sigma: ByRole | None = None,
    lr_multiplier: ByRole | None = None,
    base_shapes: str | Path | None = None,
) -> Plan:
    """The plan that puts `build(width)` into μP.

    Which dimensions grow is measured on builds at base width, at twice it, and at `width`, all on
    the meta device. With `inputs` (or a certificate), roles are read off the forward pass; without,
    they come from the layers' classes, and what these leave open is refused.

    Args:
        build: Makes the model at a width, initial values included. Must be a function of width.
        width: The model's width.
        base_width: The width at which the plan changes nothing.
        inputs: Example inputs of `forward` at a width: a tuple, or a dict of keyword arguments. The
            pass is recorded on the meta device; where it looks at its data, on real tensors.
        certificate: What `certify` found for this model, e.g. at small widths. One of fewer blocks
            will do: a numbered module has the roles of those beside it.
        parametrization: `mup`, or `sp` for the control: all multipliers but φ, σ and the role lrs
            are 1.
        optimizer: `adamw`, `adam`, `sgd`, or the torch class.
        wd: `independent` (lr·λ constant over width) or `constant` (λ constant).
        eps_rule: `constant`, or `scaled` (with the gradients' size over width).
        zero_readout: Zero the final readout's initial values.
        phi: Base forward multiplier φ by role, on weights and tables.
        sigma: Base initial scale σ by role, on weights and tables.
        lr_multiplier: Base lr multiplier by role.
        base_shapes: A microsoft/mup `.bsh` file that must agree with what was measured.

    Raises:
        ParametrizationError: A parameter is ambiguous, unmatched or used in two ways; an optimizer
            or option has no rule; `build` ignores its width. The message names the culprit.
    """
    options = PlanOptions(
        parametrization=parametrization,
        optimizer=optimizer_name(optimizer),
        wd=wd,
        eps_rule=eps_rule,
        zero_readout=zero_readout,
        phi=dict(phi or {}),
        sigma=dict(sigma or {}),
        lr_multiplier=dict(lr_multiplier or {}),
    )
    for name, value in (("width", width), ("base_width", base_width)):
        if value < 1:
            raise ParametrizationError(f"{name} is {value}, expected a positive integer.")
    if certificate is None and inputs is not None:
        certificate = _certified(build, inputs, width, base_width)
    measured = None if certificate is None else _usable(certificate)
    made = _make(build, width, base_width, options, measured)
    if base_shapes is not None:
        _require_same_base(made, Path(base_shapes))
    return made


def load_plan(path: str | Path, build: Build | None = None) -> Plan:
    """The plan that `Plan.save` wrote.

    Args:
        path: The JSON file.
        build: The build function, if the plan is to build models or be moved to another width.

    Raises:
        ParametrizationError: The file is not a plan of this version.
    """
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
        if fields["format"] != _FORMAT:
            raise ValueError(f"format {fields['format']}, expected {_FORMAT}")
        return Plan(
            width=fields["width"],
            base_width=fields["base_width"],
            options=PlanOptions(**fields["options"]),
            rows=tuple(_row_from_json(row) for row in fields["rows"]),
            _build=build,
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ParametrizationError(
            f"{path} is not a plan of this version of mudit: {error}. Make it again: mudit.plan."
        ) from error


def _row_from_json(row: Mapping[str, Any]) -> PlanRow:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return PlanRow(**values)


# --- making it ----------------------------------------------------------------------------------


def _certified(build: Build, inputs: Inputs, width: int, base_width: int) -> Certificate:
    """The certificate at the plan's own widths, without memory for weights if that can be."""
    widths = sorted({base_width, 2 * base_width, width, 3 * base_width})[:3]
    widths = widths if width in widths else [*widths[:2], width]
    found: Certificate | None = None
    failure: ParametrizationError | None = None
    try:
        found = certify(build, inputs, widths, device="meta")
    except ParametrizationError as error:
        failure = error
    if found is not None and found.verdict == "PASS":
        return found
    # Constants have values on real tensors alone: a small model is run on them before it is blamed.
    shapes = canonical_parameters(observe(build, widths[-1], estimate=False).model)
    if sum(parameter.numel() for parameter in shapes.values()) <= _REAL_PARAMETERS:
        return certify(build, inputs, widths)
    if failure is not None:
        raise failure
    assert found is not None
    return found


def _usable(certificate: Certificate) -> MeasuredRoles:
    """The roles of a certificate, if they may be relied on.

    Raises:
        ParametrizationError: It is REFUSED or INCONCLUSIVE.
    """
    said = " ".join(finding.message for finding in certificate.findings[:2])
    if certificate.measured is None or certificate.verdict in ("REFUSED", "INCONCLUSIVE"):
        raise ParametrizationError(f"the certificate is {certificate.verdict}: {said}")
    if certificate.verdict == "FAIL":
        warnings.warn(f"the certificate is FAIL: {said}", stacklevel=3)
    return certificate.measured


def _make(
    build: Build,
    width: int,
    base_width: int,
    options: PlanOptions,
    measured: MeasuredRoles | None,
) -> Plan:
    seen = {at: observe(build, at) for at in sorted({base_width, 2 * base_width, width})}
    parameters = {at: canonical_parameters(view.model) for at, view in seen.items()}
    growing = growing_dimensions(
        {
            at: {name: tuple(parameter.shape) for name, parameter in named.items()}
            for at, named in parameters.items()
        }
    )
    names = tied_names(parameters[width])
    roles = _roles(seen[width].model, growing, measured)
    readouts = _final_readouts(names, roles, measured) if options.zero_readout else ()
    rows = tuple(
        _row(
            group,
            parameters[width][group[0]],
            tuple(parameters[base_width][group[0]].shape),
            role=roles[group[0]],
            grows=growing[group[0]],
            own=seen[width].scales[group[0]],
            base=seen[base_width].scales[group[0]],
            zeroed=group[0] in readouts,
            options=options,
        )
        for group in names
    )
    return Plan(
        width=width,
        base_width=base_width,
        options=options,
        rows=rows,
        _build=build,
        _measured=measured,
    )


def _roles(
    model: nn.Module, growing: Mapping[str, tuple[bool, ...]], measured: MeasuredRoles | None
) -> Mapping[str, ParameterRole]:
    if measured is None:
        return roles_from_layers(model, growing)
    return roles_for(measured, model, growing)


def _row(
    names: tuple[str, ...],
    parameter: nn.Parameter,
    base_shape: Shape,
    *,
    role: ParameterRole,
    grows: tuple[bool, ...],
    own: InitialScale,
    base: InitialScale,
    zeroed: bool,
    options: PlanOptions,
) -> PlanRow:
    shape = tuple(parameter.shape)
    if math.isnan(own.rms) or math.isnan(base.rms):
        own = base = _unknown(names[0], role)
    fan_in_ratio, fan_out_ratio = _ratios(shape, base_shape, role, grows)
    found = _multipliers(role, fan_in_ratio, fan_out_ratio, options)
    anchor = base if options.parametrization == "mup" else own
    init_rms = 0.0 if zeroed else anchor.rms * found.init
    if own.rms == 0.0 and init_rms != 0.0:
        raise ParametrizationError(
            f"{names[0]} starts at zero at this width, but with RMS {anchor.rms:.6g} "
            "at base width. An initialiser may not become zero with width."
        )
    trainable = parameter.requires_grad
    return PlanRow(
        name=names[0],
        aliases=names[1:],
        shape=shape,
        base_shape=base_shape,
        role=role.role,
        kind=role.kind,
        reason=role.reason,
        trainable=trainable,
        grows=grows,
        r=fan_in_ratio,
        fan_out_ratio=fan_out_ratio,
        initializer=own.law,
        init_exact=own.exact and base.exact,
        base_rms=base.rms,
        own_rms=own.rms,
        init_rms=init_rms,
        lr=found.lr if trainable else 1.0,
        weight_decay=found.weight_decay if trainable else 1.0,
        eps=found.eps if trainable else 1.0,
        clip=found.clip if trainable else 1.0,
    )


def _unknown(name: str, role: ParameterRole) -> InitialScale:
    """The scale of a parameter of which none is known: it is left as it is built.

    Raises:
        ParametrizationError: The role asks for another scale at each width.
    """
    if role.role in ("hidden", "output"):
        raise ParametrizationError(
            f"the initialiser of {name} is not known, and the model is too large to be built for "
            "measuring it. Initialise it by torch.nn.init, or make the plan at a smaller width."
        )
    return InitialScale(rms=0.0, exact=False, law="unknown, left as built")


def _ratios(
    shape: Shape, base_shape: Shape, role: ParameterRole, grows: tuple[bool, ...]
) -> tuple[float, float]:
    """Growth of fan-in and of fan-out over base width, measured; fixed dimensions do not count."""
    fan_in = fan_out = 1.0
    for dim, (size, base, grow) in enumerate(zip(shape, base_shape, grows)):
        if grow and dim in role.fan_in:
            fan_in *= size / base
        elif grow:
            fan_out *= size / base
    return fan_in, fan_out


def _multipliers(
    role: ParameterRole, fan_in_ratio: float, fan_out_ratio: float, options: PlanOptions
) -> Multipliers:
    scalable = role.kind in ("weight", "table")
    return multipliers(
        role.role,
        fan_in_ratio=fan_in_ratio,
        fan_out_ratio=fan_out_ratio,
        parametrization=options.parametrization,
        optimizer=options.optimizer,
        wd=options.wd,
        eps_rule=options.eps_rule,
        phi=options.phi.get(role.role, 1.0) if scalable else 1.0,
        sigma=options.sigma.get(role.role, 1.0) if scalable else 1.0,
        lr_multiplier=options.lr_multiplier.get(role.role, 1.0),
    )


def _final_readouts(
    names: Iterable[tuple[str, ...]],
    roles: Mapping[str, ParameterRole],
    measured: MeasuredRoles | None,
) -> tuple[str, ...]:
    """The output weights that reach the output through linear steps alone.

    Without a recorded pass it is the one output weight: a model maps width to pixels, so a lone
    one is final.
    """
    outputs = [group[0] for group in names if roles[group[0]].role == "output"]
    final = outputs if measured is None else [name for name in outputs if name in measured.final]
    if not final or (measured is None and len(final) > 1):
        raise ParametrizationError(
            f"zero_readout: {len(outputs)} parameters have the role output ({', '.join(outputs)}), "
            "and it is not known which is the final readout; zeroing an interior one breaks "
            "training. Give example inputs (mudit.plan(..., inputs=...)), or zero the readout in "
            "the model's own initialiser."
        )
    return tuple(final)


def _require_same_base(made: Plan, path: Path) -> None:
    expected = read_base_shapes(path)
    mine = {row.name: base_shape(row) for row in made.rows}
    for name in dict.fromkeys([*mine, *expected]):
        if mine.get(name) != expected.get(name):
            raise ParametrizationError(
                f"{path} does not agree with build at {name}: the file says {expected.get(name)}, "
                f"build({made.base_width}) gives {mine.get(name)} (None: the dimension does not "
                "grow). The file is for another model or base width."
            )


def _markdown_row(row: PlanRow) -> str:
    shape = "×".join(map(str, row.shape))
    rms = f"{row.init_rms:.6g}" + ("" if row.init_exact else " (estimated)")
    numbers = (
        [f"{value:.6g}" for value in (row.lr, row.weight_decay, row.eps, row.clip)]
        if row.trainable
        else ["frozen", "", "", ""]
    )
    cells = [row.name, shape, row.role, row.kind, f"{row.r:.6g}", rms, *numbers, row.reason]
    return "| " + " | ".join(cells) + " |\n"

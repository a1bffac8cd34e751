"""Role and kind of every parameter, with the reason in words.

A role follows from which of a tensor's dimensions grow with width and which of them is fan-in, i.e.
contracted with (or looked up by) the layer's input [muDiT] App. B.3:

    fan-in     fan-out    role      examples
    finite     grows      input     patch embedding, timestep MLP's first layer, label table
    grows      grows      hidden    attention, MLP, adaLN
    grows      finite     output    readout
    finite     finite     scalar    readout bias, per-head gains

Vector-like biases and gains (length n) behave as input weights.

`roles_from_reading` takes the use of each parameter from the recorded forward pass;
`roles_from_layers` guesses it from layer classes where there is no recording, and refuses the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from torch import nn

from mudit.errors import ParametrizationError
from mudit.program.dims import canonical_name, canonical_parameters, tied_names
from mudit.program.outcome import Reading, Refusal, Slice, Use, UseKind

Role: TypeAlias = Literal["input", "hidden", "output", "scalar"]
Kind: TypeAlias = Literal["weight", "gain", "bias", "table"]

_ROLES: dict[tuple[bool, bool], Role] = {
    # (fan-in grows, fan-out grows)
    (False, True): "input",
    (True, True): "hidden",
    (True, False): "output",
    (False, False): "scalar",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterRole:
    """What one parameter is to the program.

    Attributes:
        role: See the module's table.
        kind: What base HPs may touch: φ and σ act on `weight` and `table` only.
        fan_in: Indices of the dimensions that are contracted or looked up.
        reason: Why, in words.
    """

    role: Role
    kind: Kind
    fan_in: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class _Use:
    """How a layer class uses one of its own parameters: `fan_out` dims make features, the rest is
    fan-in.
    """

    kind: Kind
    fan_out: tuple[int, ...]
    words: str


_ADDED = _Use("bias", (0,), "added to {cls}'s output")
_CONTRACTED = _Use("weight", (0,), "{cls} contracts dim 1 with its input")
_TOKEN = _Use("bias", (0, 1, 2), "{cls} appends it as one more token")
_LAYERS: tuple[tuple[tuple[type[nn.Module], ...], dict[str, _Use]], ...] = (
    ((nn.Linear,), {"weight": _CONTRACTED, "bias": _ADDED}),
    (
        (nn.Conv1d, nn.Conv2d, nn.Conv3d),
        {
            "weight": _Use("weight", (0,), "{cls} contracts dim 1 and the kernel with its input"),
            "bias": _ADDED,
        },
    ),
    (
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
        {
            "weight": _Use("weight", (1,), "{cls} contracts dim 0 and the kernel with its input"),
            "bias": _ADDED,
        },
    ),
    (
        (nn.Embedding, nn.EmbeddingBag),
        {"weight": _Use("table", (1,), "{cls} looks rows up by dim 0")},
    ),
    (
        (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
        {
            "weight": _Use("gain", (0,), "{cls} multiplies by it, feature by feature"),
            "bias": _Use("bias", (0,), "{cls} adds it, feature by feature"),
        },
    ),
    (
        (nn.MultiheadAttention,),
        {
            "in_proj_weight": _CONTRACTED,
            "q_proj_weight": _CONTRACTED,
            "k_proj_weight": _CONTRACTED,
            "v_proj_weight": _CONTRACTED,
            "in_proj_bias": _Use("bias", (0,), "{cls} adds it to its projections"),
            "bias_k": _TOKEN,
            "bias_v": _TOKEN,
        },
    ),
)


def roles_from_layers(
    model: nn.Module, growing: Mapping[str, tuple[bool, ...]]
) -> dict[str, ParameterRole]:
    """Role and kind of every parameter, read off the classes of its layers.

    Args:
        model: The module, at any width; the meta device will do.
        growing: By canonical name, which dimensions grow (`growing_dimensions`).

    Raises:
        ParametrizationError: A trainable parameter whose layer class does not say which dimension
            is fan-in, or one that is used in two ways that need different multipliers.
    """
    uses = _layer_uses(model)
    parameters = canonical_parameters(model)
    roles: dict[str, ParameterRole] = {}
    for names in tied_names(parameters):
        trainable = parameters[names[0]].requires_grad
        found = [_role(name, uses[name], growing[name], trainable=trainable) for name in names]
        _refuse_conflicting_uses(names, found)
        roles.update(dict.fromkeys(names, found[0]))
    return roles


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredRoles:
    """Roles as the forward pass shows them.

    Attributes:
        roles: By canonical name; tied names share one. Parameters that were not reached are absent.
        parts: Of a weight over finite and growing features together: each part's extent and role.
        unreached: Names of the parameters that the outputs do not depend on.
        refusals: Parameters that are used in two ways which need different multipliers.
        final: Output weights whose products reach an output through linear steps alone.
    """

    roles: Mapping[str, ParameterRole]
    parts: Mapping[str, tuple[tuple[Slice, Role], ...]]
    unreached: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    final: tuple[str, ...]


def roles_for(
    measured: MeasuredRoles, model: nn.Module, growing: Mapping[str, tuple[bool, ...]]
) -> dict[str, ParameterRole]:
    """Measured roles for a build of the same model, perhaps with more blocks or at other widths.

    A parameter of a numbered module that was not recorded has the role of the same parameter in the
    modules beside it. Whether fan-in and fan-out grow is taken from this build.

    Args:
        measured: What a recorded pass showed.
        model: The build.
        growing: By canonical name, which of its dimensions grow.

    Raises:
        ParametrizationError: A parameter is neither recorded nor like one that was; an unreached
            one whose role nothing says.
    """
    beside: dict[str, set[ParameterRole]] = {}
    for name, role in measured.roles.items():
        beside.setdefault(_unnumbered(name), set()).add(replace(role, reason=""))
    skipped = {_unnumbered(name) for name in measured.unreached}
    roles: dict[str, ParameterRole] = {}
    unreached: list[str] = []
    for names in tied_names(canonical_parameters(model)):
        name, pattern = names[0], _unnumbered(names[0])
        if name in measured.roles:
            role = measured.roles[name]
        elif name in measured.unreached or (pattern in skipped and pattern not in beside):
            unreached.append(name)
            continue
        elif len(beside.get(pattern, ())) == 1:
            (role,) = beside[pattern]
            role = replace(role, reason="as in the modules beside it that were recorded")
        else:
            raise ParametrizationError(
                f"{name} is not in the certificate, nor is one like it: it is of another model. "
                "Certify this build."
            )
        roles.update(dict.fromkeys(names, _regrown(role, growing[name])))
    return roles | roles_of_unreached(model, growing, unreached)


def _unnumbered(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _regrown(role: ParameterRole, grows: tuple[bool, ...]) -> ParameterRole:
    """The role of a parameter that is used so and grows so."""
    inside = any(grow for dim, grow in enumerate(grows) if dim in role.fan_in)
    outside = any(grow for dim, grow in enumerate(grows) if dim not in role.fan_in)
    return replace(role, role=_ROLES[inside, outside])


def roles_from_reading(reading: Reading) -> MeasuredRoles:
    """Role and kind of every parameter that the outputs of a recorded pass depend on."""
    uses: dict[str, list[Use]] = {}
    for use in reading.uses:
        uses.setdefault(use.parameter, []).append(use)
    roles: dict[str, ParameterRole] = {}
    parts: dict[str, tuple[tuple[Slice, Role], ...]] = {}
    unreached: list[str] = []
    refusals: list[Refusal] = []
    transformed = {r.parameter for r in reading.refusals if r.reason == "transformed"}
    for names in reading.trace.tied:
        found = uses.get(names[0])
        if found is None:
            unreached.append(names[0])
            continue
        conflict = None if names[0] in transformed else _conflict(reading, found)
        if conflict is not None:
            refusals.append(conflict)
        main = min(found, key=lambda use: _PRECEDENCE.index(use.kind))
        roles.update(dict.fromkeys(names, _measured_role(reading, main)))
        if main.slices:
            parts[names[0]] = tuple(
                (part, _ROLES[part.fan_in_grows, part.fan_out_grows]) for part in main.slices
            )
    return MeasuredRoles(
        roles=roles,
        parts=parts,
        unreached=tuple(unreached),
        refusals=tuple(refusals),
        final=tuple(sorted(reading.final)),
    )


# Of several uses in one role, the first of these names the kind.
_PRECEDENCE: tuple[UseKind, ...] = ("contracted", "looked up", "joined", "multiplied", "added")


def _measured_role(reading: Reading, use: Use) -> ParameterRole:
    grows = reading.trace.growing[use.parameter]
    op = reading.trace.ops[use.op]
    return ParameterRole(
        role=_use_role(use),
        kind=_use_kind(use, len(grows)),
        fan_in=use.fan_in,
        reason=f"{_use_words(use, op.name)}; {_dims(grows)}; at {op.source}",
    )


def _use_role(use: Use) -> Role:
    return _ROLES[use.fan_in_grows, use.fan_out_grows]


def _use_kind(use: Use, rank: int) -> Kind:
    if use.kind == "contracted":
        return "weight"
    if use.kind == "multiplied":
        return "gain"
    return "bias" if use.kind in ("added", "joined") and rank == 1 else "table"


def _use_words(use: Use, op: str) -> str:
    if use.kind == "contracted":
        dims = " and ".join(map(str, use.fan_in)) or "none"
        plural = "s" if len(use.fan_in) > 1 else ""
        split = ", over finite and growing features together" if use.slices else ""
        return f"{op} contracts its dim{plural} {dims} with its input{split}"
    if use.kind == "looked up":
        return f"{op} looks it up by dim {' and '.join(map(str, use.fan_in))}"
    verb = {"multiplied": "multiplies by it", "added": "adds it", "joined": "takes it in"}
    return f"{op} {verb[use.kind]}, feature by feature"


def _conflict(reading: Reading, uses: list[Use]) -> Refusal | None:
    first, *others = uses
    for other in others:
        if _use_role(other) != _use_role(first):
            here, there = (
                f"{_use_role(use)} at {reading.source(use.op)}" for use in (first, other)
            )
            return Refusal(
                "tied",
                f"{first.parameter} is one tensor used in two ways that need different "
                f"multipliers: {here}, and {there}",
                other.op,
                first.parameter,
            )
    return None


def roles_of_unreached(
    model: nn.Module, growing: Mapping[str, tuple[bool, ...]], names: Iterable[str]
) -> dict[str, ParameterRole]:
    """Roles of parameters that a recorded pass did not reach: by layer class, else by growth.

    Args:
        model: The module, at any width.
        growing: By canonical name, which dimensions grow.
        names: First names of the parameters concerned.

    Raises:
        ParametrizationError: Nothing says which of two growing dimensions is fan-in.
    """
    wanted = set(names)
    uses = _layer_uses(model)
    roles: dict[str, ParameterRole] = {}
    for group in tied_names(canonical_parameters(model)):
        if group[0] not in wanted:
            continue
        use = uses[group[0]]
        grows = growing[group[0]]
        role = (
            _role(group[0], use, grows, trainable=True)
            if use is not None
            else _unreached_raw_role(group[0], grows)
        )
        reason = f"not reached by the inputs; by its layer: {role.reason}"
        roles.update(dict.fromkeys(group, replace(role, reason=reason)))
    return roles


def _unreached_raw_role(name: str, grows: tuple[bool, ...]) -> ParameterRole:
    if sum(grows) > 1:
        raise ParametrizationError(
            f"{name} is a raw parameter in which {_dims(grows)}, and the inputs do not reach it, "
            "so nothing says which dimension is fan-in. Give inputs that take the branch it is in."
        )
    if not any(grows):
        return ParameterRole(role="scalar", kind="weight", fan_in=(), reason="no dimension grows")
    return ParameterRole(role="input", kind="table", fan_in=(), reason=f"a guess; {_dims(grows)}")


def _layer_uses(model: nn.Module) -> dict[str, _Use | None]:
    """By canonical name: how the layer uses the parameter; None if its class does not say."""
    return {
        canonical_name(f"{path}.{name}" if path else name): _use(module, name)
        for path, module in model.named_modules(remove_duplicate=False)
        for name, _ in module.named_parameters(recurse=False)
    }


def _use(module: nn.Module, name: str) -> _Use | None:
    """How `module` uses its own parameter `name`; None if its class is not known."""
    for classes, table in _LAYERS:
        if isinstance(module, classes) and name in table:
            use = table[name]
            return replace(use, words=use.words.format(cls=type(module).__name__))
    return None


def _role(
    name: str, use: _Use | None, grows: tuple[bool, ...], *, trainable: bool
) -> ParameterRole:
    if use is None:
        return _raw_role(name, grows, trainable=trainable)
    fan_in = tuple(dim for dim in range(len(grows)) if dim not in use.fan_out)
    fan_in_grows = any(grows[dim] for dim in fan_in)
    fan_out_grows = any(grows[dim] for dim in use.fan_out)
    if use.kind == "table" and fan_in_grows:
        raise ParametrizationError(
            f"{name}: the number of rows of a look-up table grows with width, {_dims(grows)}; "
            "there is no μP rule for that. Keep the vocabulary fixed over widths."
        )
    return ParameterRole(
        role=_ROLES[fan_in_grows, fan_out_grows],
        kind=use.kind,
        fan_in=fan_in,
        reason=f"{use.words}; {_dims(grows)}",
    )


def _raw_role(name: str, grows: tuple[bool, ...], *, trainable: bool) -> ParameterRole:
    """The role of a parameter that sits on a module of an unknown class."""
    if not any(grows):
        return ParameterRole(role="scalar", kind="weight", fan_in=(), reason="no dimension grows")
    if not trainable and sum(grows) == 1:
        # A constant vector over width, e.g. a sin-cos position table: it is added or looked up.
        return ParameterRole(
            role="input", kind="table", fan_in=(), reason=f"frozen; {_dims(grows)}"
        )
    raise ParametrizationError(
        f"{name} is a raw parameter in which {_dims(grows)}: its layer's class does not say which "
        "dimension is fan-in, so its role is ambiguous (a bias, a table and a readout look alike). "
        "Give example inputs, so that its use is measured: mudit.plan(..., inputs=...)."
    )


def _dims(grows: tuple[bool, ...]) -> str:
    dims = [str(dim) for dim, grow in enumerate(grows) if grow]
    if not dims:
        return "no dimension grows"
    return f"dim {dims[0]} grows" if len(dims) == 1 else f"dims {' and '.join(dims)} grow"


def _refuse_conflicting_uses(names: tuple[str, ...], roles: list[ParameterRole]) -> None:
    for name, other in zip(names[1:], roles[1:]):
        if (other.role, other.kind) != (roles[0].role, roles[0].kind):
            raise ParametrizationError(
                f"{names[0]} and {name} are one tensor used in two ways that need different "
                f"multipliers: {roles[0].role} ({roles[0].reason}) and {other.role} "
                f"({other.reason}). Untie them, or tie them through a layer of their own."
            )

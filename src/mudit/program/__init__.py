"""What a forward pass is made of: growing dimensions, the program it runs, and parameters' roles.

Knows torch, and no model: everything is read off builds, and forward passes, at several widths.
"""

from mudit.program.canonical import CanonicalStep, canonical
from mudit.program.dims import (
    Build,
    Shape,
    canonical_name,
    canonical_parameters,
    growing_dimensions,
    tied_names,
)
from mudit.program.outcome import REASONS, Operator, Reading
from mudit.program.reading import read
from mudit.program.roles import (
    Kind,
    MeasuredRoles,
    ParameterRole,
    Role,
    roles_for,
    roles_from_layers,
    roles_from_reading,
)
from mudit.program.trace import Device, Inputs, Mismatch, Trace, trace

__all__ = [
    "REASONS",
    "Build",
    "CanonicalStep",
    "Device",
    "Inputs",
    "Kind",
    "MeasuredRoles",
    "Mismatch",
    "Operator",
    "ParameterRole",
    "Reading",
    "Role",
    "Shape",
    "Trace",
    "canonical",
    "canonical_name",
    "canonical_parameters",
    "growing_dimensions",
    "read",
    "roles_for",
    "roles_from_layers",
    "roles_from_reading",
    "tied_names",
    "trace",
]

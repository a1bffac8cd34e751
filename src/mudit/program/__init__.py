"""What a forward pass is made of: growing dimensions and the roles of parameters.

Knows torch, and no model: everything is read off builds at several widths.
"""

from mudit.program.dims import (
    Build,
    Shape,
    canonical_name,
    canonical_parameters,
    growing_dimensions,
    tied_names,
)
from mudit.program.roles import Kind, ParameterRole, Role, roles_from_layers

__all__ = [
    "Build",
    "Kind",
    "ParameterRole",
    "Role",
    "Shape",
    "canonical_name",
    "canonical_parameters",
    "growing_dimensions",
    "roles_from_layers",
    "tied_names",
]

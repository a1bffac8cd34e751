"""mudit: tune diffusion Transformers small and train them big, by μP, with numbers that show it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Loaded at first use: `import mudit` alone does not import torch.
_HOMES = {
    "Audit": "mudit.parametrization",
    "Certificate": "mudit.parametrization",
    "CoordinateCheck": "mudit.tuning",
    "MuditError": "mudit.errors",
    "ParametrizationError": "mudit.errors",
    "Plan": "mudit.parametrization",
    "StudyConfig": "mudit.tuning",
    "TransferResult": "mudit.tuning",
    "TransferVerdict": "mudit.tuning",
    "VerifyConfig": "mudit.tuning",
    "audit": "mudit.parametrization",
    "certify": "mudit.parametrization",
    "coordinate_check": "mudit.tuning",
    "load_plan": "mudit.parametrization",
    "plan": "mudit.parametrization",
    "read_base_shapes": "mudit.parametrization",
    "transfer": "mudit.tuning",
    "verify": "mudit.tuning",
    "write_base_shapes": "mudit.parametrization",
}

if TYPE_CHECKING:
    from mudit.errors import MuditError, ParametrizationError
    from mudit.parametrization import (
        Audit,
        Certificate,
        Plan,
        audit,
        certify,
        load_plan,
        plan,
        read_base_shapes,
        write_base_shapes,
    )
    from mudit.tuning import (
        CoordinateCheck,
        StudyConfig,
        TransferResult,
        TransferVerdict,
        VerifyConfig,
        coordinate_check,
        transfer,
        verify,
    )

__all__ = [
    "Audit",
    "Certificate",
    "CoordinateCheck",
    "MuditError",
    "ParametrizationError",
    "Plan",
    "StudyConfig",
    "TransferResult",
    "TransferVerdict",
    "VerifyConfig",
    "audit",
    "certify",
    "coordinate_check",
    "load_plan",
    "plan",
    "read_base_shapes",
    "transfer",
    "verify",
    "write_base_shapes",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mudit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Search on a proxy and transfer to a target (Algorithm 4)."""

from mudit.tuning.config import (
    DEFAULT_ARCHITECTURE,
    ModelConfig,
    SamplingConfig,
    SearchConfig,
    StudyConfig,
    TaskConfig,
)
from mudit.tuning.coordinate_check import CoordinateCheck, coordinate_check
from mudit.tuning.grid import VerifyConfig
from mudit.tuning.listener import Listener
from mudit.tuning.search import NoBestPoint
from mudit.tuning.study import (
    Branch,
    FailedSearch,
    TransferResult,
    read_branch,
    read_control,
    read_study,
)
from mudit.tuning.summary import write_study_report
from mudit.tuning.transfer import Preview, preview, train_target, transfer

__all__ = [
    "DEFAULT_ARCHITECTURE",
    "Branch",
    "CoordinateCheck",
    "FailedSearch",
    "Listener",
    "ModelConfig",
    "NoBestPoint",
    "Preview",
    "SamplingConfig",
    "SearchConfig",
    "StudyConfig",
    "TaskConfig",
    "TransferResult",
    "VerifyConfig",
    "coordinate_check",
    "preview",
    "read_branch",
    "read_control",
    "read_study",
    "train_target",
    "transfer",
    "write_study_report",
]

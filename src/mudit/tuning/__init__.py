"""Search on a proxy and transfer to a target (Algorithm 4); does it transfer (1 to 3)?"""

from mudit.tuning.advise import StudyAdvice, advise_study
from mudit.tuning.cluster import RayConfig
from mudit.tuning.config import (
    DEFAULT_ARCHITECTURE,
    ExperimentConfig,
    FinalsConfig,
    ModelConfig,
    SamplingConfig,
    SearchConfig,
    StudyConfig,
    TaskConfig,
)
from mudit.tuning.coordinate_check import CoordinateCheck, coordinate_check
from mudit.tuning.grid import VerifyConfig, is_grid
from mudit.tuning.listener import Listener
from mudit.tuning.pool import stop_on_interrupt
from mudit.tuning.pruning import PruningConfig
from mudit.tuning.search import NoBestPoint
from mudit.tuning.space import PAPER_SPACE
from mudit.tuning.study import (
    Branch,
    FailedSearch,
    TransferResult,
    read_branch,
    read_control,
    read_study,
)
from mudit.tuning.summary import write_study_report
from mudit.tuning.transfer import Preview, StudyCost, preview, study_cost, train_target, transfer
from mudit.tuning.verify import (
    TransferVerdict,
    VerifyPreview,
    preview_grid,
    read_verdict,
    verify,
    write_verdict,
)

__all__ = [
    "DEFAULT_ARCHITECTURE",
    "PAPER_SPACE",
    "Branch",
    "CoordinateCheck",
    "ExperimentConfig",
    "FailedSearch",
    "FinalsConfig",
    "Listener",
    "ModelConfig",
    "NoBestPoint",
    "Preview",
    "PruningConfig",
    "RayConfig",
    "SamplingConfig",
    "SearchConfig",
    "StudyAdvice",
    "StudyConfig",
    "StudyCost",
    "TaskConfig",
    "TransferResult",
    "TransferVerdict",
    "VerifyConfig",
    "VerifyPreview",
    "advise_study",
    "coordinate_check",
    "is_grid",
    "preview",
    "preview_grid",
    "read_branch",
    "read_control",
    "read_study",
    "read_verdict",
    "stop_on_interrupt",
    "study_cost",
    "train_target",
    "transfer",
    "verify",
    "write_study_report",
    "write_verdict",
]

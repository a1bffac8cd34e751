"""One training run: config, trainer, checkpoints, validation bank."""

from mudit.files import disk_errors, exclusive, write_text, write_whole
from mudit.training.alignment import ENCODER_FILE, check_encoder, save_encoder
from mudit.training.checkpoint import load_weights, save_weights
from mudit.training.conditioning import (
    TEXT_FOLDER,
    Conditioning,
    are_stored,
    save_text_features,
    text_features,
)
from mudit.training.config import (
    DataConfig,
    ParametrizationConfig,
    RepaConfig,
    RunConfig,
    TextConfig,
    TrainingConfig,
    claim_folder,
    parse_config,
    read_config,
    refuse_other_config,
)
from mudit.training.flops import step_flops, trainable_parameters
from mudit.training.hyperparameters import Hyperparameters, check_name, check_value
from mudit.training.randomness import cpu_threads, generator, stream_seed
from mudit.training.schedule import ScheduleConfig, lr_factor
from mudit.training.trained import (
    Trained,
    finished_run,
    load_trained,
    prompt_conditioning,
    run_encoder,
    with_text_encoder,
)
from mudit.training.trainer import (
    end_paused,
    flops_of_step,
    make_plan,
    open_splits,
    parameters_of,
    read_trial,
    resolve_device,
    rung_file,
    train,
)
from mudit.training.validation import ValidationBank

__all__ = [
    "ENCODER_FILE",
    "TEXT_FOLDER",
    "Conditioning",
    "DataConfig",
    "Hyperparameters",
    "ParametrizationConfig",
    "RepaConfig",
    "RunConfig",
    "ScheduleConfig",
    "TextConfig",
    "Trained",
    "TrainingConfig",
    "ValidationBank",
    "are_stored",
    "check_encoder",
    "check_name",
    "check_value",
    "claim_folder",
    "cpu_threads",
    "disk_errors",
    "end_paused",
    "exclusive",
    "finished_run",
    "flops_of_step",
    "generator",
    "load_trained",
    "load_weights",
    "lr_factor",
    "make_plan",
    "open_splits",
    "parameters_of",
    "parse_config",
    "prompt_conditioning",
    "read_config",
    "read_trial",
    "refuse_other_config",
    "resolve_device",
    "run_encoder",
    "rung_file",
    "save_encoder",
    "save_text_features",
    "save_weights",
    "step_flops",
    "stream_seed",
    "text_features",
    "train",
    "trainable_parameters",
    "with_text_encoder",
    "write_text",
    "write_whole",
]

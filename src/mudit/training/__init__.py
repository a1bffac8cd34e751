"""One training run: config, trainer, checkpoints, validation bank."""

from mudit.training.alignment import ENCODER_FILE, save_encoder
from mudit.training.checkpoint import load_weights, save_weights
from mudit.training.conditioning import TEXT_FILE, Conditioning, save_text_features, text_features
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
)
from mudit.training.files import exclusive, write_text, write_whole
from mudit.training.flops import step_flops, trainable_parameters
from mudit.training.hyperparameters import Hyperparameters, check_value
from mudit.training.randomness import generator, stream_seed
from mudit.training.schedule import ScheduleConfig, lr_factor
from mudit.training.trained import Trained, load_trained
from mudit.training.trainer import (
    end_paused,
    flops_of_step,
    make_plan,
    open_splits,
    read_trial,
    resolve_device,
    rung_file,
    train,
)
from mudit.training.validation import ValidationBank

__all__ = [
    "ENCODER_FILE",
    "TEXT_FILE",
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
    "check_value",
    "claim_folder",
    "end_paused",
    "exclusive",
    "flops_of_step",
    "generator",
    "load_trained",
    "load_weights",
    "lr_factor",
    "make_plan",
    "open_splits",
    "parse_config",
    "read_config",
    "read_trial",
    "resolve_device",
    "rung_file",
    "save_encoder",
    "save_text_features",
    "save_weights",
    "step_flops",
    "stream_seed",
    "text_features",
    "train",
    "trainable_parameters",
    "write_text",
    "write_whole",
]

"""Checkpoints: safetensors and JSON in a folder that is renamed into place. Pickles are never
read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mudit.errors import EnvironmentFailure
from mudit.files import write_whole

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: Steps taken.
        records_size: Bytes of `records.jsonl` that belong to them.
        timings_size: Bytes of `timings.jsonl`.
        seconds: Wall time so far, over all sittings.
    """

    step: int = 0
    records_size: int = 0
    timings_size: int = 0
    seconds: float = 0.0


def save_checkpoint(
    folder: Path,
    progress: Progress,
    *,
    model: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write `folder/checkpoint-STEP`, then drop older ones.

    Raises:
        EnvironmentFailure: It could not be written; older checkpoints are untouched.
    """
    target = folder / f"checkpoint-{progress.step:08d}"

    def write(aside: Path) -> None:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        save_weights(model, aside / "model.safetensors")
        save_weights(ema, aside / "ema.safetensors")
        save_file(_optimizer_tensors(optimizer), aside / "optimizer.safetensors")
        state = {"format": _FORMAT, **asdict(progress)}
        (aside / "state.json").write_text(json.dumps(state) + "\n", encoding="utf-8")

    if not target.exists():
        write_whole(target, write)
    for old in _checkpoints(folder):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    folder: Path, *, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Restore the newest checkpoint in place; a fresh `Progress` if there is none.

    Raises:
        EnvironmentFailure: It is damaged or belongs to another model.
    """
    found = _checkpoints(folder)
    if not found:
        return Progress()
    path = found[-1]
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if state.pop("format") != _FORMAT:
            raise ValueError("another version's format")
        load_weights(model, path / "model.safetensors")
        load_weights(ema, path / "ema.safetensors")
        _restore_optimizer(optimizer, load_file(path / "optimizer.safetensors"))
        return Progress(**state)
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError, OSError) as error:
        raise EnvironmentFailure(
            f"the checkpoint {path} cannot be read: {error}. Delete that folder to start the run "
            "again from its beginning."
        ) from error


def drop_checkpoints(folder: Path) -> None:
    """Delete all checkpoints of a finished run."""
    for path in _checkpoints(folder):
        shutil.rmtree(path, ignore_errors=True)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's state dict; the keys are the model's own, the values plain weights."""
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Read what `save_weights` wrote.

    Raises:
        EnvironmentFailure: The file is missing, damaged, or another model's.
    """
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise EnvironmentFailure(f"cannot load weights from {path}: {error}") from error


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("checkpoint-*") if (path / "state.json").exists())


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every parameter, by its index in the optimizer and the state's name."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}/{key}": value.contiguous()
        for index, values in state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    # Groups stay the plan's: lr and the like follow from the config, not from the file.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})

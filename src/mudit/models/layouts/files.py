"""Checkpoints on disk: the authors' files and diffusers' folders, read and written.

Nothing in a file is executed: safetensors hold tensors alone, and torch's pickles are read by its
restricted loader, which refuses everything but tensors and plain containers.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mudit.errors import DataError, UsageError
from mudit.models.architectures import ARCHITECTURES, ModelConfig, architecture_of
from mudit.models.layouts import dit, mmdit, pixart, uvit
from mudit.models.layouts.layout import Exchange, State

# By architecture and layout.
EXCHANGES: Mapping[str, Mapping[str, Exchange]] = MappingProxyType(
    {
        "dit": dit.EXCHANGES,
        "uvit": uvit.EXCHANGES,
        "pixart": pixart.EXCHANGES,
        "mmdit": mmdit.EXCHANGES,
    }
)
_WEIGHTS = "diffusion_pytorch_model"
# A training checkpoint keeps the weights beside the optimizer's state; averaged ones come first.
_NESTED = ("ema", "state_dict_ema", "state_dict", "model")


def import_checkpoint(
    path: Path, config: ModelConfig | None = None, *, layout: str | None = None
) -> Any:
    """Returns a model with the weights of another library's checkpoint.

    Args:
        path: A folder of diffusers (or of one of its pipelines, with `transformer/` in it), or a
            file of the authors: `.safetensors`, or `.pt`, `.pth` and `.bin`.
        config: The model's; a folder of diffusers holds its own.
        layout: "original" or "diffusers"; by default the first for a file, the second for a
            folder.

    Raises:
        DataError: The file is missing or damaged, or holds more than tensors.
        UsageError: It does not fit the config, tensor by tensor; or there is no config, or no such
            layout.
    """
    if (path / "transformer").is_dir():
        path = path / "transformer"
    layout = layout or ("diffusers" if path.is_dir() else "original")
    if config is None:
        config = _config_of(path)
    exchange = _exchange(config, layout)
    theirs = _read(_weights_file(path) if path.is_dir() else path)
    with torch.device("meta"):
        model = architecture_of(config).model(config)
    state = exchange.layout.load(theirs, model.state_dict(), config.depth)
    model.to_empty(device="cpu")
    model.reset_parameters()  # type: ignore[operator]  # what no checkpoint holds: positions
    model.load_state_dict({**model.state_dict(), **state})
    return model


def export_checkpoint(model: nn.Module, path: Path, *, layout: str) -> None:
    """Writes a model's weights as another library stores them.

    Args:
        model: One of `mudit.models`.
        path: With "diffusers" a folder, which is made; else a file, `.safetensors` or `.pth`.
        layout: "original" or "diffusers".

    Raises:
        UsageError: There is no such layout, that library cannot hold the model, or the file's
            name has another ending.
    """
    config: ModelConfig = model.config  # type: ignore[assignment]
    exchange = _exchange(config, layout)
    theirs = exchange.layout.export(model.state_dict(), config.depth)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in theirs.items()}
    if exchange.config is not None:
        written = json.dumps(exchange.config(config), indent=2) + "\n"
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(written, encoding="utf-8")
        save_file(_unshared(tensors), path / f"{_WEIGHTS}.safetensors", metadata={"format": "pt"})
    elif path.suffix == ".safetensors":
        save_file(_unshared(tensors), path)
    elif path.suffix == ".pth":
        torch.save(tensors, path)
    else:
        raise UsageError(f"{path} ends in {path.suffix!r}; expected .safetensors or .pth.")


def _exchange(config: ModelConfig, layout: str) -> Exchange:
    name = next(name for name, entry in ARCHITECTURES.items() if entry.config is type(config))
    if layout not in EXCHANGES[name]:
        raise UsageError(
            f"{name} has no layout {layout!r}; expected one of {', '.join(EXCHANGES[name])}."
        )
    return EXCHANGES[name][layout]


def _config_of(path: Path) -> ModelConfig:
    if not path.is_dir():
        raise UsageError(f"{path} is one file and holds no config; give one, e.g. a preset.")
    try:
        theirs = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path / 'config.json'} cannot be read: {error}") from None
    name = theirs.get("_class_name")
    found = [exchanges["diffusers"] for exchanges in EXCHANGES.values() if "diffusers" in exchanges]
    readers = [e.read for e in found if e.read is not None and name in e.class_names]
    if not readers:
        known = ", ".join(dict.fromkeys(name for e in found for name in e.class_names))
        raise UsageError(f"{path} holds a model of class {name!r}; expected one of {known}.")
    refusals = []
    for read in readers:  # an old class of diffusers stands for two of ours
        try:
            config: ModelConfig = read(theirs)
        except UsageError as error:
            refusals.append(str(error))
        else:
            return config
    raise UsageError("\n".join(refusals))


def _weights_file(folder: Path) -> Path:
    for name in (
        f"{_WEIGHTS}.safetensors",
        f"{_WEIGHTS}.safetensors.index.json",
        f"{_WEIGHTS}.bin",
    ):
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder} holds no {_WEIGHTS}.safetensors (or .bin).")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.name.endswith(".index.json"):
            parts = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
            files = [path.parent / Path(part).name for part in dict.fromkeys(parts)]
            return {name: tensor for file in files for name, tensor in load_file(file).items()}
        if path.suffix == ".safetensors":
            return load_file(path)
        with _harmless_globals():
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path} holds more than tensors, and what it holds would have to be executed: "
            f"{reason} Save its state dict alone."
        ) from None
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError) as error:
        raise DataError(f"{path} is damaged, or no checkpoint: {error}") from None
    return _state_of(loaded, path)


@contextmanager
def _harmless_globals() -> Iterator[None]:
    # facebookresearch/DiT's training checkpoints hold the command line's options beside the
    # weights: a Namespace has attributes and runs nothing.
    with torch.serialization.safe_globals([argparse.Namespace]):
        yield


def _state_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a file held: itself, or the first of `_NESTED` that is there."""
    if isinstance(loaded, Mapping):
        if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
            return dict(loaded)
        for key in _NESTED:
            if isinstance(loaded.get(key), Mapping):
                return _state_of(loaded[key], path)
    raise DataError(f"{path} holds no state dict, neither itself nor under {', '.join(_NESTED)}.")


def _unshared(tensors: State) -> dict[str, Tensor]:
    # Pieces of a fused tensor share its memory, which safetensors does not write.
    return {name: tensor.clone() for name, tensor in tensors.items()}

"""What exporting needs beyond mudit's own dependencies, imported at first use."""

from __future__ import annotations

import importlib
from typing import Any

from mudit.errors import EnvironmentFailure


def diffusers() -> Any:
    """The library diffusers.

    Raises:
        EnvironmentFailure: It is not installed.
    """
    return _library("diffusers", "diffusers")


def huggingface_hub() -> Any:
    """The library huggingface_hub, which diffusers brings.

    Raises:
        EnvironmentFailure: It is not installed.
    """
    _library("huggingface_hub.utils", "diffusers")  # not an attribute until it is imported
    return _library("huggingface_hub", "diffusers")


def transformers() -> Any:
    """The library transformers.

    Raises:
        EnvironmentFailure: It is not installed.
    """
    return _library("transformers", "text")


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise EnvironmentFailure(
            f"Exporting needs {name.partition('.')[0]}, which is not installed: "
            f"pip install 'mudit[{extra}]'."
        ) from None

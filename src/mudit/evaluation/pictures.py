"""Single pictures as PNG files that say of themselves how they were made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from mudit.errors import DataError

_KEY = "mudit"


def save_picture(image: NDArray[np.uint8], path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a PNG, whole or not at all.

    Its text chunks are `mudit`, the metadata as JSON, and for other programs `Description`, the
    prompt or class, and `Software`.

    Args:
        image: Shape (H, W, 3).
        path: The file.
        metadata: What JSON can hold, with `number`, `prompt` or `class`, and `made_by`, program
            and version.
    """
    # Renamed but not flushed: a part is, and pictures can be made from it again.
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        Image.fromarray(image).save(file, format="PNG", pnginfo=png_text(metadata))
    os.replace(aside, path)


def png_text(metadata: Mapping[str, Any]) -> PngInfo:
    """The text chunks of a PNG; see `save_picture`."""
    info = PngInfo()
    if "number" in metadata:
        info.add_itxt("Description", metadata.get("prompt") or f"class {metadata['class']}")
    info.add_itxt("Software", metadata["made_by"])
    info.add_itxt(_KEY, json.dumps(metadata, ensure_ascii=False))
    return info


def picture_metadata(path: Path) -> dict[str, Any]:
    """How a picture was made: what `save_picture` wrote into it.

    Raises:
        DataError: It is no PNG of `mudit sample`.
    """
    try:
        with Image.open(path) as image:
            image.load()  # text may stand behind the pixels
            text = getattr(image, "text", {})
        found: dict[str, Any] = json.loads(text[_KEY])
    except (OSError, UnidentifiedImageError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} does not say how it was made ({error!r}); expected a PNG of `mudit sample`."
        ) from None
    return found

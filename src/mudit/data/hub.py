"""Captioned images of a Hugging Face data set, from the hub or a local folder."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from mudit.data.captioned import CaptionedImages, Malformed, Row, captioned_splits
from mudit.data.dataset import Splits
from mudit.data.folder import read_image
from mudit.errors import DataError, EnvironmentFailure

_CAPTIONS = ("caption", "text", "prompt", "description")


@dataclass(frozen=True, kw_only=True, eq=False)
class TableImages(CaptionedImages):
    """Captioned images in the rows of a table; `files` are the rows' numbers.

    Attributes:
        table: A `datasets.Dataset` whose images are not decoded by it.
        column: The images' column.
    """

    table: Any
    column: str

    def read(self, index: int) -> Image.Image:
        """One whole image, as RGB; see `CaptionedImages.read`."""
        number = self.files[index]
        cell, name = self.table[int(number)][self.column], f"{self.name}, row {number}"
        if cell["bytes"] is not None:
            return read_image(io.BytesIO(cell["bytes"]), name=name)
        return read_image(Path(cell["path"]), name=name)


def open_table(name: str, *, size: int | None, flip: bool, most_skipped: float) -> Splits:
    """The training split of a Hugging Face data set; a part of it is held out.

    The images' column is found by its type, the captions' by its name (caption, text, prompt,
    description). Captions that are lists of texts give their first.

    Args:
        name: A hub name, or a folder: one that `save_to_disk` wrote, or of Parquet, Arrow or image
            files with a metadata file.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        most_skipped: Share of rows that may be malformed.

    Raises:
        DataError: There is no column of images or of captions, or too many rows are malformed.
        EnvironmentFailure: datasets is not installed, or the hub does not answer.
        UsageError: An option is missing or out of range.
    """
    table = _loaded(name)
    import datasets

    features = table.features
    image = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    caption = next((key for key in _CAPTIONS if key in features), None)
    if image is None or caption is None:
        what = "images" if image is None else f"captions ({', '.join(_CAPTIONS)})"
        columns = ", ".join(f"{key}: {type(kind).__name__}" for key, kind in features.items())
        raise DataError(f"the data set {name} has no column of {what}; it has {columns}.")
    table = table.cast_column(image, datasets.Image(decode=False))
    return captioned_splits(
        _rows(table, image, caption),
        name=Path(name).name,
        root=Path(),
        size=size,
        flip=flip,
        most_skipped=most_skipped,
        make=partial(TableImages, table=table, column=image),
        seal=str(table._fingerprint),
    )


def _rows(table: Any, image: str, caption: str) -> Iterator[Row | Malformed]:
    texts = table.select_columns([caption])
    for number, row in enumerate(texts):
        text = row[caption]
        if isinstance(text, list) and text:
            text = text[0]
        if not isinstance(text, str) or not text.strip():
            yield Malformed(f"row {number}", f"no text in {caption}")
        else:
            yield Row(file=str(number), member="", offset=0, length=0, caption=text.strip())


def _loaded(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise EnvironmentFailure(
            f"hf:{name} needs datasets, which is not installed: pip install 'mudit[data]'."
        ) from None
    folder = Path(name).expanduser()
    try:
        if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder) if folder.is_dir() else name)
    except Exception as error:  # of many kinds: hub, network, builders, Arrow
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise EnvironmentFailure(
            f"the data set {name} cannot be loaded ({first}). If the hub cannot be reached, fetch "
            "it elsewhere, `save_to_disk` it, and give that folder: hf:data/NAME."
        ) from None
    if isinstance(found, datasets.DatasetDict):
        return found["train"] if "train" in found else next(iter(found.values()))
    return found

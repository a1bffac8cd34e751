"""Captioned images of a Hugging Face data set, from the hub or a local folder."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from mudit.data.captioned import CaptionedImages, Malformed, Row, captioned_splits
from mudit.data.dataset import Splits
from mudit.data.images import checked_size, read_picture
from mudit.data.tars import caption_in
from mudit.errors import DataError, EnvironmentFailure

_CAPTIONS = ("caption", "text", "prompt", "description", "captions")
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class TableImages(CaptionedImages):
    """Captioned images in the rows of a table; `files` are the rows' numbers.

    Attributes:
        table: A `datasets.Dataset` with the images' column alone, which it does not decode.
        column: The images' column.
    """

    table: Any
    column: str

    def read(self, index: int) -> Image.Image:
        """One whole image, as RGB; see `CaptionedImages.read`."""
        number = self.files[index]
        cell, name = self.table[int(number)][self.column], f"{self.name}, row {number}"
        if cell["bytes"] is not None:
            return read_picture(io.BytesIO(cell["bytes"]), name=name)
        return read_picture(Path(cell["path"]), name=f"{name} ({cell['path']})")


def open_table(source: str, *, size: int | None, flip: bool, most_skipped: float) -> Splits:
    """The training split of a Hugging Face data set; a part of it is held out, as elsewhere.

    The images' column is the first of that type, the captions' is found by its name (caption,
    text, prompt, description). Of captions that are lists of texts, the first counts.

    Args:
        source: A hub name, or a folder: one that `save_to_disk` wrote, or one of Parquet, Arrow or
            image files with a metadata file.
        size: Side to which images are scaled and cropped, pixels.
        flip: Whether training should mirror images.
        most_skipped: Share of rows that may be malformed.

    Raises:
        DataError: The folder cannot be read, there is no column of images or of captions, or too
            many rows are malformed.
        EnvironmentFailure: datasets is not installed, or the hub does not answer.
        UsageError: An option is missing or out of range.
    """
    spec = f"hf:{source}"
    checked_size(spec, size)  # before anything is fetched
    table = _loaded(source)
    image, caption = _columns(spec, table)
    import datasets

    table = table.select_columns([image, caption])
    table = table.cast_column(image, datasets.Image(decode=False))
    return captioned_splits(
        _rows(table, image, caption),
        spec=spec,
        name=Path(source).name,
        root=Path(),
        size=size,
        flip=flip,
        most_skipped=most_skipped,
        make=partial(TableImages, table=table.select_columns([image]), column=image),
    )


def _columns(spec: str, table: Any) -> tuple[str, str]:
    import datasets

    features = table.features
    image = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    caption = next((key for key in _CAPTIONS if key in features), None)
    if image is None or caption is None:
        columns = ", ".join(f"{key} ({type(kind).__name__})" for key, kind in features.items())
        raise DataError(
            f"the data set {spec} has the columns {columns}; expected one of type Image, and one "
            f"of captions that is called {', '.join(_CAPTIONS[:-1])}. Rename or cast a column and "
            "save it with `save_to_disk`."
        )
    return image, caption


def _rows(table: Any, image: str, caption: str) -> Iterator[Row | Malformed]:
    """Images are looked at as Arrow keeps them: how long they are, not what they hold."""
    import pyarrow.compute as pc

    number = 0
    for batch in table.with_format("arrow").iter(_ROWS_AT_ONCE):
        images = batch[image].combine_chunks() if batch.num_rows else batch[image]
        lengths = pc.binary_length(pc.struct_field(images, "bytes")).to_pylist()
        paths = pc.struct_field(images, "path").to_pylist()
        for length, path, text in zip(lengths, paths, batch[caption].to_pylist()):
            found = caption_in({caption: text}, (caption,))
            if length is None and path is not None:
                length = os.path.getsize(path) if os.path.isfile(path) else 0
            if not length:
                yield Malformed(f"row {number}", f"no image in {image}")
            elif not found:
                yield Malformed(f"row {number}", f"no text in {caption}")
            else:
                yield Row(str(number), "", 0, length, found)
            number += 1


def _loaded(source: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise EnvironmentFailure(
            f"hf:{source} needs datasets, which is not installed: pip install 'mudit[data]'."
        ) from None
    folder = Path(source).expanduser()
    saved = any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))
    try:
        found = (
            datasets.load_from_disk(str(folder))
            if saved
            else datasets.load_dataset(str(folder) if folder.is_dir() else source)
        )
    except Exception as error:  # of many kinds: hub, network, builders, Arrow
        what = f"({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        if folder.is_dir():
            raise DataError(
                f"the folder {folder} cannot be read as a data set {what}; expected one that "
                "`save_to_disk` wrote, or Parquet, Arrow or image files with a metadata file. "
                "Mend it."
            ) from error
        raise EnvironmentFailure(
            f"the data set hf:{source} cannot be loaded {what}: there is no such folder, and the "
            "hub does not give it. Give a local folder: where the hub can be reached, "
            f"`datasets.load_dataset({source!r}).save_to_disk({folder.name!r})`; copy it here; "
            f"then hf:{folder.name}."
        ) from error
    if isinstance(found, datasets.DatasetDict):
        return found["train"] if "train" in found else next(iter(found.values()))
    return found

"""Images of any source, encoded by a VAE once: the folder that `latents:FOLDER` opens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mudit.data.autoencoder import Autoencoder
from mudit.data.dataset import ImageDataset, Splits
from mudit.data.latents import KIND, NAMES, LatentDataset, LatentSpace
from mudit.data.store import Column, Layout, rows_for_shards, write_store
from mudit.data.strings import Strings, texts_digest
from mudit.data.text import caption_groups
from mudit.errors import DataError, UsageError

StoredDtype: TypeAlias = Literal["float32", "float16"]
Array = npt.NDArray[Any]


class Encoded(NamedTuple):
    """What `encode_latents` did.

    Attributes:
        rows: Images in the folder.
        shards: Shards that were written now.
        space: What the latents are.
    """

    rows: int
    shards: int
    space: LatentSpace


def encode_latents(
    splits: Splits,
    vae: Autoencoder,
    out: Path,
    *,
    source: str,
    flipped: bool = True,
    keep_images: bool = False,
    dtype: StoredDtype = "float32",
    batch_size: int = 16,
    shard_rows: int = 0,
    scale: float | None = None,
    shift: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Write the posteriors of all images, the training ones first; or what is left of them.

    Args:
        splits: The images.
        vae: What encodes them.
        out: The folder.
        source: What the user called the data.
        flipped: Whether to encode the mirrored images, too.
        keep_images: Whether to keep the images, as bytes.
        dtype: Of the stored means and deviations.
        batch_size: Images encoded at once.
        shard_rows: Images in a shard; 0: as make 64 MiB.
        scale: What latents are multiplied by in training; None: the VAE's scaling_factor.
        shift: What is subtracted before that; None: the VAE's shift_factor.
        on_progress: Told (images done, images in all).

    Raises:
        ConfigMismatchError: The folder holds latents of something else.
        DataError: An image cannot be read, or the VAE gives what is not finite in `dtype`.
        EnvironmentFailure: The disk is full.
        UsageError: The data are latents, or the images do not suit the VAE.
    """
    train = splits.train
    if isinstance(train, LatentDataset):
        raise UsageError(f"--source {source} holds latents already. Give the images.")
    if batch_size < 1 or shard_rows < 0:
        raise UsageError(
            f"--batch_size is {batch_size} and --shard_rows {shard_rows}, expected ≥ 1 and ≥ 0."
        )
    writer = _Writer(splits, vae, flipped=flipped, keep_images=keep_images, dtype=dtype)
    columns = writer.columns()
    space = LatentSpace(
        vae=vae.name,
        vae_hash=vae.hash,
        scale=vae.scale if scale is None else scale,
        shift=vae.shift if shift is None else shift,
        image_size=train.size,
        preprocessing=_preprocessing(source, train),
    )
    layout = Layout(
        kind=KIND,
        facts={
            **dataclasses.asdict(space),
            "name": train.name,
            "source": source,
            "source_fingerprint": splits.fingerprint,
            "flip": train.flip,
            "captioned": train.captioned,
            "names": texts_digest(train.class_names),
            "held_out": splits.validation.num_samples,
        },
        columns=columns,
        num_rows=writer.num_rows,
        shard_rows=shard_rows or rows_for_shards(columns),
    )

    def produce(start: int, stop: int) -> Mapping[str, Array]:
        batches = [
            writer.rows(first, min(stop, first + batch_size), on_progress)
            for first in range(start, stop, batch_size)
        ]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in columns}

    def write_names() -> None:
        if not (out / NAMES).exists():
            Strings(train.class_names).save(out / NAMES)

    shards = write_store(out, layout, produce, extra=write_names, on_progress=on_progress)
    return Encoded(writer.num_rows, shards, space)


class _Writer:
    """From numbers of rows to what is stored of them."""

    def __init__(
        self, splits: Splits, vae: Autoencoder, *, flipped: bool, keep_images: bool, dtype: str
    ) -> None:
        self._splits, self._vae, self._dtype = splits, vae, np.dtype(dtype)
        self._flipped, self._keep_images = flipped, keep_images
        self._groups = caption_groups(splits.train) if splits.train.captioned else None
        self.num_rows = splits.train.num_samples + splits.validation.num_samples

    def columns(self) -> dict[str, Column]:
        """Of the store; encodes one image."""
        first = self.rows(0, 1, None)
        return {name: Column(dtype=str(a.dtype), shape=a.shape[1:]) for name, a in first.items()}

    def rows(
        self, start: int, stop: int, on_progress: Callable[[int, int], None] | None
    ) -> dict[str, Array]:
        images, labels = self._images(start, stop)
        found: dict[str, Array] = dict(self._posterior(images, "", start))
        if self._flipped:
            found |= self._posterior(images.flip(-1), "_flipped", start)
        found["label"] = labels
        if self._groups is not None:
            found["group"] = self._groups[labels]
        if self._keep_images:
            # `to_unit` backwards; digits have 17 levels, so it is exact to half a level of 256.
            pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            found["image"] = pixels.expand(-1, self._vae.colours, -1, -1).numpy()
        if on_progress is not None:
            on_progress(stop, self.num_rows)
        return found

    def _images(self, start: int, stop: int) -> tuple[Tensor, npt.NDArray[np.int64]]:
        """Rows of both splits: the training ones first."""
        count = self._splits.train.num_samples
        parts: list[tuple[ImageDataset, int, int]] = [
            (self._splits.train, start, min(stop, count)),
            (self._splits.validation, max(start, count) - count, stop - count),
        ]
        read = [
            dataset.batch(np.arange(first, last, dtype=np.int64))
            for dataset, first, last in parts
            if last > first
        ]
        return torch.cat([i for i, _ in read]), torch.cat([y for _, y in read]).numpy()

    def _posterior(self, images: Tensor, suffix: str, start: int) -> Iterator[tuple[str, Array]]:
        for name, values in self._vae.encode(images)._asdict().items():
            with np.errstate(over="ignore"):  # what becomes infinite is refused below
                stored: Array = values.numpy().astype(self._dtype)
            if not np.isfinite(stored).all():
                row = start + int(np.flatnonzero(~np.isfinite(stored).all(axis=(1, 2, 3)))[0])
                raise DataError(
                    f"the VAE {self._vae.name} gives a {name} for image {row} that is not finite "
                    f"in {self._dtype}. Take --dtype float32, or another VAE."
                )
            yield f"{name}{suffix}", stored


def _preprocessing(source: str, train: ImageDataset) -> str:
    kind = source.partition(":")[0]
    crop = "as they are" if kind in ("digits", "idx") else "scaled and centre-cropped as in [ADM]"
    return f"{train.size}x{train.size} pixels, {crop}, values in [-1, 1]"

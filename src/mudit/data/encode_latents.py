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
from mudit.data.captioned import EXAMPLES, Malformed, check_most_skipped, shown_row
from mudit.data.dataset import ImageDataset, Skipped, Splits
from mudit.data.latents import KIND, NAMES, LatentDataset, LatentSpace, none_left
from mudit.data.store import Column, Layout, rows_for_shards, write_store
from mudit.data.strings import Strings, texts_digest
from mudit.data.text import caption_groups, labels_of
from mudit.errors import BrokenImageError, DataError, UsageError

StoredDtype: TypeAlias = Literal["float32", "float16"]
Array = npt.NDArray[Any]


class Encoded(NamedTuple):
    """What `encode_latents` did.

    Attributes:
        rows: Images in the folder.
        shards: Shards that were written now.
        space: What the latents are.
        skipped: Images that could not be decoded.
    """

    rows: int
    shards: int
    space: LatentSpace
    skipped: Skipped


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
    most_skipped: float = 0.01,
    on_progress: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Write the posteriors of all images, the training ones first; or what is left of them.

    An image that cannot be decoded is skipped: its row holds zeros, and no data set sees it.

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
        most_skipped: Share of rows that may be malformed or hold such images.
        on_progress: Told (images done, images in all).

    Raises:
        ConfigMismatchError: The folder holds latents of something else.
        DataError: Too many images cannot be decoded, one cannot be read, or the VAE gives what is
            not finite in `dtype`.
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
    check_most_skipped(most_skipped)
    skips = _Skips(splits, source, most_skipped)
    writer = _Writer(splits, vae, skips, flipped=flipped, keep_images=keep_images, dtype=dtype)
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

    shards = write_store(
        out, layout, produce, extra=write_names, skipped=skips.rows, on_progress=on_progress
    )
    skips.check()
    skips.check_parts()
    return Encoded(writer.num_rows - len(skips.rows), shards, space, skips.told())


class _Skips:
    """Rows whose images cannot be decoded, up to a share of all, malformed ones included."""

    def __init__(self, splits: Splits, source: str, most: float) -> None:
        self._malformed, self._source, self._most = splits.skipped, source, most
        self._parts = (splits.train.num_samples, splits.validation.num_samples)
        self.rows: dict[int, str] = {}

    def add(self, row: int, error: BrokenImageError) -> None:
        """One more; DataError if that is too many."""
        self.rows[row] = shown_row(Malformed(error.name, error.why))
        self.check()

    def told(self) -> Skipped:
        """How many, and the first."""
        first = tuple(self.rows[row] for row in sorted(self.rows)[:EXAMPLES])
        what = "images that cannot be decoded and"
        return Skipped(count=len(self.rows), examples=first, what=what)

    def check(self) -> None:
        """Raises DataError if there are too many."""
        malformed, broken = self._malformed.count, len(self.rows)
        total = malformed + sum(self._parts)
        if malformed + broken <= self._most * total:
            return
        shown = "; ".join((self.told().examples + self._malformed.examples)[:EXAMPLES])
        raise DataError(
            f"of the {total} rows of {self._source} {malformed} are malformed, and so far {broken} "
            f"hold images that cannot be decoded; expected at most the share {self._most:g} of "
            f"both (--most_skipped). The first: {shown}. Allow more, and the same command goes on "
            "where it stopped; or mend the data, which are other data then and need another --out."
        )

    def check_parts(self) -> None:
        """Raises DataError if nothing is left to train on, or of what is held out."""
        train, held_out = self._parts
        lost = sum(row < train for row in self.rows)
        for count, gone in ((train, lost), (held_out, len(self.rows) - lost)):
            if count and gone == count:
                raise DataError(none_left(self._source, count))


class _Writer:
    """From numbers of rows to what is stored of them."""

    def __init__(
        self,
        splits: Splits,
        vae: Autoencoder,
        skips: _Skips,
        *,
        flipped: bool,
        keep_images: bool,
        dtype: str,
    ) -> None:
        self._splits, self._vae, self._dtype = splits, vae, np.dtype(dtype)
        self._skips = skips
        self._flipped, self._keep_images = flipped, keep_images
        self._groups = caption_groups(splits.train) if splits.train.captioned else None
        self.num_rows = splits.train.num_samples + splits.validation.num_samples

    def columns(self) -> dict[str, Column]:
        """Of the store; encodes one image."""
        first = self.rows(0, 1, None)
        self._skips.rows.clear()  # whether the first is skipped is its shard's to say
        return {name: Column(dtype=str(a.dtype), shape=a.shape[1:]) for name, a in first.items()}

    def rows(
        self, start: int, stop: int, on_progress: Callable[[int, int], None] | None
    ) -> dict[str, Array]:
        images, labels, broken = self._images(start, stop)
        found: dict[str, Array] = dict(self._posterior(images, "", start, broken))
        if self._flipped:
            found |= self._posterior(images.flip(-1), "_flipped", start, broken)
        found["label"] = labels
        if self._groups is not None:
            found["group"] = self._groups[labels]
        if self._keep_images:
            # `to_unit` backwards; digits have 17 levels, so it is exact to half a level of 256.
            pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            pixels[broken] = 0
            found["image"] = pixels.expand(-1, self._vae.colours, -1, -1).numpy()
        if on_progress is not None:
            on_progress(stop, self.num_rows)
        return found

    def _images(self, start: int, stop: int) -> tuple[Tensor, npt.NDArray[np.int64], list[int]]:
        """Images and labels of rows of both splits, the training ones first; and which are broken.

        A broken one has zeros in its place, so that a batch is encoded with as many images.
        """
        count = self._splits.train.num_samples
        parts: list[tuple[ImageDataset, int, int]] = [
            (self._splits.train, start, min(stop, count)),
            (self._splits.validation, max(start, count) - count, stop - count),
        ]
        images, labels, broken = list[Tensor](), [], list[int]()
        for dataset, first, last in parts:
            if last > first:
                labels.append(labels_of(dataset)[first:last])
                for image in _decoded(dataset, first, last):
                    row = start + len(images)
                    if isinstance(image, BrokenImageError):
                        self._skips.add(row, image)
                        broken.append(len(images))
                        image = torch.zeros(dataset.channels, dataset.size, dataset.size)
                    images.append(image)
        return torch.stack(images), np.concatenate(labels), broken

    def _posterior(
        self, images: Tensor, suffix: str, start: int, broken: list[int]
    ) -> Iterator[tuple[str, Array]]:
        for name, values in self._vae.encode(images)._asdict().items():
            with np.errstate(over="ignore"):  # what becomes infinite is refused below
                stored: Array = values.numpy().astype(self._dtype)
            stored[broken] = 0
            if not np.isfinite(stored).all():
                row = start + int(np.flatnonzero(~np.isfinite(stored).all(axis=(1, 2, 3)))[0])
                raise DataError(
                    f"the VAE {self._vae.name} gives a {name} for image {row} that is not finite "
                    f"in {self._dtype}. Take --dtype float32, or another VAE."
                )
            yield f"{name}{suffix}", stored


def _decoded(dataset: ImageDataset, first: int, last: int) -> Iterator[Tensor | BrokenImageError]:
    """Images, at once if none is broken, else one by one."""
    try:
        yield from dataset.batch(np.arange(first, last, dtype=np.int64))[0]
    except BrokenImageError:
        for index in range(first, last):
            try:
                yield dataset.batch(np.array([index], dtype=np.int64))[0][0]
            except BrokenImageError as error:
                yield error


def _preprocessing(source: str, train: ImageDataset) -> str:
    kind = source.partition(":")[0]
    crop = "as they are" if kind in ("digits", "idx") else "scaled and centre-cropped as in [ADM]"
    return f"{train.size}x{train.size} pixels, {crop}, values in [-1, 1]"

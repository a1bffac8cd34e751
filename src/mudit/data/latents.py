"""Latents of images: posteriors that were stored once, from which each batch draws anew."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mudit.data.autoencoder import autoencoder_hash
from mudit.data.dataset import (
    Flips,
    ImageDataset,
    Indices,
    Splits,
    check_batch,
    mirrored,
    to_unit,
)
from mudit.data.gaps import Gaps, TextsLeft
from mudit.data.store import Column, Store
from mudit.data.strings import MappedStrings
from mudit.errors import DataError, UsageError

KIND = "latents"
NAMES = "names.safetensors"  # of classes, or the captions

_LEAST_HASH = 8  # hex digits by which `data.vae` may name a VAE


Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """What a model's latents are: (z - shift)·scale, z from the posterior of a VAE.

    Attributes:
        vae: Folder or hub name of the AutoencoderKL.
        vae_hash: SHA-256 of its weights and config, hex.
        scale: SD's VAE has 0.18215, SD3's 1.5305.
        shift: SD's VAE has none, 0; SD3's 0.0609.
        image_size: Side of the images that were encoded, pixels.
        preprocessing: What was done to them, in words.
    """

    vae: str
    vae_hash: str
    scale: float
    shift: float
    image_size: int
    preprocessing: str


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentDataset:
    """Some rows of a store of latents; a batch is a draw from their posteriors.

    Rows whose images could not be decoded are in the store alone: neither they nor captions that
    no other image has are numbered here.

    Attributes:
        name: What to call it.
        store: The rows.
        space: What the latents are.
        first: The first of its rows.
        num_samples: How many.
        class_names: A name for each label; where `captioned`, the distinct captions.
        captioned: Whether labels number captions.
        flip: Whether training should mirror images.
        fingerprint: SHA-256 of what the store holds and which part of it this is.
        row_gaps: Rows of this part that are skipped, counted from its first.
        caption_gaps: Captions that only skipped images have.
    """

    name: str
    store: Store
    space: LatentSpace
    first: int
    num_samples: int
    class_names: Sequence[str]
    captioned: bool
    flip: bool
    fingerprint: str
    row_gaps: Gaps
    caption_gaps: Gaps

    @property
    def num_classes(self) -> int:
        """Number of classes, or of distinct captions."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return self._mean.shape[0]

    @property
    def size(self) -> int:
        """Side of a latent."""
        return self._mean.shape[1]

    @cached_property
    def labels(self) -> Labels:
        """The label of each latent, shape (N,)."""
        stop = self.first + self.num_samples + len(self.row_gaps.gone)
        labels = self.row_gaps.left(self.store.span("label", self.first, stop))
        return self.caption_gaps.closed(labels)

    def rows_of(self, indices: Indices) -> Indices:
        """The store's rows of samples, shape (B,)."""
        return self.row_gaps.opened(indices) + self.first

    def labels_in(self, rows: Indices) -> Int[Tensor, " batch"]:
        """Labels of some of the store's rows, shape (B,)."""
        return torch.from_numpy(self.caption_gaps.closed(self.store.rows("label", rows)))

    @cached_property
    def groups(self) -> Labels | None:
        """The group of each caption, by number, shape (K,); None where labels are classes."""
        if "group" not in self.store.layout.columns:
            return None
        rows, count = self.store.layout.num_rows, self.num_classes + len(self.caption_gaps.gone)
        groups: Labels = np.empty(count, dtype=np.int64)
        groups[self.store.span("label", 0, rows)] = self.store.span("group", 0, rows)
        return self.caption_gaps.left(groups)

    @property
    def _mean(self) -> Column:
        return self.store.layout.columns["mean"]

    def batch(
        self,
        indices: Indices,
        flips: Flips | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch channels size size"], Int[Tensor, " batch"]]:
        """(mean + std·noise - shift)·scale and labels; see `ImageDataset.batch`.

        Args:
            indices: Which, shape (B,).
            flips: Where to take the posterior of the mirrored image, shape (B,); None: nowhere.
            generator: Of the noise, a fresh one for each call of a training step; None: no noise,
                the mean.
        """
        check_batch(indices, flips, self.num_samples)
        rows = self.rows_of(indices)
        mean = self._either("mean", rows, flips)
        if generator is not None:
            std = self._either("std", rows, flips)
            mean = mean + std * torch.randn(mean.shape, generator=generator)
        x0 = (mean - self.space.shift) * self.space.scale
        return x0, self.labels_in(rows)

    def _either(self, name: str, rows: Indices, flips: Flips | None) -> Tensor:
        """float32 of the images or, where `flips`, of the mirrored ones."""
        if flips is None or not flips.any():
            return torch.from_numpy(self.store.rows(name, rows)).float()
        twin = f"{name}_flipped"
        if twin not in self.store.layout.columns:
            raise UsageError(_no_twin(self.store.folder))
        found = np.empty((len(rows), *self._mean.shape), dtype=np.float32)
        found[~flips] = self.store.rows(name, rows[~flips])
        found[flips] = self.store.rows(twin, rows[flips])
        return torch.from_numpy(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagesOfLatents:
    """The images behind latents, by the same indices; a subclass says how a batch is had.

    Attributes:
        latents: The data set that they belong to.
    """

    latents: LatentDataset

    @property
    def name(self) -> str:
        """What to call it."""
        return self.latents.name

    @property
    def num_samples(self) -> int:
        """Number of images."""
        return self.latents.num_samples

    @property
    def num_classes(self) -> int:
        """Number of classes, or of distinct captions."""
        return self.latents.num_classes

    @property
    def class_names(self) -> Sequence[str]:
        """A name for each label."""
        return self.latents.class_names

    @property
    def captioned(self) -> bool:
        """Whether labels number captions."""
        return self.latents.captioned

    @property
    def labels(self) -> Labels:
        """As those of the latents."""
        return self.latents.labels

    @property
    def groups(self) -> Labels | None:
        """As those of the latents."""
        return self.latents.groups

    @property
    def size(self) -> int:
        """Side of an image, pixels."""
        return self.latents.space.image_size

    @property
    def flip(self) -> bool:
        """As that of the latents."""
        return self.latents.flip

    @property
    def fingerprint(self) -> str:
        """As that of the latents."""
        return self.latents.fingerprint


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptImages(ImagesOfLatents):
    """Those that were stored beside them."""

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.latents.store.layout.columns["image"].shape[0]

    def batch(
        self,
        indices: Indices,
        flips: Flips | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch channels size size"], Int[Tensor, " batch"]]:
        """Images and labels; see `ImageDataset.batch`."""
        check_batch(indices, flips, self.num_samples)
        rows = self.latents.rows_of(indices)
        images = mirrored(to_unit(self.latents.store.rows("image", rows)), flips)
        return images, self.latents.labels_in(rows)


def latent_space(dataset: ImageDataset) -> LatentSpace | None:
    """What the data are latents of; None: they are images."""
    return dataset.space if isinstance(dataset, LatentDataset) else None


def keeps_images(dataset: ImageDataset) -> bool:
    """Whether they are latents with their images beside them."""
    return isinstance(dataset, LatentDataset) and "image" in dataset.store.layout.columns


def images_of(dataset: ImageDataset) -> ImageDataset:
    """The images behind a data set, by the same indices: itself, or those kept beside latents.

    Raises:
        DataError: They are latents whose images were not kept.
    """
    if not isinstance(dataset, LatentDataset):
        return dataset
    if not keeps_images(dataset):
        raise DataError(
            f"{dataset.store.folder} holds latents without their images, which repa.encoder has "
            "to see. Make the folder with `mudit data latents --keep_images true`, or leave "
            "repa.encoder at none."
        )
    return KeptImages(latents=dataset)


def open_latents(
    path: str, *, size: int | None = None, flip: bool | None = None, vae: str = ""
) -> Splits:
    """The training and the held-out latents in a folder that `mudit data latents` wrote.

    Args:
        path: The folder.
        size: Side of the images that they should be latents of, pixels; None: any.
        flip: Whether training should mirror images; None: as the images' source does.
        vae: The VAE that they should be of: the hub's name or the folder that they were encoded
            with, a folder with the same weights, or the first digits of its hash; empty: any.

    Raises:
        DataError: The folder is missing, not finished or damaged, or of another VAE or size.
        EnvironmentFailure: diffusers is not installed, and `vae` is a folder.
        UsageError: Mirrored latents are asked for and were not stored.
    """
    folder = Path(path).expanduser()
    store = Store.open(folder, kind=KIND)
    facts = dict(store.layout.facts)
    space = LatentSpace(
        **{field.name: facts[field.name] for field in dataclasses.fields(LatentSpace)}
    )
    if size is not None and size != space.image_size:
        raise DataError(
            f"{folder} holds latents of images of {space.image_size} pixels a side, and data.size "
            f"is {size}. Correct data.size, or make latents of that size with `mudit data latents`."
        )
    _check_vae(folder, space, vae)
    wanted = facts["flip"] if flip is None else flip
    if wanted and "mean_flipped" not in store.layout.columns:
        if flip:
            raise UsageError(_no_twin(folder))
        wanted = False
    names = MappedStrings(folder / NAMES)
    if names.digest != facts["names"]:
        raise DataError(
            f"{folder / NAMES} is not of these latents: its texts have the SHA-256 {names.digest}, "
            f"and the header says {facts['names']}. Delete it and repeat the `mudit data latents` "
            "command."
        )
    held_out = facts["held_out"]
    captions = _caption_gaps(store) if facts["captioned"] else Gaps()

    def part(first: int, count: int, flip: bool) -> LatentDataset:
        about = f"{store.layout.digest} {first} {count}"
        gone = store.skipped[(store.skipped >= first) & (store.skipped < first + count)] - first
        if len(store.skipped):
            about += f" without {store.skipped.tolist()}"
        if count and len(gone) == count:
            raise DataError(none_left(str(folder), count))
        return LatentDataset(
            name=f"{facts['name']}, latents of {space.vae} in {store.layout.columns['mean'].dtype}",
            store=store,
            space=space,
            first=first,
            num_samples=count - len(gone),
            class_names=_texts(names, captions) if facts["captioned"] else tuple(names),
            captioned=facts["captioned"],
            flip=flip,
            fingerprint=hashlib.sha256(about.encode()).hexdigest(),
            row_gaps=Gaps(gone),
            caption_gaps=captions,
        )

    count = store.layout.num_rows - held_out
    return Splits(train=part(0, count, wanted), validation=part(count, held_out, False))


def none_left(name: str, count: int) -> str:
    """In words, that all images of a part were skipped."""
    return (
        f"none of the {count} images of a part of {name}, those to train on or those held out, "
        "could be decoded; expected at least one of each. Make the latents of more images, in "
        "another folder."
    )


def _caption_gaps(store: Store) -> Gaps:
    """Captions that only skipped rows have."""
    if not len(store.skipped):
        return Gaps()
    gone = np.unique(store.rows("label", store.skipped))
    left = np.delete(store.span("label", 0, store.layout.num_rows), store.skipped)
    return Gaps(gone[~np.isin(gone, left)])


def _texts(names: MappedStrings, gaps: Gaps) -> Sequence[str]:
    return TextsLeft(names, gaps) if len(gaps.gone) else names


def check_space(expected: LatentSpace | None, dataset: ImageDataset) -> None:
    """Refuse latents that are not what a config names.

    Raises:
        DataError: They differ; the message has both.
    """
    found = latent_space(dataset)
    if expected is None or expected == found:
        return
    if found is None:
        raise DataError(
            f"data.latents says that {dataset.name} are latents of {expected.vae}, but they are "
            "images. Correct data.source."
        )
    there, here = dataclasses.asdict(found), dataclasses.asdict(expected)
    shown = "; ".join(
        f"{name} is {there[name]!r} there and {here[name]!r} in data.latents"
        for name in there
        if there[name] != here[name]
    )
    raise DataError(
        f"the latents of {dataset.name} are not what the config names: {shown}. Restore the "
        "folder, or begin a new study in another folder with --folder."
    )


def _check_vae(folder: Path, space: LatentSpace, vae: str) -> None:
    if not vae:
        return
    place = Path(vae).expanduser()
    if place.is_dir():
        found = autoencoder_hash(place.resolve())
    elif vae == space.vae or (len(vae) >= _LEAST_HASH and space.vae_hash.startswith(vae)):
        return
    else:
        found = ""
    if found != space.vae_hash:
        shown = f" (hash {found[:12]})" if found else ""
        raise DataError(
            f"{folder} holds latents of the VAE {space.vae} (hash {space.vae_hash[:12]}), and "
            f"data.vae is {vae}{shown}. Correct data.vae (a folder with the same weights, or the "
            "first digits of the hash, will do), or encode the images again."
        )


def _no_twin(folder: Path) -> str:
    return (
        f"{folder} holds no latents of mirrored images, and data.flip is true. Leave data.flip "
        "out, or make the folder with `mudit data latents --flipped true`."
    )

"""From what a model makes to pictures: bytes at once for a model of pixels, by the VAE for latents.

The only place that decodes: samples, the real images beside them, and what a classifier is shown.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mudit.data import (
    Autoencoder,
    ImageDataset,
    ImagesOfLatents,
    LatentDataset,
    LatentSpace,
    images_of,
    keeps_images,
    open_autoencoder,
)
from mudit.diffusion import to_uint8
from mudit.errors import UsageError
from mudit.training import DataConfig, resolve_device

# (N, C, H, W) in a model's data space → uint8 (N, H, W, C)
Decode: TypeAlias = Callable[[Tensor], NDArray[np.uint8]]

_BATCH_SIZE = 8


def as_images(x: Tensor) -> NDArray[np.uint8]:
    """uint8 images of shape (N, H, W, C) from values in [-1, 1], (N, C, H, W)."""
    pixels: NDArray[np.uint8] = to_uint8(x).permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def open_decoder(data: DataConfig, *, vae: str = "", device: str = "auto") -> Decode:
    """What makes pictures of a run's samples.

    Bytes are trunc(clamp(127.5 x + 128, 0, 255)), [DiT] code; latents are x / scale + shift before
    the VAE decodes them.

    Args:
        data: The run's, which names what its latents are, if they are some.
        vae: For a run on latents, another folder or hub name of the same VAE.
        device: Where the VAE works.

    Raises:
        DataError: The folder holds no VAE.
        EnvironmentFailure: diffusers is not installed, or the hub does not give the VAE.
        UsageError: It is not the VAE that the latents were encoded by, or the run is on pixels and
            a VAE is named.
    """
    if data.latents is None:
        if vae:
            raise UsageError(
                f"the run was trained on the pixels of {data.source}, which no VAE has to decode. "
                "Leave out --vae."
            )
        return as_images
    autoencoder = decoder_of(data.latents, vae or _expected(data), device=device)
    space = data.latents
    return lambda x: as_images(decoded(autoencoder, space, x))


def check_decoder(data: DataConfig) -> None:
    """Refuse, before a study begins, what `open_decoder` will refuse at its end."""
    open_decoder(data, device="cpu")
    _opened.cache_clear()  # a study holds no VAE while it trains


def decoder_of(space: LatentSpace, vae: str = "", *, device: str = "auto") -> Autoencoder:
    """The VAE of some latents, its hash compared; see `open_decoder`."""
    source = vae or space.vae
    found = _opened(source, device)
    if found.hash != space.vae_hash:
        raise UsageError(
            f"the VAE {source} has the hash {found.hash[:12]}, but the latents were encoded by "
            f"{space.vae} with the hash {space.vae_hash[:12]}: pictures would be wrong. Give that "
            "one, in a folder, with --vae."
        )
    return found


def decoded(
    vae: Autoencoder, space: LatentSpace, x: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch colours size size"]:
    """Images, in [-1, 1] or nearly, of a model's latents."""
    z = x.float() / space.scale + space.shift
    parts = [vae.decode(z[at : at + _BATCH_SIZE]) for at in range(0, len(z), _BATCH_SIZE)]
    return torch.cat(parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedImages(ImagesOfLatents):
    """What the posteriors' means show.

    Attributes:
        vae: What decodes them.
    """

    vae: Autoencoder

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.vae.colours

    def batch(
        self,
        indices: NDArray[np.int64],
        flips: NDArray[np.bool_] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "batch colours size size"], Int[Tensor, " batch"]]:
        """Images and labels; see `ImageDataset.batch`."""
        x, labels = self.latents.batch(indices, flips)
        return decoded(self.vae, self.latents.space, x).clamp(-1, 1), labels


def pictures_of(
    dataset: ImageDataset, data: DataConfig, *, device: str = "auto", kept: bool = False
) -> ImageDataset:
    """The pictures of a data set, by the same indices.

    Args:
        dataset: Images or latents.
        data: Its config, which may name where the VAE is.
        device: Where the VAE works.
        kept: Whether to take the images that were kept beside latents, where they were. What is
            decoded has been through what samples go through, but takes long.

    Raises:
        MuditError: As `open_decoder`.
    """
    if not isinstance(dataset, LatentDataset):
        return dataset
    if kept and keeps_images(dataset):
        return images_of(dataset)
    vae = decoder_of(dataset.space, _expected(data), device=device)
    return DecodedImages(latents=dataset, vae=vae)


def _expected(data: DataConfig) -> str:
    """`data.vae`, if it is where a VAE is and not its hash."""
    hashed = data.latents is not None and data.latents.vae_hash.startswith(data.vae)
    return "" if hashed else data.vae


@functools.lru_cache(maxsize=2)
def _opened(source: str, device: str) -> Autoencoder:
    return open_autoencoder(source, device=resolve_device(device))

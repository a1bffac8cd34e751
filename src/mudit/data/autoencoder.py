"""A frozen AutoencoderKL of diffusers: images to the posterior of their latents, and back."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mudit.errors import DataError, EnvironmentFailure, UsageError

# What of its config decides what it computes; versions of diffusers add keys, so no others count.
_CONFIG = (
    "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels",
    "layers_per_block", "act_fn", "latent_channels", "norm_num_groups", "scaling_factor",
)  # fmt: skip


class Posterior(NamedTuple):
    """The normal distribution of each image's latent.

    Attributes:
        mean: Shape (B, C, H, W).
        std: Likewise.
    """

    mean: Float[Tensor, "batch channels height width"]
    std: Float[Tensor, "batch channels height width"]


class Autoencoder:
    """An AutoencoderKL in float32 that is not trained.

    Args:
        name: What the user calls it.
        model: Of diffusers.
        device: Where it works.

    Attributes:
        name: What the user calls it.
        hash: SHA-256 of its weights and of what of its config decides what it computes, hex; the
            same from a folder or the hub, from safetensors or what torch.save writes.
        channels: Of a latent.
        colours: Channels of an image.
        factor: Pixels of an image for each of its latent, along a side.
        scale: Its `scaling_factor`.
        shift: Its `shift_factor`; 0 where it has none.
    """

    def __init__(self, name: str, model: Any, *, device: torch.device) -> None:
        for key in ("latents_mean", "latents_std"):
            if getattr(model.config, key, None) is not None:
                raise UsageError(
                    f"the VAE {name} has {key}, one for each channel; expected one with "
                    "scaling_factor and shift_factor alone. Take another VAE."
                )
        self.name = name
        self.hash = weights_hash(model)
        self.channels: int = model.config.latent_channels
        self.colours: int = model.config.in_channels
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)
        self.scale = float(model.config.scaling_factor)
        self.shift = float(model.config.shift_factor or 0.0)
        self._model = model.to(device).eval().requires_grad_(False)
        self._device = device

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch colours size size"]) -> Posterior:
        """The posterior of images in [-1, 1], on the CPU; grey ones have one channel.

        Raises:
            UsageError: Channels or size do not suit it.
        """
        wanted, found = self.colours, images.shape[1]
        if found not in (1, wanted) or images.shape[-1] % self.factor:
            raise UsageError(
                f"the VAE {self.name} takes images of {wanted} channels whose side is a multiple "
                f"of {self.factor} pixels; got {found} channels and {images.shape[-1]} pixels. "
                "Correct --size, or take another VAE."
            )
        images = images.to(self._device).expand(-1, wanted, -1, -1)
        latent = self._model.encode(images).latent_dist
        return Posterior(latent.mean.cpu(), latent.std.cpu())

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch colours size size"]:
        """Images, on the CPU, of latents as the encoder gives them: neither shifted nor scaled."""
        images: Tensor = self._model.decode(latents.to(self._device)).sample
        return images.cpu()


def open_autoencoder(source: str, *, device: torch.device | None = None) -> Autoencoder:
    """The VAE in a folder, in a pipeline's folder, or on the hub.

    Args:
        source: The folder, or the hub's name.
        device: Where it works; None: the CPU.

    Raises:
        DataError: The folder holds none.
        EnvironmentFailure: diffusers is not installed, or the hub does not give it.
        UsageError: It has a mean or deviation for each channel, which none of our models is told.
    """
    return Autoencoder(source, load_autoencoder(source), device=device or torch.device("cpu"))


def load_autoencoder(source: str) -> Any:
    """The AutoencoderKL of diffusers in float32; see `open_autoencoder`."""
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        raise EnvironmentFailure(
            f"the VAE {source} needs diffusers, which is not installed: pip install "
            "'mudit[diffusers]'."
        ) from None
    folder = Path(source).expanduser()
    place = str(folder) if folder.is_dir() else source
    # A pipeline's is in a folder of its own; of what is on the hub, only trying tells.
    tries: list[dict[str, str]] = [{}, {"subfolder": "vae"}]
    if folder.is_dir():
        tries = tries[1:] if (folder / "vae").is_dir() else tries[:1]
    reasons = []
    for inside in tries:
        try:
            cls: Any = AutoencoderKL
            # False: what saves memory would need accelerate, and a VAE is small.
            options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, **inside}
            return cls.from_pretrained(place, **options).eval()
        except (OSError, ValueError, RuntimeError) as error:
            reasons.append(str(error).strip().partition("\n")[0])
    if folder.is_dir():
        raise DataError(
            f"the folder {source} holds no AutoencoderKL that diffusers can load: {reasons[0]} "
            "Give a folder with its config.json and diffusion_pytorch_model.safetensors."
        )
    raise EnvironmentFailure(
        f"the VAE {source} is no folder here, and could not be had from the hub: {reasons[0]} Give "
        "a local folder with its config.json and diffusion_pytorch_model.safetensors: where "
        f"the hub can be reached, `AutoencoderKL.from_pretrained({source!r})"
        f".save_pretrained({source.rpartition('/')[2]!r})` (of a pipeline with subfolder='vae'); "
        "copy it here."
    )


@functools.lru_cache(maxsize=4)
def autoencoder_hash(folder: Path) -> str:
    """`Autoencoder.hash` of the VAE in a folder; see `open_autoencoder` for what is raised."""
    return open_autoencoder(str(folder)).hash


def weights_hash(model: Any) -> str:
    """`Autoencoder.hash` of an AutoencoderKL of diffusers."""
    config = {key: model.config.get(key) for key in _CONFIG}
    config["shift_factor"] = model.config.shift_factor or 0.0
    digest = hashlib.sha256(json.dumps(config).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.cpu().float().numpy()).data)
    return digest.hexdigest()

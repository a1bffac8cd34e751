"""The VAE of an exported pipeline: the run's own, or the identity for a run on pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mudit.errors import DataError, EnvironmentFailure, UsageError
from mudit.export.extras import diffusers
from mudit.export.identity import pixel_vae
from mudit.training import RunConfig


def write_vae(config: RunConfig, folder: Path, source: str, *, ignores_shift: bool) -> int:
    """Write the VAE that decodes what a run's model makes.

    Args:
        config: The run's.
        folder: Where to.
        source: For a run on latents, a folder or a name on the hub; empty for a run on pixels.
        ignores_shift: Whether the pipeline decodes without the VAE's `shift_factor`.

    Returns:
        Side of the images, pixels.

    Raises:
        DataError: The folder holds no VAE.
        EnvironmentFailure: diffusers is not installed, or the hub cannot be reached.
        UsageError: The run needs a VAE and none is given, or the other way round; or it is not
            one that the run's latents can come from.
    """
    is_latent = config.data.source.startswith("latents:")
    if is_latent != bool(source):
        raise UsageError(
            f"the run's data are {config.data.source!r}: "
            + (
                "latents, which a pipeline has to decode. Give the VAE that they were encoded by, "
                "a folder or a name on the hub, with --vae."
                if is_latent
                else "pixels, which no VAE has to decode. Leave out --vae."
            )
        )
    model = config.model
    if not source:
        pixel_vae(model.in_channels).save_pretrained(folder)
        return model.input_size
    vae = load_vae(source)
    _check(vae.config, source, model.in_channels, ignores_shift=ignores_shift)
    if vae.config.shift_factor is None:
        vae.register_to_config(shift_factor=0.0)  # StableDiffusion3Pipeline adds it
    vae.save_pretrained(folder)
    factor: int = 2 ** (len(vae.config.block_out_channels) - 1)
    return model.input_size * factor


def load_vae(source: str) -> Any:
    """An AutoencoderKL in float32, from its folder, a pipeline's folder, or the hub.

    Raises:
        DataError: The folder holds no VAE.
        EnvironmentFailure: diffusers is not installed, or the hub cannot be reached.
    """
    library, folder = diffusers(), Path(source)
    inside = {"subfolder": "vae"} if (folder / "vae").is_dir() else {}
    try:
        return library.AutoencoderKL.from_pretrained(source, **inside).eval()
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        if folder.is_dir():
            raise DataError(
                f"--vae {source} holds no AutoencoderKL that diffusers can load: {reason} "
                "Give the folder with its config.json and weights."
            ) from None
        raise EnvironmentFailure(
            f"--vae {source} is no folder here, and could not be had from the hub: {reason} Give "
            "a folder with the VAE's config.json and diffusion_pytorch_model.safetensors."
        ) from None


def _check(vae: Any, source: str, channels: int, *, ignores_shift: bool) -> None:
    if vae.latent_channels != channels:
        raise UsageError(
            f"--vae {source} has latents of {vae.latent_channels} channels, and the run's model "
            f"has {channels}. Give the VAE that the run's latents were encoded by."
        )
    if ignores_shift and vae.shift_factor:
        raise UsageError(
            f"--vae {source} has shift_factor {vae.shift_factor}, which the pipelines for DiT "
            "and PixArt do not add when they decode: images would have wrong colours. Use --to "
            "authors, or train an MMDiT, whose pipeline adds it."
        )
    for name in ("latents_mean", "latents_std"):
        if getattr(vae, name, None) is not None:
            raise UsageError(
                f"--vae {source} has {name}, which no pipeline here applies. Give a VAE with "
                "scaling_factor and shift_factor alone."
            )

"""The VAE of an exported pipeline: the run's own, or the identity for a run on pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mudit.data import LatentSpace, load_autoencoder, weights_hash
from mudit.errors import UsageError
from mudit.export.identity import pixel_vae
from mudit.training import RunConfig


def write_vae(config: RunConfig, folder: Path, source: str, *, ignores_shift: bool) -> int:
    """Write the VAE that decodes what a run's model makes, with the run's own scale and shift.

    Args:
        config: The run's.
        folder: Where to.
        source: For a run on latents, a folder or a name on the hub; empty: the VAE that they were
            encoded by, or for a run on pixels none.
        ignores_shift: Whether the pipeline decodes without the VAE's `shift_factor`.

    Returns:
        Side of the images, pixels.

    Raises:
        DataError: The folder holds no VAE.
        EnvironmentFailure: diffusers is not installed, or the hub cannot be reached.
        UsageError: The run needs a VAE and none is known, or the other way round; or it is not
            the one that the run's latents come from.
    """
    space = config.data.latents
    is_latent = space is not None or config.data.source.startswith("latents:")
    source = source or (space.vae if space else "")
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
    vae = load_autoencoder(source)
    if space is not None:
        _check_hash(vae, source, space)
        # Those of the run, which `mudit data latents` may have been told.
        vae.register_to_config(scaling_factor=space.scale, shift_factor=space.shift)
    _check(vae.config, source, model.in_channels, ignores_shift=ignores_shift)
    if vae.config.shift_factor is None:
        vae.register_to_config(shift_factor=0.0)  # StableDiffusion3Pipeline adds it
    vae.save_pretrained(folder)
    factor: int = 2 ** (len(vae.config.block_out_channels) - 1)
    return model.input_size * factor


def _check_hash(vae: Any, source: str, space: LatentSpace) -> None:
    found = weights_hash(vae)
    if found != space.vae_hash:
        raise UsageError(
            f"--vae {source} has the hash {found[:12]}, but the run's latents were encoded by "
            f"{space.vae} with the hash {space.vae_hash[:12]}. Give that VAE with --vae."
        )


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

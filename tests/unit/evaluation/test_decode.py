"""Latents to pictures, against diffusers' own decoding; another VAE is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from latents import open_vae, write_classes, write_vae
from mudit.data import encode_latents, latent_space, open_autoencoder, open_dataset
from mudit.errors import UsageError
from mudit.evaluation import check_decoder, open_decoder, pictures_of
from mudit.training import DataConfig

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("made")
    vae, source = write_vae(root / "vae"), write_classes(root / "images")
    for name, keep in (("latents", False), ("kept", True)):
        splits = open_dataset(source, size=16)
        encode_latents(splits, open_autoencoder(vae), root / name, source=source, keep_images=keep)
    return {"vae": vae, "other": write_vae(root / "other", seed=1), "root": str(root)}


def data_of(made: dict[str, str], name: str = "latents") -> DataConfig:
    source = f"latents:{made['root']}/{name}"
    return DataConfig(source=source, latents=latent_space(open_dataset(source).train))


def test_samples_are_decoded_as_diffusers_does(made) -> None:
    x = torch.randn(11, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = open_decoder(data_of(made), device="cpu")(x)
    with torch.no_grad():
        images = open_vae(made["vae"]).decode(x / 0.5 + 0.1).sample
    expected = (127.5 * images + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert found.shape == (11, 16, 16, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1  # of other batches
    assert len(np.unique(found)) > 20


def test_pixels_are_decoded_by_no_vae(made) -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, 7.0]).reshape(1, 1, 2, 2)
    assert open_decoder(DataConfig())(x).ravel().tolist() == [0, 128, 255, 255]
    with pytest.raises(UsageError, match="the pixels of digits, which no VAE has to decode"):
        open_decoder(DataConfig(), vae=made["vae"])


def test_another_vae_of_the_same_shapes_is_refused(made, tmp_path) -> None:
    data = data_of(made)
    moved = write_vae(tmp_path / "moved")
    check_decoder(dataclasses.replace(data, vae=moved))
    with pytest.raises(UsageError) as caught:
        open_decoder(data, vae=made["other"], device="cpu")
    for name in ("vae", "other"):
        assert made[name] in str(caught.value)
        assert open_autoencoder(made[name]).hash[:12] in str(caught.value)
    # A hash names a VAE, not where it is.
    check_decoder(dataclasses.replace(data, vae=data.latents.vae_hash[:10]))


def test_real_images_beside_samples_are_decoded_or_kept(made) -> None:
    indices = np.arange(3)
    vae = open_vae(made["vae"])
    for name in ("latents", "kept"):
        data = data_of(made, name)
        train = open_dataset(data.source).train
        images, labels = pictures_of(train, data, device="cpu").batch(indices)
        mean = torch.from_numpy(train.store.rows("mean", indices))
        with torch.no_grad():
            expected = vae.decode(mean).sample.clamp(-1, 1)
        torch.testing.assert_close(images, expected, atol=1e-4, rtol=1e-4)
        original, _ = open_dataset(train.store.layout.facts["source"], size=16).train.batch(indices)
        shown, _ = pictures_of(train, data, device="cpu", kept=True).batch(indices)
        torch.testing.assert_close(shown, original if name == "kept" else expected)
        assert labels.tolist() == train.batch(indices)[1].tolist()
    pixels = open_dataset("digits").train
    assert pictures_of(pixels, DataConfig()) is pixels

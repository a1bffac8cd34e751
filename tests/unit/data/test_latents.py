"""Latents against diffusers' own posteriors, drawn from, mirrored, refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from latents import open_vae, write_captions, write_classes, write_vae
from mudit.data import (
    ImageDataset,
    Splits,
    caption_groups,
    encode_latents,
    images_of,
    open_autoencoder,
    open_dataset,
)
from mudit.data.latents import KeptImages, LatentDataset, check_space, latent_space
from mudit.errors import ConfigMismatchError, DataError, EnvironmentFailure, UsageError
from mudit.training import generator

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, str]:
    """A VAE, another one, images with classes, and their latents with the images kept."""
    root = tmp_path_factory.mktemp("made")
    vae, other = write_vae(root / "vae"), write_vae(root / "other", seed=1)
    source = write_classes(root / "images")
    encode(source, vae, root / "latents", keep_images=True, shard_rows=5)
    return {"vae": vae, "other": other, "source": source, "latents": str(root / "latents")}


def encode(source: str, vae: str, out: Path, *, size: int | None = 16, **options) -> Splits:
    encode_latents(
        open_dataset(source, size=size), open_autoencoder(vae), out, source=source, batch_size=4,
        **options,
    )  # fmt: skip
    return open_dataset(f"latents:{out}")


def parts(made: dict[str, str]) -> list[tuple[LatentDataset, ImageDataset]]:
    latents, images = (
        open_dataset(f"latents:{made['latents']}"),
        open_dataset(made["source"], size=16),
    )
    return [(latents.train, images.train), (latents.validation, images.validation)]  # type: ignore[list-item]


def test_means_and_deviations_are_those_of_diffusers(made) -> None:
    vae = open_vae(made["vae"])
    for latents, images in parts(made):
        everything = np.arange(images.num_samples)
        pixels, labels = images.batch(everything)
        with torch.no_grad():
            dist = vae.encode(pixels).latent_dist
            twin = vae.encode(pixels.flip(-1)).latent_dist
        rows = everything + latents.first
        for name, expected in (
            ("mean", dist.mean), ("std", dist.std),
            ("mean_flipped", twin.mean), ("std_flipped", twin.std),
        ):  # fmt: skip
            found = torch.from_numpy(latents.store.rows(name, rows))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(dist.mean, twin.mean.flip(-1), atol=1e-3), "a twin of its own"
        x0, found_labels = latents.batch(everything)
        torch.testing.assert_close(x0, (dist.mean - 0.1) * 0.5, atol=1e-5, rtol=1e-5)
        assert torch.equal(found_labels, labels)
        assert (latents.channels, latents.size, latents.num_classes) == (4, 8, 2)
        assert tuple(latents.class_names) == ("cat", "dog")
        assert not latents.captioned
    assert parts(made)[0][0].flip, "as the images' source"
    assert not parts(made)[1][0].flip


def test_draws_are_those_of_diffusers_for_the_same_noise(made) -> None:
    (latents, images), _ = parts(made)
    indices, turned = np.array([3, 1, 4]), np.array([False, True, False])
    x0, _ = latents.batch(indices, turned, torch.Generator().manual_seed(5))
    pixels, _ = images.batch(indices, turned)
    with torch.no_grad():
        dist = open_vae(made["vae"]).encode(pixels).latent_dist
        z = dist.sample(generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(x0, (z - 0.1) * 0.5, atol=1e-5, rtol=1e-5)


def test_each_step_draws_anew_and_the_same_again_when_resumed(made) -> None:
    (latents, _), _ = parts(made)
    indices = np.arange(4)
    first, again, later = (
        latents.batch(indices, None, generator(0, "step", step))[0] for step in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert (first - later).abs().min() > 0


def test_draws_have_the_stored_mean_and_deviation(made) -> None:
    """256 values, 4,000 draws each, five standard errors: fails by chance once in 3,000 seeds."""
    (latents, _), _ = parts(made)
    count, rng = 4000, torch.Generator().manual_seed(0)
    draws = torch.stack([latents.batch(np.array([2]), None, rng)[0][0] for _ in range(count)])
    mean, _ = latents.batch(np.array([2]))
    std = torch.from_numpy(latents.store.rows("std", np.array([2]))) * 0.5
    assert ((draws.mean(0) - mean[0]).abs() < 5 * std[0] / count**0.5).all()
    assert ((draws.std(0) / std[0] - 1).abs() < 5 / (2 * count) ** 0.5).all()


def test_images_are_kept_to_the_bit(made) -> None:
    for latents, images in parts(made):
        kept = images_of(latents)
        assert isinstance(kept, KeptImages)
        indices = np.arange(images.num_samples)
        turned = indices % 2 == 0
        for one, other in zip(kept.batch(indices, turned), images.batch(indices, turned)):
            assert torch.equal(one, other)
        assert (kept.channels, kept.size, kept.num_classes) == (3, 16, 2)


def test_the_same_command_does_what_is_left_to_the_bit(made, tmp_path) -> None:
    whole = Path(made["latents"])
    encode(made["source"], made["vae"], tmp_path, keep_images=True, shard_rows=5)
    (tmp_path / "rows-000002.safetensors").unlink()
    (tmp_path / "names.safetensors").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of its 5 shards.*mudit data latents"):
        open_dataset(f"latents:{tmp_path}")
    encode(made["source"], made["vae"], tmp_path, keep_images=True, shard_rows=5)
    for path in whole.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_grey_images_and_half_precision(made, tmp_path) -> None:
    splits = encode("digits", made["vae"], tmp_path, size=None, dtype="float16", flipped=False)
    x0, labels = splits.train.batch(np.arange(3))
    pixels, expected = open_dataset("digits").train.batch(np.arange(3))
    with torch.no_grad():
        mean = open_vae(made["vae"]).encode(pixels.expand(-1, 3, -1, -1)).latent_dist.mean
    torch.testing.assert_close(x0, (mean - 0.1) * 0.5, atol=2e-3, rtol=2e-3)
    assert x0.dtype == torch.float32
    assert torch.equal(labels, expected)
    assert "float16" in splits.train.name
    assert splits.train.num_samples == 1438
    assert load_file(tmp_path / "rows-000000.safetensors")["std"].dtype == np.float16
    assert not splits.train.flip
    with pytest.raises(UsageError, match=r"no latents of mirrored images.*--flipped true"):
        open_dataset(f"latents:{tmp_path}", flip=True)
    with pytest.raises(UsageError, match="no latents of mirrored images"):
        splits.train.batch(np.arange(2), np.array([True, False]))


def test_captions_and_their_split_are_kept(made, tmp_path) -> None:
    source = write_captions(tmp_path / "images")
    splits = encode(source, made["vae"], tmp_path / "latents")
    images = open_dataset(source, size=16)
    for one, other in ((splits.train, images.train), (splits.validation, images.validation)):
        assert one.captioned
        _, labels = one.batch(np.arange(one.num_samples))
        _, expected = other.batch(np.arange(other.num_samples))
        names, own = one.class_names, other.class_names
        assert [names[n] for n in labels] == [own[n] for n in expected]
    assert not splits.train.flip, "captions may say left and right"
    assert open_dataset(f"latents:{tmp_path / 'latents'}", flip=True).train.flip


def test_groups_of_captions_are_kept(made, tmp_path) -> None:
    source = write_captions(tmp_path / "images")
    list_file = tmp_path / "images/captions.jsonl"
    rows = [json.loads(line) for line in list_file.read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {"caption": f"{row['caption']} {number}", "group": row["caption"]}
    list_file.write_text("\n".join(map(json.dumps, rows)))
    latents = encode(source, made["vae"], tmp_path / "latents").train
    groups = caption_groups(latents)
    assert np.array_equal(groups, caption_groups(open_dataset(source, size=16).train))
    assert len(groups) == 24
    assert len(np.unique(groups)) == 8
    classes = open_dataset(f"latents:{made['latents']}").train
    assert np.array_equal(caption_groups(classes), np.arange(classes.num_classes))


def test_scale_and_shift_are_the_vaes_or_what_the_user_says(made, tmp_path) -> None:
    plain = write_vae(tmp_path / "plain", shift_factor=None, scaling_factor=0.18215)
    space = latent_space(encode(made["source"], plain, tmp_path / "a").train)
    assert (space.scale, space.shift, space.image_size) == (0.18215, 0.0, 16)
    told = encode(made["source"], plain, tmp_path / "b", scale=0.2301, shift=1.0)
    assert told.fingerprint != open_dataset(f"latents:{tmp_path / 'a'}").fingerprint
    means = [splits.train.batch(np.arange(3))[0] for splits in (
        open_dataset(f"latents:{tmp_path / 'a'}"), told
    )]  # fmt: skip
    torch.testing.assert_close((means[0] / 0.18215 - 1.0) * 0.2301, means[1])


def test_another_vae_or_size_is_refused_with_both_named(made, tmp_path) -> None:
    spec, digits = f"latents:{made['latents']}", latent_space(parts(made)[0][0]).vae_hash
    for vae in (made["vae"], digits, digits[:8]):
        assert open_dataset(spec, vae=vae, size=16).train.num_samples
    write_vae(tmp_path / "moved")  # the same weights
    assert open_dataset(spec, vae=str(tmp_path / "moved")).train.num_samples
    for vae in (made["other"], "some/vae", "0" * 12):
        with pytest.raises(DataError) as caught:
            open_dataset(spec, vae=vae)
        assert made["vae"] in str(caught.value)
        assert vae in str(caught.value)
    with pytest.raises(DataError, match=r"16 pixels a side, and data\.size is 32"):
        open_dataset(spec, size=32)
    with pytest.raises(UsageError, match="digits has images, which no VAE has encoded"):
        open_dataset("digits", vae="some/vae")
    with pytest.raises(ConfigMismatchError, match=r"begun with something else: vae.*vae_hash"):
        encode(made["source"], made["other"], Path(made["latents"]))


def test_the_configs_idea_of_the_latents_is_compared(made) -> None:
    train = parts(made)[0][0]
    space = latent_space(train)
    check_space(space, train)
    check_space(None, train)
    wrong = dataclasses.replace(space, scale=0.18215)
    with pytest.raises(DataError, match=r"scale is 0.5 there and 0.18215 in data.latents"):
        check_space(wrong, train)
    with pytest.raises(DataError, match="but they are images"):
        check_space(space, open_dataset("digits").train)


def test_what_does_not_suit_the_vae_is_refused(made, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"multiple of 2 pixels; got 3 channels and 15 pixels"):
        encode(made["source"], made["vae"], tmp_path / "a", size=15)
    with pytest.raises(UsageError, match="holds latents already"):
        encode(f"latents:{made['latents']}", made["vae"], tmp_path / "b")
    means = write_vae(tmp_path / "means", latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    with pytest.raises(UsageError, match="has latents_mean, one for each channel"):
        open_autoencoder(means)
    wild = open_vae(made["vae"])
    with torch.no_grad():
        wild.quant_conv.bias.fill_(1e6)
    wild.save_pretrained(tmp_path / "wild")
    with pytest.raises(DataError, match=r"mean for image 0 that is not finite in float16"):
        encode(made["source"], str(tmp_path / "wild"), tmp_path / "c", dtype="float16")
    assert not (tmp_path / "c").exists()


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")
def test_a_vae_that_cannot_be_had_is_explained(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # spares the retries
    with pytest.raises(EnvironmentFailure, match=r"local folder.*save_pretrained\('none'\)"):
        open_autoencoder("nobody/none")
    with pytest.raises(DataError, match="holds no AutoencoderKL that diffusers can load"):
        open_autoencoder(str(tmp_path))


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")
@pytest.mark.parametrize("inside", ["", "vae"])
def test_a_vae_is_had_from_the_hub(made, tmp_path, monkeypatch, inside: str) -> None:
    """As downloaded before: of a VAE of its own, and of a pipeline."""
    commit, repo = "a" * 40, tmp_path / "models--somebody--something"
    shutil.copytree(made["vae"], repo / "snapshots" / commit / inside, dirs_exist_ok=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = open_autoencoder("somebody/something")
    assert found.hash == open_autoencoder(made["vae"]).hash


def test_other_captions_beside_the_latents_are_noticed(made, tmp_path) -> None:
    from mudit.data.strings import Strings

    encode(made["source"], made["vae"], tmp_path)
    Strings(["dog", "cat"]).save(tmp_path / "names.safetensors")
    with pytest.raises(DataError, match=r"names.safetensors is not of these latents"):
        open_dataset(f"latents:{tmp_path}")


def test_latents_without_images_say_so(made, tmp_path) -> None:
    splits = encode(made["source"], made["vae"], tmp_path)
    with pytest.raises(DataError, match=r"repa.encoder has to see.*--keep_images true"):
        images_of(splits.train)

"""Training on latents, and on text features that are read batch by batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from latents import write_captions, write_classes, write_vae
from mudit.data import encode_latents, open_autoencoder, open_dataset
from mudit.errors import DataError, Interrupted
from mudit.models import builder
from mudit.training import DataConfig, RepaConfig, RunConfig, TextConfig, open_splits, train
from mudit.training.conditioning import Conditioning, text_features
from mudit.tuning import ModelConfig, StudyConfig
from mudit.tuning.config import resolved, run_config

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, str]:
    """Latents with classes, with and without images, and latents with captions."""
    root = tmp_path_factory.mktemp("made")
    vae = open_autoencoder(write_vae(root / "vae"))
    classes, captions = write_classes(root / "a"), write_captions(root / "b")
    for name, source, keep in (
        ("classes", classes, True), ("bare", classes, False), ("captions", captions, False),
    ):  # fmt: skip
        splits = open_dataset(source, size=16)
        encode_latents(splits, vae, root / name, source=source, keep_images=keep)
    return {name: f"latents:{root / name}" for name in ("classes", "bare", "captions")}


def run_of(study: StudyConfig, source: str, architecture: str = "dit", **options) -> RunConfig:
    sigma = architecture in ("dit", "pixart")
    config = dataclasses.replace(
        study,
        data=DataConfig(source=source),
        model=ModelConfig(architecture=architecture, depth=2, head_dim=8, patch_size=4),
        objective=dataclasses.replace(study.objective, learn_sigma=sigma),
        proxy=dataclasses.replace(study.proxy, batch_size=6, steps=4),
        training=dataclasses.replace(study.training, bank_size=8),
        **options,
    )
    splits = open_splits(config.data)
    return run_config(resolved(config, splits), splits, config.proxy, hps=config.hps)


@pytest.mark.parametrize(
    ("architecture", "data"), [("uvit", "classes"), ("pixart", "captions"), ("mmdit", "captions")]
)
def test_every_architecture_trains_on_latents(study, made, tmp_path, architecture, data) -> None:
    run = run_of(study, made[data], architecture)
    assert (run.model.in_channels, run.model.input_size) == (4, 8)
    assert train(run, tmp_path / "run").status == "complete"


def test_a_run_on_latents_resumes_to_the_bit(study, made, tmp_path) -> None:
    run = run_of(study, made["classes"])
    assert run.data.latents is not None
    whole = train(run, tmp_path / "whole")
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        train(run, tmp_path / "parts", should_stop=lambda: next(asked))
    assert train(run, tmp_path / "parts").score == whole.score
    one, other = (tmp_path / name / "records.jsonl" for name in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes()


def test_a_run_refuses_latents_that_were_made_anew(study, made, tmp_path) -> None:
    run = run_of(study, made["classes"])
    wrong = dataclasses.replace(run.data.latents, scale=0.18215)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, latents=wrong))
    with pytest.raises(DataError, match=r"scale is 0.5 there and 0.18215 in data.latents"):
        train(run, tmp_path / "run")


def test_tokens_are_aligned_with_the_images_behind_the_latents(
    study, made, tmp_path, monkeypatch
) -> None:
    """What the encoder is shown is the pixels of the same images, mirrored as their latents."""
    from mudit.training import trainer

    repa = RepaConfig(encoder="classifier", hidden=8)
    run = run_of(study, made["classes"], repa=repa)
    splits, shown = open_splits(run.data), []
    images = open_dataset(splits.train.store.layout.facts["source"], size=16).train

    class Watching:
        size = 64

        def __call__(self, pixels, *, grid):
            shown.append(pixels)
            return torch.zeros(len(pixels), grid * grid, 64)

    def opened(encoder, dataset, folder, *, seed, device):
        assert (dataset.channels, dataset.size) == (3, 16)
        return Watching()

    monkeypatch.setattr(trainer, "open_encoder", opened)
    train(run, tmp_path / "run")
    indices = trainer.batch_indices(images.num_samples, 6, run.seed, 0)
    expected, _ = images.batch(indices, trainer.flips(run.seed, 0, 6))
    assert torch.equal(shown[0], expected)
    with pytest.raises(DataError, match=r"without their images.*--keep_images true"):
        train(run_of(study, made["bare"], repa=repa), tmp_path / "bare")


@pytest.mark.parametrize("architecture", ["uvit", "pixart", "mmdit"])
def test_features_read_by_batch_are_those_of_the_table(study, made, tmp_path, architecture) -> None:
    run = run_of(study, made["captions"], architecture, text=TextConfig())
    captions = open_splits(run.data).train.class_names
    text = dataclasses.replace(run.text, features=str(tmp_path / "text"))
    tokens, dim = run.model.caption_tokens, run.model.caption_dim
    from mudit.training import save_text_features

    save_text_features(text, captions, tmp_path / "text", tokens=tokens, bytes_dim=dim)
    features = text_features(text, captions, tmp_path, tokens=tokens, bytes_dim=dim)
    torch.manual_seed(0)
    model = builder(run.model)(run.model.width)
    by_batch = Conditioning.of(run.model, captions, model, features=features, in_memory=0)
    table = Conditioning.of(run.model, captions, model, features=features)
    assert by_batch.stored is not None
    assert table.stored is None
    labels = torch.tensor([2, by_batch.null_label, 0, 2])
    for one, other in zip(by_batch(labels), table(labels), strict=True):
        assert torch.equal(one, other)


def test_a_run_takes_features_from_a_folder(study, made, tmp_path, monkeypatch) -> None:
    """Without its encoder; what they were not made for is refused."""
    from mudit.data import open_text_encoder, store_text
    from mudit.training import conditioning
    from mudit.tuning import config as study_config

    captions = open_dataset(made["captions"]).train.class_names
    encoder = open_text_encoder("bytes", bytes_dim=24)
    out = tmp_path / "text"
    store_text(captions, encoder, out, spec="hf:gone", tokens=20, max_tokens=64)
    for module in (conditioning, study_config):
        monkeypatch.delattr(module, "open_text_encoder")
    text = TextConfig(encoder="hf:gone", features=str(out))
    run = run_of(study, made["captions"], "mmdit", text=text)
    assert (run.model.caption_tokens, run.model.caption_dim) == (20, 24)
    wanted = dataclasses.replace(text, max_tokens=64)  # no caption is so long
    assert run_of(study, made["captions"], "mmdit", text=wanted).model == run.model
    assert train(run, tmp_path / "run").status == "complete"
    assert not (tmp_path / "run/text_features").exists()
    for wrong, words in (
        ({"encoder": "bytes"}, "encoder: hf:gone there, bytes here"),
        ({"max_tokens": 19}, "tokens: 20 there, 19 here"),
        ({"dtype": "float16"}, "dtype: float32 there, float16 here"),
    ):
        with pytest.raises(DataError, match=words):
            run_of(study, made["captions"], "mmdit", text=dataclasses.replace(text, **wrong))
    with pytest.raises(DataError, match=r"captions: \w+ there, \w+ here"):
        run_of(study, made["classes"], "mmdit", text=text)


def test_order_is_what_it_was() -> None:
    """Kept in 32 bits since ten million samples were tried; values are those of NumPy's argsort."""
    from mudit.data import batch_indices, permutation

    found = [batch_indices(11, 3, 5, step) for step in range(3)]
    assert all(part.dtype == np.int64 for part in found)
    assert np.array_equal(np.concatenate(found), permutation(11, 5)[:9])


def test_folders_are_found(tmp_path: Path) -> None:
    from mudit.training.conditioning import text_folder

    assert text_folder(TextConfig(), tmp_path / "run") is None
    (tmp_path / "text_features").mkdir()
    (tmp_path / "text_features/header.json").touch()
    assert text_folder(TextConfig(), tmp_path / "run") == tmp_path / "text_features"
    assert text_folder(TextConfig(features="x"), tmp_path / "run") == Path("x")

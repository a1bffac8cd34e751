"""A run's text encoder under another name, or moved: its weights decide."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import mudit.evaluation.drawing as drawing
from exports import CAPTIONS, drawn_model, run_config
from mudit.cli import main
from mudit.data import check_text, open_text_encoder, store_text, text_facts
from mudit.errors import DataError, EnvironmentFailure, UsageError
from mudit.evaluation import SampleConfig, SampleJob, SamplerConfig, sample_runs
from mudit.training import (
    TEXT_FOLDER,
    TextConfig,
    load_trained,
    save_weights,
    text_features,
)

transformers = pytest.importorskip("transformers")

TOKENS = 40  # of exports' models, whose captions' tokens have 24 numbers
PROMPTS = ("a red cat", "two dogs")


def save_t5(folder: Path, *, dim: int = 24, seed: int = 0) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "</s>", "<unk>", *dict.fromkeys(" ".join((*CAPTIONS, *PROMPTS)).split())]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=len(words), d_model=dim, d_kv=4, d_ff=16, num_layers=1, num_heads=2
    )
    transformers.T5EncoderModel(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """A folder with m1, the same weights in m2, other ones, and a wider encoder."""
    folder = tmp_path_factory.mktemp("encoders")
    save_t5(folder / "m1")
    shutil.copytree(folder / "m1", folder / "m2")
    save_t5(folder / "other", seed=1)
    save_t5(folder / "wide", dim=32)
    return folder


@pytest.fixture
def run(encoders: Path, tmp_path: Path) -> Path:
    """A finished MMDiT whose captions were encoded by an encoder that is gone since."""
    config = run_config("mmdit", kind="flow")
    spec = f"hf:{encoders}/gone"
    config = dataclasses.replace(config, text=TextConfig(encoder=spec))
    folder = tmp_path / "run"
    encoder = open_text_encoder(f"hf:{encoders}/m1")
    store_text(CAPTIONS, encoder, folder / TEXT_FOLDER, spec=spec, tokens=TOKENS)
    (folder / "config.json").write_text(config.to_json())
    save_weights(drawn_model(config), folder / "ema.safetensors")
    return folder


def stored(out: Path, encoders: Path, name: str, *, captions=CAPTIONS) -> int:
    spec = f"hf:{encoders}/{name}"
    return store_text(
        captions, open_text_encoder(spec), out, spec=spec, tokens=TOKENS, shard_rows=2
    )


def facts(encoders: Path, name: str) -> dict[str, str]:
    return text_facts(f"hf:{encoders}/{name}", CAPTIONS, TOKENS, "float32")


def test_features_are_of_weights_not_of_a_name(encoders, tmp_path) -> None:
    stored(tmp_path, encoders, "m1")
    for name in ("m1", "m1/", "m2", "../encoders0/m2"):
        assert check_text(tmp_path, facts(encoders, name)).num_rows == len(CAPTIONS) + 1
    with pytest.raises(DataError, match=r"m1 there, .*other here; hash \w{12} there, \w{12} here"):
        check_text(tmp_path, facts(encoders, "other"))
    with pytest.raises(DataError, match=r"m1 there.*cannot be seen: the text encoder .*gone"):
        check_text(tmp_path, facts(encoders, "gone"))


def test_features_are_gone_on_with_under_another_name(encoders, tmp_path) -> None:
    stored(tmp_path / "whole", encoders, "m1")
    stored(tmp_path / "cut", encoders, "m1")
    (tmp_path / "cut/rows-000001.safetensors").unlink()
    assert stored(tmp_path / "cut", encoders, "m2") == 1
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "cut" / path.name).read_bytes() == path.read_bytes()
    (tmp_path / "cut/rows-000001.safetensors").unlink()
    text = TextConfig(encoder=f"hf:{encoders}/other", features="")
    (tmp_path / "cut").rename(tmp_path / TEXT_FOLDER)
    with pytest.raises(DataError, match="hash"):  # and nothing of the other's is mixed in
        text_features(text, CAPTIONS, tmp_path, tokens=TOKENS, bytes_dim=24)


def test_a_run_is_told_where_its_encoder_is(run, encoders) -> None:
    with pytest.raises(EnvironmentFailure, match=r"gone cannot be loaded.*--text_encoder"):
        load_trained(run, prompts=PROMPTS)
    expected = open_text_encoder(f"hf:{encoders}/m1").encode(list(PROMPTS), tokens=TOKENS)
    for place in (f"hf:{encoders}/m2", f"{encoders}/m2"):
        trained = load_trained(run, prompts=PROMPTS, text_encoder=place)
        told = trained.conditioning(torch.tensor([0, 1]))
        for one, other in zip(told, expected, strict=True):
            assert torch.equal(one, other)
    with pytest.raises(DataError, match=r"other has the hash \w+, but the run's texts"):
        load_trained(run, prompts=PROMPTS, text_encoder=f"{encoders}/other")
    for place in ("bytes", f"{encoders}/wide"):
        with pytest.raises((DataError, UsageError), match=r"--text_encoder"):
            load_trained(run, prompts=PROMPTS, text_encoder=place)


def test_without_the_features_sizes_decide(run, encoders) -> None:
    shutil.rmtree(run / TEXT_FOLDER)
    load_trained(run, prompts=PROMPTS, text_encoder=f"{encoders}/m2")
    with pytest.raises(DataError, match=r"wide has 32 numbers for a token, .*is told 24"):
        load_trained(run, prompts=PROMPTS, text_encoder=f"{encoders}/wide")


def test_the_built_in_encoder_is_no_other(encoders, tmp_path) -> None:
    for name, words in (("mmdit", "was told texts by bytes"), ("dit", "told classes, not texts")):
        config = run_config(name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config.to_json())
        save_weights(drawn_model(config), tmp_path / name / "ema.safetensors")
        with pytest.raises(UsageError, match=words):
            load_trained(tmp_path / name, text_encoder=f"{encoders}/m2")


def test_samples_are_those_of_the_encoder_that_has_moved(run, encoders, tmp_path, monkeypatch):
    config = SampleConfig(sampler=SamplerConfig(steps=2), prompts=PROMPTS, per_class=1)
    drawn = []
    for at_once in (512, 1):  # before the first image, and batch by batch
        monkeypatch.setattr(drawing, "_ENCODED_AT_ONCE", at_once)
        out = tmp_path / f"{at_once}.npz"
        sample_runs([run], out, config, SampleJob(text_encoder=f"hf:{encoders}/m2"))
        drawn.append(np.load(out)["arr_0"].astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
    assert drawn[0].std() > 0


def test_the_command_takes_it(run, encoders, tmp_path, capsys) -> None:
    prompts = ["--prompts", '["a red cat"]']
    words = ["sample", str(run), *prompts, "--steps", "2", "--out", str(tmp_path / "a.png")]
    assert main(words) == 3
    assert "--text_encoder" in capsys.readouterr().err
    assert main([*words, "--text_encoder", f"{encoders}/other"]) == 3
    assert "has the hash" in capsys.readouterr().err
    assert main([*words, "--text_encoder", f"hf:{encoders}/m2"]) == 0
    assert (tmp_path / "a.png").exists()

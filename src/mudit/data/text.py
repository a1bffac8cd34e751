"""Captions made from class names, and a small frozen encoder that needs no download."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mudit.data.dataset import ImageDataset
from mudit.errors import UsageError

# Seed of the encoder's weights; changing it would change every result with text.
_SEED = 2025


class TextFeatures(NamedTuple):
    """What an encoder makes of some captions.

    Attributes:
        tokens: Features, shape (B, L, D); 0 behind a caption's end.
        mask: True at a caption's own tokens, shape (B, L).
        pooled: One vector for each caption, shape (B, P).
    """

    tokens: Float[Tensor, "batch length dim"]
    mask: Bool[Tensor, "batch length"]
    pooled: Float[Tensor, "batch pooled_dim"]


def class_captions(class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns a caption for each class."""
    return tuple(f"a picture of {name}" for name in class_names)


def captions_of(dataset: ImageDataset) -> Sequence[str]:
    """Returns the text of each label: its own caption, or one made from the class's name."""
    return dataset.class_names if dataset.captioned else class_captions(dataset.class_names)


def caption_groups(dataset: ImageDataset) -> npt.NDArray[np.int64]:
    """The group of each label, by number, shape (K,): labels of one group mean much the same.

    Where the data tell no groups, each label is one.
    """
    known: npt.NDArray[np.int64] | None = getattr(dataset, "groups", None)
    return np.arange(dataset.num_classes) if known is None else known


def labels_of(dataset: ImageDataset) -> npt.NDArray[np.int64]:
    """The label of each image, shape (N,)."""
    known: npt.NDArray[np.int64] | None = getattr(dataset, "labels", None)
    if known is None:  # images have to be read
        known = dataset.batch(np.arange(dataset.num_samples))[1].numpy()
    return known


def encode_captions(
    captions: Sequence[str], *, length: int, dim: int, pooled_dim: int
) -> TextFeatures:
    """Returns features of captions from frozen random weights, the same on every machine.

    Bytes of the UTF-8 text have random vectors, places have sinusoids; one layer of self-attention
    with random weights mixes them, so that a token depends on those around it. Features have unit
    RMS, as those of a T5 encoder after its last norm. It knows no language: what captions mean, a
    model has to learn from images. An empty caption is one token, the end mark.

    Args:
        captions: Texts.
        length: Tokens per caption, with the end mark.
        dim: Size of a feature; even.
        pooled_dim: Size of the vector for a whole caption.

    Raises:
        UsageError: A caption has more tokens than `length`, or `dim` is odd.
    """
    features = _encoded(tuple(captions), length, dim, pooled_dim)
    return TextFeatures(*(part.clone() for part in features))


@functools.lru_cache(maxsize=4)
def _encoded(captions: tuple[str, ...], length: int, dim: int, pooled_dim: int) -> TextFeatures:
    if dim < 2 or dim % 2:
        raise UsageError(f"The text features' size is {dim}; expected an even number.")
    codes = [[*caption.encode(), 0] for caption in captions]  # 0: the end mark
    for caption, code in zip(captions, codes, strict=True):
        if len(code) > length:
            raise UsageError(
                f"The caption {caption!r} has {len(code)} tokens (bytes and an end mark); the "
                f"model's maximum is {length}. Shorten it, or raise the maximum."
            )
    generator = torch.Generator("cpu").manual_seed(_SEED)
    table = torch.randn(256, dim, generator=generator)
    query, key, value = torch.randn(3, dim, dim, generator=generator) / math.sqrt(dim)
    ids = torch.tensor([code + [0] * (length - len(code)) for code in codes])
    mask = torch.tensor([[True] * len(c) + [False] * (length - len(c)) for c in codes])
    x = table[ids] + _places(length, dim)  # (B, L, D)
    logits = (x @ query) @ (x @ key).transpose(1, 2) / math.sqrt(dim)  # (B, L, L)
    weights = logits.masked_fill(~mask[:, None], -math.inf).softmax(dim=-1)
    mixed = x + weights @ (x @ value)
    mixed = mixed * mixed.square().mean(dim=-1, keepdim=True).rsqrt()
    tokens = mixed * mask.unsqueeze(-1)
    mean = tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True)
    pooled = mean @ torch.randn(dim, pooled_dim, generator=generator) / math.sqrt(dim)
    return TextFeatures(tokens, mask, pooled)


def _places(length: int, dim: int) -> Tensor:
    frequencies = 10_000 ** (-torch.arange(0, dim, 2) / dim)
    angles = torch.arange(length).unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)  # (L, D)

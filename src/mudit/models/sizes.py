"""Sizes that the architectures share, and checks of configs and inputs; errors say how to mend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import torch
from torch import Tensor

from mudit.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """The sizes that every architecture has.

    Attributes:
        depth: Number of blocks.
        num_heads: Attention heads per block; the width is `num_heads * head_dim`.
        head_dim: Size of one head.
        patch_size: Side of a patch, in pixels of the input; must divide `input_size`.
        mlp_ratio: Hidden size of a block's MLP over the width, rounded down to a whole number.
        input_size: Side of the (latent) image, in pixels.
        in_channels: Channels of the (latent) image.

    Raises:
        UsageError: A value is not positive, or two values do not fit each other.
    """

    depth: int
    num_heads: int
    head_dim: int
    patch_size: int
    mlp_ratio: float = 4.0
    input_size: int
    in_channels: int

    @property
    def width(self) -> int:
        """Size of a token."""
        return self.num_heads * self.head_dim

    @property
    def mlp_hidden(self) -> int:
        """Size between the two layers of a block's MLP."""
        return int(self.mlp_ratio * self.width)

    @property
    def num_tokens(self) -> int:
        """Tokens per image."""
        return (self.input_size // self.patch_size) ** 2


def check_whole_numbers(config: object, *names: str) -> None:
    """Checks that fields are whole numbers from 1.

    Raises:
        UsageError: One is not.
    """
    for name in names:
        value = getattr(config, name)
        if type(value) is not int or value < 1:
            raise UsageError(
                f"{type(config).__name__}.{name} is {value!r}; expected a whole number from 1."
            )


def check_choice(config: object, name: str, choices: Collection[str]) -> None:
    """Checks that a field is one of `choices`.

    Raises:
        UsageError: It is not.
    """
    value = getattr(config, name)
    if value not in choices:
        raise UsageError(
            f"{type(config).__name__}.{name} is {value!r}; expected one of {sorted(choices)}."
        )


def check_sizes(config: TransformerConfig, *, width_multiple: int = 1) -> None:
    """Checks the sizes that every architecture has.

    Args:
        config: What to check.
        width_multiple: What must divide the width, e.g. 4 where positions are sines and cosines.

    Raises:
        UsageError: A size is not a whole number from 1, the MLP would have no finite hidden size,
            the patch size does not divide the input size, or the width is not such a multiple.
    """
    kind = type(config).__name__
    check_whole_numbers(config, "depth", "num_heads", "head_dim", "patch_size")
    check_whole_numbers(config, "input_size", "in_channels")
    is_number = isinstance(config.mlp_ratio, int | float)
    if not (is_number and 1 <= config.mlp_ratio * config.width < math.inf):
        raise UsageError(
            f"{kind}.mlp_ratio is {config.mlp_ratio!r}, which gives the MLP no finite hidden "
            f"size at width {config.width}; expected a positive number such as 4.0."
        )
    if config.input_size % config.patch_size:
        raise UsageError(
            f"{kind}.input_size is {config.input_size}, which patch_size "
            f"{config.patch_size} does not divide; change one of them."
        )
    if config.width % width_multiple:
        raise UsageError(
            f"{kind} has width num_heads * head_dim = {config.num_heads} * {config.head_dim} = "
            f"{config.width}; expected a multiple of {width_multiple}, which the sin-cos positions "
            f"need. Make head_dim a multiple of {width_multiple}."
        )


def check_image(model: str, config: TransformerConfig, x: Tensor) -> None:
    """Checks that `x` is a batch of images of the config's shape.

    Raises:
        UsageError: It is not.
    """
    image = (config.in_channels, config.input_size, config.input_size)
    if x.ndim != 4 or tuple(x.shape[1:]) != image:
        raise UsageError(
            f"{model} got x of shape {tuple(x.shape)}; its config expects (batch, channels, size, "
            f"size) = (batch, {', '.join(map(str, image))}). Change the input, or in_channels and "
            "input_size."
        )


def check_vector(model: str, name: str, vector: Tensor, batch: int) -> None:
    """Checks that `vector` has one entry per image.

    Raises:
        UsageError: It has not.
    """
    if vector.ndim != 1 or vector.shape[0] != batch:
        raise UsageError(
            f"{model} got {name} of shape {tuple(vector.shape)} for a batch of {batch}; "
            f"expected ({batch},), one per image."
        )


def check_labels(model: str, labels: Tensor, batch: int) -> None:
    """Checks that labels are whole numbers, one per image.

    Raises:
        UsageError: They are not.
    """
    check_vector(model, "labels", labels, batch)
    if labels.dtype not in (torch.int64, torch.int32):
        raise UsageError(f"{model} got labels of dtype {labels.dtype}; expected labels.long().")


def label_error(model: str, labels: Tensor, num_classes: int) -> UsageError:
    """Returns the error for labels of which one at least is not within 0..num_classes."""
    wrong = labels[(labels < 0) | (labels > num_classes)]
    return UsageError(
        f"{model} got label {wrong[0].item()}; its config has {num_classes} classes, so labels "
        f"run from 0 to {num_classes - 1}, and {num_classes} is the null label. "
        "Change the labels, or num_classes."
    )


def check_block(model: str, tokens_after: int | None, depth: int) -> None:
    """Checks that tokens can be had after that many blocks; None asks for none.

    Raises:
        UsageError: There are fewer blocks.
    """
    if tokens_after is not None and not 1 <= tokens_after <= depth:
        raise UsageError(
            f"{model} got tokens_after={tokens_after}; it has {depth} blocks, so expected a "
            f"number from 1 to {depth}."
        )


def check_text(
    model: str,
    batch: int,
    text: Tensor,
    mask: Tensor | None,
    *,
    caption_dim: int,
    caption_tokens: int,
) -> None:
    """Checks that `text` is a batch of encoded captions, and `mask` fits it.

    Raises:
        UsageError: It is not.
    """
    if text.ndim != 3 or (text.shape[0], text.shape[2]) != (batch, caption_dim):
        raise UsageError(
            f"{model} got text of shape {tuple(text.shape)}; expected (batch, tokens, caption_dim) "
            f"= ({batch}, 1 to {caption_tokens}, {caption_dim}). Change the input, or caption_dim."
        )
    if not 1 <= text.shape[1] <= caption_tokens:
        raise UsageError(
            f"{model} got a text of {text.shape[1]} tokens; the model's maximum is "
            f"{caption_tokens}. Cut the text to 1 to {caption_tokens} tokens, or change "
            "caption_tokens."
        )
    if mask is not None and (mask.shape != text.shape[:2] or mask.dtype != torch.bool):
        raise UsageError(
            f"{model} got mask of shape {tuple(mask.shape)} and dtype {mask.dtype}; expected "
            f"{tuple(text.shape[:2])} of torch.bool, True for each token of the text."
        )

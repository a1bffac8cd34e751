"""Initialisers of single tensors, and the tables that say which parameter gets which."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from mudit.nn.embeddings import sincos_positions

Initialiser: TypeAlias = Callable[[Tensor], object]


def fan_in(weight: Tensor) -> int:
    """Returns how many inputs feed one output; of a convolution, channels times kernel."""
    return math.prod(weight.shape[1:])


def zeros(parameter: Tensor) -> None:
    """Fills with 0."""
    nn.init.zeros_(parameter)


def ones(parameter: Tensor) -> None:
    """Fills with 1."""
    nn.init.ones_(parameter)


def normal(std: float) -> Initialiser:
    """Returns the initialiser that draws from N(0, std²)."""
    return partial(nn.init.normal_, std=std)


def truncated_normal(std: float) -> Initialiser:
    """Returns the initialiser that draws from N(0, std²) cut at ±2 (not ±2 std), as timm's."""
    return partial(nn.init.trunc_normal_, std=std)


def kaiming(weight: Tensor) -> None:
    """Draws from N(0, 1/fan_in): kaiming_normal_ with a=1, whose gain is exactly 1."""
    nn.init.normal_(weight, std=fan_in(weight) ** -0.5)


def xavier(weight: Tensor) -> None:
    """Xavier-uniform; a convolution counts as the matrix (W, C·P·P), so its fan-out is W."""
    bound = math.sqrt(6 / (fan_in(weight) + weight.shape[0]))
    nn.init.uniform_(weight, -bound, bound)


def torch_linear(fan: int) -> Initialiser:
    """Returns torch's default for weights and biases of Linear and Conv2d: U(±1/sqrt(fan_in)).

    Args:
        fan: The layer's fan-in, which a bias does not show.
    """
    bound = fan**-0.5  # kaiming_uniform_ with a=sqrt(5) has this bound
    return partial(nn.init.uniform_, a=-bound, b=bound)


def sincos(pos_embed: Tensor) -> None:
    """Writes the fixed positions of a square grid into a (1, N, W) tensor."""
    _, num_tokens, width = pos_embed.shape
    pos_embed.copy_(sincos_positions(math.isqrt(num_tokens), width).unsqueeze(0))


@torch.no_grad()
def initialise(model: nn.Module, table: Mapping[str, Initialiser]) -> None:
    """Initialises every parameter of `model` in place.

    Args:
        model: Its parameters must not be on the meta device for this to have an effect.
        table: From a pattern of names to an initialiser. The first pattern that fits a name
            decides; each parameter must have one.
    """
    for name, parameter in model.named_parameters():
        for pattern, initialiser in table.items():
            if fnmatchcase(name, pattern):
                initialiser(parameter)
                break
        else:
            raise AssertionError(f"no initialiser for {name}")

"""Random streams that depend on (seed, purpose, step) alone, so that resuming needs no state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
import torch

Purpose: TypeAlias = Literal["initial", "step", "bank", "sample", "search", "encoder"]
_IDS: dict[Purpose, int] = {
    "initial": 0,
    "step": 1,
    "bank": 2,
    "sample": 3,
    "search": 4,
    "encoder": 5,
}


def stream_seed(seed: int, purpose: Purpose, step: int = 0) -> int:
    """A 63-bit seed for one stream; streams of different arguments are independent."""
    state = np.random.SeedSequence([seed, _IDS[purpose], step]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(seed: int, purpose: Purpose, step: int = 0) -> torch.Generator:
    """A CPU generator for one stream. Draws are made on the CPU so that devices see the same."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose, step))


@contextlib.contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """So many CPU threads inside: the last bits of floating point depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

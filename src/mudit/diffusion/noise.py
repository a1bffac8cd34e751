"""The noise that samplers use: each sample has its own, whatever batch it is sampled in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleNoise:
    """Standard normal noise that depends on a seed, a sample's number and the draw's place alone.

    Nothing is kept between draws, and all are made on the CPU in float32: batch size, order,
    device and dtype change no number.

    Attributes:
        seed: The study's, or a stream's of it.
        numbers: The number of each sample of a batch, e.g. its place among all samples.
    """

    seed: int
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, count: int, *, seed: int) -> SampleNoise:
        """The noise of samples 0 to `count` - 1."""
        return cls(seed=seed, numbers=tuple(range(count)))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: slice) -> SampleNoise:
        """The noise of a part of the samples."""
        return SampleNoise(seed=self.seed, numbers=self.numbers[part])

    def initial(self, shape: tuple[int, ...]) -> Float32[Tensor, "batch ..."]:
        """x_T: the draw at place 0, for samples of a shape."""
        return self.draw(0, shape)

    def draw(self, place: int, shape: tuple[int, ...]) -> Float32[Tensor, "batch ..."]:
        """The draw at a place, for samples of a shape.

        Args:
            place: 0 is x_T, 1 the first step's noise, and so on.
            shape: Of one sample.
        """
        bits = np.random.Philox(key=0)
        state, generator = bits.state, np.random.Generator(bits)
        noise = np.empty((len(self.numbers), *shape), dtype=np.float32)
        for row, number in zip(noise, self.numbers):
            state["state"]["key"] = _key(self.seed, number)
            # The counter has 256 bits, of which a draw has the first 64 for itself.
            state["state"]["counter"] = np.array([0, place, 0, 0], dtype=np.uint64)
            bits.state = state
            row[...] = generator.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(noise)

    def like(self, x: Tensor, place: int) -> Tensor:
        """The draw at a place in the shape, dtype and on the device of `x`."""
        return self.draw(place, tuple(x.shape[1:])).to(device=x.device, dtype=x.dtype)


def _key(seed: int, number: int) -> NDArray[np.uint64]:
    # Not a torch.Generator: on the CPU it keeps 32 bits of a seed, and among 50,000 images two
    # would share their noise with probability 1/4. Philox takes 128 bits.
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)

"""Noise that belongs to a sample, not to a batch."""

from __future__ import annotations

import numpy as np
import scipy.stats
import torch

from mudit.diffusion import SampleNoise

SHAPE = (2, 4, 4)


def test_a_samples_noise_does_not_depend_on_its_batch() -> None:
    whole = SampleNoise.of(10, seed=3)
    for place in (0, 1, 250):
        everything = whole.draw(place, SHAPE)
        assert torch.equal(everything[4:7], whole[4:7].draw(place, SHAPE))
        shuffled = SampleNoise(seed=3, numbers=(8, 0, 3))
        assert torch.equal(everything[[8, 0, 3]], shuffled.draw(place, SHAPE))


def test_noise_does_not_depend_on_what_was_drawn_before() -> None:
    noise = SampleNoise.of(2, seed=3)
    late = noise.draw(7, SHAPE)
    for place in range(7):
        noise.draw(place, SHAPE)
    torch.randn(5)
    assert torch.equal(late, noise.draw(7, SHAPE))
    assert torch.equal(noise.draw(0, SHAPE), noise.initial(SHAPE))


def test_seeds_numbers_and_places_have_noise_of_their_own() -> None:
    """Also (seed, number) pairs that read alike side by side, and seeds 2^32 apart."""
    rows = [
        SampleNoise(seed=seed, numbers=(number,)).draw(place, (50,))
        for seed in (0, 1, 11, 2**32, 2**62)
        for number in (0, 1, 11, 2**40)
        for place in (0, 1, 2)
    ]
    assert len(torch.unique(torch.cat(rows), dim=0)) == len(rows) == 60
    # No stream is another one further on, either.
    values = torch.cat(rows).flatten().tolist()
    assert len(set(values)) > 0.999 * len(values)


def test_dtype_changes_no_number() -> None:
    noise = SampleNoise.of(3, seed=0)
    single = noise.draw(1, SHAPE)
    double = noise.like(torch.zeros(3, *SHAPE, dtype=torch.float64), 1)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert torch.equal(single.double(), double)


def test_noise_is_standard_normal_and_independent() -> None:
    """Kolmogorov-Smirnov, and correlations of 40 streams; fails by chance with 2e-6."""
    noise = SampleNoise.of(20, seed=5)
    rows = torch.cat([noise.draw(0, (5000,)), noise.draw(1, (5000,))]).double().numpy()
    assert scipy.stats.kstest(rows.ravel(), "norm").pvalue > 1e-6
    correlations = np.corrcoef(rows)[np.triu_indices(40, k=1)]
    limit = scipy.stats.norm.isf(1e-6 / (2 * correlations.size)) / np.sqrt(5000)
    assert np.abs(correlations).max() < limit


def test_parts_know_their_length() -> None:
    noise = SampleNoise.of(10, seed=0)
    assert (len(noise), len(noise[8:16]), noise[8:16].numbers) == (10, 2, (8, 9))

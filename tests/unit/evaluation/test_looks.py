"""Features against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mudit.evaluation.looks import Looks, colours, edges


def flat(red: float, green: float, blue: float) -> torch.Tensor:
    """An image of one colour, 16 pixels wide."""
    return (
        torch.tensor([red, green, blue], dtype=torch.float32)
        .view(1, 3, 1, 1)
        .expand(1, 3, 16, 16)
        .clone()
    )


def test_one_colour_is_one_bin_and_a_colour_between_two_is_shared() -> None:
    pure = colours(flat(1, -1, -1)).view(4, 4, 4)  # red, green, blue
    assert pure[3, 0, 0] == 1
    assert pure.sum() == 1
    between = colours(flat(-1 + 1 / 3, -1, -1)).view(4, 4, 4).square()  # half a level
    torch.testing.assert_close(between[:2, 0, 0], torch.tensor([0.5, 0.5]))


def test_edges_stand_in_their_cell_and_direction() -> None:
    image = flat(-1, -1, -1)
    image[:, :, :, 2:] = 1  # a bright right part: the gradient points right, in the left cells
    found = edges(image).view(8, 4, 4)  # direction, row, column
    assert found[0].sum() == pytest.approx(found.sum())
    assert found[0, :, 1:].abs().max() == 0
    turned = edges(image.transpose(2, 3).contiguous()).view(8, 4, 4)
    torch.testing.assert_close(turned[4], found[0].T)  # a quarter turn: direction 4 of 8
    # Bright and dark exchanged: a direction and its opposite are one.
    torch.testing.assert_close(edges(-image), edges(image))


def test_features_are_centred_and_of_mean_square_one_also_for_grey() -> None:
    generator = torch.Generator().manual_seed(0)
    for channels in (1, 3):
        images = torch.rand(50, channels, 16, 16, generator=generator) * 2 - 1
        features = Looks.fit(images)(images)
        np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
        assert (features**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-4)


def test_images_that_are_all_alike_have_no_features() -> None:
    images = flat(0.0, 0.0, 0.0).expand(3, -1, -1, -1)
    assert np.isfinite(Looks.fit(images)(images)).all()

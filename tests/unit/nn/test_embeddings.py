"""Embeddings against formulas written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from mudit.nn import LabelEmbedder, PatchEmbed, TimestepEmbedder, sincos_positions, unpatchify


@pytest.mark.parametrize(("grid_size", "width"), [(1, 4), (4, 8), (3, 24)])
def test_positions_encode_the_column_first_and_sine_first(grid_size: int, width: int) -> None:
    expected = []
    for row in range(grid_size):
        for column in range(grid_size):
            token = []
            for coordinate in (column, row):
                angles = [coordinate / 10000 ** (k / (width / 4)) for k in range(width // 4)]
                token += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            expected.append(token)
    torch.testing.assert_close(
        sincos_positions(grid_size, width), torch.tensor(expected, dtype=torch.float64)
    )


def test_positions_are_real_inside_a_meta_context() -> None:
    with torch.device("meta"):
        assert sincos_positions(2, 8).device.type == "cpu"


@pytest.mark.parametrize("t", [torch.tensor([0, 1, 999]), torch.tensor([0.0, 0.5, 999.0])])
def test_timestep_features_are_cosines_then_sines_of_the_raw_step(t: torch.Tensor) -> None:
    embedder = TimestepEmbedder(8)
    seen = []
    embedder.mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    embedder(t)
    expected = []
    for step in t.tolist():
        angles = [step * math.exp(-math.log(10000) * k / 128) for k in range(128)]
        expected.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    # float32 angles up to 999 are exact to 999 * 2^-24 = 6e-5.
    torch.testing.assert_close(seen[0], torch.tensor(expected), rtol=0, atol=1e-4)


def test_timestep_frequencies_survive_meta_and_low_precision() -> None:
    expected = TimestepEmbedder(8).frequencies
    with torch.device("meta"):
        embedder = TimestepEmbedder(8)
    assert embedder.frequencies.is_meta
    torch.testing.assert_close(embedder.to_empty(device="cpu").frequencies, expected)
    embedder.bfloat16()
    torch.testing.assert_close(embedder.frequencies, expected)
    assert embedder(torch.tensor([999])).dtype == torch.bfloat16
    assert "frequencies" not in embedder.state_dict()


@pytest.mark.parametrize(("patch_size", "channels"), [(1, 2), (2, 3), (4, 1)])
def test_patch_embedding_is_the_strided_convolution(patch_size: int, channels: int) -> None:
    torch.manual_seed(0)
    embedder = PatchEmbed(patch_size, channels, 8).double()
    x = torch.randn(2, channels, 8, 8, dtype=torch.float64)
    expected = F.conv2d(x, embedder.proj.weight, embedder.proj.bias, stride=patch_size)
    torch.testing.assert_close(embedder(x), expected.flatten(2).transpose(1, 2))


def test_unpatchify_reads_row_column_channel() -> None:
    # Each value names its place: token, row and column in the patch, channel.
    patches = torch.empty(1, 4, 2 * 2 * 3)
    for token in range(4):
        for row in range(2):
            for column in range(2):
                for channel in range(3):
                    place = (row * 2 + column) * 3 + channel
                    patches[0, token, place] = 1000 * token + 100 * row + 10 * column + channel
    image = unpatchify(patches, 2)
    assert image.shape == (1, 3, 4, 4)
    for channel in range(3):
        for y in range(4):
            for x in range(4):
                token = (y // 2) * 2 + x // 2  # row by row
                expected = 1000 * token + 100 * (y % 2) + 10 * (x % 2) + channel
                assert image[0, channel, y, x] == expected


def test_label_table_has_a_row_for_no_label() -> None:
    embedder = LabelEmbedder(10, 4)
    table = embedder.embedding_table.weight
    assert table.shape == (11, 4)
    assert table.requires_grad
    torch.nn.init.normal_(table)
    torch.testing.assert_close(embedder(torch.tensor([10, 0])), table[[10, 0]])

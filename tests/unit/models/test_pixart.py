"""PixArt-α: sizes, names and initialisation. What all architectures do is in `conformance`."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from mudit.models.pixart import PRESETS, PixArt, PixArtConfig

TINY = PixArtConfig(
    depth=2,
    num_heads=2,
    head_dim=8,
    patch_size=2,
    input_size=8,
    in_channels=3,
    caption_dim=10,
    caption_tokens=6,
)


def on_meta(config: PixArtConfig) -> PixArt:
    with torch.device("meta"):
        return PixArt(config)


def trainable(model: PixArt) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# FACTS 1.2.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("PixArt-XL/2", 610_856_096),
        ("PixArt-ladder-288/2", 39_246_656),
        ("PixArt-ladder-1152/2", 610_856_096),
    ],
)
def test_parameter_counts(name: str, count: int) -> None:
    config = PRESETS[name]
    model = on_meta(config)
    n = config.width
    assert trainable(model) == count == 28 * (16 * n * n + 19 * n) + 8 * n * n + 4413 * n + 32
    buffers = {key: value.numel() for key, value in model.named_buffers() if "freq" not in key}
    assert buffers == {"pos_embed": 256 * n, "y_embedder.y_embedding": 491_520}


def test_presets_are_those_of_the_papers() -> None:
    shapes = {k: (c.depth, c.num_heads, c.head_dim, c.patch_size) for k, c in PRESETS.items()}
    assert shapes == {
        "PixArt-XL/2": (28, 16, 72, 2),
        "PixArt-ladder-288/2": (28, 4, 72, 2),
        "PixArt-ladder-1152/2": (28, 16, 72, 2),
    }
    assert [c.init for c in PRESETS.values()] == ["pixart", "pixart_mup", "pixart_mup"]
    assert all((c.caption_dim, c.caption_tokens) == (4096, 120) for c in PRESETS.values())


def test_names_are_those_of_the_original() -> None:
    layers = [
        "x_embedder.proj",
        "t_embedder.mlp.0",
        "t_embedder.mlp.2",
        "t_block.1",
        "y_embedder.y_proj.fc1",
        "y_embedder.y_proj.fc2",
        "blocks.0.attn.qkv",
        "blocks.0.attn.proj",
        "blocks.0.cross_attn.q_linear",
        "blocks.0.cross_attn.kv_linear",
        "blocks.0.cross_attn.proj",
        "blocks.0.mlp.fc1",
        "blocks.0.mlp.fc2",
        "final_layer.linear",
    ]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    expected |= {"pos_embed", "y_embedder.y_embedding"}
    expected |= {"blocks.0.scale_shift_table", "final_layer.scale_shift_table"}
    assert set(PixArt(dataclasses.replace(TINY, depth=1)).state_dict()) == expected


# FACTS 1.2, the column of values at the base width, 288.
MUP_STDS = {
    "x_embedder.proj.weight": 0.04138,
    "t_embedder.mlp.0.weight": 0.02,
    "y_embedder.y_proj.fc1.weight": 0.02,
    "t_embedder.mlp.2.weight": 0.02,
    "t_block.1.weight": 0.02,
    "y_embedder.y_proj.fc2.weight": 0.02,
    "blocks.0.attn.qkv.weight": 0.04167,
    "blocks.0.attn.proj.weight": 0.05893,
    "blocks.0.cross_attn.q_linear.weight": 0.05893,
    "blocks.0.cross_attn.kv_linear.weight": 0.04811,
    "blocks.0.cross_attn.proj.weight": 0.0,
    "blocks.0.mlp.fc1.weight": 0.03727,
    "blocks.0.mlp.fc2.weight": 0.03727,
    "blocks.0.scale_shift_table": 0.02,
    "final_layer.scale_shift_table": 0.02,
    "final_layer.linear.weight": 0.0,
}
SP_STDS = MUP_STDS | {
    "x_embedder.proj.weight": 0.0811,
    "blocks.0.scale_shift_table": 288**-0.5,
    "final_layer.scale_shift_table": 288**-0.5,
}


@pytest.mark.parametrize(("init", "stds"), [("pixart_mup", MUP_STDS), ("pixart", SP_STDS)])
def test_initial_stds_at_width_288(init: str, stds: dict[str, float]) -> None:
    """The table has four digits; an RMS over k entries is noisy by less than 1/sqrt(k), 4 times."""
    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS["PixArt-ladder-288/2"], depth=1, init=init)
    model = PixArt(config)
    for name, parameter in model.named_parameters():
        rms = parameter.detach().square().mean().sqrt().item()
        expected = 0.0 if name.endswith("bias") else stds[name]
        noise = 1e-3 + 4 / math.sqrt(parameter.numel())
        assert rms == pytest.approx(expected, rel=noise), name


def test_null_text_is_saved_and_not_trained() -> None:
    torch.manual_seed(0)
    model = PixArt(dataclasses.replace(TINY, caption_dim=1000, caption_tokens=50))
    text = model.null_text()
    assert text.shape == (1, 50, 1000)
    assert text.std().item() == pytest.approx(1000**-0.5, rel=0.02)
    assert torch.equal(model.state_dict()["y_embedder.y_embedding"], text[0])
    assert not text.requires_grad


def test_of_a_text_that_is_masked_throughout_zeros_are_read() -> None:
    torch.manual_seed(0)
    model = PixArt(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    x, t, text = torch.randn(2, 3, 8, 8), torch.tensor([1, 900]), torch.randn(2, 6, 10)
    mask = torch.tensor([[False] * 6, [True] * 6])
    found = model(x, t, text, mask)
    found.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

    with torch.no_grad():
        whole = model(x, t, text)
        for block in model.blocks:  # values of zero, whatever is attended to
            block.cross_attn.kv_linear.weight.zero_()
            block.cross_attn.kv_linear.bias.zero_()
        nothing = model(x, t, text)
    torch.testing.assert_close(found[0], nothing[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], whole[1], rtol=1e-5, atol=1e-5)
    assert (found[1] - nothing[1]).abs().max() > 1e-2


def test_text_has_no_effect_at_first() -> None:
    """The projections out of the cross-attention start at zero, under both initialisations."""
    for init in ("pixart", "pixart_mup"):
        torch.manual_seed(0)
        model = PixArt(dataclasses.replace(TINY, init=init))
        torch.nn.init.normal_(model.final_layer.linear.weight)
        x, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 900])
        texts = torch.randn(2, 2, 6, 10)
        assert torch.equal(model(x, t, texts[0]), model(x, t, texts[1]))
        torch.nn.init.normal_(model.blocks[0].cross_attn.proj.weight)
        assert not torch.equal(model(x, t, texts[0]), model(x, t, texts[1]))

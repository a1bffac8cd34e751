"""PixArt-α's forward pass against diffusers' PixArtTransformer2DModel, with copied weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor

from mudit.models.layouts.pixart import EXCHANGES
from mudit.models.pixart import PixArt, PixArtConfig

LATENTS = PixArtConfig(
    depth=2,
    num_heads=3,
    head_dim=16,
    patch_size=2,
    input_size=8,
    in_channels=4,
    caption_dim=24,
    caption_tokens=9,
)
CONFIGS = {
    "learned variance": LATENTS,
    "noise alone": dataclasses.replace(LATENTS, learn_sigma=False, depth=3),
    "big patches": dataclasses.replace(LATENTS, patch_size=4, in_channels=3, depth=1),
}
EXCHANGE = EXCHANGES["diffusers"]


def randomised(config: PixArtConfig) -> PixArt:
    torch.manual_seed(0)
    model = PixArt(config)
    with torch.no_grad():  # biases, tables and readout too, or zeros would hide their order
        for parameter in model.parameters():
            fan_in = parameter[0].numel()
            parameter.normal_(std=fan_in**-0.5 if parameter.ndim > 1 else 0.5)
    return model


def stock(model: PixArt) -> PixArtTransformer2DModel:
    """diffusers' model of the config that we would write, with the weights that we would write."""
    config = EXCHANGE.config(model.config)
    theirs = PixArtTransformer2DModel.from_config(config).eval()
    state = EXCHANGE.layout.export(model.state_dict(), model.config.depth)
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert (set(missing) - {"pos_embed.pos_embed"}, unexpected) == (set(), [])
    return theirs


def inputs_for(config: PixArtConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = (5, config.in_channels, config.input_size, config.input_size)
    x = torch.randn(size, generator=generator)
    t = torch.tensor([0.0, 1.0, 10.0, 500.0, 999.0])
    text = torch.randn(5, 9, config.caption_dim, generator=generator)
    lengths = torch.tensor([1, 3, 9, 7, 2])
    return x, t, text, torch.arange(9) < lengths[:, None]


@torch.no_grad()
def outputs(model: PixArt, theirs: Any, *, masked: bool = True) -> tuple[Tensor, Tensor]:
    x, t, text, mask = inputs_for(model.config)
    x, text = x.to(theirs.dtype), text.to(theirs.dtype)
    ours = model(x, t, text, mask if masked else None)
    expected = theirs(
        x,
        encoder_hidden_states=text,
        timestep=t,
        encoder_attention_mask=mask if masked else None,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
    ).sample
    return ours, expected


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_forward_is_that_of_diffusers(config: PixArtConfig, masked: bool) -> None:
    model = randomised(config)
    ours, theirs = outputs(model, stock(model), masked=masked)
    assert ours.std() > 0.3
    # float32 sums of a few hundred terms, values of order one.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_forward_in_float64_differs_by_the_sinusoids_alone() -> None:
    """Both compute them in float32, each its own way: 1e-7 of 999 radians, and less behind it."""
    model = randomised(LATENTS).double()
    ours, theirs = outputs(model, stock(model).double())
    assert ours.dtype == theirs.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_padding_is_as_if_it_were_not_there() -> None:
    """[PixArt] code removes padding and attends sample by sample: done here one at a time."""
    model = randomised(LATENTS)
    x, t, text, mask = inputs_for(LATENTS)
    with torch.no_grad():
        together = model(x, t, text, mask)
        for sample in range(5):
            one, length = slice(sample, sample + 1), int(mask[sample].sum())
            alone = model(x[one], t[one], text[one, :length])
            torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-5)
        text[~mask] = 1e3
        assert torch.equal(model(x, t, text, mask), together)


# Planted mistakes ---------------------------------------------------------------------------------


def final_layer_of_the_shared_modulation(model: PixArt) -> None:
    final, t_block = model.final_layer, model.t_block
    plain = final.forward

    def mistaken(x: Tensor, condition: Tensor) -> Tensor:
        return plain(x, t_block(condition)[:, : condition.shape[1]])

    final.forward = mistaken  # type: ignore[method-assign]


def normalised_query(model: PixArt) -> None:
    for block in model.blocks:
        cross = block.cross_attn
        plain, norm = cross.forward, block.norm1
        cross.forward = lambda x, *rest, plain=plain, norm=norm: plain(norm(x), *rest)


def scale_before_shift(model: PixArt) -> None:
    for block in model.blocks:
        order = [1, 0, 2, 3, 4, 5]
        block.scale_shift_table.data = block.scale_shift_table.data[order]


def gated_text(model: PixArt) -> None:
    for block in model.blocks:
        block.cross_attn.proj.weight.data *= 0.9


def key_for_value(model: PixArt) -> None:
    for block in model.blocks:
        linear = block.cross_attn.kv_linear
        linear.weight.data = torch.cat(linear.weight.data.chunk(2)[::-1])


@pytest.mark.parametrize(
    "plant",
    [
        final_layer_of_the_shared_modulation,
        normalised_query,
        scale_before_shift,
        gated_text,
        key_for_value,
    ],
)
def test_planted_mistakes_are_caught(plant: Callable[[PixArt], None]) -> None:
    model = randomised(LATENTS)
    theirs = stock(model)
    plant(model)
    ours, expected = outputs(model, theirs)
    assert (ours - expected).abs().max() > 1e-2

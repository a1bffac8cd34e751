"""MMDiT's forward pass against diffusers' SD3Transformer2DModel, with copied weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

from mudit.models import mmdit
from mudit.models.mmdit import MMDiT, MMDiTConfig
from mudit.nn import joint_attention

LATENTS = MMDiTConfig(
    depth=3,
    num_heads=3,
    head_dim=16,
    patch_size=2,
    input_size=16,
    in_channels=4,
    caption_dim=24,
    caption_tokens=9,
    pooled_dim=20,
    pos_embed_max_size=12,
    qk_norm=True,
)
CONFIGS = {
    "queries and keys normalised": LATENTS,
    "not normalised, as SD3": dataclasses.replace(LATENTS, qk_norm=False),
    "dual attention in one block of three": dataclasses.replace(LATENTS, dual_attention_blocks=1),
    "dual attention in all blocks": dataclasses.replace(
        LATENTS, dual_attention_blocks=3, qk_norm=False
    ),
    "big patches, no crop, one block": dataclasses.replace(
        LATENTS, depth=1, patch_size=4, pos_embed_max_size=4, in_channels=3
    ),
}


def randomised(config: MMDiTConfig) -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(config)
    with torch.no_grad():  # biases, gates and readout too, or zeros would hide their order
        for name, parameter in model.named_parameters():
            if ".ln_" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                fan_in = parameter[0].numel()
                parameter.normal_(std=fan_in**-0.5 if parameter.ndim > 1 else 0.5)
    return model


def stock(model: MMDiT) -> SD3Transformer2DModel:
    """diffusers' model, with our weights as its own converter of SD3's files reads them."""
    config = model.config
    theirs = SD3Transformer2DModel(
        sample_size=config.input_size,
        patch_size=config.patch_size,
        in_channels=config.in_channels,
        num_layers=config.depth,
        attention_head_dim=config.head_dim,
        num_attention_heads=config.num_heads,
        joint_attention_dim=config.caption_dim,
        caption_projection_dim=config.width,
        pooled_projection_dim=config.pooled_dim,
        out_channels=config.out_channels,
        pos_embed_max_size=config.pos_embed_max_size,
        dual_attention_layers=tuple(range(config.dual_attention_blocks)),
        qk_norm="rms_norm" if config.qk_norm else None,
    ).eval()
    state = convert_sd3_transformer_checkpoint_to_diffusers(dict(model.state_dict()))
    theirs.load_state_dict(state)  # strict: every key, both ways
    return theirs


def inputs_for(config: MMDiTConfig, length: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    batch = 5
    x = torch.randn(
        batch, config.in_channels, config.input_size, config.input_size, generator=generator
    )
    t = torch.tensor([0.0, 1.0, 10.5, 500.0, 1000.0])
    text = torch.randn(batch, length, config.caption_dim, generator=generator)
    return x, t, text, torch.randn(batch, config.pooled_dim, generator=generator)


@torch.no_grad()
def outputs(
    model: MMDiT, theirs: SD3Transformer2DModel, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    x, t, text, pooled = inputs_for(model.config, length)
    ours = model(x, t, text, None, pooled)
    return ours, theirs(x, encoder_hidden_states=text, pooled_projections=pooled, timestep=t).sample


@pytest.mark.parametrize("length", [1, 4, 9])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_forward_is_that_of_diffusers(config: MMDiTConfig, length: int) -> None:
    model = randomised(config)
    ours, theirs = outputs(model, stock(model), length)
    assert ours.std() > 0.3
    # float32 sums of a few hundred terms, values of order one.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_tokens_after_a_block_are_those_of_diffusers() -> None:
    model = randomised(CONFIGS["dual attention in one block of three"])
    theirs, (x, t, text, pooled) = stock(model), inputs_for(model.config, 4)
    seen = []
    for block in theirs.transformer_blocks:
        block.register_forward_hook(lambda _module, _args, output: seen.append(output[1]))
    with torch.no_grad():
        theirs(x, encoder_hidden_states=text, pooled_projections=pooled, timestep=t)
        for number in (1, 2, 3):
            _, tokens = model(x, t, text, None, pooled, tokens_after=number)
            torch.testing.assert_close(tokens, seen[number - 1], rtol=1e-5, atol=1e-5)


# Planted mistakes ---------------------------------------------------------------------------------


def image_first(model: MMDiT, patch: pytest.MonkeyPatch) -> None:
    # The order itself shows nowhere, since attention has none: what shows is where it is cut.
    def mistaken(first, second, mask=None):  # type: ignore[no-untyped-def]
        joint = torch.cat(joint_attention(second, first, mask), dim=1)
        return joint.split([first[0].shape[1], second[0].shape[1]], dim=1)

    patch.setattr(mmdit, "joint_attention", mistaken)


def swap_halves(linear: torch.nn.Linear) -> None:
    for parameter in (linear.weight, linear.bias):
        parameter.data = torch.cat(parameter.data.chunk(2)[::-1])


def final_scale_first(model: MMDiT, patch: pytest.MonkeyPatch) -> None:
    swap_halves(model.final_layer.adaLN_modulation[1])


def last_context_scale_first(model: MMDiT, patch: pytest.MonkeyPatch) -> None:
    swap_halves(model.joint_blocks[-1].context_block.adaLN_modulation[1])


def no_qk_norm(model: MMDiT, patch: pytest.MonkeyPatch) -> None:
    for block in model.joint_blocks:
        block.x_block.attn.ln_q = block.context_block.attn.ln_q = None


def gains_of_the_other_stream(model: MMDiT, patch: pytest.MonkeyPatch) -> None:
    attn, other = model.joint_blocks[0].x_block.attn, model.joint_blocks[0].context_block.attn
    attn.ln_k, other.ln_k = other.ln_k, attn.ln_k


def dual_attention_of_what_the_first_made(model: MMDiT, patch: pytest.MonkeyPatch) -> None:
    block = model.joint_blocks[0].x_block
    leave = block.leave

    def mistaken(x, normed, mixed, vectors):  # type: ignore[no-untyped-def]
        after = x + vectors[2] * block.attn.read_out(mixed)
        return leave(x, block.norm1(after), mixed, vectors)

    patch.setattr(block, "leave", mistaken)


def crop_from_the_corner(model: MMDiT, patch: pytest.MonkeyPatch) -> None:
    side = model.config.pos_embed_max_size
    start = (side - model.config.grid_size) // 2
    grid = model.pos_embed.unflatten(1, (side, side))
    model.pos_embed = grid.roll((start, start), dims=(1, 2)).flatten(1, 2)


MISTAKES = (
    image_first,
    final_scale_first,
    last_context_scale_first,
    no_qk_norm,
    gains_of_the_other_stream,
    dual_attention_of_what_the_first_made,
    crop_from_the_corner,
)


@pytest.mark.parametrize("plant", MISTAKES)
def test_planted_mistakes_are_caught(
    plant: Callable[[MMDiT, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = randomised(CONFIGS["dual attention in one block of three"])
    theirs = stock(model)
    plant(model, monkeypatch)
    ours, expected = outputs(model, theirs, 4)
    assert (ours - expected).abs().max() > 1e-2

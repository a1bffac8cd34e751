"""DiT's forward pass against diffusers' DiTTransformer2DModel, with copied weights."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiTTransformer2DModel

from mudit.models import DiT, DiTConfig


def stock_dit(config: DiTConfig) -> DiTTransformer2DModel:
    stock = DiTTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        sample_size=config.input_size,
        patch_size=config.patch_size,
        num_embeds_ada_norm=config.num_classes,
        norm_eps=1e-6,  # of the norm before the MLP; diffusers' default is 1e-5, [DiT]'s 1e-6
    ).eval()  # in training mode it drops labels
    for block in stock.transformer_blocks:
        # diffusers spaces the frequencies by 1/127, [DiT] by 1/128.
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return stock


def stock_state_dict(model: DiT) -> dict[str, torch.Tensor]:
    """Our weights under diffusers' names; its blocks each have embedders of their own."""
    state = {}

    def copy(to: str, of: str) -> None:
        for kind in ("weight", "bias"):
            state[f"{to}.{kind}"] = ours[f"{of}.{kind}"]

    ours = model.state_dict()
    copy("pos_embed.proj", "x_embedder.proj")
    for i in range(model.config.depth):
        block, stock = f"blocks.{i}", f"transformer_blocks.{i}"
        embedders = f"{stock}.norm1.emb"
        copy(f"{embedders}.timestep_embedder.linear_1", "t_embedder.mlp.0")
        copy(f"{embedders}.timestep_embedder.linear_2", "t_embedder.mlp.2")
        table = "embedding_table.weight"
        state[f"{embedders}.class_embedder.{table}"] = ours[f"y_embedder.{table}"]
        copy(f"{stock}.norm1.linear", f"{block}.adaLN_modulation.1")
        for kind in ("weight", "bias"):
            qkv = ours[f"{block}.attn.qkv.{kind}"].chunk(3)
            for letter, part in zip("qkv", qkv, strict=True):
                state[f"{stock}.attn1.to_{letter}.{kind}"] = part
        copy(f"{stock}.attn1.to_out.0", f"{block}.attn.proj")
        copy(f"{stock}.ff.net.0.proj", f"{block}.mlp.fc1")
        copy(f"{stock}.ff.net.2", f"{block}.mlp.fc2")
    copy("proj_out_1", "final_layer.adaLN_modulation.1")
    copy("proj_out_2", "final_layer.linear")
    return state


CONFIGS = {
    "latents of 32, learned variance": DiTConfig(
        depth=2, num_heads=2, head_dim=16, patch_size=2, input_size=32, in_channels=4, num_classes=7
    ),
    "grey digits": DiTConfig(
        depth=3,
        num_heads=3,
        head_dim=8,
        patch_size=2,
        input_size=8,
        in_channels=1,
        num_classes=10,
        learn_sigma=False,
    ),
    "colour, big patches": DiTConfig(
        depth=1, num_heads=1, head_dim=72, patch_size=4, input_size=16, in_channels=3, num_classes=2
    ),
    "one token": DiTConfig(
        depth=2, num_heads=4, head_dim=4, patch_size=8, input_size=8, in_channels=3, num_classes=1
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_forward_is_that_of_diffusers(config: DiTConfig) -> None:
    torch.manual_seed(0)
    model = DiT(config)
    with torch.no_grad():  # biases, gates and readout too, or zeros would hide their order
        for parameter in model.parameters():
            if parameter.requires_grad:
                fan_in = max(parameter[0].numel(), 1)
                parameter.normal_(std=fan_in**-0.5 if parameter.ndim > 1 else 0.5)
    stock = stock_dit(config)
    stock.load_state_dict(stock_state_dict(model))  # strict: every key, both ways

    batch = 5
    x = torch.randn(batch, config.in_channels, config.input_size, config.input_size)
    t = torch.tensor([0, 1, 10, 500, 999])
    labels = torch.arange(batch) % (config.num_classes + 1)
    with torch.no_grad():
        ours = model(x, t, labels)
        theirs = stock(x, timestep=t, class_labels=labels).sample
    assert ours.std() > 0.3
    # float32 sums of a few hundred terms, values of order one.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

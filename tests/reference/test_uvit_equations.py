"""U-ViT against its equations, written out from the state dict with plain tensor operations."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mudit.models.uvit import UViT, UViTConfig

UNCONDITIONAL = UViTConfig(
    depth=4, num_heads=2, head_dim=8, patch_size=2, input_size=8, in_channels=3
)
CLASS = dataclasses.replace(UNCONDITIONAL, num_classes=10)
TEXT = dataclasses.replace(UNCONDITIONAL, caption_dim=12, caption_tokens=7)
CONFIGS = {
    "unconditional": UNCONDITIONAL,
    "class": CLASS,
    "class, no null label": dataclasses.replace(CLASS, null_class=False),
    "class, no convolution": dataclasses.replace(CLASS, conv=False),
    "class, time MLP": dataclasses.replace(CLASS, mlp_time_embed=True),
    "text": TEXT,
    "text, all other options": dataclasses.replace(
        TEXT, conv=False, mlp_time_embed=True, qkv_bias=True
    ),
    "text, time MLP and convolution": dataclasses.replace(TEXT, mlp_time_embed=True),
    "deeper, bigger patches, another MLP": UViTConfig(
        depth=8,
        num_heads=3,
        head_dim=10,
        patch_size=4,
        input_size=16,
        in_channels=1,
        mlp_ratio=2.5,
        num_classes=4,
    ),
}
MISTAKES = (
    "skip before tokens",
    "first in, first out",
    "skip after the attention",
    "the middle block's output is pushed too",
    "tanh GELU",
    "sines first",
    "frequencies up to the last",
    "time before label",
    "text before time",
    "no position for the extras",
    "heads outside q, k and v",
    "logits not scaled",
    "norm after the block",
    "channels first in a patch",
    "extras dropped at the end",
    "convolution left out",
)


# The equations ------------------------------------------------------------------------------------


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    out = torch.einsum("...i,oi->...o", x, state[f"{name}.weight"])
    return out + state[f"{name}.bias"] if f"{name}.bias" in state else out


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Tensor, mistake: str) -> Tensor:
    if mistake == "tanh GELU":
        return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


def attention(
    state: dict[str, Tensor], name: str, x: Tensor, heads: int, keys: Tensor | None, mistake: str
) -> Tensor:
    batch, tokens, width = x.shape
    qkv = linear(state, f"{name}.qkv", x)
    if mistake == "heads outside q, k and v":
        query, key, value = qkv.view(batch, tokens, heads, 3, -1).unbind(3)
    else:
        query, key, value = qkv.view(batch, tokens, 3, heads, -1).unbind(2)
    logits = torch.einsum("bqhd,bkhd->bhqk", query, key)
    if mistake != "logits not scaled":
        logits = logits / math.sqrt(width // heads)
    exponentials = (logits - logits.amax(-1, keepdim=True)).exp()
    if keys is not None:
        exponentials = exponentials * keys[:, None, None, :]
    weights = exponentials / exponentials.sum(-1, keepdim=True)
    mixed = torch.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, tokens, width)
    return linear(state, f"{name}.proj", mixed)


def block(
    state: dict[str, Tensor],
    name: str,
    x: Tensor,
    skip: Tensor | None,
    heads: int,
    keys: Tensor | None,
    mistake: str,
) -> Tensor:
    def join(x: Tensor) -> Tensor:
        if skip is None:
            return x
        pair = [skip, x] if mistake == "skip before tokens" else [x, skip]
        return linear(state, f"{name}.skip_linear", torch.cat(pair, dim=-1))

    late = mistake == "skip after the attention"
    x = x if late else join(x)
    if mistake == "norm after the block":
        attended = attention(state, f"{name}.attn", x, heads, keys, mistake)
        x = x + norm(state, f"{name}.norm1", attended)
    else:
        normed = norm(state, f"{name}.norm1", x)
        x = x + attention(state, f"{name}.attn", normed, heads, keys, mistake)
    x = join(x) if late else x
    hidden = gelu(linear(state, f"{name}.mlp.fc1", norm(state, f"{name}.norm2", x)), mistake)
    return x + linear(state, f"{name}.mlp.fc2", hidden)


def time_token(state: dict[str, Tensor], config: UViTConfig, t: Tensor, mistake: str) -> Tensor:
    half = config.width // 2
    spacing = half - 1 if mistake == "frequencies up to the last" else half
    angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(half) / spacing)
    pair = [angles.cos(), angles.sin()]
    token = torch.cat(pair[::-1] if mistake == "sines first" else pair, dim=-1)
    if config.mlp_time_embed:
        hidden = linear(state, "time_embed.0", token)
        token = linear(state, "time_embed.2", hidden * torch.sigmoid(hidden))
    return token[:, None]


def image_of(patches: Tensor, config: UViTConfig, mistake: str) -> Tensor:
    p, c, side = config.patch_size, config.in_channels, config.input_size
    out = torch.full((patches.shape[0], c, side, side), math.nan)
    for row in range(side):
        for column in range(side):
            token = row // p * (side // p) + column // p
            for channel in range(c):
                entry = (row % p * p + column % p) * c + channel
                if mistake == "channels first in a patch":
                    entry = (channel * p + row % p) * p + column % p
                out[:, channel, row, column] = patches[:, token, entry]
    return out


def equations(
    state: dict[str, Tensor],
    config: UViTConfig,
    x: Tensor,
    t: Tensor,
    condition: Tensor | None = None,
    mask: Tensor | None = None,
    mistake: str = "",
) -> dict[str, Tensor]:
    """What each block gives, by name, and the prediction."""
    heads, half, total = config.num_heads, config.depth // 2, config.num_tokens
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    patches = F.conv2d(x, kernel, bias, stride=config.patch_size).flatten(2).mT
    time = time_token(state, config, t, mistake)
    extras = [time]
    if config.num_classes is not None:
        extras = [state["label_emb.weight"][condition][:, None], time]
        extras = extras[::-1] if mistake == "time before label" else extras
    if config.caption_dim is not None:
        extras = [time, linear(state, "context_embed", condition)]
        extras = extras[::-1] if mistake == "text before time" else extras
    tokens = torch.cat([*extras, patches], dim=1)
    count = tokens.shape[1] - total
    positions = state["pos_embed"].clone()
    if mistake == "no position for the extras":
        positions[:, :count] = 0
    tokens = tokens + positions
    keys = None
    if mask is not None:
        always = torch.ones(x.shape[0], 1)
        keys = torch.cat([always, mask.float(), always.expand(-1, total)], dim=1)

    stages, stack = {}, []
    for i in range(half):
        name = f"in_blocks.{i}"
        tokens = block(state, name, tokens, None, heads, keys, mistake)
        stages[name] = tokens
        stack.append(tokens)
    tokens = block(state, "mid_block", tokens, None, heads, keys, mistake)
    stages["mid_block"] = tokens
    if mistake == "the middle block's output is pushed too":
        stack.append(tokens)
    for i in range(half):
        name = f"out_blocks.{i}"
        skip = stack.pop(0 if mistake == "first in, first out" else -1)
        tokens = block(state, name, tokens, skip, heads, keys, mistake)
        stages[name] = tokens
    of_image = tokens[:, :total] if mistake == "extras dropped at the end" else tokens[:, count:]
    decoded = linear(state, "decoder_pred", norm(state, "norm", of_image))
    image = image_of(decoded, config, mistake)
    if config.conv and mistake != "convolution left out":
        image = F.conv2d(image, state["final_layer.weight"], state["final_layer.bias"], padding=1)
    stages["prediction"] = image
    return stages


# The comparison -----------------------------------------------------------------------------------


def randomised(config: UViTConfig) -> UViT:
    """Gains, biases and readout too, or ones and zeros would hide their places."""
    torch.manual_seed(0)
    model = UViT(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.normal_(mean=1, std=0.3)
            elif parameter.ndim == 1:
                parameter.normal_(std=0.5)
            elif name in ("pos_embed", "label_emb.weight"):
                parameter.normal_()
            else:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model


def inputs_for(config: UViTConfig) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    t = torch.tensor([0, 1, 10, 500, 1000])
    x = torch.randn(5, config.in_channels, config.input_size, config.input_size)
    if config.num_classes is not None:
        return x, t, torch.arange(5) % (config.num_classes + config.null_class)
    if config.caption_dim is not None:
        return x, t, torch.randn(5, config.caption_tokens, config.caption_dim)
    return x, t


@torch.no_grad()
def stages_of(model: UViT, *inputs: Tensor) -> dict[str, Tensor]:
    stages: dict[str, Tensor] = {}
    half = range(model.config.depth // 2)
    names = ["mid_block", *(f"{part}.{i}" for part in ("in_blocks", "out_blocks") for i in half)]
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: stages.update({name: out})
        )
        for name in names
    ]
    stages["prediction"] = model(*inputs)
    for hook in hooks:
        hook.remove()
    return stages


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in theirs:  # in the order of computation, so that the first one that differs is named
        # float32 sums of a few dozen terms, values of order one to ten.
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_block_and_the_prediction(config: UViTConfig) -> None:
    model, inputs = randomised(config), inputs_for(config)
    ours = stages_of(model, *inputs)
    assert ours["prediction"].std() > 0.3
    assert_same(ours, equations(model.state_dict(), config, *inputs))


@pytest.mark.parametrize("config", [TEXT, CONFIGS["text, all other options"]])
def test_masked_texts(config: UViTConfig) -> None:
    model, inputs = randomised(config), inputs_for(config)
    mask = torch.arange(7) < torch.tensor([1, 7, 3, 5, 0])[:, None]
    ours = stages_of(model, *inputs, mask)
    assert_same(ours, equations(model.state_dict(), config, *inputs, mask))
    with pytest.raises(AssertionError, match=r"^in_blocks\.0: "):
        assert_same(ours, equations(model.state_dict(), config, *inputs))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_caught(mistake: str) -> None:
    config = TEXT if mistake == "text before time" else CLASS
    model, inputs = randomised(config), inputs_for(config)
    ours = stages_of(model, *inputs)
    wrong = equations(model.state_dict(), config, *inputs, mistake=mistake)
    with pytest.raises(AssertionError):
        assert_same(ours, wrong)
    # Not by a hair: ten times the tolerance, in the prediction alone. The tanh approximation is
    # the smallest, since it is within 5e-4 of the exact GELU; the others differ by far more.
    difference = (ours["prediction"] - wrong["prediction"]).abs().max()
    assert difference > (1e-4 if mistake == "tanh GELU" else 0.05)


def test_the_first_block_that_differs_is_named() -> None:
    model, inputs = randomised(CLASS), inputs_for(CLASS)
    ours = stages_of(model, *inputs)
    for mistake, first in {
        "time before label": "in_blocks.0",
        "first in, first out": "out_blocks.0",
        "skip before tokens": "out_blocks.0",
        "the middle block's output is pushed too": "out_blocks.0",
        "channels first in a patch": "prediction",
        "convolution left out": "prediction",
    }.items():
        wrong = equations(model.state_dict(), CLASS, *inputs, mistake=mistake)
        with pytest.raises(AssertionError, match=f"^{first}: "):
            assert_same(ours, wrong)


@pytest.mark.parametrize(
    "edit",
    ["out_blocks.0.skip_linear.weight", "in_blocks.1.attn.qkv.weight", "final_layer.weight"],
)
def test_a_mistake_in_the_model_is_caught(edit: str) -> None:
    model, inputs = randomised(CLASS), inputs_for(CLASS)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():  # halves of the columns exchanged, as if read in the other order
        weight = model.get_parameter(edit)
        weight.copy_(weight.flip(1) if weight.ndim == 4 else weight.roll(weight.shape[1] // 2, 1))
    with pytest.raises(AssertionError):
        assert_same(stages_of(model, *inputs), equations(state, CLASS, *inputs))

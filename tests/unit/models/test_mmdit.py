"""MMDiT: sizes, names, initialisation, masks, and what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import subprocess
import sys
import time

import pytest
import torch

from mudit.errors import UsageError
from mudit.models.mmdit import PRESETS, MMDiT, MMDiTConfig, example_inputs

TINY = MMDiTConfig(
    depth=3,
    num_heads=2,
    head_dim=8,
    patch_size=2,
    input_size=8,
    in_channels=3,
    caption_dim=12,
    caption_tokens=5,
    pooled_dim=7,
    pos_embed_max_size=7,
    dual_attention_blocks=1,
)
PLAIN = dataclasses.replace(TINY, qk_norm=False, dual_attention_blocks=0, pooled_dim=None)
SWIGLU = dataclasses.replace(TINY, mlp="swiglu", dual_attention_blocks=3)
VARIANTS = {"tiny": TINY, "plain": PLAIN, "swiglu": SWIGLU}


def on_meta(config: MMDiTConfig) -> MMDiT:
    with torch.device("meta"):
        return MMDiT(config)


def randomised(config: MMDiTConfig) -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(dataclasses.replace(config, init="mmdit_mup"))
    torch.nn.init.normal_(model.final_layer.linear.weight, std=0.2)
    return model


def batch_for(config: MMDiTConfig, size: int = 4) -> tuple[torch.Tensor, ...]:
    """Image, time, text, mask, and the pooled vector where there is one."""
    torch.manual_seed(0)
    return example_inputs(config, size)(config.width)


def run_uninstrumented(script: str) -> str:
    """The shape checks that pytest turns on would speak first, and cannot be compiled."""
    header = (
        "import dataclasses, torch\ntorch.set_num_threads(1)\n"
        "from mudit.models.mmdit import MMDiT, MMDiTConfig, example_inputs\n"
        "from mudit.errors import UsageError\n"
        f"config = {TINY!r}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", header + script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Sizes --------------------------------------------------------------------------------------------

# FACTS 1.4: the first three are those of the released models; of the others, the two of the
# target and the proxy as the paper rounds them.
COUNTS = {
    "SD3-medium": 2_028_328_000,
    "SD3.5-medium": 2_243_171_520,
    "SD3.5-large": 8_056_627_520,
}
ROUNDED = {
    "MMDiT-paper-swiglu-5120": 18.15e9,
    "MMDiT-paper-swiglu-512": 0.1847e9,
    "MMDiT-paper-dual-5120": 17.84e9,
    "MMDiT-paper-dual-512": 0.1816e9,
}
PLAIN_COUNTS = {512: 152_226_880, 1920: 2_103_644_480, 5120: 14_899_439_680}  # SD3 at depth 16


def count(model: MMDiT) -> int:
    return sum(p.numel() for p in model.parameters())


def closed_form(config: MMDiTConfig) -> int:
    n, d = config.width, config.head_dim
    patch = config.in_channels * config.patch_size**2
    gains = 4 * d if config.qk_norm else 0
    # 8n² and its biases against 12n² without.
    swiglu = 4 * n * n - 5 * n if config.mlp == "swiglu" else 0
    full = 36 * n * n + 30 * n + gains + 2 * swiglu
    last = 23 * n * n + 20 * n + gains + swiglu
    dual = 7 * n * n + 7 * n + gains // 2
    embedders = (patch + 1) * n + (257 + n + 1) * n + (config.caption_dim + 1) * n
    pooled = 0 if config.pooled_dim is None else (config.pooled_dim + 1 + n + 1) * n
    readout = 2 * (n + 1) * n + (n + 1) * patch
    blocks = (config.depth - 1) * full + last + config.dual_attention_blocks * dual
    return embedders + pooled + blocks + readout


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_counts_of_presets(name: str) -> None:
    config = PRESETS[name]
    found = count(on_meta(config))
    assert found == closed_form(config)
    assert COUNTS.get(name) in (None, found)
    assert found == pytest.approx(ROUNDED.get(name, found), rel=5e-4)


@pytest.mark.parametrize("width", PLAIN_COUNTS)
def test_parameter_counts_without_the_additions(width: int) -> None:
    config = dataclasses.replace(PRESETS[f"MMDiT-paper-swiglu-{width}"], mlp="gelu")
    assert count(on_meta(config)) == PLAIN_COUNTS[width] == closed_form(config)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_parameter_counts_of_variants(config: MMDiTConfig) -> None:
    model = MMDiT(config)
    assert count(model) == closed_form(config)
    assert all(p.requires_grad for p in model.parameters())
    assert [name for name, _ in model.named_buffers() if name in model.state_dict()] == [
        "pos_embed"
    ]


def test_presets_are_those_of_the_papers() -> None:
    assert len(PRESETS) == 9
    for name, (depth, grid, qk_norm, dual) in {
        "SD3-medium": (24, 192, False, 0),
        "SD3.5-medium": (24, 384, True, 13),
        "SD3.5-large": (38, 192, True, 0),
    }.items():
        config = PRESETS[name]
        assert (config.depth, config.num_heads, config.head_dim) == (depth, depth, 64)
        assert (config.pos_embed_max_size, config.qk_norm) == (grid, qk_norm)
        assert config.dual_attention_blocks == dual
        assert (config.num_tokens, config.out_channels) == (64**2, 16)
    for width in (512, 1920, 5120):
        swiglu, dual = (PRESETS[f"MMDiT-paper-{kind}-{width}"] for kind in ("swiglu", "dual"))
        for config in (swiglu, dual):
            assert (config.width, config.depth, config.head_dim) == (width, 16, 64)
            assert (config.init, config.num_tokens, config.qk_norm) == ("mmdit_mup", 256, True)
        assert (swiglu.mlp, swiglu.dual_attention_blocks) == ("swiglu", 0)
        assert (dual.mlp, dual.dual_attention_blocks) == ("gelu", 16)
        assert pickle.loads(pickle.dumps(swiglu)) == swiglu


def layer_names(*layers: str) -> set[str]:
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_names_are_those_of_the_original() -> None:
    names = set(MMDiT(dataclasses.replace(TINY, depth=2)).state_dict())
    gains = {
        f"joint_blocks.{block}.attn{second}.ln_{letter}.weight"
        for block, second in (
            ("0.context_block", ""),
            ("0.x_block", ""),
            ("0.x_block", "2"),
            ("1.context_block", ""),
            ("1.x_block", ""),
        )
        for letter in "qk"
    }
    expected = layer_names(
        "x_embedder.proj",
        "t_embedder.mlp.0",
        "t_embedder.mlp.2",
        "y_embedder.mlp.0",
        "y_embedder.mlp.2",
        "context_embedder",
        *(
            f"joint_blocks.{block}.{layer}"
            for block in ("0.context_block", "0.x_block", "1.x_block")
            for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
        ),
        "joint_blocks.0.x_block.attn2.qkv",
        "joint_blocks.0.x_block.attn2.proj",
        "joint_blocks.1.context_block.attn.qkv",
        "joint_blocks.1.context_block.adaLN_modulation.1",
        "final_layer.linear",
        "final_layer.adaLN_modulation.1",
    )
    assert names == expected | gains | {"pos_embed"}


def test_names_of_variants() -> None:
    plain, swiglu = (set(MMDiT(config).state_dict()) for config in (PLAIN, SWIGLU))
    assert not [name for name in plain if "ln_" in name or "attn2" in name or "y_emb" in name]
    matrices = {name for name in swiglu if name.startswith("joint_blocks.0.x_block.mlp.")}
    assert matrices == {f"joint_blocks.0.x_block.mlp.w{i}.weight" for i in (1, 2, 3)}
    assert "joint_blocks.2.x_block.attn2.qkv.weight" in swiglu
    assert "joint_blocks.1.x_block.attn2.qkv.weight" not in MMDiT(TINY).state_dict()


# Initialisation -----------------------------------------------------------------------------------


def initial_rms(config: MMDiTConfig) -> dict[str, float]:
    """RMS of each weight at initialisation; what is not here, gains apart, is zero."""
    n, patch = config.width, config.in_channels * config.patch_size**2
    if config.init == "mmdit":
        mlp = math.sqrt(2 / (5 * n))
        return {
            "x_embedder.proj": math.sqrt(2 / (patch + n)),
            "t_embedder.mlp.0": 0.02,
            "t_embedder.mlp.2": 0.02,
            "y_embedder.mlp.0": 0.02,
            "y_embedder.mlp.2": 0.02,
            "context_embedder": math.sqrt(2 / (config.caption_dim + n)),
            "attn.qkv": math.sqrt(1 / (2 * n)),
            "attn.proj": n**-0.5,
            "attn2.qkv": math.sqrt(1 / (2 * n)),
            "attn2.proj": n**-0.5,
            **({"mlp.fc1": mlp, "mlp.fc2": mlp} if config.mlp == "gelu" else {}),
            **({"mlp.w1": mlp, "mlp.w2": mlp, "mlp.w3": mlp} if config.mlp == "swiglu" else {}),
        }
    wide, narrow = n**-0.5, (4 * n) ** -0.5
    return {
        "x_embedder.proj": patch**-0.5,
        "t_embedder.mlp.0": 1 / 16,
        "t_embedder.mlp.2": wide,
        "y_embedder.mlp.0": 7**-0.5,
        "y_embedder.mlp.2": wide,
        "context_embedder": config.caption_dim**-0.5,
        "attn.qkv": wide,
        "attn.proj": wide,
        "attn2.qkv": wide,
        "attn2.proj": wide,
        **({"mlp.fc1": wide, "mlp.fc2": narrow} if config.mlp == "gelu" else {}),
        **({"mlp.w1": wide, "mlp.w2": narrow, "mlp.w3": wide} if config.mlp == "swiglu" else {}),
        "adaLN_modulation.1": wide,
    }


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("init", ["mmdit", "mmdit_mup"])
def test_initial_scale_of_every_tensor(init: str, mlp: str) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, num_heads=24, depth=2, init=init, mlp=mlp)
    rms = initial_rms(config)
    seen = set()
    for name, parameter in MMDiT(config).named_parameters():
        if ".ln_" in name:
            assert parameter.eq(1).all(), name
            continue
        layer = next((key for key in rms if name.endswith(f"{key}.weight")), None)
        if layer is None:
            assert not parameter.any(), name
            continue
        seen.add(layer)
        measured = parameter.square().mean().sqrt().item()
        # The RMS of k normal values has relative deviation 1/sqrt(2k), uniform ones less.
        bound = 5 / math.sqrt(2 * parameter.numel())
        assert measured == pytest.approx(rms[layer], rel=bound), name
    assert seen == set(rms)


def test_weights_are_uniform_only_in_the_first() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, num_heads=24)
    bound = math.sqrt(6 / (12 + 192))
    weight = MMDiT(config).context_embedder.weight
    assert 0.99 * bound < weight.abs().max() <= bound
    assert MMDiT(dataclasses.replace(config, init="mmdit_mup")).context_embedder.weight.max() > 0.5


def test_blocks_start_as_the_identity_only_in_the_first() -> None:
    context, x = torch.randn(2, 5, TINY.width), torch.randn(2, 16, TINY.width)
    condition = torch.randn(2, TINY.width)
    for init, is_identity in (("mmdit", True), ("mmdit_mup", False)):
        block = MMDiT(dataclasses.replace(TINY, init=init)).joint_blocks[0]
        after_context, after_x = block(context, x, condition, None)
        assert torch.equal(after_context, context) == is_identity
        assert torch.equal(after_x, x) == is_identity


@pytest.mark.parametrize("init", ["mmdit", "mmdit_mup"])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_output_starts_at_zero(config: MMDiTConfig, init: str) -> None:
    model = MMDiT(dataclasses.replace(config, init=init))
    assert not model(*batch_for(config)).any()


def test_positions_are_the_centre_of_the_stored_grid() -> None:
    model = MMDiT(TINY)
    assert model.pos_embed.shape == (1, 49, 16)
    with torch.no_grad():
        model.x_embedder.proj.weight.zero_()
        placed = model._with_positions(model.x_embedder(torch.zeros(1, 3, 8, 8)))
    # 4 tokens of 7: from (7 - 4) // 2 = 1 on. The first half of the width is the column.
    for row in range(4):
        for column in range(4):
            token = placed[0, 4 * row + column]
            assert token[0].item() == pytest.approx(math.sin(column + 1), abs=1e-6)
            assert token[4].item() == pytest.approx(math.cos(column + 1), abs=1e-6)
            assert token[8].item() == pytest.approx(math.sin(row + 1), abs=1e-6)
            assert token[12].item() == pytest.approx(math.cos(row + 1), abs=1e-6)


def test_initialisation_follows_the_seed_and_the_default_device() -> None:
    first, second = randomised(TINY), randomised(TINY)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
    assert all(p.is_meta for p in on_meta(TINY).parameters())
    assert all(b.is_meta for b in on_meta(TINY).buffers())


def test_reset_parameters_completes_a_model_made_on_meta() -> None:
    model = on_meta(dataclasses.replace(TINY, init="mmdit_mup")).to_empty(device="cpu")
    torch.nn.init.constant_(model.pos_embed, math.nan)
    torch.manual_seed(0)
    model.reset_parameters()
    torch.nn.init.normal_(model.final_layer.linear.weight, std=0.2)
    inputs = batch_for(TINY)
    assert torch.equal(model(*inputs), randomised(TINY)(*inputs))


# Forward ------------------------------------------------------------------------------------------


def test_meta_construction_is_fast_and_forward_gives_the_shape() -> None:
    on_meta(TINY)  # torch imports its compiler at the first random meta op, seconds
    config = PRESETS["MMDiT-paper-dual-5120"]
    start = time.process_time()
    on_meta(PRESETS["SD3.5-medium"])
    model = on_meta(config)
    assert time.process_time() - start < 2
    with torch.device("meta"):
        inputs = example_inputs(config)(config.width)
    assert model(*inputs).shape == (2, 16, 32, 32)


def test_weights_loaded_into_a_model_made_on_meta() -> None:
    source, inputs = randomised(TINY), batch_for(TINY)
    model = on_meta(TINY).to_empty(device="cpu")
    model.load_state_dict(source.state_dict())
    assert torch.equal(model(*inputs), source(*inputs))


def test_each_image_is_on_its_own_and_training_mode_changes_nothing() -> None:
    model, (x, t, text, mask, pooled) = randomised(TINY), batch_for(TINY)
    out = model.train()(x, t, text, mask, pooled)
    torch.testing.assert_close(model.eval()(x, t, text, mask, pooled), out)
    one = (part[1:2] for part in (x, t, text, mask, pooled))
    torch.testing.assert_close(model(*one), out[1:2])
    assert not torch.allclose(model(x, (t + 100) % 1000, text, mask, pooled), out)
    assert not torch.allclose(model(x, t, text + 1, mask, pooled), out)
    assert not torch.allclose(model(x, t, text, mask, pooled + 1), out)
    none = (part[:0] for part in (x, t, text, mask, pooled))
    assert model(*none).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_tokens_behind_the_mask_have_no_influence(config: MMDiTConfig) -> None:
    model, (x, t, text, _, *pooled) = randomised(config), batch_for(config)
    mask = torch.arange(5) < torch.tensor([[1], [3], [5], [0]])
    out = model(x, t, text, mask, *pooled)
    noise = 10 * torch.randn_like(text)
    hidden = torch.where(mask.unsqueeze(-1), text, noise)
    torch.testing.assert_close(model(x, t, hidden, mask, *pooled), out, rtol=1e-6, atol=1e-6)
    # Padding is as good as no token.
    cut = model(x[1:2], t[1:2], text[1:2, :3], None, *(p[1:2] for p in pooled))
    torch.testing.assert_close(cut, out[1:2])
    # Without the mask the same tokens count, and a mask of ones is no mask.
    whole = model(x, t, text, None, *pooled)
    assert not torch.allclose(model(x, t, hidden, None, *pooled), whole, atol=1e-2)
    torch.testing.assert_close(model(x, t, text, torch.ones_like(mask), *pooled), whole)
    seen = torch.where(mask.unsqueeze(-1), noise, text)
    assert not torch.allclose(model(x, t, seen, mask, *pooled), out, atol=1e-2)


def test_attention_is_over_text_and_image_in_that_order() -> None:
    # Keys and values of one head by hand, with the two streams' own weights.
    model = randomised(dataclasses.replace(TINY, num_heads=1, depth=2))
    block = model.joint_blocks[0]
    context, x = torch.randn(1, 2, 8), torch.randn(1, 4, 8)
    mask = torch.tensor([True, False, True, True, True, True])
    seen = []
    for stream in (block.context_block, block.x_block):
        stream.attn.proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    block(context, x, torch.zeros(1, 8), mask[None, None, None])
    rows = []
    for stream, tokens in ((block.context_block, context), (block.x_block, x)):
        normed = (tokens - tokens.mean(-1, keepdim=True)) / tokens.var(
            -1, unbiased=False, keepdim=True
        ).add(1e-6).sqrt()
        query, key, value = (normed[0] @ stream.attn.qkv.weight.T).split(8, dim=1)
        query, key = (z / z.square().mean(-1, keepdim=True).add(1e-6).sqrt() for z in (query, key))
        rows.append((query, key, value))
    (q, k, v) = (torch.cat(parts) for parts in zip(*rows, strict=True))
    logits = (q @ k.T / 8**0.5).masked_fill(~mask, -math.inf)
    mixed = logits.softmax(-1) @ v
    of_x, of_context = seen  # the image leaves the block first
    torch.testing.assert_close(of_context[0], mixed[:2])
    torch.testing.assert_close(of_x[0], mixed[2:])


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_tokens_after_a_block(config: MMDiTConfig) -> None:
    model, inputs = randomised(config), batch_for(config)
    seen = []
    for block in model.joint_blocks:
        block.register_forward_hook(lambda _module, _args, output: seen.append(output[1]))
    out = model(*inputs)
    tokens = list(seen)
    for number in (1, 2, 3):
        prediction, hidden = model(*inputs, tokens_after=number)
        assert torch.equal(prediction, out)
        assert hidden.shape == (4, 16, 16)
        assert torch.equal(hidden, tokens[number - 1])
    for number in (0, 4):
        with pytest.raises(UsageError, match="expected a number from 1 to 3"):
            model(*inputs, tokens_after=number)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_gradient_reaches_every_trainable_parameter(config: MMDiTConfig) -> None:
    model = randomised(config)
    model(*batch_for(config)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # The text's queries in the last block are nobody's.
        assert parameter.grad.any() == (name != "joint_blocks.2.context_block.attn.ln_q.weight")


def test_deepcopy_is_equal_and_apart() -> None:
    model, inputs = randomised(TINY), batch_for(TINY)
    out = model(*inputs)
    copied = copy.deepcopy(model)
    torch.nn.init.zeros_(model.final_layer.linear.weight)
    assert torch.equal(copied(*inputs), out)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_bfloat16_by_autocast_and_by_weights(config: MMDiTConfig) -> None:
    model, (x, t, text, mask, *pooled) = randomised(config), batch_for(config)
    out = model(x, t, text, mask, *pooled)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model(x, t, text, mask, *pooled)
    cast.float().sum().backward()
    low = model.bfloat16()(x.bfloat16(), t, text.bfloat16(), mask, *(p.bfloat16() for p in pooled))
    assert cast.dtype == low.dtype == torch.bfloat16
    # bfloat16 has 8 bits: a few percent of the output's scale after three blocks.
    for other in (cast, low):
        assert (other.float() - out).square().mean().sqrt() < 0.05 * out.square().mean().sqrt()


def test_compiles_into_one_graph() -> None:
    # Tracing is what the model can break; generating code would take a minute.
    run_uninstrumented("""
torch.manual_seed(0)
config = dataclasses.replace(config, depth=2)
model = MMDiT(config)
for parameter in model.parameters():
    torch.nn.init.normal_(parameter.data, std=0.2)
compiled = torch.compile(model, fullgraph=True, backend="eager")
weight = model.joint_blocks[0].context_block.attn.qkv.weight
for batch in (2, 3):
    inputs = example_inputs(config, batch)(0)
    expected, hidden = model(*inputs, tokens_after=1)
    got, compiled_hidden = compiled(*inputs, tokens_after=1)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(compiled_hidden, hidden)
    want = torch.autograd.grad(expected.square().sum(), weight)
    torch.testing.assert_close(torch.autograd.grad(got.square().sum(), weight), want)
""")


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 9}, "input_size is 9, which patch_size 2 does not divide"),
        ({"head_dim": 7}, r"2 \* 7 = 14; expected a multiple of 4"),
        ({"caption_dim": 0}, "caption_dim is 0; expected a whole number from 1"),
        ({"caption_tokens": 0}, "caption_tokens is 0"),
        ({"pooled_dim": 0}, "pooled_dim is 0"),
        (
            {"pos_embed_max_size": 3},
            "pos_embed_max_size is 3, .* 4 x 4 tokens; expected at least 4",
        ),
        ({"dual_attention_blocks": 4}, "dual_attention_blocks is 4; .* from 0 to the depth, 3"),
        ({"dual_attention_blocks": -1}, "dual_attention_blocks is -1"),
        ({"mlp_ratio": math.nan}, "mlp_ratio is nan"),
    ],
)
def test_config_refuses(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize("shape", [(4, 4, 8, 8), (4, 3, 16, 16)])
def test_images_of_another_shape(shape: tuple[int, ...]) -> None:
    _, *others = batch_for(TINY)
    with pytest.raises(UsageError, match=r"expects .* = \(batch, 3, 8, 8\)"):
        MMDiT(TINY)(torch.zeros(shape), *others)


def test_texts_of_another_shape() -> None:
    model, (x, t, text, _, pooled) = MMDiT(TINY), batch_for(TINY)
    with pytest.raises(UsageError, match=r"a text of 6 tokens; the model's maximum is 5"):
        model(x, t, torch.zeros(4, 6, 12), None, pooled)
    with pytest.raises(UsageError, match=r"a text of 0 tokens"):
        model(x, t, text[:, :0], None, pooled)
    with pytest.raises(UsageError, match=r"text of shape \(4, 5, 11\); .* \(4, 1 to 5, 12\)"):
        model(x, t, text[:, :, :11], None, pooled)
    with pytest.raises(UsageError, match=r"got no pooled; expected shape \(4, 7\)"):
        model(x, t, text)
    with pytest.raises(UsageError, match=r"pooled of shape \(4, 6\); .* = \(4, 7\)"):
        model(x, t, text, None, pooled[:, :6])
    with pytest.raises(UsageError, match=r"got pooled, .* or set pooled_dim=7"):
        MMDiT(PLAIN)(x, t, text, None, pooled)


def test_refusals_that_the_shape_checks_of_tests_would_hide() -> None:
    out = run_uninstrumented("""
model = MMDiT(config)
x, t, text, mask, pooled = example_inputs(config, 2)(0)
for inputs in (
    (x[0], t, text, mask, pooled),
    (x, t[:1], text, mask, pooled),
    (x, t, text[0], mask, pooled),
    (x, t, text[:1], mask, pooled),
    (x, t, text, mask[:, :4], pooled),
    (x, t, text, mask.long(), pooled),
    (x, t, text, mask, pooled[0]),
):
    try:
        model(*inputs)
    except UsageError as error:
        print(error)
for changes in ({"depth": 2.0}, {"init": "dit"}, {"mlp": "relu"}, {"qk_norm": "rms"}):
    try:
        dataclasses.replace(config, **changes)
    except UsageError as error:
        print(error)
""")
    lines = out.splitlines()
    messages = [
        "x of shape (3, 8, 8)",
        "t of shape (1,) for a batch of 2; expected (2,)",
        "text of shape (5, 12); expected (batch, tokens, caption_dim) = (2, 1 to 5, 12)",
        "text of shape (1, 5, 12)",
        "mask of shape (2, 4) and dtype torch.bool; expected (2, 5)",
        "mask of shape (2, 5) and dtype torch.int64",
        "pooled of shape (7,)",
        "depth is 2.0; expected a whole number",
        "init is 'dit'; expected one of ['mmdit', 'mmdit_mup']",
        "mlp is 'relu'; expected one of ['gelu', 'swiglu']",
        "qk_norm is 'rms'; expected True or False",
    ]
    for line, message in zip(lines, messages, strict=True):
        assert message in line

"""U-ViT: sizes, names, initialisation, texts and masks, and what it refuses."""

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
from mudit.models.layouts.uvit import EXCHANGES
from mudit.models.uvit import PRESETS, Sinusoids, UViT, UViTConfig, example_inputs

PLAIN = UViTConfig(depth=4, num_heads=2, head_dim=8, patch_size=2, input_size=8, in_channels=3)
CLASS = dataclasses.replace(PLAIN, num_classes=10)
TEXT = dataclasses.replace(PLAIN, caption_dim=12, caption_tokens=5)
VARIANTS = {
    "plain": PLAIN,
    "class": CLASS,
    "no null label": dataclasses.replace(CLASS, null_class=False),
    "text": TEXT,
    "no convolution": dataclasses.replace(CLASS, conv=False),
    "time MLP and biases": dataclasses.replace(TEXT, mlp_time_embed=True, qkv_bias=True),
}
each_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def on_meta(config: UViTConfig) -> UViT:
    with torch.device("meta"):
        return UViT(config)


def randomised(config: UViTConfig) -> UViT:
    torch.manual_seed(0)
    model = UViT(dataclasses.replace(config, init="uvit_mup"))
    torch.nn.init.normal_(model.decoder_pred.weight, std=0.2)
    return model


def batch_for(config: UViTConfig, size: int = 4) -> tuple[torch.Tensor, ...]:
    """Image, time, and what the config has of labels, text and mask."""
    torch.manual_seed(0)
    return example_inputs(config, size)(config.width)


def run_uninstrumented(script: str) -> str:
    """The shape checks that pytest turns on would speak first, and cannot be compiled."""
    header = (
        "import dataclasses, torch\ntorch.set_num_threads(1)\n"
        "from mudit.models.uvit import UViT, UViTConfig, example_inputs\n"
        "from mudit.errors import UsageError\n"
        f"plain, labelled, captioned = {PLAIN!r}, {CLASS!r}, {TEXT!r}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", header + script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Sizes --------------------------------------------------------------------------------------------

# FACTS 1.3.
COUNTS = {
    "U-ViT-S/2-cifar10": 44_255_328,
    "U-ViT-S/4-celeba64": 44_292_228,
    "U-ViT-M/4-imagenet64": 130_940_292,
    "U-ViT-L/4-imagenet64": 286_827_652,
    "U-ViT-L/2-imagenet256": 286_763_172,
    "U-ViT-H/2-imagenet256": 500_832_016,
    "U-ViT-S/2-coco": 44_692_644,
    "U-ViT-S-deep/2-coco": 58_345_636,
}


def count(model: UViT) -> int:
    return sum(p.numel() for p in model.parameters())


def closed_form(config: UViTConfig) -> int:
    n, c, patch = config.width, config.in_channels, config.in_channels * config.patch_size**2
    labels = 0 if config.num_classes is None else config.num_classes + config.null_class
    captions = 0 if config.caption_dim is None else config.caption_dim + 1
    extras = 1 + (labels > 0) + (config.caption_tokens if captions else 0)
    blocks = (config.depth + 1) * (12 * n * n + (13 if config.qkv_bias else 10) * n)
    skips = config.depth // 2 * (2 * n * n + n)
    embedders = (patch + 1 + labels + captions + extras + config.num_tokens) * n
    time_mlp = (4 * n * n + 4 * n) + (4 * n * n + n) if config.mlp_time_embed else 0
    readout = 2 * n + patch * (n + 1) + (9 * c * c + c if config.conv else 0)
    return embedders + time_mlp + blocks + skips + readout


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_counts_of_presets(name: str) -> None:
    assert count(on_meta(PRESETS[name])) == COUNTS[name] == closed_form(PRESETS[name])


@each_variant
def test_parameter_counts_of_variants(config: UViTConfig) -> None:
    model = UViT(config)
    assert count(model) == closed_form(config)
    assert all(p.requires_grad for p in model.parameters())
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()


def test_presets_are_those_of_the_original() -> None:
    assert PRESETS.keys() == COUNTS.keys()
    shapes = {
        "S": (512, 12, 8),
        "S-deep": (512, 16, 8),
        "M": (768, 16, 12),
        "L": (1024, 20, 16),
        "H": (1152, 28, 16),
    }
    for name, config in PRESETS.items():
        size, patch_size = name.removeprefix("U-ViT-").split("-imagenet")[0].split("/")
        assert (config.width, config.depth, config.num_heads) == shapes[size]
        assert config.patch_size == int(patch_size[0])
        assert config.num_tokens == 256
        assert config.init == "uvit"
        assert not config.mlp_time_embed
        assert not config.qkv_bias
        assert config.conv == ("H" not in name)
    assert PRESETS["U-ViT-S/2-coco"].extra_tokens == 78
    assert PRESETS["U-ViT-S/2-cifar10"].extra_tokens == 1


def test_config_properties() -> None:
    config = PRESETS["U-ViT-H/2-imagenet256"]
    assert (config.width, config.mlp_hidden, config.out_channels) == (1152, 4608, 4)
    assert (config.extra_tokens, config.null_label) == (2, 1000)
    assert UViT(dataclasses.replace(CLASS, num_classes=7)).label_emb.weight.shape == (8, 16)
    assert PRESETS["U-ViT-L/4-imagenet64"].null_label is None
    assert PLAIN.null_label is TEXT.null_label is None
    assert UViT(dataclasses.replace(PLAIN, mlp_ratio=2.7)).mid_block.mlp.fc1.weight.shape[0] == 43
    assert pickle.loads(pickle.dumps(config)) == config


def test_names_are_those_of_the_original() -> None:
    config = dataclasses.replace(CLASS, depth=2, mlp_time_embed=True)
    names = set(UViT(config).state_dict())
    layers = ["patch_embed.proj", "norm", "decoder_pred", "final_layer"]
    layers += ["time_embed.0", "time_embed.2", "out_blocks.0.skip_linear"]
    expected = {"pos_embed", "label_emb.weight"}
    for block in ("in_blocks.0", "mid_block", "out_blocks.0"):
        expected.add(f"{block}.attn.qkv.weight")
        layers += [f"{block}.{m}" for m in ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")]
    expected |= {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert names == expected
    captions = set(UViT(dataclasses.replace(TEXT, depth=2, conv=False)).state_dict())
    assert captions - expected == {"context_embed.weight", "context_embed.bias"}
    assert {name for name in expected - captions if not name.startswith("time_embed.")} == {
        "label_emb.weight",
        "final_layer.weight",
        "final_layer.bias",
    }


@each_variant
def test_the_layout_of_the_original_is_the_identity(config: UViTConfig) -> None:
    ours, layout = randomised(config).state_dict(), EXCHANGES["original"].layout
    theirs = layout.export(ours, config.depth)
    back = layout.load(theirs, on_meta(config).state_dict(), config.depth)
    assert theirs.keys() == back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    wrong = {**theirs, "norm.gain": torch.zeros(16)}
    del wrong["pos_embed"]
    with pytest.raises(UsageError, match=r"2 tensors:\n  pos_embed: missing.*\n  norm.gain: "):
        layout.load(wrong, ours, config.depth)


# Initialisation -----------------------------------------------------------------------------------


def initial_rms(config: UViTConfig) -> dict[str, float]:
    """RMS of each tensor at initialisation, FACTS 1.3; gains are 1, what is not here is zero."""
    n, patch = config.width, config.in_channels * config.patch_size**2
    conv = 9 * config.in_channels
    if config.init == "uvit":
        linear = ("context_embed", "skip_linear", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        uniform = {  # U(±1/sqrt(fan_in)), weights and biases
            f"{layer}.{kind}": (3 * fan_in) ** -0.5
            for layer, fan_in in (("patch_embed.proj", patch), ("final_layer", conv))
            for kind in ("weight", "bias")
        }
        normal = (*linear, "decoder_pred", "time_embed.0", "time_embed.2")
        drawn = {f"{layer}.weight": 0.02 for layer in normal}
        return drawn | uniform | {"pos_embed": 0.02, "label_emb.weight": 1.0}
    return {
        "pos_embed": 0.02,
        "label_emb.weight": 1.0,
        "patch_embed.proj.weight": patch**-0.5,
        "context_embed.weight": (config.caption_dim or 1) ** -0.5,
        "time_embed.0.weight": n**-0.5,
        "time_embed.2.weight": (4 * n) ** -0.5,
        "skip_linear.weight": (2 * n) ** -0.5,
        "attn.qkv.weight": n**-0.5,
        "attn.proj.weight": n**-0.5,
        "mlp.fc1.weight": n**-0.5,
        "mlp.fc2.weight": (4 * n) ** -0.5,
        "final_layer.weight": conv**-0.5,
    }


@pytest.mark.parametrize("init", ["uvit", "uvit_mup"])
def test_initial_scale_of_every_tensor(init: str) -> None:
    torch.manual_seed(0)
    seen = set()
    wide = {"num_heads": 16, "depth": 2, "mlp_time_embed": True, "init": init}
    for variant in (CLASS, dataclasses.replace(TEXT, caption_dim=64)):
        config = dataclasses.replace(variant, **wide)
        rms = initial_rms(config)
        for name, parameter in UViT(config).named_parameters():
            key = next((key for key in rms if name.endswith(key)), None)
            if key is None:
                is_gain = "norm" in name and name.endswith("weight")
                assert torch.equal(parameter, torch.full_like(parameter, float(is_gain))), name
                continue
            seen.add(key)
            measured = parameter.square().mean().sqrt().item()
            # The RMS of k normal values has relative deviation 1/sqrt(2k), uniform ones less: five
            # of these over 50 tensors would fail once in 30 000 seeds.
            bound = 5 / math.sqrt(2 * parameter.numel())
            assert measured == pytest.approx(rms[key], rel=bound), name
    assert seen == set(initial_rms(config))


def test_convolutions_of_the_original_are_uniform() -> None:
    torch.manual_seed(0)
    model = UViT(dataclasses.replace(CLASS, num_heads=64, in_channels=8))
    for layer, fan_in in ((model.patch_embed.proj, 32), (model.final_layer, 72)):
        assert 0.99 * fan_in**-0.5 < layer.weight.abs().max() <= fan_in**-0.5
        assert layer.bias.abs().max() <= fan_in**-0.5
    assert model.patch_embed.proj.bias.abs().max() > 0.95 * 32**-0.5


def test_output_starts_at_zero_only_for_mup() -> None:
    for init, is_zero in (("uvit", False), ("uvit_mup", True)):
        model = UViT(dataclasses.replace(CLASS, init=init))
        assert (not model(*batch_for(CLASS)).any()) == is_zero


def test_initialisation_follows_the_seed_and_the_default_device() -> None:
    first, second = randomised(CLASS), randomised(CLASS)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
    assert all(p.is_meta for p in on_meta(CLASS).parameters())
    assert all(b.is_meta for b in on_meta(CLASS).buffers())


@each_variant
def test_reset_parameters_completes_a_model_made_on_meta(config: UViTConfig) -> None:
    model = on_meta(dataclasses.replace(config, init="uvit_mup")).to_empty(device="cpu")
    torch.manual_seed(0)
    model.reset_parameters()
    torch.nn.init.normal_(model.decoder_pred.weight, std=0.2)
    inputs = batch_for(config)
    assert torch.equal(model(*inputs), randomised(config)(*inputs))


# The time token -----------------------------------------------------------------------------------


def test_sinusoids_are_as_wide_as_the_model_and_cosines_come_first() -> None:
    out = Sinusoids(6)(torch.tensor([0, 3, 999]))
    assert out.shape == (3, 6)
    for row, t in zip(out, (0, 3, 999), strict=True):
        angles = [t * 10_000 ** (-k / 3) for k in range(3)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        torch.testing.assert_close(row, torch.tensor(expected), rtol=0, atol=1e-4)


def test_sinusoids_stay_in_float32_and_have_no_parameters() -> None:
    t = torch.tensor([999.0, 1000.0])
    module = Sinusoids(64)
    assert not module.state_dict()
    assert torch.equal(module.bfloat16()(t), Sinusoids(64)(t))
    with torch.device("meta"):
        moved = Sinusoids(64)
    assert torch.equal(moved.to_empty(device="cpu")(t), Sinusoids(64)(t))


# Forward ------------------------------------------------------------------------------------------


def test_meta_construction_is_fast_and_forward_gives_the_shape() -> None:
    on_meta(CLASS)  # torch imports its compiler at the first random meta op, seconds
    start = time.process_time()
    model = on_meta(PRESETS["U-ViT-H/2-imagenet256"])
    assert time.process_time() - start < 0.5
    x = torch.empty(2, 4, 32, 32, device="meta")
    zeros = torch.zeros(2, dtype=torch.long, device="meta")
    assert model(x, zeros, zeros).shape == (2, 4, 32, 32)


@each_variant
def test_weights_loaded_into_a_model_made_on_meta(config: UViTConfig) -> None:
    source, inputs = randomised(config), batch_for(config)
    model = on_meta(config).to_empty(device="cpu")
    model.load_state_dict(source.state_dict())
    assert torch.equal(model(*inputs), source(*inputs))


@each_variant
def test_each_image_is_on_its_own_and_training_mode_changes_nothing(config: UViTConfig) -> None:
    model, inputs = randomised(config), batch_for(config)
    out = model.train()(*inputs)
    assert out.shape == inputs[0].shape
    torch.testing.assert_close(model.eval()(*inputs), out)
    torch.testing.assert_close(model(*(part[1:2] for part in inputs)), out[1:2])
    x, t, *others = inputs
    torch.testing.assert_close(model(x, t.float(), *others), out)
    assert not torch.allclose(model(x, (t + 100) % 1000, *others), out)
    assert model(*(part[:0] for part in inputs)).shape == (0, 3, 8, 8)


def test_labels_and_texts_are_used() -> None:
    model, (x, t, labels) = randomised(CLASS), batch_for(CLASS)
    out = model(x, t, labels)
    torch.testing.assert_close(model(x, t, labels.int()), out)
    assert not torch.allclose(model(x, t, (labels + 1) % 11), out)
    captioned, (x, t, text, mask) = randomised(TEXT), batch_for(TEXT)
    out = captioned(x, t, text, mask)
    assert not torch.allclose(captioned(x, t, text + 1, mask), out)
    assert not torch.allclose(captioned(x, t, text.flip(1)), captioned(x, t, text))


def test_masked_padding_is_as_if_it_were_not_there() -> None:
    model, (x, t, text, _) = randomised(TEXT), batch_for(TEXT)
    mask = torch.arange(5).expand(4, 5) < 3
    masked = model(x, t, text, mask)
    short = model(x, t, text[:, :3])
    torch.testing.assert_close(masked, short)
    garbage = torch.where(mask[:, :, None], text, 100.0)
    torch.testing.assert_close(model(x, t, garbage, mask), masked)
    assert not torch.allclose(model(x, t, text), masked)
    assert torch.equal(model(x, t, text, mask | True), model(x, t, text, torch.ones(4, 5) > 0))
    torch.testing.assert_close(model(x, t, text, mask | True), model(x, t, text))
    assert model(x, t, text, mask & False).isfinite().all()  # a text without a token


@pytest.mark.parametrize("config", [PLAIN, CLASS, TEXT], ids=["plain", "class", "text"])
def test_tokens_after_a_block_are_those_of_the_image(config: UViTConfig) -> None:
    model, inputs = randomised(config), batch_for(config)
    after = {}
    blocks = [*model.in_blocks, model.mid_block, *model.out_blocks]
    assert len(blocks) == config.depth + 1
    for number, block in enumerate(blocks, 1):
        block.register_forward_hook(lambda _, __, out, n=number: after.update({n: out[:, -16:]}))
    out = model(*inputs)
    for number in range(1, config.depth + 2):
        expected = dict(after)
        prediction, tokens = model(*inputs, tokens_after=number)
        assert torch.equal(prediction, out)
        assert torch.equal(tokens, expected[number])
        assert tokens.shape == (4, 16, 16)
    for wrong in (0, config.depth + 2):
        with pytest.raises(UsageError, match=rf"tokens_after={wrong}; it has 5 blocks"):
            model(*inputs, tokens_after=wrong)


@each_variant
def test_gradient_reaches_every_parameter(config: UViTConfig) -> None:
    model = randomised(config)
    model(*batch_for(config)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_deepcopy_is_equal_and_apart() -> None:
    model, inputs = randomised(CLASS), batch_for(CLASS)
    out = model(*inputs)
    copied = copy.deepcopy(model)
    torch.nn.init.zeros_(model.decoder_pred.weight)
    assert torch.equal(copied(*inputs), out)


@each_variant
def test_bfloat16_by_autocast_and_by_weights(config: UViTConfig) -> None:
    model, (x, t, *condition) = randomised(config), batch_for(config)
    out = model(x, t, *condition)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model(x, t, *condition)
    cast.float().sum().backward()
    lowered = [part.bfloat16() if part.is_floating_point() else part for part in condition]
    low = model.bfloat16()(x.bfloat16(), t, *lowered)
    assert cast.dtype == low.dtype == torch.bfloat16
    # bfloat16 has 8 bits: a few percent of the output's scale after five blocks.
    for other in (cast, low):
        assert (other.float() - out).square().mean().sqrt() < 0.05 * out.square().mean().sqrt()


def test_compiles_into_one_graph() -> None:
    # Tracing is what the model can break; generating code would take a minute.
    run_uninstrumented("""
for config in (labelled, captioned):
    torch.manual_seed(0)
    config = dataclasses.replace(config, depth=2)
    model = UViT(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.2)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    weight = model.in_blocks[0].attn.qkv.weight
    for batch in (2, 3):
        inputs = example_inputs(config, batch)(0)
        expected, hidden = model(*inputs, tokens_after=3)
        got, compiled_hidden = compiled(*inputs, tokens_after=3)
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
        ({"num_heads": 1, "head_dim": 7}, r"1 \* 7 = 7; expected an even number"),
        ({"depth": 3}, "depth is 3; expected an even number"),
        ({"depth": 0}, "depth is 0; expected a whole number from 1"),
        ({"num_classes": 0}, "num_classes is 0; expected a whole number from 1"),
        ({"num_classes": None, "caption_dim": -1}, "caption_dim is -1"),
        ({"caption_tokens": 0}, "caption_tokens is 0"),
        ({"caption_dim": 12}, "num_classes=10 and caption_dim=12; .* one of them to None"),
        ({"mlp_ratio": math.nan}, "mlp_ratio is nan"),
    ],
)
def test_config_refuses(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(CLASS, **changes)


@pytest.mark.parametrize("wrong", [-1, 11])
def test_labels_out_of_range(wrong: int) -> None:
    model, (x, t, labels) = UViT(CLASS), batch_for(CLASS)
    labels[2] = wrong
    with pytest.raises(UsageError, match=rf"label {wrong}; .* from 0 to 9, and 10 is the null"):
        model(x, t, labels)
    labels[2] = 10
    assert model(x, t, labels).isfinite().all()


@pytest.mark.parametrize("wrong", [-1, 10])
def test_labels_out_of_range_without_a_null_label(wrong: int) -> None:
    config = dataclasses.replace(CLASS, null_class=False)
    model, (x, t, labels) = UViT(config), batch_for(config)
    labels[2] = wrong
    with pytest.raises(UsageError, match=rf"label {wrong}; .* no null label, .* from 0 to 9\. "):
        model(x, t, labels)


@pytest.mark.parametrize("shape", [(4, 4, 8, 8), (4, 3, 16, 16)])
def test_images_of_another_shape(shape: tuple[int, ...]) -> None:
    _, *others = batch_for(CLASS)
    with pytest.raises(UsageError, match=r"expects .* = \(batch, 3, 8, 8\)"):
        UViT(CLASS)(torch.zeros(shape), *others)


def test_conditions_that_the_config_does_not_have() -> None:
    x, t, text, mask = batch_for(TEXT)
    with pytest.raises(UsageError, match=r"got no condition; .* labels of shape \(4,\)"):
        UViT(CLASS)(x, t)
    with pytest.raises(UsageError, match=r"got no condition; .* a text of shape \(4, 1 to 5, 12\)"):
        UViT(TEXT)(x, t)
    with pytest.raises(UsageError, match=r"a condition of shape \(4,\), .* neither num_classes"):
        UViT(PLAIN)(x, t, torch.zeros(4, dtype=torch.long))
    with pytest.raises(UsageError, match="got a mask, but its config has no caption_dim"):
        UViT(CLASS)(x, t, torch.zeros(4, dtype=torch.long), mask)
    with pytest.raises(UsageError, match=r"labels of shape \(4, 5, 12\)"):
        UViT(CLASS)(x, t, text)
    with pytest.raises(UsageError, match=r"text of shape \(4,\)"):
        UViT(TEXT)(x, t, torch.zeros(4, dtype=torch.long))


def test_texts_of_another_shape() -> None:
    model, (x, t, text, _) = UViT(TEXT), batch_for(TEXT)
    with pytest.raises(UsageError, match=r"a text of 6 tokens; the model's maximum is 5"):
        model(x, t, torch.zeros(4, 6, 12))
    with pytest.raises(UsageError, match=r"a text of 0 tokens"):
        model(x, t, text[:, :0])
    with pytest.raises(UsageError, match=r"text of shape \(4, 5, 11\); .* \(4, 1 to 5, 12\)"):
        model(x, t, text[:, :, :11])


def test_refusals_that_the_shape_checks_of_tests_would_hide() -> None:
    out = run_uninstrumented("""
x, t, text, mask = example_inputs(captioned, 2)(0)
labels = torch.tensor([0, 1])
for config, inputs in (
    (plain, (x[0], t)),
    (plain, (x, t[:1])),
    (plain, (x, t[0])),
    (labelled, (x, t, torch.tensor([0, 0, 0]))),
    (labelled, (x, t, torch.tensor([0.0, 0.0]))),
    (captioned, (x, t, text[0])),
    (captioned, (x, t, text[:1])),
    (captioned, (x, t, text, mask[:, :4])),
    (captioned, (x, t, text, mask.long())),
):
    try:
        UViT(config)(*inputs)
    except UsageError as error:
        print(error)
for changes in ({"depth": 2.0}, {"mlp_ratio": "4"}, {"init": "dit"}, {"conv": 1}):
    try:
        dataclasses.replace(plain, **changes)
    except UsageError as error:
        print(error)
""")
    messages = [
        "x of shape (3, 8, 8)",
        "t of shape (1,) for a batch of 2; expected (2,)",
        "t of shape ()",
        "labels of shape (3,)",
        "labels of dtype torch.float32; expected labels.long()",
        "text of shape (5, 12); expected (batch, tokens, caption_dim) = (2, 1 to 5, 12)",
        "text of shape (1, 5, 12)",
        "mask of shape (2, 4) and dtype torch.bool; expected (2, 5)",
        "mask of shape (2, 5) and dtype torch.int64",
        "depth is 2.0; expected a whole number",
        "mlp_ratio is '4'",
        "init is 'dit'; expected one of ['uvit', 'uvit_mup']",
        "conv is 1; expected True or False",
    ]
    for line, message in zip(out.splitlines(), messages, strict=True):
        assert message in line

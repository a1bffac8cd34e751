"""DiT: sizes, names, initialisation, and what it refuses."""

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
from mudit.models import DiT, DiTConfig, builder, preset, scale_to_width
from mudit.models.dit import PRESETS

TINY = DiTConfig(
    depth=2, num_heads=2, head_dim=8, patch_size=2, input_size=8, in_channels=3, num_classes=10
)


def on_meta(config: DiTConfig) -> DiT:
    with torch.device("meta"):
        return DiT(config)


def randomised(config: DiTConfig) -> DiT:
    torch.manual_seed(0)
    model = DiT(dataclasses.replace(config, init="dit_mup"))
    torch.nn.init.normal_(model.final_layer.linear.weight, std=0.2)
    return model


def batch_for(config: DiTConfig, size: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    side = config.input_size
    x = torch.randn(size, config.in_channels, side, side, generator=generator)
    t = torch.randint(0, 1000, (size,), generator=generator)
    labels = torch.randint(0, config.num_classes + 1, (size,), generator=generator)
    return x, t, labels


def run_uninstrumented(script: str) -> str:
    """The shape checks that pytest turns on would speak first, and cannot be compiled."""
    header = (
        "import torch\ntorch.set_num_threads(1)\n"
        "from mudit.models import DiT, DiTConfig\nfrom mudit.errors import UsageError\n"
        f"from torch import tensor\nconfig = {TINY!r}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", header + script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Sizes --------------------------------------------------------------------------------------------

# FACTS 1.1: trainable, and with the frozen positions.
COUNTS = {
    "DiT-S/2": (32_865_056, 32_963_360),
    "DiT-B/2": (130_315_808, 130_512_416),
    "DiT-L/2": (457_840_672, 458_102_816),
    "DiT-XL/2": (674_834_720, 675_129_632),
    "DiT-XL/4": (675_000_704, None),
    "DiT-XL/8": (675_664_640, None),
    "DiT-ladder-144/2": (10_762_304, 10_799_168),
    "DiT-ladder-288/2": (42_550_880, 42_624_608),
    "DiT-ladder-576/2": (169_206_944, 169_354_400),
    "DiT-ladder-1152/2": (674_834_720, 675_129_632),
}
WIDTH_COUNTS = {  # depth 28, head_dim 72, patch size 2
    72: 2_752_880,
    360: 66_330_032,
    504: 129_658_064,
    720: 264_074_432,
    936: 445_799_984,
    1368: 951_178_640,
}


def count(model: DiT) -> tuple[int, int]:
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trainable, sum(p.numel() for p in model.parameters())


def closed_form(config: DiTConfig) -> int:
    n, depth, patch = config.width, config.depth, config.patch_size**2
    embedders = (config.in_channels * patch + 1) * n + (256 * n + n) + (n * n + n)
    labels = (config.num_classes + 1) * n
    block = 18 * n * n + 15 * n  # qkv 3, proj 1, MLP 8, adaLN 6; and their biases
    outputs = config.out_channels * patch
    return embedders + labels + depth * block + 2 * n * n + 2 * n + (n + 1) * outputs


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_counts_of_presets(name: str) -> None:
    config = PRESETS[name]
    trainable, total = count(on_meta(config))
    assert trainable == closed_form(config)
    assert total == trainable + config.num_tokens * config.width
    expected_trainable, expected_total = COUNTS.get(name, (None, None))
    assert expected_trainable in (None, trainable)
    assert expected_total in (None, total)


@pytest.mark.parametrize("width", WIDTH_COUNTS)
def test_parameter_counts_over_widths(width: int) -> None:
    config = scale_to_width(preset("DiT-ladder-288/2"), width)
    assert count(on_meta(config))[0] == WIDTH_COUNTS[width] == closed_form(config)


def test_parameter_count_of_other_shapes() -> None:
    config = dataclasses.replace(TINY, learn_sigma=False, in_channels=1, patch_size=4)
    assert count(DiT(config))[0] == closed_form(config)
    assert DiT(dataclasses.replace(TINY, mlp_ratio=2.7)).blocks[0].mlp.fc1.weight.shape == (43, 16)


def test_presets_are_those_of_the_papers() -> None:
    shapes = {name: (c.depth, c.num_heads, c.width, c.patch_size) for name, c in PRESETS.items()}
    assert len(shapes) == 16
    assert shapes["DiT-S/8"] == (12, 6, 384, 8)
    assert shapes["DiT-B/4"] == (12, 12, 768, 4)
    assert shapes["DiT-L/2"] == (24, 16, 1024, 2)
    assert shapes["DiT-XL/2"] == (28, 16, 1152, 2)
    for heads, width in ((2, 144), (4, 288), (8, 576), (16, 1152)):
        assert shapes[f"DiT-ladder-{width}/2"] == (28, heads, width, 2)
        assert PRESETS[f"DiT-ladder-{width}/2"].init == "dit_mup"


def test_config_properties() -> None:
    config = preset("DiT-XL/2")
    assert (config.width, config.num_tokens, config.out_channels) == (1152, 256, 8)
    assert (config.null_label, config.mlp_hidden) == (1000, 4608)
    assert preset("DiT-XL/2", learn_sigma=False).out_channels == 4
    assert pickle.loads(pickle.dumps(config)) == config


def test_names_are_those_of_the_original() -> None:
    names = set(DiT(dataclasses.replace(TINY, depth=1)).state_dict())
    layers = [
        "x_embedder.proj",
        "t_embedder.mlp.0",
        "t_embedder.mlp.2",
        "blocks.0.attn.qkv",
        "blocks.0.attn.proj",
        "blocks.0.mlp.fc1",
        "blocks.0.mlp.fc2",
        "blocks.0.adaLN_modulation.1",
        "final_layer.linear",
        "final_layer.adaLN_modulation.1",
    ]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert names == expected | {"pos_embed", "y_embedder.embedding_table.weight"}


# Initialisation -----------------------------------------------------------------------------------


def initial_rms(config: DiTConfig) -> dict[str, float]:
    """RMS of each weight at initialisation, FACTS 1.1; what is not here is zero."""
    n, patch = config.width, config.in_channels * config.patch_size**2
    if config.init == "dit":
        return {
            "x_embedder.proj": math.sqrt(2 / (patch + n)),
            "t_embedder.mlp.0": 0.02,
            "t_embedder.mlp.2": 0.02,
            "y_embedder.embedding_table": 0.02,
            "attn.qkv": math.sqrt(1 / (2 * n)),
            "attn.proj": n**-0.5,
            "mlp.fc1": math.sqrt(2 / (5 * n)),
            "mlp.fc2": math.sqrt(2 / (5 * n)),
        }
    return {
        "x_embedder.proj": patch**-0.5,
        "t_embedder.mlp.0": 1 / 16,
        "t_embedder.mlp.2": n**-0.5,
        "y_embedder.embedding_table": 1.0,
        "attn.qkv": n**-0.5,
        "attn.proj": n**-0.5,
        "mlp.fc1": n**-0.5,
        "mlp.fc2": (4 * n) ** -0.5,
        "adaLN_modulation.1": n**-0.5,
    }


@pytest.mark.parametrize("init", ["dit", "dit_mup"])
def test_initial_scale_of_every_tensor(init: str) -> None:
    torch.manual_seed(0)
    config = preset("DiT-S/2", depth=2, init=init)
    model = DiT(config)
    rms = initial_rms(config)
    seen = set()
    for name, parameter in model.named_parameters():
        if name == "pos_embed":
            continue
        layer = next((key for key in rms if name.endswith(f"{key}.weight")), None)
        if layer is None:
            assert not parameter.any(), name
            continue
        seen.add(layer)
        measured = parameter.square().mean().sqrt().item()
        # The RMS of k normal values has relative deviation 1/sqrt(2k), uniform ones less: five
        # of these over 20 tensors would fail once in 100 000 seeds.
        bound = 5 / math.sqrt(2 * parameter.numel())
        assert measured == pytest.approx(rms[layer], rel=bound), name
    assert seen == set(rms)


def test_patch_weights_of_the_original_are_uniform() -> None:
    torch.manual_seed(0)
    weight = DiT(preset("DiT-S/2", depth=1)).x_embedder.proj.weight
    bound = math.sqrt(6 / (16 + 384))
    assert 0.99 * bound < weight.abs().max() <= bound


def test_blocks_start_as_the_identity_only_in_the_original() -> None:
    x, condition = torch.randn(2, 16, TINY.width), torch.randn(2, TINY.width)
    for init, is_identity in (("dit", True), ("dit_mup", False)):
        block = DiT(dataclasses.replace(TINY, init=init)).blocks[0]
        assert torch.equal(block(x, condition), x) == is_identity


@pytest.mark.parametrize("init", ["dit", "dit_mup"])
def test_output_starts_at_zero(init: str) -> None:
    model = DiT(dataclasses.replace(TINY, init=init))
    assert not model(*batch_for(TINY)).any()


def test_positions_are_frozen() -> None:
    pos_embed = DiT(TINY).pos_embed
    assert not pos_embed.requires_grad
    assert pos_embed.shape == (1, 16, 16)
    # Token 1 is column 1 of row 0; the first frequency is 1. Its row half is that of token 0.
    assert pos_embed[0, 1, 0].item() == pytest.approx(math.sin(1))
    assert pos_embed[0, 1, 4].item() == pytest.approx(math.cos(1))
    torch.testing.assert_close(pos_embed[0, 1, 8:], pos_embed[0, 0, 8:])


def test_initialisation_follows_the_seed_and_the_default_device() -> None:
    first, second = randomised(TINY), randomised(TINY)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
    assert all(p.is_meta for p in on_meta(TINY).parameters())
    assert all(b.is_meta for b in on_meta(TINY).buffers())


def test_reset_parameters_completes_a_model_made_on_meta() -> None:
    model = on_meta(dataclasses.replace(TINY, init="dit_mup")).to_empty(device="cpu")
    torch.manual_seed(0)
    model.reset_parameters()
    torch.nn.init.normal_(model.final_layer.linear.weight, std=0.2)
    inputs = batch_for(TINY)
    assert torch.equal(model(*inputs), randomised(TINY)(*inputs))


# Forward ------------------------------------------------------------------------------------------


def test_meta_construction_is_fast_and_forward_gives_the_shape() -> None:
    on_meta(TINY)  # torch imports its compiler at the first random meta op, seconds
    start = time.process_time()
    model = on_meta(preset("DiT-XL/2"))
    assert time.process_time() - start < 0.5
    x = torch.empty(2, 4, 32, 32, device="meta")
    zeros = torch.zeros(2, dtype=torch.long, device="meta")
    assert model(x, zeros, zeros).shape == (2, 8, 32, 32)


def test_weights_loaded_into_a_model_made_on_meta() -> None:
    source, inputs = randomised(TINY), batch_for(TINY)
    model = on_meta(TINY).to_empty(device="cpu")
    model.load_state_dict(source.state_dict())
    assert torch.equal(model(*inputs), source(*inputs))


def test_each_image_is_on_its_own_and_training_mode_changes_nothing() -> None:
    model, (x, t, labels) = randomised(TINY), batch_for(TINY)
    out = model.train()(x, t, labels)
    torch.testing.assert_close(model.eval()(x, t, labels), out)
    torch.testing.assert_close(model(x[1:2], t[1:2], labels[1:2]), out[1:2])
    torch.testing.assert_close(model(x, t.float(), labels.int()), out)
    assert not torch.allclose(model(x, t, (labels + 1) % 11), out)
    assert not torch.allclose(model(x, (t + 100) % 1000, labels), out)
    assert model(x[:0], t[:0], labels[:0]).shape == (0, 6, 8, 8)


def test_gradient_reaches_every_trainable_parameter() -> None:
    model = randomised(TINY)
    model(*batch_for(TINY)).square().mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


def test_deepcopy_is_equal_and_apart() -> None:
    model, inputs = randomised(TINY), batch_for(TINY)
    out = model(*inputs)
    copied = copy.deepcopy(model)
    torch.nn.init.zeros_(model.final_layer.linear.weight)
    assert torch.equal(copied(*inputs), out)


def test_bfloat16_by_autocast_and_by_weights() -> None:
    model, (x, t, labels) = randomised(TINY), batch_for(TINY)
    out = model(x, t, labels)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model(x, t, labels)
    cast.float().sum().backward()
    low = model.bfloat16()(x.bfloat16(), t, labels)
    assert cast.dtype == low.dtype == torch.bfloat16
    # bfloat16 has 8 bits: about 1% of the output's scale after two blocks.
    for other in (cast, low):
        assert (other.float() - out).square().mean().sqrt() < 0.05 * out.square().mean().sqrt()


def test_compiles_into_one_graph() -> None:
    # Tracing is what the model can break; generating code would take a minute.
    run_uninstrumented("""
torch.manual_seed(0)
config = __import__("dataclasses").replace(config, depth=1)
model = DiT(config)
for parameter in model.parameters():
    torch.nn.init.normal_(parameter.data, std=0.2)
compiled = torch.compile(model, fullgraph=True, backend="eager")
for batch in (2, 3):
    inputs = torch.randn(batch, 3, 8, 8), torch.arange(batch), torch.arange(batch)
    expected, got = model(*inputs), compiled(*inputs)
    torch.testing.assert_close(got, expected)
    want = torch.autograd.grad(expected.square().sum(), model.blocks[0].attn.qkv.weight)
    grad = torch.autograd.grad(got.square().sum(), model.blocks[0].attn.qkv.weight)
    torch.testing.assert_close(grad, want)
""")


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 9}, "input_size is 9, which patch_size 2 does not divide"),
        ({"head_dim": 7}, r"2 \* 7 = 14; expected a multiple of 4"),
        ({"depth": 0}, "depth is 0; expected a whole number from 1"),
        ({"num_heads": -1}, "num_heads is -1"),
        ({"num_classes": True}, "num_classes is True"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0"),
        ({"mlp_ratio": math.nan}, "mlp_ratio is nan"),
    ],
)
def test_config_refuses(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(TINY, **changes)


def test_presets_refuse_unknown_names_and_fields() -> None:
    with pytest.raises(UsageError, match=r"'DiT-M/2'; expected one of DiT-S/2, .*DiT-ladder-288/2"):
        preset("DiT-M/2")
    with pytest.raises(UsageError, match="no field dpeth; expected some of depth, num_heads"):
        preset("DiT-S/2", dpeth=3)
    with pytest.raises(UsageError, match="patch_size 5 does not divide"):
        preset("DiT-S/2", patch_size=5)


@pytest.mark.parametrize(
    ("width", "nearest"), [(100, "72 and 144"), (71, "72"), (0, "72"), (-5, "72")]
)
def test_scale_to_width_names_the_nearest_widths(width: int, nearest: str) -> None:
    with pytest.raises(UsageError, match=rf"Width {width} .* widths are {nearest}\."):
        scale_to_width(preset("DiT-XL/2"), width)


def test_builder_scales_heads_and_can_be_pickled() -> None:
    build = pickle.loads(pickle.dumps(builder(TINY)))
    model = build(24)
    assert model.config == dataclasses.replace(TINY, num_heads=3)
    assert model.blocks[0].attn.qkv.weight.shape == (72, 24)


@pytest.mark.parametrize("wrong", [-1, 11])
def test_labels_out_of_range(wrong: int) -> None:
    model, (x, t, labels) = DiT(TINY), batch_for(TINY)
    labels[2] = wrong
    with pytest.raises(UsageError, match=rf"label {wrong}; .* from 0 to 9, and 10 is the null"):
        model(x, t, labels)


@pytest.mark.parametrize("shape", [(4, 4, 8, 8), (4, 3, 16, 16)])
def test_images_of_another_shape(shape: tuple[int, ...]) -> None:
    _, t, labels = batch_for(TINY)
    with pytest.raises(UsageError, match=r"expects .* = \(batch, 3, 8, 8\)"):
        DiT(TINY)(torch.zeros(shape), t, labels)


def test_refusals_that_the_shape_checks_of_tests_would_hide() -> None:
    out = run_uninstrumented("""
model = DiT(config)
x, zeros = torch.zeros(2, 3, 8, 8), tensor([0, 0])
for inputs in (
    (x[0], zeros, zeros),
    (x, tensor([0]), zeros),
    (x, tensor(0), zeros),
    (x, zeros, tensor([0, 0, 0])),
    (x, zeros, tensor([0.0, 0.0])),
):
    try:
        model(*inputs)
    except UsageError as error:
        print(error)
for changes in ({"depth": 2.0}, {"mlp_ratio": "4"}, {"init": "xavier"}):
    try:
        __import__("dataclasses").replace(config, **changes)
    except UsageError as error:
        print(error)
""")
    lines = out.splitlines()
    assert len(lines) == 8
    for line, message in zip(
        lines,
        [
            "x of shape (3, 8, 8)",
            "t of shape (1,) for a batch of 2; expected (2,)",
            "t of shape ()",
            "labels of shape (3,)",
            "labels of dtype torch.float32; expected labels.long()",
            "depth is 2.0; expected a whole number",
            "mlp_ratio is '4'",
            "init is 'xavier'; expected one of ['dit', 'dit_mup']",
        ],
        strict=True,
    ):
        assert message in line

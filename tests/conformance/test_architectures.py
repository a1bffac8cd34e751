"""What every architecture must do, one suite over all of them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import CAPTION, CHANNELS, GOLDEN, PATCH, POOLED, Golden
from torch import Tensor
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
)

import mudit
from mudit.data import class_captions
from mudit.errors import Interrupted, ParametrizationError, UsageError
from mudit.models import (
    ARCHITECTURES,
    architecture_of,
    builder,
    config_for,
    example_inputs,
    preset,
    scale_to_width,
)
from mudit.nn import Projector
from mudit.parametrization import Plan
from mudit.training import RunConfig, open_splits, step_flops, train
from mudit.tuning import StudyConfig
from mudit.tuning.check_tasks import digits_task
from mudit.tuning.config import ModelConfig, resolved, run_config
from mudit.tuning.coordinate_check import coordinate_check

BASE, WIDE = 16, 64  # head_dim 8
INITS = [(name, init) for name in ARCHITECTURES for init in (name, f"{name}_mup")]
EVERY = pytest.mark.parametrize("name", ARCHITECTURES)


def tiny(name: str, *, init: str | None = None, **changes: Any) -> Any:
    """Two heads of 8, two blocks, four patches."""
    config = config_for(
        name,
        init=init,
        learn_sigma=False,
        depth=2,
        num_heads=2,
        head_dim=8,
        patch_size=PATCH,
        input_size=4,
        in_channels=CHANNELS,
        num_classes=5,
        caption_dim=CAPTION,
        caption_tokens=6,
        **({"pooled_dim": POOLED} if name == "mmdit" else {}),
    )
    return dataclasses.replace(config, **changes)


def model_and_inputs(name: str, batch: int = 3) -> tuple[Any, tuple[Tensor, ...]]:
    """A model whose weights are all random, and inputs."""
    config = tiny(name)
    torch.manual_seed(0)
    model = builder(config)(config.width)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, example_inputs(config, batch)(config.width)


def gradients(model: Any, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    model.zero_grad()
    model(*inputs).square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# The plan -----------------------------------------------------------------------------------------


def plan_of(name: str, init: str | None = None, width: int = WIDE) -> Plan:
    config = tiny(name, init=init)
    inputs = example_inputs(config)
    return mudit.plan(builder(config), width=width, base_width=BASE, inputs=inputs)


def golden(init: str, name: str) -> Golden:
    return next(row for pattern, row in GOLDEN[init].items() if fnmatchcase(name, pattern))


@pytest.mark.parametrize("width", [BASE, WIDE])
@pytest.mark.parametrize(("name", "init"), INITS)
def test_plan_is_the_golden_table(name: str, init: str, width: int) -> None:
    plan = plan_of(name, init, width)
    r = width / BASE
    # Role: scale of the initial RMS, then multipliers of lr, decay, eps and clipping. A hidden
    # weight's lr falls and its decay rises, lr·λ being constant. An output weight W = W̃/r is
    # trained itself: lr/r, λ·r, ε·r, and 1/r of its gradient in the norm.
    laws = {
        "input": (1, 1, 1, 1, 1),
        "scalar": (1, 1, 1, 1, 1),
        "hidden": (r**-0.5, 1 / r, r, 1, 1),
        "output": (1 / r, 1 / r, r, r, 1 / r),
    }
    for row in plan.rows:
        expected = golden(init, row.name)
        shrink, *multipliers = laws[expected.role]
        found = (row.lr, row.weight_decay, row.eps, row.clip)
        assert row.role == expected.role, row.name
        assert row.init_rms == pytest.approx(expected.std(BASE) * shrink, rel=1e-5), row.name
        if row.trainable:
            assert found == pytest.approx(multipliers), row.name


@pytest.mark.parametrize(("name", "init"), INITS)
def test_the_golden_table_is_what_is_drawn(name: str, init: str) -> None:
    """Sampling noise of an RMS over k entries is at most 1/sqrt(k) here; six of these."""
    plan = plan_of(name, init)
    torch.manual_seed(0)
    model = plan.build()
    r = WIDE / BASE
    shrink = {"input": 1.0, "scalar": 1.0, "hidden": r**-0.5, "output": 1 / r}
    for parameter_name, parameter in model.named_parameters():
        row = golden(init, parameter_name)
        expected = row.std(BASE) * shrink[row.role]
        noise = 6 / math.sqrt(parameter.numel())
        tolerance = 0 if expected in (0.0, 1.0) and parameter.ndim == 1 else noise
        rms = parameter.detach().square().mean().sqrt().item()
        assert rms == pytest.approx(expected, rel=tolerance, abs=1e-7), parameter_name


@EVERY
def test_the_readout_can_be_zeroed_alone(name: str) -> None:
    """Of the original initialisations, U-ViT's leaves it random, before a convolution."""
    config = tiny(name, init=name)
    build, inputs = builder(config), example_inputs(config)
    plan = mudit.plan(build, width=WIDE, base_width=BASE, inputs=inputs, zero_readout=True)
    plain = plan_of(name, name)
    changed = {row.name for row in plan.rows if row.init_rms != plain[row.name].init_rms}
    assert changed == ({"decoder_pred.weight"} if name == "uvit" else set())
    assert [row.init_rms for row in plan.rows if row.role == "output"] == [0.0]


@EVERY
def test_roles_from_layers_alone_are_the_same_or_refused(name: str) -> None:
    """Raw tables that grow in one dimension could be readouts, too: these need inputs."""
    build = builder(tiny(name))
    if name in ("uvit", "pixart"):
        with pytest.raises(ParametrizationError, match="raw parameter"):
            mudit.plan(build, width=WIDE, base_width=BASE)
    else:
        layered = mudit.plan(build, width=WIDE, base_width=BASE)
        assert {d.field for d in plan_of(name).diff(layered)} <= {"reason"}


# The certificate ----------------------------------------------------------------------------------

# [muDiT] Appendix C, transcribed: C.1 has what the others share, C.2 to C.4 what is new in each.
# O OuterNonlin, M MatMul, A Avg. Independent statements stand in the order in which the code
# computes them; scalar steps (Lemma B.1: masks, timesteps, U-ViT's convolution) are left out.
NORM = "A O A O"
TIME = "O O M"  # C.1: two entrywise steps, then W⁽²⁾
MLP = "M O M"
ATTENTION = "M M M O M"  # key, query, value, attention, output projection
SIX = "O M M M M M M"  # SiLU, then gates, shifts and scales
MODULATE = GATE = RESIDUAL = "O"
READOUT = "O A"
OF_DIT = f"{SIX} {NORM} {MODULATE} {ATTENTION} {GATE} {NORM} {MODULATE} {MLP} {GATE}"
# C.2: tables are added to the shared modulation; cross-attention, which is neither normalised
# before nor gated after.
OF_PIXART = (
    f"O {NORM} {MODULATE} {ATTENTION} {GATE} {ATTENTION} {RESIDUAL} {NORM} {MODULATE} {MLP} {GATE}"
)
# C.3: W = [Wᵐ, Wˢ] of the long skip.
OF_UVIT = f"{NORM} {ATTENTION} {RESIDUAL} {NORM} {MLP} {RESIDUAL}"
SKIP = "M M O"
# C.4: two streams; queries and keys of each are normalised (fixed head size: entrywise).
ENTER = f"{NORM} {SIX}"
PROJECT = f"{MODULATE} M M M O"
LEAVE = f"M {GATE} {NORM} {MODULATE} {MLP} {GATE}"
OF_MMDIT = f"{ENTER} {ENTER} {PROJECT} {PROJECT} O {LEAVE} {LEAVE}"
# In the last block the text has shift and scale alone, and ends.
LAST_OF_MMDIT = f"{NORM} O M M {ENTER} {PROJECT} {PROJECT} O {LEAVE}"
PROGRAMS = {
    "dit": {
        "t_embedder": TIME,
        "y_embedder": "O",
        "x_embedder": "O",
        "blocks.0": OF_DIT,
        "blocks.1": OF_DIT,
        "final_layer": f"O M M {NORM} {MODULATE} {READOUT}",
    },
    "uvit": {
        "sinusoids": "O",
        "label_emb": "O",
        "patch_embed": "O",
        "in_blocks.0": OF_UVIT,
        "mid_block": OF_UVIT,
        "out_blocks.0": f"{SKIP} {OF_UVIT}",
        "norm": NORM,
        "decoder_pred": READOUT,
    },
    "pixart": {
        "t_embedder": TIME,
        "t_block": SIX,
        "y_embedder": "O O M",
        "x_embedder": "O",
        "blocks.0": OF_PIXART,
        "blocks.1": OF_PIXART,
        "final_layer": f"O {NORM} {MODULATE} {READOUT}",
    },
    "mmdit": {
        "t_embedder": TIME,
        "y_embedder": "O O M",
        "context_embedder": "O",
        "x_embedder": "O",
        "joint_blocks.0": OF_MMDIT,
        "joint_blocks.1": LAST_OF_MMDIT,
        "final_layer": f"O M M {NORM} {MODULATE} {READOUT}",
    },
}


def fused(operators: str | list[str]) -> list[str]:
    """Without scalar steps, and adjacent OuterNonlin as one."""
    letters = operators.split() if isinstance(operators, str) else operators
    found: list[str] = []
    for letter, group in itertools.groupby(x for x in letters if x != "S"):
        found.extend(["O"] if letter == "O" else group)
    return found


def sections_of(build: Any, inputs: Any) -> dict[str, list[str]]:
    certificate = mudit.certify(build, inputs, (16, 24, 40))
    assert certificate.verdict == "PASS"
    sections: dict[str, list[str]] = {}
    for row in certificate.canonical:
        name = "t_block" if row.section.startswith("t_block") else row.section
        sections.setdefault(name, []).append(row.operator[0])
    return {name: fused(letters) for name, letters in sections.items()}


@EVERY
def test_program_is_that_of_appendix_c(name: str) -> None:
    config = tiny(name)
    sections = sections_of(builder(config), example_inputs(config))
    expected = {key: fused(letters) for key, letters in PROGRAMS[name].items()}
    # Between modules: sums of embeddings and positions, joining of tokens.
    assert set(sections.pop("")) == {"O"}
    assert sections.pop("final_layer") == [] if name == "uvit" else True
    assert sections == expected


def test_a_missing_skip_and_a_missing_norm_show_in_the_program() -> None:
    config = tiny("uvit")

    def without_skip(width: int) -> Any:
        model = builder(config)(width)
        model.out_blocks[0].skip_linear = None
        return model

    assert sections_of(without_skip, example_inputs(config))["out_blocks.0"] == fused(OF_UVIT)
    config = tiny("pixart")

    def without_norm(width: int) -> Any:
        model = builder(config)(width)
        model.blocks[1].norm1 = torch.nn.Identity()
        return model

    sections = sections_of(without_norm, example_inputs(config))
    assert sections["blocks.0"].count("A") == 4
    assert sections["blocks.1"].count("A") == 2


# The forward pass ---------------------------------------------------------------------------------


@EVERY
def test_tokens_after_a_block(name: str) -> None:
    model, inputs = model_and_inputs(name)
    config = model.config
    plain = model(*inputs)
    depth = sum(isinstance(part, architecture_of(config).block) for part in model.modules())
    seen = []
    for number in range(1, depth + 1):
        prediction, tokens = model(*inputs, tokens_after=number)
        assert torch.equal(prediction, plain)
        assert tokens.shape == (3, config.num_tokens, config.width)
        seen.append(tokens)
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(seen))
    for wrong in (0, depth + 1):
        with pytest.raises(UsageError, match="tokens_after"):
            model(*inputs, tokens_after=wrong)


class Aligned(torch.nn.Module):
    """A model and the head that learns another encoder's features from its tokens."""

    def __init__(self, model: torch.nn.Module, width: int) -> None:
        super().__init__()
        self.model = model
        self.projector = Projector(width, 7, hidden=12)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        prediction, tokens = self.model(*inputs, tokens_after=1)
        return prediction, self.projector(tokens)


@EVERY
def test_roles_of_a_representation_projector(name: str) -> None:
    """FACTS 1.4: n to 2048 is an output weight, the rest scalars; zero_readout leaves it alone."""
    config = tiny(name)
    plan = mudit.plan(
        lambda width: Aligned(builder(config)(width), width),
        width=WIDE,
        base_width=BASE,
        inputs=example_inputs(config),
        zero_readout=True,
    )
    roles = {row.name: row.role for row in plan.rows if row.name.startswith("projector")}
    assert roles == {
        "projector.0.weight": "output",
        "projector.0.bias": "scalar",
        "projector.2.weight": "scalar",
        "projector.2.bias": "scalar",
        "projector.4.weight": "scalar",
        "projector.4.bias": "scalar",
    }
    first = plan["projector.0.weight"]
    assert first.lr == BASE / WIDE
    # torch's default is U(±1/sqrt(fan-in)); at the base width, and then divided by r.
    assert first.init_rms == pytest.approx((3 * BASE) ** -0.5 * BASE / WIDE)
    zeroed = [row.name for row in plan.rows if row.role == "output" and row.init_rms == 0]
    assert zeroed == [
        "model.decoder_pred.weight" if name == "uvit" else "model.final_layer.linear.weight"
    ]


@EVERY
def test_each_sample_is_on_its_own(name: str) -> None:
    """What other samples are, how long their texts are, does not matter."""
    model, inputs = model_and_inputs(name)
    whole = model(*inputs)
    for sample in range(3):
        alone = model(*(value[sample : sample + 1] for value in inputs))
        torch.testing.assert_close(alone, whole[sample : sample + 1], rtol=1e-5, atol=1e-5)


REFUSED = """
import torch
from test_architectures import ARCHITECTURES, CAPTION, UsageError, model_and_inputs, tiny
def refused(words, *inputs):
    try:
        model(*inputs)
    except UsageError as error:
        assert words in str(error), (words, error)
    else:
        raise AssertionError(words)
for name in ARCHITECTURES:
    model, (x, t, *rest) = model_and_inputs(name)
    for part in list(model.children()):  # nothing may be computed before the refusal
        part.register_forward_pre_hook(lambda *_: print("computed"))
    refused("got x of shape", x[:, :, :3], t, *rest)
    refused("got x of shape", x[:, :2], t, *rest)
    refused("got t of shape", x, t[:2], *rest)
    if name in ("pixart", "mmdit"):
        text, mask, *rest = rest
        refused("caption_dim", x, t, text[..., 1:], mask, *rest)
        refused("caption_dim", x, t, text[:2], mask, *rest)
        refused("True for each token", x, t, text, mask[:, :2], *rest)
        refused("True for each token", x, t, text, mask.float(), *rest)
        long = torch.zeros(3, 7, CAPTION)
        refused("the model's maximum is 6", x, t, long, long[..., 0] == 0, *rest)
    else:
        refused("labels of shape", x, t, rest[0][:2])
        refused("expected labels.long()", x, t, rest[0].float())
    try:
        tiny(name, init="zeros")
    except UsageError as error:
        assert f"expected one of ['{name}', '{name}_mup']" in str(error), error
    print(name)
"""


def alone(script: str) -> list[str]:
    """What a process of its own prints: pytest's shape checks would speak first in this one."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_wrong_inputs_are_refused_before_any_compute() -> None:
    assert alone(REFUSED) == list(ARCHITECTURES)


@EVERY
def test_wrong_sizes_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="patch_size"):
        tiny(name, input_size=5)
    with pytest.raises(UsageError, match="num_heads"):
        tiny(name, num_heads=0)


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n in ("dit", "uvit")])
def test_a_class_out_of_range_is_refused(name: str) -> None:
    model, (x, t, labels) = model_and_inputs(name)
    model(x, t, torch.full_like(labels, 5))  # the null label
    for wrong in (6, -1):
        with pytest.raises(UsageError, match=f"label {wrong}"):
            model(x, t, torch.full_like(labels, wrong))


@EVERY
def test_meta_then_empty_then_reset_is_a_fresh_model(name: str) -> None:
    config = tiny(name)
    with torch.device("meta"):
        model = builder(config)(config.width)
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.fill_(math.nan)
    torch.manual_seed(3)
    model.reset_parameters()
    torch.manual_seed(3)
    fresh = builder(config)(config.width)
    for key, value in fresh.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    inputs = example_inputs(config)(config.width)
    assert torch.equal(model(*inputs), fresh(*inputs))


@EVERY
def test_a_copy_and_a_state_dict_are_the_model(name: str) -> None:
    model, inputs = model_and_inputs(name)
    other = builder(model.config)(model.config.width)
    other.load_state_dict(model.state_dict())
    assert torch.equal(copy.deepcopy(model)(*inputs), model(*inputs))
    assert torch.equal(other(*inputs), model(*inputs))


# Engines ------------------------------------------------------------------------------------------


COMPILED = """
import torch
from test_architectures import ARCHITECTURES, gradients, model_and_inputs
torch.set_num_threads(1)
for name in ARCHITECTURES:
    model, inputs = model_and_inputs(name)
    whole = torch.compile(model, fullgraph=True, backend="aot_eager")
    for extra in ({}, {"tokens_after": 1}):
        torch.testing.assert_close(whole(*inputs, **extra), model(*inputs, **extra))
    expected, found = gradients(model, inputs), gradients(whole, inputs)
    for key, grad in found.items():
        plain = expected[key.removeprefix("_orig_mod.")]
        torch.testing.assert_close(grad, plain, rtol=1e-4, atol=1e-6)
    print(name)
"""


@pytest.mark.slow
def test_each_compiles_as_one_graph() -> None:
    assert alone(COMPILED) == list(ARCHITECTURES)


@EVERY
def test_activation_checkpointing_changes_nothing_but_memory(name: str) -> None:
    model, inputs = model_and_inputs(name)
    plain = gradients(model, inputs)
    plan = plan_of(name, width=BASE)
    block = architecture_of(model.config).block
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        model(*inputs)
    before, kept[:] = sum(kept), []
    apply_activation_checkpointing(model, check_fn=lambda part: isinstance(part, block))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        model(*inputs)
    assert sum(kept) < before
    found = gradients(model, inputs)
    plan.match(model)
    assert {key.replace("_checkpoint_wrapped_module.", "") for key in found} == set(plain)
    for key, grad in found.items():
        assert torch.equal(grad, plain[key.replace("_checkpoint_wrapped_module.", "")]), key


@EVERY
def test_bfloat16(name: str) -> None:
    """bf16 keeps 8 bits: the outputs of a few blocks agree to a few percent of their size."""
    model, inputs = model_and_inputs(name)
    plain = model(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(*inputs)
    cast = [v.bfloat16() if v.is_floating_point() and i != 1 else v for i, v in enumerate(inputs)]
    pure = copy.deepcopy(model).bfloat16()
    narrow = pure(*cast)
    assert narrow.dtype == torch.bfloat16
    scale = plain.square().mean().sqrt()
    for output in (mixed, narrow):
        assert (output.float() - plain).square().mean().sqrt() < 0.05 * scale
    assert all(torch.isfinite(g).all() for g in gradients(pure, tuple(cast)).values())


# Training -----------------------------------------------------------------------------------------


def run_of(name: str, **training: Any) -> RunConfig:
    study = StudyConfig(model=ModelConfig(architecture=name, depth=2, head_dim=8, patch_size=4))
    study = dataclasses.replace(
        study,
        objective=dataclasses.replace(study.objective, learn_sigma=False),
        proxy=dataclasses.replace(study.proxy, width=16, batch_size=8, steps=7),
        parametrization=dataclasses.replace(study.parametrization, base_width=8),
        training=dataclasses.replace(
            study.training, bank_size=16, log_steps=2, checkpoint_steps=3, **training
        ),
    )
    splits = open_splits(study.data)
    hps = dataclasses.replace(study.hps, lr=2**-7)
    return run_config(resolved(study, splits), splits, study.proxy, hps=hps)


def files(folder: Path) -> dict[str, bytes]:
    names = ("records.jsonl", "model.safetensors", "ema.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


@EVERY
def test_a_stopped_run_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    run = run_of(name)
    train(run, tmp_path / "straight")
    steps = iter(range(100))
    with pytest.raises(Interrupted):
        train(run, tmp_path / "stopped", should_stop=lambda: next(steps) == 4)
    train(run, tmp_path / "stopped")

    assert files(tmp_path / "stopped") == files(tmp_path / "straight")


@EVERY
def test_training_with_checkpointed_blocks_is_the_same(name: str, tmp_path: Path) -> None:
    train(run_of(name), tmp_path / "plain")
    train(run_of(name, activation_checkpointing=True), tmp_path / "checkpointed")

    assert files(tmp_path / "plain") == files(tmp_path / "checkpointed")


@EVERY
def test_a_run_config_survives_its_file(name: str, tmp_path: Path) -> None:
    from mudit.training import read_config

    run = run_of(name)
    (tmp_path / "config.json").write_text(run.to_json())
    again = read_config(RunConfig, tmp_path / "config.json")

    assert again == run
    assert type(again.model) is type(run.model)
    assert run.captions == (class_captions("0123456789") if name in ("pixart", "mmdit") else ())


@EVERY
def test_flops_are_three_times_those_of_the_forward_pass(name: str) -> None:
    """Backward is two products for each of the forward's, except where an input needs no grad."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    config = tiny(name)
    model, inputs = model_and_inputs(name, batch=2)
    # torch's counter knows no FLOPs of the fused attention that some processors have.
    products = sdpa_kernel(SDPBackend.MATH)
    with products, FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    assert 2.5 < step_flops(config, 2) / counter.get_total_flops() <= 3


# Theory -------------------------------------------------------------------------------------------


# Depth, images, steps and seeds at which the intervals are narrow enough. U-ViT has six tokens
# where DiT has four, and the rank of a gradient, tokens times images, is to be of the order of the
# least width.
CHECKS = {
    "dit": (1, 16, 8, 16),
    "uvit": (2, 8, 6, 24),
    "pixart": (1, 16, 8, 16),
    "mmdit": (1, 16, 8, 28),
}


@pytest.mark.slow
@EVERY
def test_coordinate_check_passes_under_mup_and_fails_under_sp(name: str) -> None:
    depth, images, steps, seeds = CHECKS[name]
    task = digits_task(name, depth=depth, batch_size=images)
    found = {}
    for parametrization, count in (("mup", seeds), ("sp", 4)):
        plan = mudit.plan(
            task.build,
            width=256,
            base_width=32,
            inputs=task.inputs,
            parametrization=parametrization,
        )
        found[parametrization] = coordinate_check(
            task.build,
            task.loss,
            plan=plan,
            widths=(32, 64, 128, 256),
            steps=steps,
            seeds=count,
            eps=task.eps,
            unused=task.unused,
            control=parametrization == "mup",
        )
    assert found["mup"].verdict == "PASS", found["mup"].findings
    assert found["sp"].verdict == "FAIL", found["sp"].findings


@EVERY
def test_presets_scale_to_their_widths(name: str) -> None:
    for key, config in ARCHITECTURES[name].presets.items():
        assert preset(key) == config
        wider = scale_to_width(config, 2 * config.width)
        assert (wider.width, wider.head_dim) == (2 * config.width, config.head_dim)

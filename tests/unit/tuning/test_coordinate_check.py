"""The coordinate check: right models pass, planted mistakes are named, nothing is left behind."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mudit
from mudit.errors import UsageError
from mudit.report.coordinates import (
    coordinates_info,
    draw_coordinates,
    draw_slopes,
    slopes_info,
)
from mudit.report.theme import LIGHT, to_png, type_style
from mudit.tuning.check_rows import BOUND
from mudit.tuning.check_tasks import digits_task, noise_task
from mudit.tuning.coordinate_check import CoordinateCheck, coordinate_check
from mudit.tuning.probes import LOGITS, recording, rms, spectral_norm

sys.path.insert(0, str(Path(__file__).parents[2]))

from planted import (
    BASE_WIDTH,
    CONFIG,
    STEPS,
    SUITE,
    WIDTHS,
    Planted,
    detect,
    digits_loss,
    dit,
    run_check,
)

# Each takes seconds; benchmarks/planted_bugs.py runs them all.
SUBSET: tuple[tuple[str, str], ...] = (
    ("hidden lr divided by sqrt(width)", "early"),
    ("hidden lr divided by width twice", "audit"),
    ("one block of four with an undivided lr", "early"),
    ("step divided by width again inside the optimizer", "early"),
    ("readout treated as hidden: 1/sqrt(width)", "audit"),
    ("gain initialised by width", "early"),
    ("plan's initial scale applied twice", "audit"),
    ("adaLN gate alone times 1/sqrt(width)", "early"),
    ("1/sqrt(d) with growing head_dim", "certificate"),
    ("weight detached in the forward pass", "early"),
    ("decay by hand after the step, by the group's lr", "late"),
)
BUGS = {bug.name: bug for bug in SUITE}


def right() -> Planted:
    return Planted(name="nothing", kind="none", parameter=None, detectors=())


@pytest.fixture(scope="module")
def passed() -> CoordinateCheck:
    torch.set_num_threads(1)
    return run_check(right(), late=False, seeds=12, widths=(32, 64, 128, 256), control=True)


@pytest.fixture(scope="module")
def failed() -> CoordinateCheck:
    torch.set_num_threads(1)
    return run_check(BUGS["plain AdamW on all"], late=False, seeds=6)


# --- verdicts ------------------------------------------------------------------------------------


def test_a_right_model_passes_and_sp_is_seen_to_grow(passed) -> None:
    assert passed.verdict == "PASS"
    assert passed.findings == ()
    assert passed.control is not None
    assert passed.control.grows
    judged = [row for row in passed.rows if row.verdict != "not judged"]
    assert len(judged) > 80
    for row in judged:
        lower = -BOUND if row.bounds[0] is not None else -math.inf
        assert lower <= row.low <= row.slope <= row.high <= BOUND


@pytest.mark.slow
def test_zero_gates_and_readout_do_not_blind_it() -> None:
    task = digits_task(init="dit")
    plan = mudit.plan(task.build, width=64, base_width=32)
    check = coordinate_check(task.build, task.loss, plan=plan, seeds=16)
    assert check.verdict == "PASS"
    seen = {row.name for row in check.rows if row.quantity == "update" and row.verdict == "PASS"}
    weights = {row.name for row in plan.rows if row.trainable and row.kind in ("weight", "table")}
    assert seen == weights
    gates = {"blocks.0.adaLN_modulation[2]", "blocks.0.adaLN_modulation[5]"}
    assert gates <= {row.name for row in check.rows if row.quantity == "change"}


def test_one_step_from_zero_gates_is_blind_and_says_so() -> None:
    task = digits_task(init="dit")
    plan = mudit.plan(task.build, width=64, base_width=32)
    check = coordinate_check(
        task.build, task.loss, plan=plan, widths=(32, 64), seeds=2, steps=1, control=False
    )
    blind = {finding.parameter for finding in check.findings if finding.parameter}
    assert check.verdict == "INCONCLUSIVE"
    assert "blocks.0.attn.qkv.weight" in blind
    assert "final_layer.linear.weight" not in blind


def test_few_seeds_are_inconclusive_and_ask_for_more() -> None:
    check = run_check(right(), late=False, seeds=2)
    assert check.verdict == "INCONCLUSIVE"
    assert "seeds" in check.findings[0].message


def test_a_flat_control_is_inconclusive() -> None:
    """Where only input weights are trained, sp does what μP does."""

    def embedding_loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        tokens = model.x_embedder(torch.randn(16, 1, 8, 8, generator=generator))
        return (tokens - 1).square().mean()

    plan = mudit.plan(dit, width=64, base_width=32)
    check = coordinate_check(
        dit, embedding_loss, plan=plan, widths=(32, 64), seeds=2, unused=["[!x]*"]
    )
    assert check.control is not None
    assert not check.control.grows
    assert check.verdict == "INCONCLUSIVE"
    assert any("cannot tell" in finding.message for finding in check.findings)


def test_divergence_is_a_failure() -> None:
    def explosive(model: nn.Module, generator: torch.Generator) -> Tensor:
        return digits_loss(model, generator) * (math.inf if model.config.width > 32 else 1.0)

    plan = mudit.plan(dit, width=64, base_width=32)
    check = coordinate_check(
        dit, explosive, plan=plan, widths=(32, 64), seeds=2, steps=2, control=False
    )
    assert check.verdict == "FAIL"
    assert "diverged at width 64" in check.findings[0].message


def test_all_that_plain_adamw_scales_wrongly_is_named(failed) -> None:
    hidden = {row.name for row in BUGS["plain AdamW on all"].plan().rows if row.role == "hidden"}
    named = {finding.parameter for finding in failed.findings}
    assert failed.verdict == "FAIL"
    assert hidden <= named
    assert "not divided by width" in failed.findings[0].message


@pytest.mark.parametrize(("name", "detector"), SUBSET)
def test_a_planted_mistake_is_caught_and_named(name, detector) -> None:
    bug = BUGS[name]
    assert detector in bug.detectors
    caught = detect(bug, detector)
    assert caught.names(bug), caught


def test_the_early_check_does_not_see_weight_decay() -> None:
    """Which is why there is a late one."""
    caught = detect(BUGS["decay by hand after the step, by the group's lr"], "early")
    assert not caught.speaks


def test_the_suite_is_what_the_docs_say() -> None:
    assert len(BUGS) == len(SUITE) >= 24
    assert sum(set(bug.detectors) <= {"early", "late"} for bug in SUITE) >= 8
    for name, detector in SUBSET:
        assert detector in BUGS[name].detectors


# --- the same to the bit, and nothing left -------------------------------------------------------


def test_a_check_is_reproducible_to_the_bit() -> None:
    def run() -> str:
        torch.randn(3)  # whatever the global generator's state
        return run_check(right(), late=False, seeds=2, widths=(32, 64)).to_json()

    assert run() == run()


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    run_check(right(), late=False, seeds=2, widths=(32, 64))
    assert torch.equal(torch.randn(3), expected)


def test_recording_leaves_nothing_on_modules() -> None:
    model = dit(32)
    with recording(model) as seen:
        digits_loss(model, torch.Generator().manual_seed(0))
    assert seen
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_recording_leaves_nothing_when_the_model_fails() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="shapes"), recording(model):
        model(torch.zeros(1, 2))
    assert not any(module._forward_hooks for module in model.modules())


# --- what is recorded ----------------------------------------------------------------------------


class _Answer(dict):
    pass


@dataclasses.dataclass
class _Output:
    sample: Tensor
    extra: tuple[Tensor, ...]


class _Strange(nn.Module):
    """Returns a dataclass, calls a module twice, and attends by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> _Output:
        once = self.shared(x)
        twice = self.shared(once)
        weights = F.softmax(once @ twice.mT / 2, dim=-1)
        return _Output(sample=weights @ twice, extra=(twice, once.long()))


def test_outputs_of_any_kind_are_seen() -> None:
    model = _Strange()
    x = torch.randn(1, 3, 4)
    with recording(model) as seen:
        model(x)
    assert list(seen) == ["shared", "shared#2", "(model)[logits]", "(model)[sample]"]
    assert {facts.parameter for facts in seen.values()} == {"shared.weight"}


def test_logits_are_those_of_the_attention() -> None:
    model = dit(32)
    kept = {}
    attention = model.blocks[0].attn
    attention.qkv.register_forward_hook(lambda module, args, output: kept.update(qkv=output))
    with recording(model) as seen:
        digits_loss(model, torch.Generator().manual_seed(0))
    batch, tokens, _ = kept["qkv"].shape
    query, key, _ = kept["qkv"].reshape(batch, tokens, 3, 4, 8).unbind(2)
    expected = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(8)
    found = seen[f"blocks.0.attn{LOGITS}"]
    torch.testing.assert_close(found.value, expected.detach())
    assert found.parameter == "blocks.0.attn.qkv.weight"


def test_each_modulation_vector_is_seen_by_its_place() -> None:
    model = dit(32)
    with recording(model) as seen:
        digits_loss(model, torch.Generator().manual_seed(0))
    for place in range(6):
        found = seen[f"blocks.0.adaLN_modulation[{place}]"]
        assert found.parameter == "blocks.0.adaLN_modulation.1.weight"
        assert found.value.shape[-1] == 32


@pytest.mark.parametrize(
    ("shape", "grows"),
    [
        ((6, 9), (True, True)),
        ((9, 6), (True, False)),
        ((8, 3, 2, 2), (True, False, False, False)),
        ((1, 5, 8), (False, False, True)),
    ],
)
def test_spectral_norm_is_the_largest_singular_value(shape, grows) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    side = grows.index(True)
    matrix = weight.movedim(side, 0).flatten(1)
    assert spectral_norm(weight, grows) == pytest.approx(
        float(torch.linalg.matrix_norm(matrix, ord=2)), rel=1e-5
    )


def test_spectral_norm_of_fused_experts_is_that_of_the_largest() -> None:
    experts = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0))
    expected = max(float(torch.linalg.matrix_norm(expert, ord=2)) for expert in experts)
    assert spectral_norm(experts, (False, True, True)) == pytest.approx(expected, rel=1e-5)


def test_rms_and_norm_of_what_is_not_finite() -> None:
    assert math.isnan(spectral_norm(torch.full((2, 2), math.nan), (True, True)))
    assert rms(torch.tensor([3.0, -4.0])) == pytest.approx(math.sqrt(12.5))


# --- late ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_right_decay_passes_the_late_probe() -> None:
    check = run_check(right(), late=True)
    decays = [row for row in check.rows if row.quantity == "decay"]
    assert len(decays) >= 8
    assert all(abs(row.slope) < BOUND for row in decays)
    assert not any(row.verdict == "FAIL" for row in check.rows)


# --- arguments, files, figures -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"widths": (32,)}, "widths"),
        ({"seeds": 1}, "seeds"),
        ({"seeds": [3, 3]}, "seeds"),
        ({"steps": 0}, "steps"),
        ({"late_steps": 3}, "late_steps"),
        ({"late_seeds": 1}, "late_seeds"),
    ],
)
def test_arguments_out_of_range(options, word) -> None:
    plan = mudit.plan(dit, width=64, base_width=BASE_WIDTH)
    with pytest.raises(UsageError, match=word):
        coordinate_check(dit, digits_loss, plan=plan, **options)


def test_saved_json_holds_every_row(failed, tmp_path) -> None:
    failed.save(tmp_path / "check.json")
    fields = json.loads((tmp_path / "check.json").read_text())
    assert fields["verdict"] == "FAIL"
    assert len(fields["rows"]) == len(failed.rows)
    assert fields["settings"]["widths"] == list(WIDTHS)
    first = next(row for row in fields["rows"] if row["quantity"] == "update_rms")
    assert set(first) >= {"name", "slope", "low", "high", "bounds", "verdict", "values"}


def test_markdown_names_the_culprit_first(failed) -> None:
    text = failed.to_markdown()
    assert text.startswith("# Coordinate check: FAIL\n")
    findings = text.split("## Findings\n\n")[1].splitlines()
    assert findings[0].startswith("- **t_embedder.mlp.2.weight**: updates grow as n^")


def test_figures_show_what_failed(failed, passed) -> None:
    assert passed.control is not None
    (_, _, updates), control = coordinates_info(
        failed.rows, passed.control.rows, widths=WIDTHS, steps=STEPS, bound=BOUND
    ).lines
    worst = max(updates.traces, key=lambda trace: trace.relative[-1])
    assert worst.verdict == "FAIL"
    assert worst.relative[0] == 1
    assert worst.relative[-1] == pytest.approx(4.0, rel=0.25)  # n^1 from width 32 to 128
    assert [panel.parametrization for panel in control] == ["sp"] * 3
    slopes = slopes_info(failed.rows, bound=BOUND)
    shown = {bar.name for _, bars in slopes.groups for bar in bars if bar.verdict == "FAIL"}
    assert "blocks.0.attn.qkv.weight" in shown
    info = coordinates_info(
        passed.rows, passed.control.rows, widths=(32, 64, 128, 256), steps=STEPS, bound=BOUND
    )
    with type_style(LIGHT):
        for figure in (draw_coordinates(info, LIGHT), draw_slopes(slopes, LIGHT)):
            assert to_png(figure).startswith(b"\x89PNG")


def test_presets_are_checked_on_noise() -> None:
    task = noise_task(dataclasses.replace(CONFIG, learn_sigma=True), batch_size=4)
    first, again = (
        task.loss(task.build(32), torch.Generator().manual_seed(1)).isfinite() for _ in range(2)
    )
    assert first
    assert again

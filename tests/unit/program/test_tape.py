"""The tape: what ran, in single-assignment form, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from mudit.program.tape import WRITE, record


class Net(nn.Module):
    def __init__(self, forward) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.inner = nn.Linear(3, 3)
        self.run = forward

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)


def tape_of(forward, *, mode: bool = True):  # type: ignore[no-untyped-def]
    model = Net(forward).train(mode)
    return record(model, (torch.zeros(2, 3),), {}, width=3), model


def names(tape) -> list[str]:  # type: ignore[no-untyped-def]
    return [op.name for op in tape.ops]


def producers(tape, value: int) -> set[str]:  # type: ignore[no-untyped-def]
    """Names of all ops that a value depends on."""
    made = {v: op for op in tape.ops for v in op.outputs}
    seen, todo = set(), [value]
    while todo:
        op = made.get(todo.pop())
        if op is not None and op.name not in seen:
            seen.add(op.name)
            todo.extend(op.inputs)
    return seen


def test_ops_parameters_modules_and_lines() -> None:
    tape, _ = tape_of(lambda self, x: self.inner(x) * self.weight)

    assert names(tape) == ["t", "addmm", "mul"]
    assert [op.module for op in tape.ops] == ["inner", "inner", ""]
    assert all("test_tape.py" in str(op.source) for op in tape.ops)
    by_name = {v.name: v.shape for v in tape.values if v.origin == "parameter"}
    assert by_name == {"weight": (3,), "inner.weight": (3, 3), "inner.bias": (3,)}


def test_write_into_a_view_reaches_the_base_and_its_other_views() -> None:
    def forward(self: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        base = torch.zeros(2, 3)
        other = base.view(6)
        base[:, 1] = torch.sin(x[:, 1])  # copy_ into a select of base
        return base, torch.tanh(other)

    tape, _ = tape_of(forward)
    base, other = tape.outputs

    assert "copy_" in names(tape)
    assert WRITE in names(tape)
    assert {"sin", "copy_"} <= producers(tape, base)
    assert {"tanh", "sin", "copy_"} <= producers(tape, other)


def test_value_read_before_a_write_does_not_depend_on_it() -> None:
    def forward(self: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        base = x * 2
        early = torch.tanh(base)
        base.add_(torch.sin(x))
        return early, base

    tape, _ = tape_of(forward)

    assert "sin" not in producers(tape, tape.outputs[0])
    assert {"sin", "add_", "mul"} <= producers(tape, tape.outputs[1])


def test_outputs_in_dicts_dataclasses_and_tuples_are_found() -> None:
    tape, _ = tape_of(lambda self, x: {"a": [x + 1, None], "b": (x + 2, {"c": x + 3})})

    assert len(tape.outputs) == 3


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_is_left_as_it_was(mode: bool) -> None:
    hooks = len(torch_module._global_forward_hooks), len(torch_module._global_forward_pre_hooks)
    tape, model = tape_of(lambda self, x: nn.functional.dropout(x, 0.5, self.training), mode=mode)

    assert model.training is mode
    assert "bernoulli_" not in names(tape)  # recorded in evaluation mode
    now = len(torch_module._global_forward_hooks), len(torch_module._global_forward_pre_hooks)
    assert now == hooks


def test_hooks_are_removed_after_a_failure() -> None:
    def forward(self: Net, x: Tensor) -> Tensor:
        raise ValueError("no")

    hooks = len(torch_module._global_forward_hooks)
    with pytest.raises(ValueError, match="no"):
        tape_of(forward)
    assert len(torch_module._global_forward_hooks) == hooks


def test_reading_a_value_back_is_noted_with_its_line() -> None:
    tape, _ = tape_of(lambda self, x: x * float(x.sum().item()))

    assert "test_tape.py" in str(tape.syncs[0])


def test_constants_are_measured_and_activations_are_not() -> None:
    tape, _ = tape_of(lambda self, x: x * torch.full((3,), 4.0))
    full = next(op for op in tape.ops if op.name == "full")

    assert tape.sizes[full.outputs[0]] == 4.0
    assert tape.outputs[0] not in tape.sizes


def test_fused_fast_paths_do_not_hide_attention() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    before = torch.backends.mha.get_fastpath_enabled()
    tape = record(Encoder(), (torch.randn(2, 3, 8),), {}, width=8)

    assert not [n for n in names(tape) if "encoder_layer" in n or "multi_head" in n]
    assert [n for n in names(tape) if "attention" in n]
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_meta_device_repeats_are_looked_up_and_equal() -> None:
    def forward(self: Net, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.softmax(torch.tanh(self.inner(x)), -1)
        return x

    real, _ = tape_of(forward)
    model = Net(forward).to("meta")
    meta = record(model, (torch.zeros(2, 3, device="meta"),), {}, width=3)

    assert names(meta) == names(real)
    assert [v.shape for v in meta.values] == [v.shape for v in real.values]

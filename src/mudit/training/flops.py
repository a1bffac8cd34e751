"""FLOPs of a training step, measured by counting the products that torch runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mudit.models import ModelConfig, builder, example_inputs


def step_flops(
    config: ModelConfig, batch_size: int, *, build: Callable[[int], nn.Module] | None = None
) -> float:
    """FLOPs of the forward and backward pass of one step, on the meta device.

    Matrix products and attention count 2 FLOPs for each multiply-add; pointwise work, the
    optimizer, the objective and frozen encoders do not count. Text counts with the longest that the
    model takes.

    Args:
        config: The model's.
        batch_size: Images in a step.
        build: What is trained, by width, with the model's arguments; None: the model.
    """
    with torch.device("meta"):
        model = (build or builder(config))(config.width)
        inputs = example_inputs(config, batch=2)(config.width)
    with FlopCounterMode(display=False) as counter:
        output = model(*inputs)
        parts = output if isinstance(output, tuple) else (output,)
        torch.stack([part.sum() for part in parts]).sum().backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) * batch_size / 2


def trainable_parameters(model: nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)

"""FLOPs of a training step, measured by counting the products that torch runs."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mudit.models import ModelConfig, builder, example_inputs


def step_flops(config: ModelConfig, batch_size: int) -> float:
    """FLOPs of the forward and backward pass of one step, on the meta device.

    Matrix products and attention count 2 FLOPs for each multiply-add; pointwise work, the optimizer
    and the objective do not count. Text counts with the longest that the model takes.
    """
    with torch.device("meta"):
        model = builder(config)(config.width)
        inputs = example_inputs(config, batch=2)(config.width)
    with FlopCounterMode(display=False) as counter:
        model(*inputs).sum().backward()
    return float(counter.get_total_flops()) * batch_size / 2


def trainable_parameters(model: nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)

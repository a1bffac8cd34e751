"""FLOPs of a training step, measured by counting the products that torch runs."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mudit.models import DiT, DiTConfig


def step_flops(config: DiTConfig, batch_size: int) -> float:
    """FLOPs of the forward and backward pass of one step, on the meta device.

    Matrix products and attention count 2 FLOPs for each multiply-add; pointwise work, the optimizer
    and the objective do not count.
    """
    with torch.device("meta"):
        model = DiT(config)
        x = torch.empty(2, config.in_channels, config.input_size, config.input_size)
        t, labels = torch.zeros(2), torch.zeros(2, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        output: torch.Tensor = model(x, t, labels)
        output.sum().backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) * batch_size / 2


def trainable_parameters(model: nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)

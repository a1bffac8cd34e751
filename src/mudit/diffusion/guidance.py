"""Classifier-free guidance: the label dropout that it trains with, and the guided network.

Sources: [CFG] Ho & Salimans 2022; [DiT] code `forward_with_cfg` and `LabelEmbedder.token_drop`;
[Interval] Kynkäänniemi et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mudit.diffusion.objective import Network
from mudit.diffusion.schedules import compute_dtype
from mudit.errors import UsageError

LabelledNetwork: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
GuidedChannels: TypeAlias = Literal["all", "first_three"]

# The network's time is often float32: 0.7 · 999 / 999 is 0.70000005 there.
_ROUNDING = 1e-6


def drop_labels(
    labels: Int[Tensor, " batch"],
    null_label: int,
    probability: float,
    *,
    generator: torch.Generator,
) -> Int[Tensor, " batch"]:
    """`labels`, each replaced by `null_label` with `probability` on its own.

    The generator moves on by one draw per label whatever the probability is.

    Raises:
        UsageError: `probability` is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise UsageError(f"drop_labels got probability={probability}; expected 0 to 1.")
    draws = torch.rand(labels.shape, generator=generator, device=generator.device)
    return labels.masked_fill((draws < probability).to(labels.device), null_label)


def guided(
    network: LabelledNetwork,
    labels: Int[Tensor, " batch"],
    null_label: int,
    *,
    cfg_scale: float,
    channels: GuidedChannels = "all",
    interval: tuple[float, float] | None = None,
    noise_level: Callable[[Tensor], Tensor] | None = None,
) -> Network:
    """The network that predicts `uncond + cfg_scale * (cond - uncond)`, at one doubled batch.

    Where the output has a variance half, that half is the conditional one's. What is guided may be
    noise or velocity.

    Args:
        network: Called as `network(x, t, labels)`, in one batch of 2B: first the conditional half,
            then the unconditional one.
        labels: The condition of each sample, or its place in a table of conditions.
        null_label: The label that stands for no condition.
        cfg_scale: 1 means no guidance, and calls `network` once with the plain batch.
        channels: Which noise channels are guided: "all", or "first_three", as [DiT] code does
            for its 4 latent channels "for exact reproducibility"; the fourth stays conditional.
        interval: Noise levels between which, both included, there is guidance ([Interval]; [REPA]
            evaluates with (0, 0.7)); elsewhere the plain batch is all that `network` gets. None:
            everywhere.
        noise_level: The level in [0, 1] of a time that the network is given,
            `Objective.noise_level`; needed with `interval`.

    Raises:
        UsageError: `channels` is unknown, or `interval` is wrong or lacks `noise_level`. The
            returned network raises it when x does not have one sample per label, or fewer than the
            three channels asked for.
    """
    if channels not in ("all", "first_three"):
        raise UsageError(f"guided got channels={channels!r}; expected 'all' or 'first_three'.")
    if interval is not None:
        check_interval(interval)
        if noise_level is None:
            raise UsageError(
                f"guided got interval={interval} without noise_level; pass "
                "noise_level=objective.noise_level, which reads the network's times."
            )

    def conditional(x: Tensor, t: Tensor) -> Tensor:
        _check_batch(x, labels)
        return network(x, t, labels)

    if cfg_scale == 1:
        return conditional
    both_labels = torch.cat([labels, torch.full_like(labels, null_label)])

    def combined(x: Tensor, t: Tensor) -> Tensor:
        _check_batch(x, labels)
        count = _guided_count(x, channels)
        inside = _inside(t, interval, noise_level)
        if inside is not None and not bool(inside.any()):
            return network(x, t, labels)
        output = network(torch.cat([x, x]), torch.cat([t, t]), both_labels)
        # Guidance amplifies the rounding of half precision by cfg_scale.
        cond, uncond = output.to(compute_dtype(x)).chunk(2)
        mixed = uncond[:, :count] + cfg_scale * (cond[:, :count] - uncond[:, :count])
        if inside is not None:  # samples may be at different times
            mixed = torch.where(inside.view(-1, *[1] * (x.ndim - 1)), mixed, cond[:, :count])
        return torch.cat([mixed, cond[:, count:]], dim=1)

    return combined


def check_interval(interval: tuple[float, float]) -> None:
    """Raises UsageError unless `interval` lies in [0, 1], its lower end first."""
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise UsageError(
            f"The guidance interval is {list(interval)}; expected two noise levels from 0 (data) "
            "to 1 (noise), the lower one first, e.g. [0, 0.7]."
        )


def _inside(
    t: Tensor,
    interval: tuple[float, float] | None,
    noise_level: Callable[[Tensor], Tensor] | None,
) -> Tensor | None:
    """Which samples are guided, (B,); None: all."""
    if interval is None or noise_level is None:
        return None
    level = noise_level(t)
    return (level >= interval[0] - _ROUNDING) & (level <= interval[1] + _ROUNDING)


def _guided_count(x: Float[Tensor, "batch channels *space"], channels: GuidedChannels) -> int:
    if channels == "all":
        return x.shape[1]
    if x.shape[1] < 3:
        raise UsageError(
            f"channels='first_three' got x with {x.shape[1]} channels; expected at least 3. "
            "Use channels='all'."
        )
    return 3


def _check_batch(x: Tensor, labels: Tensor) -> None:
    if x.shape[0] != labels.shape[0]:
        raise UsageError(
            f"A guided network for {labels.shape[0]} labels got a batch of {x.shape[0]}; expected "
            "one sample per label. Call guided(...) anew for each batch of labels."
        )

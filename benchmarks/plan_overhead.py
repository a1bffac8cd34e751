"""What a plan costs: a training step with plan groups and guard against one plain AdamW group.

One DiT is stepped by two optimizers by turns, so that both work on the same weights in the same
memory: A is AdamW(plan.param_groups(...), fused=True) with plan.guard, as the trainer has it; B is
AdamW over the trainable parameters in one group, fused too. A step is forward, squared error to a
fixed target, backward, optimizer step. It is measured without clipping, and with it: A by
plan.clip_grad_norm_, B by torch's clip_grad_norm_. fp32, one CPU thread.

Beside the whole step, its optimizer's part (clipping and optimizer step on the same gradients) is
timed alone: the plan's cost in ms, free of the noise of forward and backward.

Bar: a step with the plan takes at most 1.01 times as long, within noise.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from machine import (
    Comparison,
    alternate,
    at_most,
    describe,
    milliseconds,
    publish,
    quick,
    table,
)
from torch import nn

import mudit
from mudit.models import DiTConfig, builder

_BAR = 1.01
_NOISE = 0.02
_THREADS = 1
_MAX_NORM = 1.0
_LR = 2**-14  # small: hundreds of steps on one batch must not blow up


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, and how long to measure it.

    Attributes:
        config: The model; the plan's base width is half its width.
        batch_size: Images in a step.
        calls: Steps in a turn.
        seconds: How long to measure the whole step without, and again with clipping.
    """

    config: DiTConfig
    batch_size: int
    calls: int
    seconds: float

    @property
    def name(self) -> str:
        """The sizes in words."""
        c = self.config
        return f"width {c.width}, depth {c.depth}, {c.num_tokens} tokens, batch {self.batch_size}"


CASES = (
    Case(
        config=DiTConfig(
            depth=4,
            num_heads=4,
            head_dim=16,
            patch_size=2,
            input_size=8,
            in_channels=1,
            num_classes=10,
            init="dit_mup",
        ),
        batch_size=64,
        calls=4,
        seconds=45,
    ),
    Case(
        config=DiTConfig(
            depth=12,
            num_heads=4,
            head_dim=72,
            patch_size=2,
            input_size=32,
            in_channels=4,
            num_classes=1000,
            init="dit_mup",
        ),
        batch_size=8,
        calls=1,
        seconds=95,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The two optimizers on one model.

    Attributes:
        forward_backward: Leaves fresh gradients.
        plan_update: Clipping, if any, and optimizer step by the plan.
        plain_update: The same without one.
        groups: How many groups the plan made.
    """

    forward_backward: Callable[[], None]
    plan_update: Callable[[], None]
    plain_update: Callable[[], None]
    groups: int

    def plan_step(self) -> None:
        """A whole step with the plan."""
        self.forward_backward()
        self.plan_update()

    def plain_step(self) -> None:
        """A whole step without."""
        self.forward_backward()
        self.plain_update()


def contest(case: Case, *, clip: bool) -> Contest:
    """One model of the plan, and both optimizers over it."""
    config, generator = case.config, torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    plan = mudit.plan(builder(config), width=config.width, base_width=config.width // 2)
    model = plan.build()
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = plan.param_groups(model, lr=_LR)
    ours = torch.optim.AdamW(groups, fused=True)
    plan.guard(ours)
    plain = torch.optim.AdamW(trainable, lr=_LR, weight_decay=0.0, fused=True)

    size = (case.batch_size, config.in_channels, config.input_size, config.input_size)
    x = torch.randn(size, generator=generator)
    t = torch.randint(0, 1000, (case.batch_size,), generator=generator)
    labels = torch.randint(0, config.num_classes, (case.batch_size,), generator=generator)
    target = torch.randn(size[0], config.out_channels, *size[2:], generator=generator)

    def forward_backward() -> None:
        model.zero_grad(set_to_none=True)
        loss = nn.functional.mse_loss(model(x, t, labels), target)
        loss.backward()  # type: ignore[no-untyped-call]

    def plan_update() -> None:
        if clip:
            plan.clip_grad_norm_(model, _MAX_NORM)
        ours.step()

    def plain_update() -> None:
        if clip:
            nn.utils.clip_grad_norm_(trainable, _MAX_NORM)
        plain.step()

    return Contest(
        forward_backward=forward_backward,
        plan_update=plan_update,
        plain_update=plain_update,
        groups=len(groups),
    )


def measure(case: Case, *, clip: bool, smoke: bool) -> tuple[list[object], list[object]]:
    """A row for the whole step, and one for the optimizer's part."""
    both = contest(case, clip=clip)
    whole = alternate(
        both.plan_step,
        both.plain_step,
        rounds=2 if smoke else 1000,
        calls=1 if smoke else case.calls,
        limit_seconds=case.seconds,
    )
    both.forward_backward()
    part = alternate(
        both.plan_update,
        both.plain_update,
        rounds=6 if smoke else 1000,
        calls=2,
        limit_seconds=6,
    )
    what = [case.name, "each its own" if clip else "none"]
    return (
        [
            *what,
            *_times(whole),
            f"{whole.ratio:.4f}",
            _interval(whole),
            at_most(whole, _BAR, noise=_NOISE),
        ],
        [*what, both.groups, *_times(part), *_extra(part, whole)],
    )


def _times(found: Comparison) -> list[str]:
    return [milliseconds(found.a), milliseconds(found.b)]


def _interval(found: Comparison) -> str:
    i = found.interval
    rounds = len(found.a)
    return f"{i.low:.4f} to {i.high:.4f} ({100 * i.confidence:.0f} %, {rounds} rounds)"


def _extra(part: Comparison, whole: Comparison) -> list[str]:
    """The plan's cost by itself: in ms, and as a share of the plain step."""
    extra = statistics.median(a - b for a, b in zip(part.a, part.b, strict=True))
    return [f"{1000 * extra:+.3f}", f"{100 * extra / statistics.median(whole.b):+.2f} %"]


def main() -> None:
    smoke = quick(__doc__)
    machine = describe("mudit")
    torch.set_num_threads(_THREADS)
    rows = [measure(case, clip=clip, smoke=smoke) for clip in (False, True) for case in CASES]
    whole = table(
        [
            "model",
            "clipping",
            ">plan, ms",
            ">plain, ms",
            ">ratio",
            "interval of the median ratio",
            f"≤ {_BAR} within noise",
        ],
        [row for row, _ in rows],
    )
    part = table(
        [
            "model",
            "clipping",
            ">groups",
            ">plan, ms",
            ">plain, ms",
            ">extra, ms",
            ">share of a plain step",
        ],
        [row for _, row in rows],
    )
    body = f"""
A training step with `AdamW(plan.param_groups(...), fused=True)` and `plan.guard` against one plain
fused AdamW group, on the same model by turns; fp32, {_THREADS} thread. Ratio: median over rounds of
plan / plain. Bar: at most {_BAR} within noise. "Within noise" means that the bar lies in the
interval, and that the interval ends below {_BAR + _NOISE:.2f}; a wider one is inconclusive.

{whole}
The optimizer's part alone (clipping, guard, optimizer step, on the same gradients), and what the
plan adds to a whole step by it:

{part}"""
    publish("plan_overhead", title="What a plan costs", machine=machine, body=body, quick=smoke)


if __name__ == "__main__":
    main()

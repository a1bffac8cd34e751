"""A full training step of mudit's DiT against diffusers' DiTTransformer2DModel.

Both have the same sizes, inputs and weights (their outputs are compared first), and by turns take
the same step: forward, sum of squares of the output as the loss, backward, fused AdamW in one
group, EMA of the trainable weights by mudit.training.ema.EMA, which is one foreach lerp. diffusers'
class builds the timestep and label embedders once per block and has more parameters for it; this is
how it comes, and its users train. Its own dropout of labels is switched off (eval mode, where this
is all that the mode changes): mudit leaves that to the objective. fp32 with two CPU threads; on a
GPU, if there is one, fp32 and bf16 autocast too.

Bar: mudit's step is faster at both sizes (median ratio below 1, the interval too).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from machine import Comparison, alternate, at_most, describe, milliseconds, publish, quick, table
from torch import Tensor, nn

from mudit.models import DiT, DiTConfig
from mudit.training import trainable_parameters
from mudit.training.ema import EMA

_THREADS = 2
_LR = 2**-14  # small: hundreds of steps on one batch must not blow up
_EMA_DECAY = 0.999


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, and how long to measure it.

    Attributes:
        config: The model.
        batch_size: Images in a step.
        calls: Steps in a turn on the CPU.
    """

    config: DiTConfig
    batch_size: int
    calls: int

    @property
    def name(self) -> str:
        """The sizes in words."""
        c = self.config
        return f"width {c.width}, depth {c.depth}, {c.num_tokens} tokens, batch {self.batch_size}"


CASES = (
    Case(
        config=DiTConfig(
            depth=12,
            num_heads=4,
            head_dim=72,
            patch_size=2,
            input_size=32,
            in_channels=4,
            num_classes=1000,
        ),
        batch_size=8,
        calls=1,
    ),
    Case(
        config=DiTConfig(
            depth=4,
            num_heads=4,
            head_dim=16,
            patch_size=2,
            input_size=8,
            in_channels=1,
            num_classes=10,
        ),
        batch_size=64,
        calls=4,
    ),
)


# --- the two models -----------------------------------------------------------------------------


def our_dit(config: DiTConfig) -> DiT:
    """Our DiT, every weight random: zeros would make gradients vanish."""
    torch.manual_seed(0)
    model = DiT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.02)
    return model


def stock_dit(ours: DiT) -> nn.Module:
    """Diffusers' DiT of the same sizes, with our weights."""
    import diffusers

    config = ours.config
    stock: Any = diffusers.DiTTransformer2DModel(  # type: ignore[no-untyped-call]
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        sample_size=config.input_size,
        patch_size=config.patch_size,
        num_embeds_ada_norm=config.num_classes,
        norm_eps=1e-6,  # [DiT] code
    )
    for block in stock.transformer_blocks:
        # diffusers spaces the frequencies by 1/127, [DiT] by 1/128.
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    missing, unexpected = stock.load_state_dict(_stock_state(ours), strict=False)
    if unexpected or set(missing) - {"pos_embed.pos_embed"}:
        raise SystemExit(f"diffusers names its weights otherwise: {missing}, {unexpected}")
    model: nn.Module = stock.eval()
    return model


def _stock_state(model: DiT) -> dict[str, Tensor]:
    """Our weights under diffusers' names."""
    ours, state = model.state_dict(), dict[str, Tensor]()

    def copy(to: str, of: str) -> None:
        for kind in ("weight", "bias"):
            state[f"{to}.{kind}"] = ours[f"{of}.{kind}"]

    copy("pos_embed.proj", "x_embedder.proj")
    copy("proj_out_1", "final_layer.adaLN_modulation.1")
    copy("proj_out_2", "final_layer.linear")
    for i in range(model.config.depth):
        mine, stock = f"blocks.{i}", f"transformer_blocks.{i}"
        embedders = f"{stock}.norm1.emb"
        copy(f"{embedders}.timestep_embedder.linear_1", "t_embedder.mlp.0")
        copy(f"{embedders}.timestep_embedder.linear_2", "t_embedder.mlp.2")
        labels = ours["y_embedder.embedding_table.weight"]
        state[f"{embedders}.class_embedder.embedding_table.weight"] = labels
        for kind in ("weight", "bias"):
            for letter, part in zip("qkv", ours[f"{mine}.attn.qkv.{kind}"].chunk(3), strict=True):
                state[f"{stock}.attn1.to_{letter}.{kind}"] = part
        copy(f"{stock}.norm1.linear", f"{mine}.adaLN_modulation.1")
        copy(f"{stock}.attn1.to_out.0", f"{mine}.attn.proj")
        copy(f"{stock}.ff.net.0.proj", f"{mine}.mlp.fc1")
        copy(f"{stock}.ff.net.2", f"{mine}.mlp.fc2")
    return state


# --- the step -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Program:
    """A model and its full training step.

    Attributes:
        forward: The output for the fixed inputs.
        step: One training step.
        parameters: How many are trained.
    """

    forward: Callable[[], Tensor]
    step: Callable[[], None]
    parameters: int


def program(
    model: nn.Module,
    forward: Callable[[], Tensor],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Program:
    """The step, the same for both models."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=_LR, weight_decay=0.0, fused=True)
    ema = EMA(model, _EMA_DECAY)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            output = forward()
        output.float().square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ema.update()

    return Program(forward=forward, step=step, parameters=trainable_parameters(model))


def programs(
    case: Case, device: torch.device, precision: Literal["fp32", "bf16"]
) -> tuple[Program, Program]:
    """Ours and diffusers', which give the same output at the start."""
    config, generator = case.config, torch.Generator().manual_seed(0)
    size = (case.batch_size, config.in_channels, config.input_size, config.input_size)
    x = torch.randn(size, generator=generator).to(device)
    t = torch.randint(0, 1000, size[:1], generator=generator).to(device)
    labels = torch.randint(0, config.num_classes, size[:1], generator=generator).to(device)
    mine = our_dit(config)
    stock = stock_dit(mine).to(device)
    mine = mine.to(device)

    def autocast() -> AbstractContextManager[Any]:
        if precision == "bf16":
            return torch.autocast(device.type, torch.bfloat16)
        return nullcontext()

    ours = program(mine, lambda: mine(x, t, labels), autocast)
    theirs = program(stock, lambda: stock(x, t, labels, return_dict=False)[0], autocast)
    with torch.no_grad():
        torch.testing.assert_close(ours.forward(), theirs.forward(), rtol=1e-3, atol=1e-4)
    return ours, theirs


# --- the table ----------------------------------------------------------------------------------


def measure(
    case: Case, device: torch.device, precision: Literal["fp32", "bf16"], *, smoke: bool
) -> list[object]:
    """One row of the table."""
    ours, theirs = programs(case, device, precision)
    on_gpu = device.type == "cuda"
    found = alternate(
        ours.step,
        theirs.step,
        rounds=2 if smoke else 1000,
        calls=20 if on_gpu else 1 if smoke else case.calls,
        warm_up=1 if smoke else 3,
        limit_seconds=10 if on_gpu else 130,
        synchronize=torch.cuda.synchronize if on_gpu else lambda: None,
    )
    where = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {_THREADS} threads"
    return [
        case.name,
        f"{where}, {precision}",
        milliseconds(found.a),
        milliseconds(found.b),
        f"{found.ratio:.3f}",
        _interval(found),
        f"{ours.parameters / 1e6:.3g} M",
        f"{theirs.parameters / 1e6:.3g} M",
        at_most(found, 1.0),
    ]


def _interval(found: Comparison) -> str:
    return f"{found.interval}, {len(found.a)} rounds"


def main() -> None:
    smoke = quick(__doc__)
    try:
        import diffusers  # noqa: F401
    except ImportError:
        print("step: diffusers is not installed, so there is nothing to compare with; skipped.")
        print("Install it with: pip install 'mudit[diffusers]'")
        sys.exit(0)
    machine = describe("mudit", "diffusers")
    torch.set_num_threads(_THREADS)
    rows = [measure(case, torch.device("cpu"), "fp32", smoke=smoke) for case in CASES]
    note = "No GPU is at hand: its rows (fp32, bf16 autocast) are left out."
    if torch.cuda.is_available():
        gpu = torch.device("cuda")
        rows += [measure(case, gpu, p, smoke=smoke) for case in CASES for p in ("fp32", "bf16")]
        note = "The bar is for the CPU rows; GPU rows end with the same comparison."
    found = table(
        [
            "model",
            "on",
            ">mudit, ms",
            ">diffusers, ms",
            ">ratio",
            "interval of the median ratio",
            ">mudit's parameters",
            ">diffusers' parameters",
            "faster (ratio < 1)",
        ],
        rows,
    )
    body = f"""
A full training step (forward, sum of squares of the output, backward, fused AdamW, EMA) of mudit's
DiT against diffusers' `DiTTransformer2DModel` with the same sizes and weights, by turns. Ratio:
median over rounds of mudit / diffusers. Bar: below 1 at both sizes, with its interval.

{found}
Both compute the same function. diffusers builds the timestep and label embedders anew in every
block, so it has more parameters to compute, step and average; that is part of its time. Its own
label dropout is off. {note}
"""
    publish(
        "step",
        title="A training step against diffusers",
        machine=machine,
        body=body,
        quick=smoke,
    )


if __name__ == "__main__":
    main()

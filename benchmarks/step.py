"""A full training step of mudit's DiT, PixArt-α and MMDiT against diffusers' same models.

Both have the same sizes, inputs and weights (their outputs are compared first), and by turns take
the same step: forward, sum of squares of the output as the loss, backward, fused AdamW in one
group, EMA of the trainable weights by mudit.training.ema.EMA, which is one foreach lerp. diffusers'
DiT builds the timestep and label embedders once per block and has more parameters for it; this is
how it comes, and its users train. Its own dropout of labels is switched off (eval mode, where this
is all that the mode changes): mudit leaves that to the objective. U-ViT has no counterpart in
diffusers and is measured alone. fp32 with two CPU threads; on a GPU, if there is one, fp32 and bf16
autocast too.

Memory: the bytes of all tensors that are alive at once, at most, during one forward and backward
pass, with gradients and without the weights themselves, counted op by op.

Bar: mudit's step is not slower (median ratio at most 1, the interval too), and not larger.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from machine import Comparison, alternate, at_most, describe, milliseconds, publish, quick, table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mudit.models import ModelConfig, architecture_of, builder, config_for, example_inputs
from mudit.models.layouts import EXCHANGES
from mudit.training import trainable_parameters
from mudit.training.ema import EMA

_THREADS = 2
_LR = 2**-14  # small: hundreds of steps on one batch must not blow up
_EMA_DECAY = 0.999


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, and how long to measure it.

    Attributes:
        architecture: Its name.
        config: The model.
        batch_size: Images in a step.
        calls: Steps in a turn on the CPU.
    """

    architecture: str
    config: ModelConfig
    batch_size: int
    calls: int

    @property
    def name(self) -> str:
        """The sizes in words."""
        c = self.config
        return (
            f"{architecture_of(c).model.__name__}, width {c.width}, depth {c.depth}, "
            f"{c.num_tokens} tokens, batch {self.batch_size}"
        )


def _case(architecture: str, *, large: bool) -> Case:
    sizes = (
        {"depth": 12, "head_dim": 72, "input_size": 32, "in_channels": 4, "num_classes": 1000}
        if large
        else {"depth": 4, "head_dim": 16, "input_size": 8, "in_channels": 1, "num_classes": 10}
    )
    config = config_for(
        architecture,
        init=None,
        learn_sigma=architecture in ("dit", "pixart"),
        num_heads=4,
        patch_size=2,
        # diffusers' config does not bound the text; what ours reads from it.
        caption_tokens=120 if architecture == "pixart" else 333,
        caption_dim=512 if large else 64,
        **sizes,
    )
    return Case(
        architecture=architecture,
        config=config,
        batch_size=8 if large else 64,
        calls=1 if large else 4,
    )


CASES = tuple(
    _case(name, large=large)
    for name in ("dit", "pixart", "mmdit", "uvit")
    for large in (True, False)
)
_TEXT_TOKENS = 32  # of which a random number, at least one, are real


# --- the two models -----------------------------------------------------------------------------


def our_model(config: ModelConfig) -> nn.Module:
    """Ours, every weight random: zeros would make gradients vanish."""
    torch.manual_seed(0)
    model: nn.Module = builder(config)(config.width)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.02)
    return model


def stock_model(architecture: str, ours: nn.Module) -> nn.Module | None:
    """Diffusers' model of the same sizes, with our weights; None: it has none."""
    import diffusers

    exchange = EXCHANGES[architecture].get("diffusers")
    if exchange is None or exchange.config is None:
        return None
    config: ModelConfig = ours.config  # type: ignore[assignment]
    written = exchange.config(config)
    stock: Any = getattr(diffusers, written["_class_name"]).from_config(written)
    if architecture == "dit":
        for block in stock.transformer_blocks:
            # diffusers spaces the frequencies by 1/127, [DiT] by 1/128.
            block.norm1.emb.time_proj.downscale_freq_shift = 0
    state = exchange.layout.export(ours.state_dict(), config.depth)
    missing, unexpected = stock.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"pos_embed.pos_embed"}:
        raise SystemExit(f"diffusers names its weights otherwise: {missing}, {unexpected}")
    model: nn.Module = stock.eval()
    return model


def inputs_of(case: Case, device: torch.device) -> tuple[Tensor, ...]:
    """Arguments of our forward pass; texts are short, as captions are."""
    torch.manual_seed(1)
    x, t, *told = example_inputs(case.config, case.batch_size)(case.config.width)
    if case.architecture in ("pixart", "mmdit"):
        text, _, *rest = told
        lengths = torch.randint(1, _TEXT_TOKENS + 1, (case.batch_size, 1))
        told = [text[:, :_TEXT_TOKENS], torch.arange(_TEXT_TOKENS) < lengths, *rest]
    return tuple(value.to(device) for value in (x, t.floor().long(), *told))


def calls_of(
    case: Case, ours: nn.Module, stock: nn.Module | None, inputs: tuple[Tensor, ...]
) -> tuple[Callable[[], Tensor], Callable[[], Tensor] | None]:
    """The forward pass of each."""
    if case.architecture == "mmdit":  # diffusers' has no mask: the padding is attended to
        x, t, text, _, pooled = inputs
        inputs = (x, t, text, None, pooled)  # type: ignore[assignment]
    if stock is None:
        return lambda: ours(*inputs), None
    x, t, *told = inputs
    named: dict[str, Any] = {"timestep": t, "return_dict": False}
    if case.architecture == "dit":
        named["class_labels"] = told[0]
    else:
        named["encoder_hidden_states"] = told[0]
    if case.architecture == "pixart":
        named["encoder_attention_mask"] = told[1]
        named["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
    if case.architecture == "mmdit":
        named["pooled_projections"] = told[2]
    return lambda: ours(*inputs), lambda: stock(x, **named)[0]


# --- the step -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Program:
    """A model and its full training step.

    Attributes:
        forward: The output for the fixed inputs.
        step: One training step.
        parameters: How many are trained.
        memory: Peak bytes of forward and backward.
    """

    forward: Callable[[], Tensor]
    step: Callable[[], None]
    parameters: int
    memory: int


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of storages that ops make and that are alive.

    Args:
        model: Its weights and buffers do not count.
        inputs: They do not count either, not even where they are first seen as views.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        own = (*model.parameters(), *model.buffers(), *inputs)
        self._seen = {tensor.untyped_storage()._cdata for tensor in own}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else (made,):
            if isinstance(value, Tensor):
                self._note(value.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def program(
    model: nn.Module,
    forward: Callable[[], Tensor],
    inputs: tuple[Tensor, ...],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Program:
    """The step, the same for both models."""
    trainable = [p for p in model.parameters() if p.requires_grad]

    def backward() -> None:
        with autocast():
            output = forward()
        output.float().square().sum().backward()  # type: ignore[no-untyped-call]

    with PeakMemory(model, inputs) as counted:
        backward()
    optimizer = torch.optim.AdamW(trainable, lr=_LR, weight_decay=0.0, fused=True)
    ema = EMA(model, _EMA_DECAY)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        backward()
        optimizer.step()
        ema.update()

    return Program(
        forward=forward,
        step=step,
        parameters=trainable_parameters(model),
        memory=counted.peak,
    )


def programs(
    case: Case, device: torch.device, precision: Literal["fp32", "bf16"]
) -> tuple[Program, Program | None]:
    """Ours and diffusers', which give the same output at the start."""
    mine = our_model(case.config)
    stock = stock_model(case.architecture, mine)
    mine = mine.to(device)
    if stock is not None:
        stock = stock.to(device)
    inputs = inputs_of(case, device)
    first, second = calls_of(case, mine, stock, inputs)

    def autocast() -> AbstractContextManager[Any]:
        if precision == "bf16":
            return torch.autocast(device.type, torch.bfloat16)
        return nullcontext()

    ours = program(mine, first, inputs, autocast)
    if stock is None or second is None:
        return ours, None
    theirs = program(stock, second, inputs, autocast)
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
        theirs.step if theirs else lambda: None,
        rounds=2 if smoke else 1000,
        calls=20 if on_gpu else 1 if smoke else case.calls,
        warm_up=1 if smoke else 3,
        limit_seconds=10 if on_gpu else 40 if theirs else 15,
        synchronize=torch.cuda.synchronize if on_gpu else lambda: None,
    )
    where = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {_THREADS} threads"
    row = [case.name, f"{where}, {precision}", milliseconds(found.a)]
    if theirs is None:
        return [*row, "", "", "", f"{ours.memory / 2**20:.4g}", "", "", "no counterpart"]
    slower = at_most(found, 1.0)
    larger = "PASS" if ours.memory <= theirs.memory else "FAIL"
    return [
        *row,
        milliseconds(found.b),
        f"{found.ratio:.3f}",
        _interval(found),
        f"{ours.memory / 2**20:.4g}",
        f"{theirs.memory / 2**20:.4g}",
        f"{ours.memory / theirs.memory:.3f}",
        f"{slower}, {larger}",
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
    cases = [case for case in CASES if case.config.depth == 4] if smoke else CASES
    rows = [measure(case, torch.device("cpu"), "fp32", smoke=smoke) for case in cases]
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
            ">mudit, MiB",
            ">diffusers, MiB",
            ">ratio",
            "not slower, not larger",
        ],
        rows,
    )
    body = f"""
A full training step (forward, sum of squares of the output, backward, fused AdamW, EMA) of mudit's
models against diffusers' with the same sizes and weights, by turns. Ratio: median over rounds of
mudit / diffusers. MiB: peak of the tensors alive in one forward and backward pass, gradients
included, weights not. Bar: ratios of at most 1, with the interval.

{found}
Both compute the same function (`DiTTransformer2DModel`, `PixArtTransformer2DModel`,
`SD3Transformer2DModel`). diffusers' DiT builds the timestep and label embedders anew in every
block, so it has more parameters to compute, step and average; that is part of its time. Its own
label dropout is off. Texts have {_TEXT_TOKENS} tokens, a random number of them masked in PixArt.
{note}
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

"""Small modules in unusual forms, and what the certificate must say of each.

`CERTIFIED` ones pass, with these roles and no annotation. `REFUSED` ones are refused for a reason
of the closed list. `FLAWED` ones are programs, but would not keep their scale over width under μP,
so the verdict is FAIL; each flaw has its right counterpart in `CERTIFIED`.

Features are (2, 6, 4). Widths are multiples of 8, of which 16, 24 and 40 are meant. Expectations
were derived by hand from Table 5 and the operators of App. B.2, without the certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

Parts = Callable[[int], dict[str, Any]]

HEAD, TOKENS, FEATURES, VOCABULARY, EXPERTS = 8, 6, 4, 7, 3


@dataclass(frozen=True)
class Case:
    """A module at any width, inputs for it, and the expected verdict.

    Attributes:
        reason: For a refusal, which of the closed list: "order" (softmax, sort, top-k or another
            order-dependent step over a growing dimension), "lipschitz" (not pseudo-Lipschitz),
            "transformed" (a weight transformed before use) or "tied" (a weight used in two ways
            that need different multipliers).
        roles: Role of each parameter by name, where it passes.
        parts: Roles of the column slices of a weight over unlike features, in order.
    """

    name: str
    build: Callable[[int], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    verdict: Literal["PASS", "FAIL", "REFUSED"]
    reason: str | None = None
    roles: Mapping[str, str] | None = None
    parts: Mapping[str, tuple[str, ...]] | None = None


class Net(nn.Module):
    """Named parts and what is done with them."""

    def __init__(self, run: Callable[..., Tensor], parts: dict[str, Any]) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *data: Tensor) -> Tensor:
        return self.run(self, *data)


def raw(*shape: int) -> nn.Parameter:
    return nn.Parameter(0.1 * torch.randn(shape))


def ends(n: int) -> dict[str, Any]:
    """Into the width and out of it."""
    return {"inp": nn.Linear(FEATURES, n), "out": nn.Linear(n, 3)}


def readout(n: int) -> dict[str, Any]:
    return {"out": nn.Linear(n, 3)}


OUT = {"out.weight": "output", "out.bias": "scalar"}
ENDS = {"inp.weight": "input", "inp.bias": "input", **OUT}


def linear(name: str, weight: str, bias: str) -> dict[str, str]:
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def features(width: int) -> tuple[Tensor, ...]:
    return (torch.randn(2, TOKENS, FEATURES),)


def images(width: int) -> tuple[Tensor, ...]:
    return (torch.randn(2, FEATURES, 8, 8),)


def words(width: int) -> tuple[Tensor, ...]:
    return (torch.randint(VOCABULARY, (2, TOKENS)),)


def times(width: int) -> tuple[Tensor, ...]:
    return (torch.rand(2) * 1000,)


def passes(
    name: str,
    run: Callable[..., Tensor],
    parts: Parts,
    roles: Mapping[str, str],
    *,
    inputs: Callable[[int], tuple[Tensor, ...]] = features,
    slices: Mapping[str, tuple[str, ...]] | None = None,
) -> Case:
    return Case(name, lambda n: Net(run, parts(n)), inputs, "PASS", roles=roles, parts=slices)


def refused(reason: str, name: str, run: Callable[..., Tensor], parts: Parts = ends) -> Case:
    return Case(name, lambda n: Net(run, parts(n)), features, "REFUSED", reason)


def fails(name: str, run: Callable[..., Tensor], parts: Parts = ends) -> Case:
    return Case(name, lambda n: Net(run, parts(n)), features, "FAIL")


# Steps that take more than a line


def heads(x: Tensor, head: int = HEAD) -> Tensor:
    """(B, N, H D) as (B, H, N, D)."""
    return x.unflatten(-1, (-1, head)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, head: int = HEAD, scale: float | None = None) -> Tensor:
    q, k, v = (heads(x, head) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)


def by_hand(m: nn.Module, x: Tensor, power: float) -> Tensor:
    """Two heads, however wide, with logits divided by a power of their size."""
    q, k, v = (heads(each(x), each.out_features // 2) for each in (m.q, m.k, m.v))
    logits = q @ k.mT / q.shape[-1] ** power
    return m.out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


def einsum_heads(m: nn.Module, x: Tensor) -> Tensor:
    x = m.inp(x)
    q, k, v = (torch.einsum("bnc,hdc->bhnd", x, w) for w in (m.q, m.k, m.v))
    mixed = F.scaled_dot_product_attention(q, k, v)
    return m.out(torch.einsum("bhnd,hdc->bnc", mixed, m.merge))


def expert_einsum(m: nn.Module, x: Tensor) -> Tensor:
    x = m.inp(x)
    share = m.router(x).softmax(-1)
    inside = torch.einsum("bnc,ecf->bnef", x, m.up).relu()
    return m.out(torch.einsum("bnef,efc,bne->bnc", inside, m.down, share))


def expert_bmm(m: nn.Module, x: Tensor) -> Tensor:
    x = m.inp(x).flatten(0, 1)
    share = m.router(x).softmax(-1)
    inside = torch.bmm(x.expand(EXPERTS, -1, -1), m.up).relu()
    return m.out((torch.bmm(inside, m.down) * share.T[..., None]).sum(0))


def shared_keys(m: nn.Module, x: Tensor) -> Tensor:
    """All heads ask the same one head of keys and values."""
    x = m.inp(x)
    q, k, v = heads(m.q(x)), heads(m.k(x)), heads(m.v(x))
    k, v = k.expand_as(q), v.expand_as(q)
    mixed = F.scaled_dot_product_attention(q, k, v)
    return m.out(m.proj(mixed.transpose(1, 2).flatten(2)))


def linear_attention(m: nn.Module, x: Tensor) -> Tensor:
    q, k, v = (heads(each) for each in m.qkv(m.inp(x)).chunk(3, -1))
    q, k = q.relu(), k.relu()
    total = (q * k.sum(-2, keepdim=True)).sum(-1, keepdim=True)
    mixed = q @ (k.mT @ v) / (total + 1e-6)
    return m.out(mixed.transpose(1, 2).flatten(2))


def chunked_weight(m: nn.Module, x: Tensor) -> Tensor:
    x = m.inp(x)
    return m.out(attend(*(F.linear(x, w) for w in m.qkv.weight.chunk(3))))


def squeeze_excite(m: nn.Module, x: Tensor) -> Tensor:
    x = m.inp(x)
    return m.out(x * torch.sigmoid(m.up(m.down(x.mean(1, keepdim=True)).relu())))


def channel_attention(m: nn.Module, x: Tensor) -> Tensor:
    """XCA: each channel attends to the channels, a softmax over an n x n matrix."""
    q, k, v = m.qkv(m.inp(x)).mT.chunk(3, 1)
    return m.out(((q @ k.mT / TOKENS).softmax(-1) @ v).mT)


def sinusoids(t: Tensor) -> Tensor:
    angle = t[:, None] * 10.0 ** -torch.arange(4.0)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def wide_heads(n: int) -> dict[str, Any]:
    return readout(n) | {name: nn.Linear(FEATURES, n) for name in "qkv"}


def grown(m: nn.Module, x: Tensor, scale: float | None) -> Tensor:
    """Two heads, however wide; without a scale, torch's 1/sqrt(d)."""
    return m.out(attend(m.q(x), m.k(x), m.v(x), m.q.out_features // 2, scale))


def rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def over_channels(m: nn.Module, x: Tensor) -> Tensor:
    """A kernel that slides over the channels as if they were places."""
    x = m.inp(x)
    return m.out(m.conv(x.flatten(0, 1)[:, None]).view_as(x))


def hidden(n: int) -> dict[str, Any]:
    return ends(n) | {"mix": nn.Linear(n, n)}


def four(n: int) -> dict[str, Any]:
    return {"inp": nn.Linear(FEATURES, n), "out": nn.Linear(4, 3)}


def through(step: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """A step between the way in and the way out."""
    return lambda m, x: m.out(step(m.inp(x)))


WIDE_HEADS = OUT | {f"{name}.{kind}": "input" for name in "qkv" for kind in ("weight", "bias")}


CERTIFIED = [
    passes(
        "transposed weights",
        lambda m, x: ((x @ m.first).relu() @ m.second).relu() @ m.third,
        lambda n: {"first": raw(FEATURES, n), "second": raw(n, n), "third": raw(n, 3)},
        {"first": "input", "second": "hidden", "third": "output"},
    ),
    passes(
        "rectangular transposed weights",  # the shapes alone do not say which side is fan-in
        lambda m, x: m.out((m.inp(x) @ m.up).relu() @ m.down.T),
        lambda n: ends(n) | {"up": raw(n, 4 * n), "down": raw(n, 4 * n)},
        ENDS | {"up": "hidden", "down": "hidden"},
    ),
    passes(
        "einsum over heads",
        einsum_heads,
        lambda n: ends(n) | {w: raw(n // HEAD, HEAD, n) for w in ("q", "k", "v", "merge")},
        ENDS | {"q": "hidden", "k": "hidden", "v": "hidden", "merge": "hidden"},
    ),
    passes(
        "raw position table",
        lambda m, x: m.out((m.inp(x) + m.place).relu()),
        lambda n: ends(n) | {"place": raw(TOKENS, n)},
        ENDS | {"place": "input"},
    ),
    passes(
        "class token",
        lambda m, x: m.out(torch.cat([m.token.expand(len(x), -1, -1), m.inp(x)], 1).relu()),
        lambda n: ends(n) | {"token": raw(1, 1, n)},
        ENDS | {"token": "input"},
    ),
    passes(
        "readout vector",
        lambda m, x: m.inp(x).relu() @ m.vector,
        lambda n: {"inp": nn.Linear(FEATURES, n), "vector": raw(n)},
        {"inp.weight": "input", "inp.bias": "input", "vector": "output"},
    ),
    passes(
        # The forward pass divides by n itself, so the vector is a gain before an Avg. As an output
        # weight it would be divided by n twice.
        "readout vector before a mean",
        lambda m, x: (m.inp(x).relu() * m.vector).mean(-1),
        lambda n: {"inp": nn.Linear(FEATURES, n), "vector": raw(n)},
        {"inp.weight": "input", "inp.bias": "input", "vector": "input"},
    ),
    passes(
        "fused experts by bmm",
        expert_bmm,
        lambda n: (
            ends(n)
            | {"up": raw(EXPERTS, n, 4 * n), "down": raw(EXPERTS, 4 * n, n)}
            | {"router": nn.Linear(n, EXPERTS)}
        ),
        ENDS | {"up": "hidden", "down": "hidden"} | linear("router", "output", "scalar"),
    ),
    passes(
        "fused experts by einsum",
        expert_einsum,
        lambda n: (
            ends(n)
            | {"up": raw(EXPERTS, n, 4 * n), "down": raw(EXPERTS, 4 * n, n)}
            | {"router": nn.Linear(n, EXPERTS)}
        ),
        ENDS | {"up": "hidden", "down": "hidden"} | linear("router", "output", "scalar"),
    ),
    passes(
        "time MLP on fixed features",
        lambda m, t: m.out(m.second(F.silu(m.first(sinusoids(t))))),
        lambda n: readout(n) | {"first": nn.Linear(8, n), "second": nn.Linear(n, n)},
        OUT | linear("first", "input", "input") | linear("second", "hidden", "input"),
        inputs=times,
    ),
    passes(
        "MultiheadAttention",
        lambda m, x: m.out(m.attn(*[m.inp(x)] * 3, need_weights=False)[0]),
        lambda n: ends(n) | {"attn": nn.MultiheadAttention(n, n // HEAD, batch_first=True)},
        ENDS
        | {"attn.in_proj_weight": "hidden", "attn.in_proj_bias": "input"}
        | linear("attn.out_proj", "hidden", "input"),
    ),
    passes(
        "TransformerEncoderLayer",
        lambda m, x: m.out(m.layer(m.inp(x))),
        lambda n: (
            ends(n)
            | {
                "layer": nn.TransformerEncoderLayer(
                    n, n // HEAD, dim_feedforward=4 * n, dropout=0.0, batch_first=True
                )
            }
        ),
        ENDS
        | {"layer.self_attn.in_proj_weight": "hidden", "layer.self_attn.in_proj_bias": "input"}
        | linear("layer.self_attn.out_proj", "hidden", "input")
        | linear("layer.linear1", "hidden", "input")
        | linear("layer.linear2", "hidden", "input")
        | linear("layer.norm1", "input", "input")
        | linear("layer.norm2", "input", "input"),
    ),
    passes(
        "depthwise convolution over tokens",
        lambda m, x: m.out(m.conv(m.inp(x).mT).mT),
        lambda n: ends(n) | {"conv": nn.Conv1d(n, n, 3, padding=1, groups=n)},
        ENDS | linear("conv", "input", "input"),  # fan-in 3
    ),
    passes(
        "one head of keys and values",
        shared_keys,
        lambda n: (
            ends(n)
            | {"q": nn.Linear(n, n), "k": nn.Linear(n, HEAD), "v": nn.Linear(n, HEAD)}
            | {"proj": nn.Linear(n, n)}
        ),
        ENDS
        | linear("q", "hidden", "input")
        | linear("k", "output", "scalar")
        | linear("v", "output", "scalar")
        | linear("proj", "hidden", "input"),
    ),
    passes(
        "convolutions in, through and out",
        lambda m, x: m.out(F.silu(m.mix(m.patch(x)))),
        lambda n: {
            "patch": nn.Conv2d(FEATURES, n, 2, stride=2),
            "mix": nn.Conv2d(n, n, 1),
            "out": nn.ConvTranspose2d(n, 3, 2, stride=2),  # its weight is (n, 3, 2, 2)
        },
        OUT | linear("patch", "input", "input") | linear("mix", "hidden", "input"),
        inputs=images,
    ),
    passes(
        "bottleneck",
        lambda m, x: m.out(m.up(m.down(m.inp(x)).relu())),
        lambda n: ends(n) | {"down": nn.Linear(n, 16), "up": nn.Linear(16, n)},
        ENDS | linear("down", "output", "scalar") | linear("up", "input", "input"),
    ),
    passes(
        "LayerScale",
        lambda m, x: m.out(m.inp(x) + m.gamma * m.mix(m.inp(x).relu())),
        lambda n: ends(n) | {"mix": nn.Linear(n, n), "gamma": nn.Parameter(torch.full((n,), 1e-2))},
        ENDS | linear("mix", "hidden", "input") | {"gamma": "input"},
    ),
    passes(
        "tied queries and keys",
        lambda m, x: m.out(attend(m.both(m.inp(x)), m.both(m.inp(x)), m.inp(x))),
        lambda n: ends(n) | {"both": nn.Linear(n, n)},
        ENDS | linear("both", "hidden", "input"),
    ),
    passes(
        "a matrix and its transpose",  # W and W.T are both MatMul of App. B.2
        lambda m, x: m.out((m.inp(x) @ m.weight).relu() @ m.weight.T),
        lambda n: ends(n) | {"weight": raw(n, n)},
        ENDS | {"weight": "hidden"},
    ),
    passes(
        "Embedding with padding",
        lambda m, word: m.out(m.table(word).relu()),
        lambda n: readout(n) | {"table": nn.Embedding(VOCABULARY, n, padding_idx=0)},
        OUT | {"table.weight": "input"},
        inputs=words,
    ),
    passes(
        "linear attention",
        linear_attention,
        lambda n: ends(n) | {"qkv": nn.Linear(n, 3 * n)},
        ENDS | linear("qkv", "hidden", "input"),
    ),
    passes(
        "norms without parameters",
        lambda m, x: m.out(rms(F.layer_norm(m.inp(x), m.inp(x).shape[-1:]).relu())),
        ends,
        ENDS,
    ),
    passes(
        "a weight reached through its chunks",
        chunked_weight,
        lambda n: ends(n) | {"qkv": nn.Linear(n, 3 * n, bias=False)},
        ENDS | {"qkv.weight": "hidden"},
    ),
    passes(
        "width and data side by side",
        lambda m, x: m.out(m.mix(torch.cat([m.inp(x), x], -1)).relu()),
        lambda n: ends(n) | {"mix": nn.Linear(n + FEATURES, n)},
        ENDS | linear("mix", "hidden", "input"),
        slices={"mix.weight": ("hidden", "input")},  # columns :n and n:
    ),
    passes(
        "squeeze and excite",
        squeeze_excite,
        lambda n: ends(n) | {"down": nn.Linear(n, n // 4), "up": nn.Linear(n // 4, n)},
        ENDS | linear("down", "hidden", "input") | linear("up", "hidden", "input"),
    ),
    # Counterparts of the flaws below
    passes(
        "growing heads, scaled by 1/d",
        lambda m, x: grown(m, x, 2 / m.q.out_features),
        wide_heads,
        WIDE_HEADS,
    ),
    passes(
        "growing heads by hand, scaled by 1/d",
        lambda m, x: by_hand(m, x, 1.0),
        wide_heads,
        WIDE_HEADS,
    ),
    passes(
        "mean over channels",
        lambda m, x: m.out(m.inp(x) + m.inp(x).relu().mean(-1, keepdim=True)),
        ends,
        ENDS,
    ),
    passes("constant multiplier", lambda m, x: m.out(0.25 * m.inp(x).relu()), ends, ENDS),
]


REFUSED = [
    # A vector's coordinates must be exchangeable: nothing may depend on which is largest or next.
    refused("order", "softmax over channels", through(lambda x: x.softmax(-1))),
    refused("order", "top-k over channels", through(lambda x: x.topk(4, -1).values), four),
    refused("order", "cumsum over channels", through(lambda x: x.cumsum(-1) / x.shape[-1])),
    refused("order", "argsort over channels", through(lambda x: x.gather(-1, x.argsort(-1)))),
    refused(
        "order",
        "XCA",
        channel_attention,
        lambda n: ends(n) | {"qkv": nn.Linear(n, 3 * n)},
    ),
    refused("order", "the first four channels", through(lambda x: x[..., :4]), four),
    refused("order", "flip of channels", through(lambda x: x + x.flip(-1))),
    refused(
        "order",
        "convolution over channels",
        over_channels,
        lambda n: ends(n) | {"conv": nn.Conv1d(1, 1, 3, padding=1)},
    ),
    refused("lipschitz", "sign", through(torch.sign)),
    refused("lipschitz", "round", through(torch.round)),
    refused("lipschitz", "exp", through(torch.exp)),
    refused("lipschitz", "reciprocal", through(lambda x: 1 / x)),
    refused("lipschitz", "log", through(lambda x: torch.log(x.abs()))),  # abs keeps it finite
    refused("lipschitz", "step", through(lambda x: (x > 0).float() * 2)),
    refused(
        "transformed",
        "weight norm",
        lambda m, x: m.out(m.mix(m.inp(x))),
        lambda n: ends(n) | {"mix": parametrizations.weight_norm(nn.Linear(n, n))},
    ),
    refused(
        "transformed",
        "spectral norm",
        lambda m, x: m.out(m.mix(m.inp(x))),
        lambda n: ends(n) | {"mix": parametrizations.spectral_norm(nn.Linear(n, n))},
    ),
    refused(
        "transformed",
        "product of two matrices",
        lambda m, x: m.out(m.inp(x) @ (m.first @ m.second)),
        lambda n: ends(n) | {"first": raw(n, n), "second": raw(n, n)},
    ),
    refused(
        "transformed",
        "tanh of a matrix",
        lambda m, x: m.out(m.inp(x) @ m.weight.tanh()),
        lambda n: ends(n) | {"weight": raw(n, n)},
    ),
    Case(
        "embedding tied to readout",  # input by look-up, output by contraction
        lambda n: Net(
            lambda m, word: m.mix(m.table(word)).relu() @ m.table.weight.T,
            {"table": nn.Embedding(VOCABULARY, n), "mix": nn.Linear(n, n)},
        ),
        words,
        "REFUSED",
        "tied",
    ),
    refused(
        "tied",
        "way in tied to way out",
        lambda m, x: m.mix(x @ m.weight).relu() @ m.weight.T,
        lambda n: {"weight": raw(FEATURES, n), "mix": nn.Linear(n, n)},
    ),
]

FLAWED = [
    fails("growing heads, scaled by 1/sqrt(d)", lambda m, x: grown(m, x, None), wide_heads),
    fails(
        "growing heads by hand, scaled by 1/sqrt(d)",
        lambda m, x: by_hand(m, x, 0.5),
        wide_heads,
    ),
    fails("growing heads by hand, not scaled", lambda m, x: by_hand(m, x, 0.0), wide_heads),
    fails("sum over channels", through(lambda x: x + x.relu().sum(-1, keepdim=True))),
    fails("activations times n**-0.5", through(lambda x: x.relu() * x.shape[-1] ** -0.5)),
    fails("activations times n", through(lambda x: x.relu() * x.shape[-1])),
    fails("a layer divided by n", lambda m, x: m.out(m.mix(m.inp(x)) / m.mix.in_features), hidden),
]

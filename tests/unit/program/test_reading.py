"""Reading passes: roles with no annotation, refusals from the closed list, and flaws of size.

Each case is a small module whose right outcome is derived by hand from which dimensions grow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from mudit.parametrization import Certificate, certify

HEAD = 8
WIDTHS = (16, 24, 40)
Forward = Callable[[Any, Tensor], Tensor]
Parts = dict[str, Callable[[int], Any]]


class Net(nn.Module):
    """x (batch, tokens, 3) is embedded to width n; `forward` does the rest on h (batch, tokens, n).

    Parts given as `name: function(n)` are made at the width.
    """

    def __init__(self, width: int, forward: Forward, parts: Parts) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Linear(3, width)
        self.read = nn.Linear(width, 3)
        for name, part in parts.items():
            made = part(width)
            setattr(self, name, nn.Parameter(made) if isinstance(made, Tensor) else made)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, self.embed(x))


def certified(forward: Forward, **parts: Callable[[int], Any]) -> Certificate:
    return certify(lambda n: Net(n, forward, parts), lambda n: (torch.randn(2, 4, 3),), WIDTHS)


def heads(h: Tensor) -> Tensor:
    """(batch, tokens, n) → (batch, heads, tokens, HEAD)."""
    return h.unflatten(-1, (-1, HEAD)).transpose(1, 2)


def matrix(*shape: Callable[[int], int] | int) -> Callable[[int], Tensor]:
    return lambda n: torch.randn(*(s(n) if callable(s) else s for s in shape))


def full(n: int) -> int:
    return n


# --- roles with no annotation ---------------------------------------------------------------------

CERTIFIED: dict[str, tuple[Forward, Parts, dict[str, tuple[str, str]]]] = {
    "transposed weight": (
        lambda self, h: self.read(h @ self.w),
        {"w": lambda n: torch.randn(n, 4 * n)[:, :n].clone()},
        {"w": ("hidden", "weight"), "read.weight": ("output", "weight")},
    ),
    "rectangular transposed weight": (
        lambda self, h: (h @ self.w),
        {"w": matrix(full, 5)},
        {"w": ("output", "weight")},
    ),
    "einsum over heads": (
        lambda self, h: self.read(
            torch.einsum("bthd,hdn->btn", h.unflatten(-1, (-1, HEAD)), self.w)
        ),
        {"w": lambda n: torch.randn(n // HEAD, HEAD, n)},
        {"w": ("hidden", "weight")},
    ),
    "one matrix for each head": (
        lambda self, h: self.read(
            torch.einsum("bthd,hde->bthe", h.unflatten(-1, (-1, HEAD)), self.w).flatten(-2)
        ),
        {"w": lambda n: torch.randn(n // HEAD, HEAD, HEAD)},
        {"w": ("input", "weight")},
    ),
    "raw tables, gains and biases": (
        lambda self, h: self.read((h + self.table) * self.gain + self.bias),
        {"table": matrix(1, 4, full), "gain": matrix(full), "bias": matrix(full)},
        {"table": ("input", "table"), "gain": ("input", "gain"), "bias": ("input", "bias")},
    ),
    "vector read out": (
        lambda self, h: h @ self.w,
        {"w": matrix(full)},
        {"w": ("output", "weight")},
    ),
    "fused experts by bmm": (
        lambda self, h: self.read(
            torch.bmm(F.silu(torch.bmm(h.reshape(2, 4, -1), self.up)), self.down)
        ),
        {"up": lambda n: torch.randn(2, n, 4 * n), "down": lambda n: torch.randn(2, 4 * n, n)},
        {"up": ("hidden", "weight"), "down": ("hidden", "weight")},
    ),
    "experts by routing": (
        lambda self, h: self.read(routed(self, h)),
        {
            "router": lambda n: nn.Linear(n, 3),
            "experts": lambda n: nn.ModuleList(nn.Linear(n, n) for _ in range(3)),
        },
        {"router.weight": ("output", "weight"), "router.bias": ("scalar", "bias")},
    ),
    "time MLP on fixed features": (
        lambda self, h: self.read(
            h + self.mlp(torch.cat([torch.sin(h.new_tensor([[1.0, 2.0]])), h.new_ones(1, 2)], 1))
        ),
        {"mlp": lambda n: nn.Sequential(nn.Linear(4, n), nn.SiLU(), nn.Linear(n, n))},
        {"mlp.0.weight": ("input", "weight"), "mlp.2.weight": ("hidden", "weight")},
    ),
    "multi-head attention layer": (
        lambda self, h: self.read(self.attn(h, h, h)[0]),
        {"attn": lambda n: nn.MultiheadAttention(n, n // HEAD, batch_first=True)},
        {"attn.in_proj_weight": ("hidden", "weight"), "attn.in_proj_bias": ("input", "bias")},
    ),
    "grouped queries with fixed heads of keys and values": (
        lambda self, h: self.read(grouped(self, h)),
        {"q": lambda n: nn.Linear(n, n), "kv": lambda n: nn.Linear(n, 2 * HEAD)},
        {
            "q.weight": ("hidden", "weight"),
            "kv.weight": ("output", "weight"),
            "kv.bias": ("scalar", "bias"),
        },
    ),
    "bottleneck": (
        lambda self, h: self.read(h + self.up(F.gelu(self.down(h)))),
        {"down": lambda n: nn.Linear(n, 6), "up": lambda n: nn.Linear(6, n)},
        {"down.weight": ("output", "weight"), "up.weight": ("input", "weight")},
    ),
    "convolutions": (
        lambda self, h: self.read(
            self.deep(self.wide(h.mT) + self.dense(h.mT)).mT
        ),
        {
            "deep": lambda n: nn.Conv1d(n, n, 3, padding=1, groups=n),
            "wide": lambda n: nn.Conv1d(n, n, 1),
            "dense": lambda n: nn.ConvTranspose1d(n, n, 3, padding=1),
        },
        {
            "deep.weight": ("input", "weight"),
            "wide.weight": ("hidden", "weight"),
            "dense.weight": ("hidden", "weight"),
        },
    ),
    "tied experts of the same role": (
        lambda self, h: self.read(self.w(torch.tanh(self.w(h))) + h @ self.w.weight),
        {"w": lambda n: nn.Linear(n, n)},
        {"w.weight": ("hidden", "weight")},
    ),
    "look-up by index and by class": (
        lambda self, h: self.read(h + self.classes(torch.tensor([1, 2]))[:, None] + self.rows[2]),
        {"classes": lambda n: nn.Embedding(5, n, padding_idx=0), "rows": matrix(6, full)},
        {"classes.weight": ("input", "table")},
    ),
    "learned queries through a projection": (
        lambda self, h: self.read(
            F.scaled_dot_product_attention(heads(self.q(self.latents).expand(2, -1, -1)),
                                           heads(h), heads(h)).transpose(1, 2).flatten(-2)
        ),
        {"q": lambda n: nn.Linear(n, n), "latents": matrix(1, 5, full)},
        {"q.weight": ("hidden", "weight"), "latents": ("input", "table")},
    ),
    "norms by hand, per head and over all": (
        lambda self, h: self.read(rms(heads(h) * self.per_head).transpose(1, 2).flatten(-2))
        + self.read(rms(h) * self.gain),
        {"per_head": matrix(HEAD), "gain": matrix(full)},
        {"per_head": ("scalar", "gain"), "gain": ("input", "gain")},
    ),
    "linear attention with fixed heads": (
        lambda self, h: self.read(linear_attention(heads(h)).transpose(1, 2).flatten(-2)),
        {},
        {"read.weight": ("output", "weight")},
    ),
    "state space scan": (
        lambda self, h: self.read(scanned(self, h)),
        {
            "rate": lambda n: torch.rand(n, 4).log(),
            "step": lambda n: nn.Linear(n, n),
            "write": lambda n: nn.Linear(n, 4),
        },
        {
            "rate": ("input", "gain"),
            "step.weight": ("hidden", "weight"),
            "write.weight": ("output", "weight"),
            "write.bias": ("scalar", "bias"),
        },
    ),
    "recurrent layer": (
        lambda self, h: self.read(self.lstm(h)[0]),
        {"lstm": lambda n: nn.LSTM(n, n, batch_first=True)},
        {"lstm.weight_ih_l0": ("hidden", "weight"), "lstm.weight_hh_l0": ("hidden", "weight")},
    ),
    "rotary embedding by complex numbers": (
        lambda self, h: self.read(rotated(heads(self.q(h))).transpose(1, 2).flatten(-2)),
        {"q": lambda n: nn.Linear(n, n)},
        {"q.weight": ("hidden", "weight")},
    ),
    "experts that choose tokens": (
        lambda self, h: self.read(chosen_tokens(self, h)),
        {"router": lambda n: nn.Linear(n, 3, bias=False), "w": lambda n: torch.randn(3, n, n)},
        {"router.weight": ("output", "weight"), "w": ("hidden", "weight")},
    ),
    "filters over tokens by Fourier transform": (
        lambda self, h: self.read(
            torch.fft.irfft(torch.fft.rfft(h, dim=1) * torch.fft.rfft(self.k, dim=0), n=4, dim=1)
        ),
        {"k": matrix(4, full)},
        {"k": ("input", "table")},
    ),
    "relative positions for each head": (
        lambda self, h: self.read(
            ((heads(h) @ heads(h).mT / HEAD + self.rows[torch.arange(16).view(4, 4) % 7]
              .permute(2, 0, 1)).softmax(-1) @ heads(h)).transpose(1, 2).flatten(-2)
        ),
        {"rows": lambda n: torch.randn(7, n // HEAD)},
        {"rows": ("input", "table")},
    ),
    "slope for each head": (
        lambda self, h: self.read(self.act(h.mT).mT),
        {"act": lambda n: nn.PReLU(n)},
        {"act.weight": ("input", "gain")},
    ),
    "weight norm on an input weight": (
        lambda self, h: self.read(h + self.w(torch.ones(2, 4, 3))),
        {"w": lambda n: parametrizations.weight_norm(nn.Linear(3, n))},
        {"w.parametrizations.weight.original1": ("input", "weight")},
    ),
    "encoder layer": (
        lambda self, h: self.read(self.layer(h)),
        {"layer": lambda n: nn.TransformerEncoderLayer(n, n // HEAD, 4 * n, batch_first=True)},
        {
            "layer.self_attn.in_proj_weight": ("hidden", "weight"),
            "layer.linear2.weight": ("hidden", "weight"),
            "layer.norm1.weight": ("input", "gain"),
        },
    ),
    "a constant factor on a weight": (
        lambda self, h: self.read(h @ (0.5 * self.w)),
        {"w": matrix(full, full)},
        {"w": ("hidden", "weight")},
    ),
}  # fmt: skip


def routed(self: Any, h: Tensor) -> Tensor:
    weights, chosen = self.router(h).softmax(-1).topk(2, dim=-1)
    out = torch.zeros_like(h)
    for number, expert in enumerate(self.experts):
        mask = (chosen == number).any(-1)
        share = (weights * (chosen == number)).sum(-1)
        out[mask] += expert(h[mask]) * share[mask][:, None]
    return out


def scanned(self: Any, h: Tensor) -> Tensor:
    rate, step, write = -torch.exp(self.rate), F.softplus(self.step(h)), self.write(h)
    state, seen = h.new_zeros(h.shape[0], h.shape[2], 4), []
    for t in range(h.shape[1]):
        state = torch.exp(step[:, t, :, None] * rate) * state + write[:, t, None] * h[:, t, :, None]
        seen.append(state.sum(-1))
    return torch.stack(seen, 1)


def rotated(q: Tensor) -> Tensor:
    turns = torch.polar(torch.ones(4, HEAD // 2), torch.linspace(0, 1, 4 * HEAD // 2).view(4, -1))
    return torch.view_as_real(torch.view_as_complex(q.unflatten(-1, (-1, 2))) * turns).flatten(-2)


def chosen_tokens(self: Any, h: Tensor) -> Tensor:
    x = h.flatten(0, 1)
    shares, index = self.router(x).softmax(-1).T.topk(2, dim=-1)
    y = torch.einsum("ecn,enm->ecm", x[index], self.w) * shares[..., None]
    return torch.zeros_like(x).index_add(0, index.flatten(), y.flatten(0, 1)).view_as(h)


def by_exponentials(h: Tensor) -> Tensor:
    e = (h - h.amax(1, keepdim=True)).exp()
    return e / e.sum(1, keepdim=True)


def grouped(self: Any, h: Tensor) -> Tensor:
    k, v = self.kv(h).chunk(2, dim=-1)
    q = heads(self.q(h))
    k, v = (t[:, None].expand(-1, q.shape[1], -1, -1) for t in (k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)


def rms(h: Tensor) -> Tensor:
    return h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)


def linear_attention(h: Tensor) -> Tensor:
    q, k = F.relu(h), F.relu(h)
    return q @ (k.mT @ h) / (q @ k.sum(-2, keepdim=True).mT + 1e-6)


@pytest.mark.parametrize("name", CERTIFIED)
def test_roles_without_annotation(name: str) -> None:
    forward, parts, expected = CERTIFIED[name]
    found = certified(forward, **parts)
    kinds = {row.name: (row.role, row.kind) for row in found.weights}

    assert found.verdict == "PASS", found.findings
    assert {key: kinds[key] for key in expected} == expected


def test_one_weight_over_finite_and_growing_features_is_split() -> None:
    found = certified(
        lambda self, h: self.read(self.w(torch.cat([h[..., :0], h, torch.ones(2, 4, 7)], -1))),
        w=lambda n: nn.Linear(n + 7, n),
    )
    (row,) = (row for row in found.weights if row.name == "w.weight")

    assert found.verdict == "PASS"
    assert row.role == "hidden"
    assert [(p.role, p.start, p.stop) for p in row.parts] == [
        ("hidden", (0, 0, 0), (16, 24, 40)),
        ("input", (16, 24, 40), (23, 31, 47)),
    ]
    assert any(note.parameter == "w.weight" and "parts" in note.message for note in found.notes)


def test_fused_projection_with_fixed_key_heads_is_split_by_rows() -> None:
    def forward(self: Any, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).split([self.width, HEAD, HEAD], dim=-1)
        q = heads(q)
        k, v = (t[:, None].expand(-1, q.shape[1], -1, -1) for t in (k, v))
        return self.read(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))

    found = certified(forward, qkv=lambda n: nn.Linear(n, n + 2 * HEAD))
    (row,) = (row for row in found.weights if row.name == "qkv.weight")

    assert found.verdict == "PASS", found.findings
    assert row.role == "hidden"
    assert {part.role for part in row.parts} == {"output"}


# --- refusals -------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Forward, Parts]] = {
    "softmax over features": ("order", lambda self, h: self.read(h.softmax(-1)), {}),
    "top-k over features": (
        "order",
        lambda self, h: self.read(h * (h.topk(3, dim=-1).values[..., -1:] + 1)),
        {},
    ),
    "cumulative sum over features": ("order", lambda self, h: self.read(h.cumsum(-1)), {}),
    "sort over features": ("order", lambda self, h: self.read(h.sort(-1).values), {}),
    "flip over features": ("order", lambda self, h: self.read(h.flip(-1)), {}),
    "maximum over features": ("order", lambda self, h: h.amax(-1), {}),
    "fixed features": ("order", lambda self, h: torch.tanh(h)[..., :4], {}),
    "attention over channels": (
        "order",
        lambda self, h: self.read(h @ (h.mT @ h / 4).softmax(-1)),
        {},
    ),
    "convolution along the features": (
        "order",
        lambda self, h: self.read(self.conv(h.flatten(0, 1)[:, None])[:, 0]),
        {"conv": lambda n: nn.Conv1d(1, 1, 3, padding=1)},
    ),
    "Fourier transform of the features": (
        "order",
        lambda self, h: self.read(
            torch.fft.rfft(h, dim=-1).real.repeat(1, 1, 2)[..., : self.width]
        ),
        {},
    ),
    "sign": ("lipschitz", lambda self, h: self.read(torch.sign(h)), {}),
    "rounding": ("lipschitz", lambda self, h: self.read(torch.round(h)), {}),
    "exponential": ("lipschitz", lambda self, h: self.read(torch.exp(h)), {}),
    "reciprocal": ("lipschitz", lambda self, h: self.read(1 / h), {}),
    "division": ("lipschitz", lambda self, h: self.read(1 / h * h.sin()), {}),
    "logarithm": ("lipschitz", lambda self, h: self.read(torch.log(h)), {}),
    "threshold": ("lipschitz", lambda self, h: self.read((h > 0).float() * 2), {}),
    "weight norm": (
        "transformed",
        lambda self, h: self.read(self.w(h)),
        {"w": lambda n: parametrizations.weight_norm(nn.Linear(n, n))},
    ),
    "spectral norm": (
        "transformed",
        lambda self, h: self.read(self.w(h)),
        {"w": lambda n: parametrizations.spectral_norm(nn.Linear(n, n))},
    ),
    "weight through tanh": (
        "transformed",
        lambda self, h: self.read(h @ torch.tanh(self.w)),
        {"w": matrix(full, full)},
    ),
    "weight times gains": (
        "transformed",
        lambda self, h: self.read(h @ (self.w * self.g)),
        {"w": matrix(full, full), "g": matrix(full)},
    ),
    "product of weights": (
        "transformed",
        lambda self, h: self.read(h @ (self.a @ self.b)),
        {"a": matrix(full, full), "b": matrix(full, full)},
    ),
    "transformed readout": (
        "transformed",
        lambda self, h: h @ torch.tanh(self.w),
        {"w": matrix(full, 3)},
    ),
    "embedding that is the readout": (
        "tied",
        lambda self, h: (h + self.e(torch.tensor([0, 1]))[:, None]) @ self.e.weight.T,
        {"e": lambda n: nn.Embedding(5, n)},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_from_the_closed_list(name: str) -> None:
    reason, forward, parts = REFUSED[name]
    found = certified(forward, **parts)

    assert found.verdict == "REFUSED"
    assert found.reasons == (reason,)
    assert any(".py:" in finding.message for finding in found.findings)


# Each refused step has a harmless twin that must be certified.
HARMLESS: dict[str, Forward] = {
    "softmax over tokens": lambda self, h: self.read(h.softmax(1)),
    "sort over tokens": lambda self, h: self.read(h.sort(1).values),
    "halves of the features": lambda self, h: self.read(torch.cat(h.chunk(2, -1)[::-1], -1)),
    "exponential below a maximum": lambda self, h: self.read((h - h.amax(1, True)).exp()),
    "softmax by hand": lambda self, h: self.read(by_exponentials(h)),
    "decay under a mask": lambda self, h: self.read(
        (-F.softplus(h)).masked_fill(torch.ones(4, 1) < 0, -torch.inf).exp()
    ),
    "bounded exponential": lambda self, h: self.read(torch.exp(-F.softplus(h))),
    "guarded division": lambda self, h: self.read(h / (h.abs() + 1)),
    "sign of a constant": lambda self, h: self.read(
        h * torch.sign(torch.linspace(-1, 1, 4)[:, None])
    ),
    "clamp": lambda self, h: self.read(h.clamp(-3, 3)),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_twins_are_certified(name: str) -> None:
    found = certified(HARMLESS[name])

    assert found.verdict == "PASS", found.findings


# --- flaws of size --------------------------------------------------------------------------------

one_head = {"q": lambda n: nn.Linear(n, n), "k": lambda n: nn.Linear(n, n)}


def by_hand(power: float) -> Forward:
    def forward(self: Any, h: Tensor) -> Tensor:
        logits = self.q(h) @ self.k(h).mT * self.width**-power
        return self.read(logits.softmax(-1) @ h)

    return forward


def fused(scale: Callable[[int], float] | None) -> Forward:
    def forward(self: Any, h: Tensor) -> Tensor:
        given = {} if scale is None else {"scale": scale(self.width)}
        attended = F.scaled_dot_product_attention(
            self.q(h)[:, None], self.k(h)[:, None], h[:, None], **given
        )
        return self.read(attended[:, 0])

    return forward


SIZES: dict[str, tuple[Forward, float]] = {
    "attention with a growing head": (fused(None), 0.5),
    "the same with 1/d": (fused(lambda n: 1 / n), 0.0),
    "the same by hand": (by_hand(0.5), 0.5),
    "by hand with 1/d": (by_hand(1.0), 0.0),
    "by hand without a scale": (by_hand(0.0), 1.0),
    "a sum without 1/n": (lambda self, h: torch.tanh(h.sum(-1)), 1.0),
    "a mean": (lambda self, h: torch.tanh(h.mean(-1)), 0.0),
    "a sum over n divided by n": (lambda self, h: torch.tanh(h.sum(-1) / self.width), 0.0),
    "activations times 1/√n": (lambda self, h: self.read(torch.tanh(h * self.width**-0.5)), -0.5),
    "activations times √n before a norm": (
        lambda self, h: self.read(rms(h * self.width**0.5)),
        0.0,
    ),
    "normalised to length one": (
        lambda self, h: torch.tanh(self.read(F.normalize(h, dim=-1))),
        -0.5,
    ),
    "cosines of unit vectors": (
        lambda self, h: torch.tanh(F.normalize(h, dim=-1) @ F.normalize(h, dim=-1).mT),
        0.0,
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_followed_through_the_program(name: str) -> None:
    forward, exponent = SIZES[name]
    found = certified(forward, **one_head)

    if exponent == 0.0:
        assert found.verdict == "PASS", found.findings
    else:
        assert found.verdict == "FAIL"
        assert f"n^{exponent:.2g}" in found.findings[0].message
        assert "test_reading.py" in found.findings[0].message

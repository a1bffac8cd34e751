"""Small definitions of the variants that [muDiT] names beyond its four (§3.1, App. A.1).

Written from the papers' descriptions: MDT (masked tokens and a side-interpolater), FiT (any number
of tokens: rotary positions in two dimensions, a mask, SwiGLU), U-DiT (a U of stages with tokens
downsampled inside attention), HourglassDiT (tokens merged into wider ones and split again), DiT-MoE
(routed and shared experts) and SiT (DiT's trunk that predicts a velocity). Each has the roles of
its parameters written by hand; head sizes stay, numbers of heads grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD, SIDE, PIXELS, CLASSES = 8, 4, 4, 5
TOKENS = SIDE * SIDE

INPUT, HIDDEN, OUTPUT = ("input", "weight"), ("hidden", "weight"), ("output", "weight")
BIAS, GAIN, TABLE = ("input", "bias"), ("input", "gain"), ("input", "table")


@dataclass(frozen=True)
class Variant:
    """A model as a function of width, its inputs, and the roles by pattern, the first that fits."""

    build: Callable[[int], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    roles: Mapping[str, tuple[str, str]]


def sinusoid(t: Tensor, size: int = 16) -> Tensor:
    angles = t[:, None] * torch.exp(-torch.arange(size // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Conditioned(nn.Module):
    """Timestep and label as one vector of the width."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, n), nn.SiLU(), nn.Linear(n, n))
        self.label = nn.Embedding(CLASSES + 1, n)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.time(sinusoid(t)) + self.label(y)


class Attention(nn.Module):
    def __init__(self, n: int, *, norm: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(n, 3 * n)
        self.proj = nn.Linear(n, n)
        self.scale = nn.Parameter(torch.full((n // HEAD, 1, 1), 2.0)) if norm else None

    def forward(
        self, x: Tensor, turn: Callable[[Tensor], Tensor] | None = None, mask: Tensor | None = None
    ) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        if turn is not None:
            q, k = turn(q), turn(k)
        if self.scale is not None:  # by cosine similarity, with a temperature for each head
            q, k = F.normalize(q, dim=-1) * self.scale, F.normalize(k, dim=-1)
            out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A DiT block whose MLP is given."""

    def __init__(self, n: int, mlp: nn.Module | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(n, elementwise_affine=False)
        self.attn = Attention(n)
        self.norm2 = nn.LayerNorm(n, elementwise_affine=False)
        self.mlp = mlp or nn.Sequential(nn.Linear(n, 4 * n), nn.GELU(), nn.Linear(4 * n, n))
        self.adaln = nn.Sequential(nn.SiLU(), nn.Linear(n, 6 * n))

    def forward(self, x: Tensor, c: Tensor, **attending: object) -> Tensor:
        a, b, g, d, e, h = self.adaln(c)[:, None].chunk(6, dim=-1)
        x = x + g * self.attn(self.norm1(x) * (1 + b) + a, **attending)
        return x + h * self.mlp(self.norm2(x) * (1 + e) + d)


class Readout(nn.Module):
    def __init__(self, n: int, size: int = PIXELS) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n, elementwise_affine=False)
        self.adaln = nn.Sequential(nn.SiLU(), nn.Linear(n, 2 * n))
        self.linear = nn.Linear(n, size)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaln(c)[:, None].chunk(2, dim=-1)
        return self.linear(self.norm(x) * (1 + scale) + shift)


def tokens(n: int) -> tuple[Tensor, ...]:
    """Noisy patches, timesteps, labels."""
    return torch.randn(2, TOKENS, PIXELS), torch.rand(2), torch.randint(CLASSES, (2,))


def image(n: int) -> tuple[Tensor, ...]:
    return torch.randn(2, PIXELS, SIDE, SIDE), torch.rand(2), torch.randint(CLASSES, (2,))


TRUNK = {
    "*cond.time.0.weight": INPUT,
    "*cond.time.2.weight": HIDDEN,
    "*cond.label.weight": TABLE,
    "embed.weight": INPUT,
    "positions": TABLE,
    "*readout.linear.weight": OUTPUT,
    "*readout.linear.bias": ("scalar", "bias"),
    "*.bias": BIAS,
    "*adaln.1.weight": HIDDEN,
    "*attn.*.weight": HIDDEN,
    "*mlp.*.weight": HIDDEN,
}


class SiT(nn.Module):
    """DiT's trunk; the velocity beside an unused half, as learn_sigma gives it."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.cond = Conditioned(n)
        self.embed = nn.Linear(PIXELS, n)
        self.positions = nn.Parameter(torch.randn(1, TOKENS, n), requires_grad=False)
        self.blocks = nn.ModuleList(Block(n) for _ in range(2))
        self.readout = Readout(n, 2 * PIXELS)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.cond(t, y)
        h = self.embed(x) + self.positions
        for block in self.blocks:
            h = block(h, c)
        return self.readout(h, c).chunk(2, dim=-1)[0]


class MDT(nn.Module):
    """An encoder of the tokens that are not masked, an interpolater of the rest, a decoder."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.cond = Conditioned(n)
        self.embed = nn.Linear(PIXELS, n)
        self.positions = nn.Parameter(torch.randn(1, TOKENS, n))
        self.mask_token = nn.Parameter(torch.randn(1, 1, n))
        self.decoder_positions = nn.Parameter(torch.randn(1, TOKENS, n))
        self.encoder = Block(n)
        self.interpolater = Block(n)
        self.decoder = Block(n)
        self.skip = nn.Linear(2 * n, n)
        self.readout = Readout(n)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.cond(t, y)
        embedded = self.embed(x) + self.positions
        kept = torch.arange(0, TOKENS, 2)
        encoded = self.encoder(embedded[:, kept], c)
        full = self.mask_token.expand(len(x), TOKENS, -1).clone()
        full[:, kept] = encoded
        full = full + self.decoder_positions
        mask = torch.zeros(TOKENS, dtype=torch.bool)
        mask[kept] = True
        side = self.interpolater(full, c)
        mixed = torch.where(mask[None, :, None], full, side)
        mixed = self.skip(torch.cat([mixed, embedded], dim=-1))
        return self.readout(self.decoder(mixed, c), c)


class SwiGLU(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        inner = (8 * n // 3 + 7) // 8 * 8
        self.gate = nn.Linear(n, inner, bias=False)
        self.up = nn.Linear(n, inner, bias=False)
        self.down = nn.Linear(inner, n, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class FiT(nn.Module):
    """Padded tokens with a mask, and rotary positions of two dimensions."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.cond = Conditioned(n)
        self.embed = nn.Linear(PIXELS, n)
        self.blocks = nn.ModuleList(Block(n, SwiGLU(n)) for _ in range(2))
        self.readout = Readout(n)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.cond(t, y)
        places = torch.arange(TOKENS)
        rates = torch.exp(-torch.arange(HEAD // 4).float())
        angles = torch.cat(
            [(places // SIDE)[:, None] * rates, (places % SIDE)[:, None] * rates], dim=-1
        ).repeat(1, 2)

        def turn(q: Tensor) -> Tensor:
            a, b = q.chunk(2, dim=-1)
            return q * angles.cos() + torch.cat([-b, a], dim=-1) * angles.sin()

        valid = torch.ones(2, 1, 1, TOKENS, dtype=torch.bool)
        valid[1, ..., -3:] = False
        h = self.embed(x)
        for block in self.blocks:
            h = block(h, c, turn=turn, mask=valid)
        return self.readout(h, c).masked_fill(~valid[:, 0, 0, :, None], 0.0)


class Downsampled(nn.Module):
    """Attention among tokens that a depthwise convolution filtered and a shuffle downsampled."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(n, n, 3, padding=1, groups=n)
        self.attn = Attention(n)

    def forward(self, x: Tensor) -> Tensor:
        small = F.pixel_unshuffle(x + self.filter(x), 2)  # (B, 4n, S/2, S/2)
        groups = small.unflatten(1, (-1, 4)).permute(0, 2, 3, 4, 1)  # (B, 4, S/2, S/2, n)
        seen = self.attn(groups.flatten(0, 1).flatten(1, 2))
        seen = seen.unflatten(1, groups.shape[2:4]).unflatten(0, (-1, 4))
        return F.pixel_shuffle(seen.permute(0, 4, 1, 2, 3).flatten(1, 2), 2)


class Stage(nn.Module):
    def __init__(self, n: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, n, affine=False)
        self.down = Downsampled(n)
        self.mlp = nn.Sequential(nn.Conv2d(n, 2 * n, 1), nn.GELU(), nn.Conv2d(2 * n, n, 1))
        self.adaln = nn.Sequential(nn.SiLU(), nn.Linear(condition, 2 * n))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaln(c)[:, :, None, None].chunk(2, dim=1)
        x = x + self.down(self.norm(x) * (1 + scale) + shift)
        return x + self.mlp(self.norm(x))


class UDiT(nn.Module):
    """One level down, where there are twice the channels, and up again with a skip."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.cond = Conditioned(n)
        self.stem = nn.Conv2d(PIXELS, n, 3, padding=1)
        self.outer = Stage(n, n)
        self.lower = nn.Conv2d(n, 2 * n, 2, stride=2)
        self.inner = Stage(2 * n, n)
        self.raise_ = nn.ConvTranspose2d(2 * n, n, 2, stride=2)
        self.merge = nn.Conv2d(2 * n, n, 1)
        self.last = nn.Conv2d(n, PIXELS, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.cond(t, y)
        skip = self.outer(self.stem(x), c)
        low = F.interpolate(self.lower(skip), scale_factor=2, mode="nearest")
        up = self.raise_(F.avg_pool2d(self.inner(low, c), 2))
        return self.last(self.merge(torch.cat([up, skip], dim=1)))


class AdaRMSNorm(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.gain = nn.Linear(n, n, bias=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=1e-6) * (1 + self.gain(c)[:, None])


class HourglassDiT(nn.Module):
    """Four tokens merge into one of twice the width, and split again; skips are interpolated."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.cond = Conditioned(n)
        self.wide = nn.Linear(n, 2 * n, bias=False)
        self.embed = nn.Linear(PIXELS, n)
        self.norm = AdaRMSNorm(n)
        self.attn = Attention(n, norm=True)
        self.merge = nn.Linear(4 * n, 2 * n, bias=False)
        self.middle = Attention(2 * n, norm=True)
        self.middle_norm = AdaRMSNorm(2 * n)
        self.mlp = SwiGLU(2 * n)
        self.split = nn.Linear(2 * n, 4 * n, bias=False)
        self.weight = nn.Parameter(torch.full((1,), 0.5))
        self.last_norm = nn.RMSNorm(n, eps=1e-6)
        self.readout = nn.Linear(n, PIXELS, bias=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.cond(t, y)
        h = self.embed(x)
        h = h + self.attn(self.norm(h, c))
        square = h.unflatten(1, (SIDE // 2, 2, SIDE // 2, 2)).permute(0, 1, 3, 2, 4, 5)
        low = self.merge(square.flatten(3).flatten(1, 2))
        low = low + self.middle(self.middle_norm(low, self.wide(c)))
        low = low + self.mlp(low)
        up = self.split(low).unflatten(1, (SIDE // 2, SIDE // 2)).unflatten(-1, (2, 2, -1))
        h = torch.lerp(h, up.permute(0, 1, 3, 2, 4, 5).flatten(1, 4), self.weight)
        return self.readout(self.last_norm(h))


class Experts(nn.Module):
    """Two of four routed experts for each token, and one that all share."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.router = nn.Linear(n, 4, bias=False)
        self.up = nn.Parameter(torch.randn(4, n, 2 * n) * n**-0.5)
        self.down = nn.Parameter(torch.randn(4, 2 * n, n) * (2 * n) ** -0.5)
        self.shared = SwiGLU(n)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        shares, chosen = self.router(flat).softmax(dim=-1).topk(2, dim=-1)
        out = torch.zeros_like(flat)
        for expert in range(4):
            rows, places = torch.where(chosen == expert)
            seen = F.gelu(flat[rows] @ self.up[expert]) @ self.down[expert]
            out.index_add_(0, rows, seen * shares[rows, places, None])
        return (out + self.shared(flat)).view_as(x)


class DiTMoE(SiT):
    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.blocks = nn.ModuleList(Block(n, Experts(n)) for _ in range(2))


VARIANTS: dict[str, Variant] = {
    "SiT": Variant(SiT, tokens, TRUNK),
    "MDT": Variant(
        MDT,
        tokens,
        {"mask_token": TABLE, "decoder_positions": TABLE, "skip.weight": HIDDEN, **TRUNK},
    ),
    "FiT": Variant(FiT, tokens, TRUNK),
    "U-DiT": Variant(
        UDiT,
        image,
        {
            "stem.weight": INPUT,
            "*.filter.weight": INPUT,  # one kernel for each channel
            "last.weight": OUTPUT,
            "last.bias": ("scalar", "bias"),
            "lower.weight": HIDDEN,
            "raise_.weight": HIDDEN,
            "merge.weight": HIDDEN,
            **TRUNK,
        },
    ),
    "HourglassDiT": Variant(
        HourglassDiT,
        tokens,
        {
            "*.scale": GAIN,  # a temperature for each head
            "weight": ("scalar", "gain"),  # of an interpolation
            "last_norm.weight": GAIN,
            "readout.weight": OUTPUT,
            "*norm.gain.weight": HIDDEN,
            "wide.weight": HIDDEN,
            "merge.weight": HIDDEN,
            "split.weight": HIDDEN,
            "middle.*.weight": HIDDEN,
            **TRUNK,
        },
    ),
    "DiT-MoE": Variant(
        DiTMoE,
        tokens,
        {"*.router.weight": OUTPUT, "*.mlp.up": HIDDEN, "*.mlp.down": HIDDEN, **TRUNK},
    ),
}

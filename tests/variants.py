"""Small definitions of the variants that the paper names beyond its four, and their roles by hand.

MDT, FiT, U-DiT and SiT are those of its §3.1, HourglassDiT and DiT-MoE of its A.1. Each is written
from its own paper and keeps what sets it apart from DiT; depth, tokens and head size (8) are as
small as they can be, and all layers have torch's initialisers. Widths are multiples of 8, and what
grows is the number of heads. Where a definition departs from the published model, it says so.

Patterns of roles are those of fnmatch, and the first that fits counts. They were derived from these
definitions by reading, without the certificate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Roles = Mapping[str, tuple[str, str]]

HEAD = 8  # channels of one attention head, at any width
BATCH, CHANNELS, SIDE, PATCH, CLASSES = 2, 4, 8, 2, 10
TOKENS = (SIDE // PATCH) ** 2
FREQUENCIES = 12
PIXELS = CHANNELS * PATCH**2

INPUT, HIDDEN, OUTPUT = ("input", "weight"), ("hidden", "weight"), ("output", "weight")
BIAS, GAIN, TABLE = ("input", "bias"), ("input", "gain"), ("input", "table")
FINITE_BIAS, FINITE_GAIN = ("scalar", "bias"), ("scalar", "gain")


# Shared parts


def sinusoid(position: Tensor, length: int) -> Tensor:
    """Cosines and sines of positions, (*, length)."""
    steps = torch.arange(length // 2) / (length // 2)
    angle = position[..., None] * torch.exp(-math.log(1e4) * steps)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Neighbouring channels turned as pairs; `angle` has half as many channels."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def plain_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


def grid(side: int) -> Tensor:
    """Row and column of each token, (side * side, 2)."""
    line = torch.arange(side, dtype=torch.float32)
    return torch.cartesian_prod(line, line)


class Condition(nn.Module):
    """Time and class as one vector of the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(CLASSES + 1, width)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.time(sinusoid(t, FREQUENCIES)) + self.label(y)


class Attention(nn.Module):
    """Self-attention; with `cosine`, over unit queries and keys, with a learned scale a head."""

    def __init__(self, width: int, *, cosine: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.full((width // HEAD, 1, 1), 10.0)) if cosine else None

    def forward(self, x: Tensor, angle: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # (B, H, N, D)
        if self.scale is not None:
            q = self.scale * q * torch.rsqrt(q.square().sum(-1, keepdim=True) + 1e-6)
            k = k * torch.rsqrt(k.square().sum(-1, keepdim=True) + 1e-6)
        if angle is not None:
            q, k = rotate(q, angle), rotate(k, angle)
        scale = None if self.scale is None else 1.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class Block(nn.Module):
    """DiT's block, adaLN-Zero, with any feed-forward layer."""

    def __init__(self, width: int, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = plain_norm(width), plain_norm(width)
        self.attn, self.mlp = Attention(width), mlp
        self.ada = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor, **attention: Any) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.ada(F.silu(c))[:, None].chunk(6, -1)
        x = x + gate1 * self.attn(modulate(self.norm1(x), shift1, scale1), **attention)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


class Readout(nn.Module):
    """DiT's final layer."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.norm = plain_norm(width)
        self.ada = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, features)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.linear(modulate(self.norm(x), *self.ada(F.silu(c))[:, None].chunk(2, -1)))


def unpatch(tokens: Tensor) -> Tensor:
    image = tokens.unflatten(1, (SIDE // PATCH, SIDE // PATCH)).unflatten(-1, (PATCH, PATCH, -1))
    return image.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def noisy_images() -> tuple[Tensor, Tensor, Tensor]:
    """Images, times, and classes."""
    return (
        torch.randn(BATCH, CHANNELS, SIDE, SIDE),
        torch.rand(BATCH) * 1000,
        torch.randint(CLASSES, (BATCH,)),
    )


CONDITION = {
    "condition*.time.0.weight": INPUT,
    "condition*.time.2.weight": HIDDEN,
    "condition*.label.weight": TABLE,
}
READOUT = {
    "readout.ada.weight": HIDDEN,
    "readout.linear.weight": OUTPUT,
    "readout.linear.bias": FINITE_BIAS,
}


# SiT: DiT's network; of its two outputs for each channel, the velocity is the first


class SiT(nn.Module):
    def __init__(self, width: int, feed_forward: Callable[[int], nn.Module] = Mlp) -> None:
        super().__init__()
        self.patch = nn.Conv2d(CHANNELS, width, PATCH, stride=PATCH)
        row, column = grid(SIDE // PATCH).T
        place = torch.cat([sinusoid(row, width // 2), sinusoid(column, width // 2)], dim=-1)
        self.register_buffer("place", place)
        self.condition = Condition(width)
        self.blocks = nn.ModuleList(Block(width, feed_forward(width)) for _ in range(2))
        self.readout = Readout(width, 2 * PIXELS)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        x, c = self.patch(x).flatten(2).transpose(1, 2) + self.place, self.condition(t, y)
        for block in self.blocks:
            x = block(x, c)
        velocity, _ = unpatch(self.readout(x, c)).chunk(2, dim=1)
        return velocity


def build_sit(width: int) -> nn.Module:
    return SiT(width)


def inputs_sit(width: int) -> tuple[Tensor, ...]:
    return noisy_images()


ROLES_SIT: Roles = {
    "patch.weight": INPUT,
    **CONDITION,
    **READOUT,
    "*.bias": BIAS,
    "blocks.*.weight": HIDDEN,
}


# DiT-MoE: routed experts and one that all tokens share, for DiT's feed-forward layer


class GatedMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 4 * width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Experts(nn.Module):
    """Each token goes to the two best of four experts; the balancing loss is left out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, 4, bias=False)
        self.experts = nn.ModuleList(GatedMlp(width) for _ in range(4))
        self.shared = GatedMlp(width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        share, chosen = self.router(tokens).softmax(-1).topk(2, dim=-1)
        mixed = torch.zeros_like(tokens)
        for i, expert in enumerate(self.experts):
            token, rank = torch.where(chosen == i)
            mixed = mixed.index_add(0, token, share[token, rank, None] * expert(tokens[token]))
        return mixed.view_as(x) + self.shared(x)


def build_dit_moe(width: int) -> nn.Module:
    return SiT(width, Experts)  # the trunk, with its two outputs a channel, is DiT's


def inputs_dit_moe(width: int) -> tuple[Tensor, ...]:
    return noisy_images()


ROLES_DIT_MOE: Roles = {"*.router.weight": OUTPUT, **ROLES_SIT}  # the number of experts is fixed


# MDT: masked tokens are left out of the encoder, and filled in by a side-interpolater


class RelativeBias(nn.Module):
    """A learned number for each head and offset between tokens, added to the logits."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty((2 * side - 1) ** 2, width // HEAD))
        nn.init.normal_(self.table, std=0.02)
        place = grid(side).long()
        row, column = (place[:, None] - place[None, :] + side - 1).unbind(-1)
        self.register_buffer("offset", row * (2 * side - 1) + column)

    def forward(self, tokens: Tensor) -> Tensor:
        bias = self.table[self.offset].permute(2, 0, 1)  # (H, N, N)
        return bias[:, tokens[:, :, None], tokens[:, None, :]].transpose(0, 1)


class MaskedBlock(Block):
    def __init__(self, width: int) -> None:
        super().__init__(width, Mlp(width))
        self.bias = RelativeBias(width, SIDE // PATCH)

    def forward(self, x: Tensor, c: Tensor, **attention: Any) -> Tensor:
        return super().forward(x, c, mask=self.bias(attention["tokens"]))


class MDT(nn.Module):
    """Differs from the published one: which tokens are seen is an input, not drawn inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(CHANNELS, width, PATCH, stride=PATCH)
        self.condition = Condition(width)
        self.encoder_place = nn.Parameter(0.02 * torch.randn(1, TOKENS, width))
        self.decoder_place = nn.Parameter(0.02 * torch.randn(1, TOKENS, width))
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.encoder, self.side, self.decoder = (MaskedBlock(width) for _ in range(3))
        self.readout = Readout(width, PIXELS)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, seen: Tensor, order: Tensor) -> Tensor:
        c = self.condition(t, y)
        x = self.patch(x).flatten(2).transpose(1, 2) + self.encoder_place
        x = x.gather(1, seen[..., None].expand(-1, -1, x.shape[-1]))
        x = self.encoder(x, c, tokens=seen)
        x = self.interpolate(x, c, order, seen.shape[1])
        every = torch.arange(TOKENS).expand(len(x), -1)
        return unpatch(self.readout(self.decoder(x, c, tokens=every), c))

    def interpolate(self, x: Tensor, c: Tensor, order: Tensor, seen: int) -> Tensor:
        """The masked tokens, by one small block from the seen ones."""
        filler = self.mask_token.expand(len(x), TOKENS - seen, -1)
        x = torch.cat([x, filler], dim=1).gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
        x = x + self.decoder_place
        masked = (order >= seen)[..., None].float()
        every = torch.arange(TOKENS).expand(len(x), -1)
        return (1 - masked) * x + masked * self.side(x, c, tokens=every)


def build_mdt(width: int) -> nn.Module:
    return MDT(width)


def inputs_mdt(width: int) -> tuple[Tensor, ...]:
    shuffled = torch.rand(BATCH, TOKENS).argsort(dim=1)
    return (*noisy_images(), shuffled[:, : TOKENS // 2], shuffled.argsort(dim=1))


ROLES_MDT: Roles = {
    "patch.weight": INPUT,
    "encoder_place": TABLE,
    "decoder_place": TABLE,
    "mask_token": TABLE,
    "*.bias.table": TABLE,  # (offsets, heads): of its sizes, the number of heads grows
    **CONDITION,
    **READOUT,
    "*.bias": BIAS,
    "*.weight": HIDDEN,
}


# FiT: a padded sequence of patches of any size and shape, with rotary positions on two axes


class SwiGLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * width // 3  # rounded down, so it grows by unequal steps
        self.gate_up = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class FiT(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Linear(PIXELS, width)
        self.condition = Condition(width)
        self.blocks = nn.ModuleList(Block(width, SwiGLU(width)) for _ in range(2))
        self.readout = Readout(width, 2 * PIXELS)

    def forward(self, x: Tensor, place: Tensor, real: Tensor, t: Tensor, y: Tensor) -> Tensor:
        x, c = self.patch(x), self.condition(t, y)
        speed = 100.0 ** -torch.arange(0, 1, 4 / HEAD)  # a quarter of a head for each axis
        angle = (place[..., None] * speed).flatten(2)[:, None]  # (B, 1, N, D / 2)
        for block in self.blocks:
            x = block(x, c, angle=angle, mask=real[:, None, None, :])
        return self.readout(x, c) * real[..., None]


def build_fit(width: int) -> nn.Module:
    return FiT(width)


def inputs_fit(width: int) -> tuple[Tensor, ...]:
    """Two images, of 3 x 4 and of 2 x 4 patches."""
    _, t, y = noisy_images()
    places = [torch.cartesian_prod(torch.arange(h), torch.arange(4)) for h in (3, 2)]
    place = nn.utils.rnn.pad_sequence(places, batch_first=True).float()
    real = torch.arange(12) < torch.tensor([[12], [8]])
    return torch.randn(BATCH, 12, PIXELS), place, real, t, y


ROLES_FIT: Roles = ROLES_SIT  # by name: a patch is embedded by a Linear, hidden is rounded


# U-DiT: a U-Net of DiT blocks, which attend over maps that are downsampled into the batch


class DownsampledAttention(nn.Module):
    """Four maps of a quarter of the tokens each, after a depthwise convolution with a shortcut."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.attn = Attention(width, cosine=True)
        speed = 100.0 ** -torch.arange(0, 1, 4 / HEAD)
        self.register_buffer("angle", (grid(side // 2)[..., None] * speed).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        side = x.shape[-1] // 2
        maps = x.unflatten(3, (side, 2)).unflatten(2, (side, 2)).permute(3, 5, 0, 2, 4, 1)
        tokens = self.attn(maps.flatten(3, 4).flatten(0, 2), self.angle)
        maps = tokens.unflatten(1, (side, side)).unflatten(0, (2, 2, -1))
        return maps.permute(2, 5, 3, 0, 4, 1).flatten(4, 5).flatten(2, 3)


class UBlock(nn.Module):
    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = plain_norm(width), plain_norm(width)
        self.attn = DownsampledAttention(width, side)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.contract = nn.Conv2d(2 * width, width, 1)
        self.ada = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        ada = self.ada(F.silu(c))[..., None, None].chunk(6, 1)
        shift1, scale1, gate1, shift2, scale2, gate2 = ada
        x = x + gate1 * self.attn(modulate(last(self.norm1, x), shift1, scale1))
        h = self.expand(modulate(last(self.norm2, x), shift2, scale2))
        return x + gate2 * self.contract(F.gelu(self.depthwise(h)))


def last(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm over the channels of (B, C, H, W)."""
    return norm(x.movedim(1, -1)).movedim(-1, 1)


class UDiT(nn.Module):
    """Two levels, of n and 2n channels; the published models have three."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(CHANNELS, width, 3, padding=1)
        self.condition1, self.condition2 = Condition(width), Condition(2 * width)
        self.down, self.up = UBlock(width, SIDE), UBlock(width, SIDE)
        self.middle = UBlock(2 * width, SIDE // 2)
        self.shrink = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1), nn.PixelUnshuffle(2)
        )
        self.grow = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.PixelShuffle(2))
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.norm, self.ada = plain_norm(width), nn.Linear(width, 2 * width)
        self.readout = nn.Conv2d(width, 2 * CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c1, c2 = self.condition1(t, y), self.condition2(t, y)
        skip = self.down(self.patch(x), c1)
        x = self.grow(self.middle(self.shrink(skip), c2))
        x = self.up(self.merge(torch.cat([x, skip], dim=1)), c1)
        shift, scale = self.ada(F.silu(c1))[..., None, None].chunk(2, 1)
        return self.readout(modulate(last(self.norm, x), shift, scale))


def build_u_dit(width: int) -> nn.Module:
    return UDiT(width)


def inputs_u_dit(width: int) -> tuple[Tensor, ...]:
    return noisy_images()


ROLES_U_DIT: Roles = {
    "patch.weight": INPUT,
    **CONDITION,
    "*.mix.weight": INPUT,  # one kernel for each channel: fan-in 9
    "*.depthwise.weight": INPUT,
    "*.attn.scale": GAIN,  # one for each head
    "readout.weight": OUTPUT,
    "readout.bias": FINITE_BIAS,
    "*.bias": BIAS,
    "*.weight": HIDDEN,
}


# HourglassDiT: tokens merged into wider ones and split again, gains adapted to time


class AdaptiveNorm(nn.Module):
    """RMS norm whose gain is 1 plus a linear function of the condition."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, width, bias=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
        return x * scale * (1 + self.linear(c)[:, None])


class GEGLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 6 * width, bias=False)
        self.down = nn.Linear(3 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(value * F.gelu(gate))


class HourglassBlock(nn.Module):
    """Attention to all tokens, or to those at most `reach` rows and columns away.

    Rotary frequencies are spread over heads and channels alike, so their table grows with width.
    """

    def __init__(self, width: int, condition: int, side: int, reach: int | None) -> None:
        super().__init__()
        self.norm1, self.norm2 = (AdaptiveNorm(width, condition) for _ in range(2))
        self.attn, self.mlp = Attention(width, cosine=True), GEGLU(width)
        heads, place = width // HEAD, grid(side)
        spread = torch.linspace(math.log(math.pi), math.log(10 * math.pi), heads * HEAD // 4 + 1)
        speed = spread[:-1].exp().view(HEAD // 4, heads).T  # (H, D / 4), for each axis
        angle = place[:, :, None] / side * speed[:, None, None]  # (H, N, 2, D / 4)
        self.register_buffer("angle", angle.flatten(2))
        away = (place[:, None] - place[None, :]).abs().amax(-1)
        self.register_buffer("near", None if reach is None else away <= reach)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x, c), self.angle, self.near)
        return x + self.mlp(self.norm2(x, c))


class Embedder(nn.Module):
    """Random Fourier features of time, class, and one feed-forward layer between norms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("speed", torch.randn(width // 2))
        self.time = nn.Linear(width, width, bias=False)
        self.label = nn.Embedding(CLASSES + 1, width)
        self.norm1, self.norm2, self.norm3 = (nn.RMSNorm(width, eps=1e-6) for _ in range(3))
        self.mlp = GEGLU(width)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        angle = 2 * math.pi * t[:, None] * self.speed
        c = self.time(torch.cat([angle.cos(), angle.sin()], dim=-1)) + self.label(y)
        c = self.norm1(c)
        return self.norm3(c + self.mlp(self.norm2(c)))


class Hourglass(nn.Module):
    """An outer level of width n with neighbourhoods, an inner one of width 2n without."""

    def __init__(self, width: int) -> None:
        super().__init__()
        outer, inner = SIDE // PATCH, SIDE // PATCH // 2
        self.patch = nn.Linear(PIXELS, width, bias=False)
        self.mapping = Embedder(width)
        self.down = HourglassBlock(width, width, outer, reach=1)
        self.merge = nn.Linear(4 * width, 2 * width, bias=False)
        self.middle = HourglassBlock(2 * width, width, inner, reach=None)
        self.split = nn.Linear(2 * width, 4 * width, bias=False)
        self.mix = nn.Parameter(torch.full((1,), 0.5))
        self.up = HourglassBlock(width, width, outer, reach=1)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.readout = nn.Linear(width, PIXELS, bias=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        c = self.mapping(t, y)
        skip = self.down(self.patch(F.pixel_unshuffle(x, PATCH).flatten(2).mT), c)
        x = self.middle(self.merge(gathered(skip)), c)
        x = self.up(torch.lerp(skip, scattered(self.split(x)), self.mix), c)
        image = self.readout(self.norm(x)).mT.unflatten(2, (SIDE // PATCH, SIDE // PATCH))
        return F.pixel_shuffle(image, PATCH)


def gathered(x: Tensor) -> Tensor:
    """Channels of each 2 x 2 tokens behind each other, (B, N / 4, 4 C)."""
    side = math.isqrt(x.shape[1]) // 2
    return x.unflatten(1, (side, 2, side, 2)).transpose(2, 3).flatten(3).flatten(1, 2)


def scattered(x: Tensor) -> Tensor:
    side = math.isqrt(x.shape[1])
    return x.unflatten(2, (2, 2, -1)).unflatten(1, (side, side)).transpose(2, 3).flatten(1, 4)


def build_hourglass(width: int) -> nn.Module:
    return Hourglass(width)


def inputs_hourglass(width: int) -> tuple[Tensor, ...]:
    x, t, y = noisy_images()
    return x, t / 1000, y


ROLES_HOURGLASS: Roles = {
    "patch.weight": INPUT,
    "mapping.label.weight": TABLE,
    "mapping.time.weight": HIDDEN,  # its Fourier features are as many as the width
    "mapping.norm?.weight": GAIN,
    "norm.weight": GAIN,
    "*.attn.scale": GAIN,
    "mix": FINITE_GAIN,  # one number, by which the split tokens outweigh the skip
    "readout.weight": OUTPUT,
    "*.bias": BIAS,
    "*.weight": HIDDEN,
}


@dataclass(frozen=True)
class Variant:
    """A small model at any width that is a multiple of 8, inputs for it, and roles by name."""

    build: Callable[[int], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    roles: Roles


VARIANTS: dict[str, Variant] = {
    "MDT": Variant(build_mdt, inputs_mdt, ROLES_MDT),
    "FiT": Variant(build_fit, inputs_fit, ROLES_FIT),
    "U-DiT": Variant(build_u_dit, inputs_u_dit, ROLES_U_DIT),
    "HourglassDiT": Variant(build_hourglass, inputs_hourglass, ROLES_HOURGLASS),
    "DiT-MoE": Variant(build_dit_moe, inputs_dit_moe, ROLES_DIT_MOE),
    "SiT": Variant(build_sit, inputs_sit, ROLES_SIT),
}

"""U-ViT: time, condition and patches as tokens of one sequence, with long skips, [U-ViT] code.

Modules carry the original's names, so checkpoints of baofff/U-ViT load as they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor, nn
from torch.nn import functional as F

from mudit.errors import UsageError
from mudit.models.sizes import (
    TransformerConfig,
    check_block,
    check_choice,
    check_image,
    check_labels,
    check_sizes,
    check_text,
    check_vector,
    check_whole_numbers,
    label_error,
)
from mudit.nn import (
    MLP,
    Attention,
    Initialiser,
    PatchEmbed,
    initialise,
    kaiming,
    normal,
    ones,
    torch_linear,
    truncated_normal,
    unpatchify,
    zeros,
)

_NORM_EPS = 1e-5  # [U-ViT] code: torch's default
_MAX_PERIOD = 10_000  # [U-ViT] code, as in Vaswani et al. 2017
_CLIP_TOKENS = 77  # [U-ViT] code: the length to which CLIP pads every text


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UViTConfig(TransformerConfig):
    """Everything that determines a U-ViT; valid once constructed.

    It is conditioned on a class (`num_classes`), on a text (`caption_dim`), or on nothing.

    Attributes:
        depth: Blocks with a partner at the other end of a long skip; an even number. There is one
            more in the middle.
        num_classes: Classes, without the null label; None for a model that takes none.
        null_class: The label table has one more row, the null label's. The original counts it as
            a class: its ImageNet models of 256 pixels say 1001.
        caption_dim: Size of one token of the encoded text; None for a model that takes none.
        caption_tokens: The longest text, in tokens.
        conv: A 3x3 convolution of the output.
        mlp_time_embed: A two-layer MLP between the time's sinusoids and its token.
        qkv_bias: Biases of queries, keys and values.
        init: "uvit" as baofff/U-ViT initialises, or "uvit_mup" as the code of [muDiT] does with
            DiT.

    Raises:
        UsageError: A value is not positive, or two values do not fit each other.
    """

    num_classes: int | None = None
    null_class: bool = True
    caption_dim: int | None = None
    caption_tokens: int = _CLIP_TOKENS
    conv: bool = True
    mlp_time_embed: bool = False
    qkv_bias: bool = False
    init: Literal["uvit", "uvit_mup"] = "uvit"

    def __post_init__(self) -> None:
        check_sizes(self)
        for name in ("num_classes", "caption_dim"):
            if getattr(self, name) is not None:
                check_whole_numbers(self, name)
        check_whole_numbers(self, "caption_tokens")
        check_choice(self, "init", _INITIALISERS)
        for name in ("null_class", "conv", "mlp_time_embed", "qkv_bias"):
            if type(getattr(self, name)) is not bool:
                raise UsageError(
                    f"UViTConfig.{name} is {getattr(self, name)!r}; expected True or False."
                )
        if self.num_classes is not None and self.caption_dim is not None:
            raise UsageError(
                f"UViTConfig has num_classes={self.num_classes} and caption_dim="
                f"{self.caption_dim}; a U-ViT takes a class or a text. Set one of them to None."
            )
        if self.depth % 2:
            raise UsageError(
                f"UViTConfig.depth is {self.depth}; expected an even number: half of the blocks "
                "come before the middle one, half after."
            )
        if self.width % 2:
            raise UsageError(
                f"UViTConfig has width num_heads * head_dim = {self.num_heads} * {self.head_dim} "
                f"= {self.width}; expected an even number: half of the time token are cosines, "
                "half sines. Make head_dim even."
            )

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.in_channels

    @property
    def null_label(self) -> int | None:
        """The label that means "no label", the last row of the label table; None without one."""
        return self.num_classes if self.null_class else None

    @property
    def extra_tokens(self) -> int:
        """Tokens before the patches, at most: the time, and the class or the text."""
        if self.caption_dim is not None:
            return 1 + self.caption_tokens
        return 1 if self.num_classes is None else 2


class Sinusoids(nn.Module):
    """Sinusoids of the raw timestep, of the model's width, ordered [cos, sin]; no parameters.

    Args:
        width: Size of the result; even.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_frequencies = width // 2
        self.register_buffer("frequencies", self._compute_frequencies(), persistent=False)

    def _compute_frequencies(self, device: torch.device | None = None) -> Tensor:
        # [U-ViT] code: exp(-ln(10000)·k/(W/2)), k = 0..W/2-1, in float32 and in this order: at
        # t = 1000 another rounding shows.
        k = torch.arange(self.num_frequencies, dtype=torch.float32, device="cpu")
        frequencies = torch.exp(-math.log(_MAX_PERIOD) * k / self.num_frequencies)
        return frequencies.to(device or torch.get_default_device())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Sinusoids:
        # A buffer that no checkpoint holds is garbage after meta → to_empty, and too coarse for
        # t = 999 after .to(bfloat16). Both come through here, so it is computed anew.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.frequencies = self._compute_frequencies(self.frequencies.device)
        return self

    def forward(self, t: Real[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Returns the sinusoids of timesteps, in steps, in float32."""
        angles = t.float().unsqueeze(1) * self.frequencies  # (B, W/2)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class UViTBlock(nn.Module):
    """Attention and MLP, each normalised before; first, if it ends a long skip, what that brings.

    Args:
        config: Sizes and biases.
        skip: The block ends a long skip.
    """

    def __init__(self, config: UViTConfig, *, skip: bool = False) -> None:
        super().__init__()
        width = config.width
        self.skip_linear = nn.Linear(2 * width, width) if skip else None
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = Attention(width, config.num_heads, qkv_bias=config.qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = MLP(width, config.mlp_hidden, approximate="none")

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        skip: Float[Tensor, "batch tokens width"] | None = None,
        mask: Bool[Tensor, "batch 1 1 tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the tokens after the block.

        Args:
            x: Tokens.
            skip: Those that the long skip brings, if the block ends one.
            mask: Which tokens are attended to; None for all.
        """
        if self.skip_linear is not None:
            assert skip is not None
            x = self.skip_linear(torch.cat([x, skip], dim=-1))
        x = x + self.attn(self.norm1(x), mask)
        x = x + self.mlp(self.norm2(x))
        return x


class UViT(nn.Module):
    """Predicts noise from a noisy image or latent, its timestep, and a class, a text or nothing.

    Differs from [U-ViT] code: queries, keys and values are not cast to float32 for the attention,
    since torch's fused kernels keep its sums in float32 themselves. A text may be shorter than the
    longest, and its padding can be masked; padded and with `mask=None`, all is attended to, as
    there.

    Args:
        config: Sizes, what it is conditioned on, and the initialisation.
    """

    def __init__(self, config: UViTConfig) -> None:
        super().__init__()
        self.config = config
        width, half = config.width, config.depth // 2
        device = torch.get_default_device()
        with torch.device("meta"):  # so that torch's default initialisation costs nothing
            self.patch_embed = PatchEmbed(config.patch_size, config.in_channels, width)
            self.sinusoids = Sinusoids(width)
            self.time_embed = _time_embed(width) if config.mlp_time_embed else None
            self.label_emb = None if config.num_classes is None else _label_emb(config)
            self.context_embed = (
                None if config.caption_dim is None else nn.Linear(config.caption_dim, width)
            )
            self.pos_embed = nn.Parameter(
                torch.empty(1, config.extra_tokens + config.num_tokens, width)
            )
            self.in_blocks = nn.ModuleList(UViTBlock(config) for _ in range(half))
            self.mid_block = UViTBlock(config)
            self.out_blocks = nn.ModuleList(UViTBlock(config, skip=True) for _ in range(half))
            self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
            self.decoder_pred = nn.Linear(width, config.patch_size**2 * config.out_channels)
            self.final_layer = (
                nn.Conv2d(config.out_channels, config.out_channels, 3, padding=1)
                if config.conv
                else None
            )
        if device.type != "meta":
            self.to_empty(device=device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises every parameter in place as `config.init` says, e.g. after `to_empty`."""
        initialise(self, _INITIALISERS[self.config.init](self.config))

    def forward(
        self,
        x: Float[Tensor, "batch channels size size"],
        t: Real[Tensor, " batch"],
        condition: Int[Tensor, " batch"] | Float[Tensor, "batch length caption"] | None = None,
        mask: Bool[Tensor, "batch length"] | None = None,
        *,
        tokens_after: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the prediction for a batch, (B, in_channels, size, size).

        Args:
            x: Noisy images or latents.
            t: Timesteps, in steps (1..1000 in [U-ViT]), whole or not.
            condition: Classes, or `config.null_label`; or the text's tokens, at most
                `config.caption_tokens` of them; None for a model without either.
            mask: True for tokens of the text, False for padding, which nothing attends to; None
                where all count.
            tokens_after: Also return the image's tokens after this many blocks, of depth + 1,
                (B, N, W).

        Raises:
            UsageError: An input has the wrong shape or kind, there is no such block, or, on the
                CPU, a label is out of range. (Elsewhere torch's own check reports it: looking
                would stall the device.)
        """
        check_image("UViT", self.config, x)
        check_vector("UViT", "t", t, x.shape[0])
        _check_condition(self.config, x.shape[0], condition, mask)
        check_block("UViT", tokens_after, self.config.depth + 1)
        patches = self.patch_embed(x)  # (B, N, W)
        extras = self._extras(t, condition)  # (B, E, W)
        count = extras.shape[1]
        # A shorter text leaves out the positions of what it lacks, not those of the patches.
        of_patches = self.pos_embed[:, self.config.extra_tokens :]
        tokens = torch.cat([extras + self.pos_embed[:, :count], patches + of_patches], dim=1)
        if mask is not None:  # of the whole sequence, for every head and query
            mask = F.pad(mask, (1, self.config.num_tokens), value=True)[:, None, None]
        half, hidden = self.config.depth // 2, tokens
        skips: list[Tensor] = []
        blocks = [*self.in_blocks, self.mid_block, *self.out_blocks]
        for number, block in enumerate(blocks, 1):
            tokens = block(tokens, skips.pop() if number > half + 1 else None, mask)
            if number <= half:
                skips.append(tokens)
            if number == tokens_after:
                hidden = tokens[:, count:]
        patches = self.decoder_pred(self.norm(tokens[:, count:]))  # (B, N, P·P·C)
        prediction = unpatchify(patches, self.config.patch_size)
        if self.final_layer is not None:
            prediction = self.final_layer(prediction)
        return prediction if tokens_after is None else (prediction, hidden)

    def _extras(self, t: Tensor, condition: Tensor | None) -> Tensor:
        # Label and time, time and text, or time alone.
        time: Tensor = self.sinusoids(t).to(self.pos_embed.dtype)
        if self.time_embed is not None:
            time = self.time_embed(time)
        time = time.unsqueeze(1)  # (B, 1, W)
        if condition is None:
            return time
        if self.context_embed is not None:
            return torch.cat([time, self.context_embed(condition)], dim=1)
        assert self.label_emb is not None
        try:
            label = self.label_emb(condition).unsqueeze(1)
        except IndexError:  # raised by torch's embedding on the CPU
            raise _label_error(self.config, condition) from None
        return torch.cat([label, time], dim=1)


def _time_embed(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))


def _label_emb(config: UViTConfig) -> nn.Module:
    assert config.num_classes is not None
    # nn.Embedding's own initialiser, on meta, would import torch's compiler: two seconds.
    table = torch.empty(config.num_classes + config.null_class, config.width)
    embedding: nn.Module = nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
        table, freeze=False
    )
    return embedding


def _check_condition(
    config: UViTConfig, batch: int, condition: Tensor | None, mask: Tensor | None
) -> None:
    if mask is not None and config.caption_dim is None:
        raise UsageError(
            "UViT got a mask, but its config has no caption_dim, so there is no text to mask. "
            "Leave it out."
        )
    if config.caption_dim is None and config.num_classes is None:
        if condition is not None:
            raise UsageError(
                f"UViT got a condition of shape {tuple(condition.shape)}, but its config has "
                "neither num_classes nor caption_dim. Leave it out, or set one of them."
            )
    elif condition is None:
        expected = (
            f"labels of shape ({batch},)"
            if config.caption_dim is None
            else f"a text of shape ({batch}, 1 to {config.caption_tokens}, {config.caption_dim})"
        )
        raise UsageError(f"UViT got no condition; its config expects {expected}.")
    elif config.caption_dim is None:
        check_labels("UViT", condition, batch)
    else:
        check_text(
            "UViT",
            batch,
            condition,
            mask,
            caption_dim=config.caption_dim,
            caption_tokens=config.caption_tokens,
        )


def _label_error(config: UViTConfig, labels: Tensor) -> UsageError:
    assert config.num_classes is not None
    if config.null_class:
        return label_error("UViT", labels, config.num_classes)
    wrong = labels[(labels < 0) | (labels >= config.num_classes)]
    return UsageError(
        f"UViT got label {wrong[0].item()}; its config has {config.num_classes} classes and no "
        f"null label, so labels run from 0 to {config.num_classes - 1}. Change the labels, "
        "num_classes, or null_class."
    )


# Initialisation -----------------------------------------------------------------------------------


def _uvit(config: UViTConfig) -> Mapping[str, Initialiser]:
    # baofff/U-ViT, libs/uvit.py: _init_weights, which leaves convolutions and the label table as
    # torch makes them. The output does not start at zero.
    return {
        "pos_embed": truncated_normal(0.02),
        "patch_embed.proj.*": torch_linear(config.in_channels * config.patch_size**2),
        "final_layer.*": torch_linear(config.out_channels * 3 * 3),
        "label_emb.weight": normal(1.0),
        "*.bias": zeros,
        "*norm*.weight": ones,
        "*.weight": truncated_normal(0.02),
    }


def _uvit_mup(config: UViTConfig) -> Mapping[str, Initialiser]:
    del config
    # Assumption: [muDiT] has no released code for U-ViT, so this follows "dit_mup": only the
    # output starts at zero.
    return {
        "pos_embed": truncated_normal(0.02),
        "label_emb.weight": normal(1.0),
        "decoder_pred.weight": zeros,
        "*.bias": zeros,
        "*norm*.weight": ones,
        "*.weight": kaiming,
    }


_INITIALISERS: Mapping[str, Callable[[UViTConfig], Mapping[str, Initialiser]]] = MappingProxyType(
    {"uvit": _uvit, "uvit_mup": _uvit_mup}
)


# Presets ------------------------------------------------------------------------------------------

# [U-ViT] code, configs: depth, heads, head_dim.
_SIZES = {
    "S": (12, 8, 64),
    "S-deep": (16, 8, 64),
    "M": (16, 12, 64),
    "L": (20, 16, 64),
    "H": (28, 16, 72),
}


def _released(size: str, patch_size: int, input_size: int, in_channels: int) -> UViTConfig:
    depth, num_heads, head_dim = _SIZES[size]
    return UViTConfig(
        depth=depth,
        num_heads=num_heads,
        head_dim=head_dim,
        patch_size=patch_size,
        input_size=input_size,
        in_channels=in_channels,
    )


def _imagenet64(size: str) -> UViTConfig:
    # Trained without guidance, so there is no null label.
    return dataclasses.replace(_released(size, 4, 64, 3), num_classes=1000, null_class=False)


def _imagenet256(size: str, *, conv: bool) -> UViTConfig:
    return dataclasses.replace(_released(size, 2, 32, 4), num_classes=1000, conv=conv)


def _coco(size: str) -> UViTConfig:
    # 256 pixels; the tokens are those of CLIP's ViT-L/14.
    return dataclasses.replace(_released(size, 2, 32, 4), caption_dim=768)


PRESETS: Mapping[str, UViTConfig] = MappingProxyType(
    {
        "U-ViT-S/2-cifar10": _released("S", 2, 32, 3),
        "U-ViT-S/4-celeba64": _released("S", 4, 64, 3),
        "U-ViT-M/4-imagenet64": _imagenet64("M"),
        "U-ViT-L/4-imagenet64": _imagenet64("L"),
        "U-ViT-L/2-imagenet256": _imagenet256("L", conv=True),
        "U-ViT-H/2-imagenet256": _imagenet256("H", conv=False),
        "U-ViT-S/2-coco": _coco("S"),
        "U-ViT-S-deep/2-coco": _coco("S-deep"),
    }
)


def example_inputs(config: UViTConfig, batch: int = 2) -> Callable[[int], tuple[Tensor, ...]]:
    """Returns the function width → arguments of `forward`, from torch's global generator."""

    def inputs(width: int) -> tuple[Tensor, ...]:
        del width  # none of them grows
        x = torch.randn(batch, config.in_channels, config.input_size, config.input_size)
        t = torch.randint(1, 1001, (batch,))
        if config.caption_dim is not None:
            text = torch.randn(batch, config.caption_tokens, config.caption_dim)
            lengths = torch.randint(1, config.caption_tokens + 1, (batch, 1))
            return x, t, text, torch.arange(config.caption_tokens) < lengths
        if config.num_classes is not None:
            return x, t, torch.randint(config.num_classes, (batch,))
        return x, t

    return inputs

"""PixArt-α: text by cross-attention, time by one adaptive layer norm for all blocks, [PixArt] code.

Modules carry the original's names, so checkpoints of PixArt-alpha/PixArt-alpha load as they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor, nn

from mudit.models.sizes import (
    TransformerConfig,
    check_block,
    check_choice,
    check_image,
    check_sizes,
    check_text,
    check_vector,
    check_whole_numbers,
)
from mudit.nn import (
    MLP,
    Attention,
    CrossAttention,
    Initialiser,
    PatchEmbed,
    TimestepEmbedder,
    initialise,
    modulate,
    normal,
    sincos,
    unpatchify,
    xavier,
    zeros,
)

_NORM_EPS = 1e-6  # [PixArt] code


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PixArtConfig(TransformerConfig):
    """Everything that determines a PixArt-α; valid once constructed.

    Attributes:
        caption_dim: Size of one token of the encoded text.
        caption_tokens: The longest text, in tokens.
        learn_sigma: Twice the output channels: the prediction, then variance logits.
        init: "pixart" as PixArt-alpha/PixArt-alpha initialises, or "pixart_mup" as the code of
            [muDiT] does.

    Raises:
        UsageError: A value is not positive, or two values do not fit each other.
    """

    caption_dim: int
    caption_tokens: int
    learn_sigma: bool = True
    init: Literal["pixart", "pixart_mup"] = "pixart"

    def __post_init__(self) -> None:
        check_sizes(self, width_multiple=4)
        check_whole_numbers(self, "caption_dim", "caption_tokens")
        check_choice(self, "init", _INITIALISERS)

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.in_channels * (2 if self.learn_sigma else 1)


class CaptionEmbedder(nn.Module):
    """Maps the text's tokens to the width; holds the text that stands for "nothing said".

    Args:
        caption_dim: Size of a token of the text.
        caption_tokens: Tokens of the null text.
        width: Size of a token of the model.
    """

    y_embedding: Tensor

    def __init__(self, caption_dim: int, caption_tokens: int, width: int) -> None:
        super().__init__()
        self.y_proj = MLP(width, width, in_features=caption_dim)
        # Drawn once and never trained ([PixArt] code registers it as a buffer).
        self.register_buffer("y_embedding", torch.empty(caption_tokens, caption_dim))

    def forward(
        self, text: Float[Tensor, "batch length caption"]
    ) -> Float[Tensor, "batch length width"]:
        """Returns the text's tokens at the model's width."""
        out: Tensor = self.y_proj(text)
        return out


class PixArtBlock(nn.Module):
    """Attention, cross-attention to the text, MLP; the first and last modulated and gated.

    The block's own table is added to what all blocks share. The text is read with tokens that are
    neither normalised nor modulated, and added without a gate.

    Args:
        width: Size of a token.
        num_heads: Heads of both attentions.
        mlp_hidden: Size between the MLP's layers.
    """

    def __init__(self, width: int, num_heads: int, mlp_hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=_NORM_EPS)
        self.attn = Attention(width, num_heads)
        self.cross_attn = CrossAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=_NORM_EPS)
        self.mlp = MLP(width, mlp_hidden)
        self.scale_shift_table = nn.Parameter(torch.empty(6, width))

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        text: Float[Tensor, "batch length width"],
        mask: Bool[Tensor, "batch 1 1 length"] | None,
        modulation: Float[Tensor, "batch 6 width"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the tokens after the block."""
        vectors = (self.scale_shift_table + modulation).chunk(6, dim=1)  # (B, 1, W) each
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = vectors
        x = x + gate_attn * self.attn(modulate(self.norm1(x), shift_attn, scale_attn))
        x = x + self.cross_attn(x, text, mask)
        x = x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))
        return x


class PixArtFinalLayer(nn.Module):
    """Normalises, shifts and scales by the time, and reads out one patch per token.

    Args:
        width: Size of a token.
        patch_size: Side of a patch, in pixels.
        out_channels: Channels of the output.
    """

    def __init__(self, width: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=_NORM_EPS)
        self.linear = nn.Linear(width, patch_size**2 * out_channels)
        self.scale_shift_table = nn.Parameter(torch.empty(2, width))

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        condition: Float[Tensor, "batch width"],
    ) -> Float[Tensor, "batch tokens patch"]:
        """Returns patches, each flattened in the order (row, column, channel)."""
        shift, scale = (self.scale_shift_table + condition.unsqueeze(1)).chunk(2, dim=1)
        patches: Tensor = self.linear(modulate(self.norm_final(x), shift, scale))
        return patches  # (B, N, P·P·C)


class PixArt(nn.Module):
    """Predicts noise (and variance logits) from a noisy latent, its timestep and a text.

    Differs from [PixArt] code: padding of the text is masked, which is the same as removing it;
    and texts are not dropped in here. An objective replaces them by `null_text()`, with a generator
    of its own, so the model is a function of its arguments.

    Args:
        config: Sizes and the initialisation.
    """

    pos_embed: Tensor

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        device = torch.get_default_device()
        with torch.device("meta"):  # so that torch's default initialisation costs nothing
            self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, width)
            self.t_embedder = TimestepEmbedder(width)
            self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
            self.y_embedder = CaptionEmbedder(config.caption_dim, config.caption_tokens, width)
            self.register_buffer("pos_embed", torch.empty(1, config.num_tokens, width))
            self.blocks = nn.ModuleList(
                PixArtBlock(width, config.num_heads, config.mlp_hidden) for _ in range(config.depth)
            )
            self.final_layer = PixArtFinalLayer(width, config.patch_size, config.out_channels)
        if device.type != "meta":
            self.to_empty(device=device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises every parameter in place as `config.init` says, e.g. after `to_empty`."""
        initialise(self, _INITIALISERS[self.config.init])
        if not self.pos_embed.is_meta:
            sincos(self.pos_embed)
            nn.init.normal_(self.y_embedder.y_embedding, std=self.config.caption_dim**-0.5)

    def null_text(self) -> Float[Tensor, "1 length caption"]:
        """Returns the text that stands for "nothing said", of the greatest length."""
        return self.y_embedder.y_embedding.unsqueeze(0)

    def forward(
        self,
        x: Float[Tensor, "batch channels size size"],
        t: Real[Tensor, " batch"],
        text: Float[Tensor, "batch length caption"],
        mask: Bool[Tensor, "batch length"] | None = None,
        *,
        tokens_after: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the prediction for a batch, (B, out_channels, size, size).

        Args:
            x: Noisy latents.
            t: Timesteps, in steps (0..999), whole or not.
            text: The text's tokens, at most `config.caption_tokens` of them.
            mask: True for tokens of the text, False for padding, which nothing attends to; None
                where all count. Of a text without any True, zeros are read.
            tokens_after: Also return the image's tokens after this many blocks, (B, N, W).

        Raises:
            UsageError: An input has the wrong shape or kind, or there is no such block.
        """
        config = self.config
        check_image("PixArt", config, x)
        check_vector("PixArt", "t", t, x.shape[0])
        check_text(
            "PixArt",
            x.shape[0],
            text,
            mask,
            caption_dim=config.caption_dim,
            caption_tokens=config.caption_tokens,
        )
        check_block("PixArt", tokens_after, len(self.blocks))
        condition = self.t_embedder(t)  # (B, W)
        modulation = self.t_block(condition).unflatten(1, (6, config.width))  # (B, 6, W)
        context = self.y_embedder(text)  # (B, L, W)
        if mask is not None:
            mask = mask[:, None, None]  # for every head and query
        tokens = self.x_embedder(x) + self.pos_embed  # (B, N, W)
        hidden = tokens
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens, context, mask, modulation)
            if number == tokens_after:
                hidden = tokens
        # The time itself, not what the blocks share ([PixArt] code).
        patches = self.final_layer(tokens, condition)  # (B, N, P·P·C)
        prediction = unpatchify(patches, config.patch_size)
        return prediction if tokens_after is None else (prediction, hidden)


# Initialisation -----------------------------------------------------------------------------------


def _over_root_width(table: Tensor) -> None:
    nn.init.normal_(table, std=table.shape[-1] ** -0.5)


def _xavier_kernel(kernel: Tensor) -> None:
    """Xavier-uniform as torch and mup count a convolution: the fan-out is W·P·P."""
    receptive = kernel[0, 0].numel()
    bound = math.sqrt(6 / (receptive * (kernel.shape[0] + kernel.shape[1])))
    nn.init.uniform_(kernel, -bound, bound)


_ORIGINAL: Mapping[str, Initialiser] = {
    "final_layer.linear.weight": zeros,
    "*.bias": zeros,
    "*scale_shift_table": _over_root_width,
    "t_embedder.mlp.*.weight": normal(0.02),
    "t_block.1.weight": normal(0.02),
    "y_embedder.y_proj.*.weight": normal(0.02),
    "*.cross_attn.proj.weight": zeros,  # the text has no effect at first
    "*.weight": xavier,
}
_INITIALISERS: Mapping[str, Mapping[str, Initialiser]] = MappingProxyType(
    {
        # PixArt-alpha/PixArt-alpha, nets/PixArt.py: initialize_weights.
        "pixart": _ORIGINAL,
        # ML-GSAI/Scaling-Diffusion-Transformers-muP, PixArt-alpha: the same family drawn again with
        # mup.init at base width 288, where it gives these values; at other widths the plan scales
        # them. Tables do not shrink with width, and the kernel is counted as mup counts it.
        "pixart_mup": {
            "x_embedder.proj.weight": _xavier_kernel,
            **_ORIGINAL,
            "*scale_shift_table": normal(0.02),  # takes the place of the original's
        },
    }
)


# Presets ------------------------------------------------------------------------------------------


def _alpha(num_heads: int, init: Literal["pixart", "pixart_mup"]) -> PixArtConfig:
    # 256 pixels in the latent space of Stable Diffusion's VAE; T5-v1.1-XXL's features.
    return PixArtConfig(
        depth=28,
        num_heads=num_heads,
        head_dim=72,
        patch_size=2,
        input_size=32,
        in_channels=4,
        caption_dim=4096,
        caption_tokens=120,
        init=init,
    )


PRESETS: Mapping[str, PixArtConfig] = MappingProxyType(
    {
        "PixArt-XL/2": _alpha(16, "pixart"),  # 0.61B
        # [muDiT] 5.1: the proxy of 0.04B at width 288, and the target.
        "PixArt-ladder-288/2": _alpha(4, "pixart_mup"),
        "PixArt-ladder-1152/2": _alpha(16, "pixart_mup"),
    }
)


def example_inputs(config: PixArtConfig, batch: int = 2) -> Callable[[int], tuple[Tensor, ...]]:
    """Returns the function width → arguments of `forward`, from torch's global generator."""

    def inputs(width: int) -> tuple[Tensor, ...]:
        del width  # none of them grows
        x = torch.randn(batch, config.in_channels, config.input_size, config.input_size)
        t = torch.randint(1000, (batch,))
        text = torch.randn(batch, config.caption_tokens, config.caption_dim)
        lengths = torch.randint(1, config.caption_tokens + 1, (batch, 1))
        return x, t, text, torch.arange(config.caption_tokens) < lengths

    return inputs

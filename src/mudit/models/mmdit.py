"""MMDiT: text and image as two streams that meet in the attention, [SD3] and [SD3] code.

Modules carry the original's names, so the transformers of Stable Diffusion 3 and 3.5 load as they
are, once the prefix of their names is off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor, nn
from torch.nn import functional as F

from mudit.errors import UsageError
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
    AdaLN,
    FinalLayer,
    Initialiser,
    PatchEmbed,
    StreamAttention,
    SwiGLU,
    TimestepEmbedder,
    initialise,
    joint_attention,
    kaiming,
    modulate,
    normal,
    ones,
    sincos,
    unpatchify,
    xavier,
    zeros,
)

_NORM_EPS = 1e-6  # [SD3] code
_MLPS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {"gelu": MLP, "swiglu": SwiGLU}
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MMDiTConfig(TransformerConfig):
    """Everything that determines an MMDiT; valid once constructed.

    Attributes:
        caption_dim: Size of one token of the encoded text.
        caption_tokens: The longest text, in tokens.
        pooled_dim: Size of the vector that stands for the whole text; None where there is none.
        pos_embed_max_size: Side of the stored grid of positions, in tokens, of which a model for
            smaller images uses the centre.
        qk_norm: RMS norms of queries and keys, as Stable Diffusion 3.5 has and 3 has not.
        dual_attention_blocks: How many blocks, from the first, have a second attention, among
            image tokens only, beside the joint one.
        mlp: "gelu", or "swiglu" with three matrices without biases, of the same hidden size.
        init: "mmdit" as facebookresearch/DiT initialises, or "mmdit_mup" as the code of [muDiT]
            does with DiT.

    Raises:
        UsageError: A value is not positive, or two values do not fit each other.
    """

    caption_dim: int
    caption_tokens: int
    pooled_dim: int | None = 2048
    pos_embed_max_size: int
    qk_norm: bool = True
    dual_attention_blocks: int = 0
    mlp: Literal["gelu", "swiglu"] = "gelu"
    init: Literal["mmdit", "mmdit_mup"] = "mmdit"

    def __post_init__(self) -> None:
        check_sizes(self, width_multiple=4)
        check_whole_numbers(self, "caption_dim", "caption_tokens", "pos_embed_max_size")
        if self.pooled_dim is not None:
            check_whole_numbers(self, "pooled_dim")
        check_choice(self, "mlp", _MLPS)
        check_choice(self, "init", _INITIALISERS)
        if type(self.qk_norm) is not bool:
            raise UsageError(f"MMDiTConfig.qk_norm is {self.qk_norm!r}; expected True or False.")
        dual = self.dual_attention_blocks
        if type(dual) is not int or not 0 <= dual <= self.depth:
            raise UsageError(
                f"MMDiTConfig.dual_attention_blocks is {dual!r}; expected a whole number from 0 to "
                f"the depth, {self.depth}."
            )
        if self.grid_size > self.pos_embed_max_size:
            raise UsageError(
                f"MMDiTConfig.pos_embed_max_size is {self.pos_embed_max_size}, but an image of "
                f"input_size {self.input_size} has {self.grid_size} x {self.grid_size} tokens; "
                f"expected at least {self.grid_size}."
            )

    @property
    def grid_size(self) -> int:
        """Side of the image, in tokens."""
        return self.input_size // self.patch_size

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.in_channels


class VectorEmbedder(nn.Module):
    """A two-layer MLP that maps a vector to the model's width.

    Args:
        size: Size of the vector.
        width: Size of the embedding.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, vector: Float[Tensor, "batch size"]) -> Float[Tensor, "batch width"]:
        """Returns the embeddings."""
        embedding: Tensor = self.mlp(vector)
        return embedding  # (B, W)


class StreamBlock(nn.Module):
    """One stream's part of a block: a DiT block whose attention is also over the other stream.

    Args:
        config: Sizes, the MLP, and whether queries and keys are normalised.
        dual: A second attention, among this stream's tokens only.
        pre_only: Nothing after the attention: in the last block, nobody reads the text any more.
    """

    def __init__(self, config: MMDiTConfig, *, dual: bool = False, pre_only: bool = False) -> None:
        super().__init__()
        width, heads, qk_norm = config.width, config.num_heads, config.qk_norm
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=_NORM_EPS)
        self.attn = StreamAttention(width, heads, qk_norm=qk_norm, pre_only=pre_only)
        self.attn2 = StreamAttention(width, heads, qk_norm=qk_norm) if dual else None
        if not pre_only:
            self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=_NORM_EPS)
            self.mlp = _MLPS[config.mlp](width, config.mlp_hidden)
        self.adaLN_modulation = AdaLN(width, 2 if pre_only else 9 if dual else 6)

    def enter(
        self,
        x: Float[Tensor, "batch tokens width"],
        condition: Float[Tensor, "batch width"],
    ) -> tuple[Float[Tensor, "batch tokens width"], tuple[Tensor, ...]]:
        """Returns the normalised tokens and all modulation vectors; shift and scale first."""
        return self.norm1(x), self.adaLN_modulation(condition)

    def leave(
        self,
        x: Float[Tensor, "batch tokens width"],
        normed: Float[Tensor, "batch tokens width"],
        mixed: Float[Tensor, "batch tokens width"],
        vectors: tuple[Tensor, ...],
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the tokens after the block; not with `pre_only`.

        Args:
            x: Tokens before the block.
            normed: The same, normalised.
            mixed: What the joint attention made of them.
            vectors: All modulation vectors.
        """
        gate_attn, shift_mlp, scale_mlp, gate_mlp = vectors[2:6]
        out: Tensor = x + gate_attn * self.attn.read_out(mixed)
        if self.attn2 is not None:
            shift, scale, gate = vectors[6:]
            out = out + gate * self.attn2(modulate(normed, shift, scale))
        out = out + gate_mlp * self.mlp(modulate(self.norm2(out), shift_mlp, scale_mlp))
        return out


class JointBlock(nn.Module):
    """Text and image, each with weights of its own, in one attention.

    Args:
        config: Sizes of both streams.
        dual: Image tokens have a second attention among themselves.
        last: The text is only attended to, and ends here.
    """

    def __init__(self, config: MMDiTConfig, *, dual: bool, last: bool) -> None:
        super().__init__()
        self.last = last
        self.context_block = StreamBlock(config, pre_only=last)
        self.x_block = StreamBlock(config, dual=dual)

    def forward(
        self,
        context: Float[Tensor, "batch length width"],
        x: Float[Tensor, "batch tokens width"],
        condition: Float[Tensor, "batch width"],
        mask: Bool[Tensor, "batch 1 1 all_tokens"] | None,
    ) -> tuple[Float[Tensor, "batch length width"], Float[Tensor, "batch tokens width"]]:
        """Returns the tokens of text and image after the block."""
        normed_context, of_context = self.context_block.enter(context, condition)
        normed_x, of_x = self.x_block.enter(x, condition)
        mixed_context, mixed_x = joint_attention(
            self.context_block.attn.project(modulate(normed_context, *of_context[:2])),
            self.x_block.attn.project(modulate(normed_x, *of_x[:2])),
            mask,
        )
        x = self.x_block.leave(x, normed_x, mixed_x, of_x)
        if not self.last:
            context = self.context_block.leave(context, normed_context, mixed_context, of_context)
        return context, x


class MMDiT(nn.Module):
    """Predicts a velocity from a noisy latent, its time, and a text's tokens and pooled vector.

    Differs from [SD3] code: padding of the text can be masked; with `mask=None` it is attended to,
    as there. Positions of a fresh model are a plain sin-cos grid, one unit from token to token, as
    that code computes by default; its checkpoints bring a grid of their own.

    Args:
        config: Sizes and the initialisation.
    """

    pos_embed: Tensor

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        width, depth = config.width, config.depth
        device = torch.get_default_device()
        with torch.device("meta"):  # so that torch's default initialisation costs nothing
            self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, width)
            self.t_embedder = TimestepEmbedder(width)
            self.y_embedder = (
                None if config.pooled_dim is None else VectorEmbedder(config.pooled_dim, width)
            )
            self.context_embedder = nn.Linear(config.caption_dim, width)
            self.register_buffer("pos_embed", torch.empty(1, config.pos_embed_max_size**2, width))
            self.joint_blocks = nn.ModuleList(
                JointBlock(
                    config, dual=number < config.dual_attention_blocks, last=number == depth - 1
                )
                for number in range(depth)
            )
            self.final_layer = FinalLayer(width, config.patch_size, config.out_channels)
        if device.type != "meta":
            self.to_empty(device=device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises every parameter in place as `config.init` says, e.g. after `to_empty`."""
        initialise(self, _INITIALISERS[self.config.init])
        if not self.pos_embed.is_meta:  # 192² positions take a second
            sincos(self.pos_embed)

    def forward(
        self,
        x: Float[Tensor, "batch channels size size"],
        t: Real[Tensor, " batch"],
        text: Float[Tensor, "batch length caption"],
        mask: Bool[Tensor, "batch length"] | None = None,
        pooled: Float[Tensor, "batch pooled"] | None = None,
        *,
        tokens_after: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the prediction for a batch, (B, in_channels, size, size).

        Args:
            x: Noisy latents.
            t: Times in steps, 1000·σ: 0 for data, 1000 for noise ([SD3] code), whole or not.
            text: The text's tokens, at most `config.caption_tokens` of them.
            mask: True for tokens of the text, False for padding, which nothing attends to; None
                where all count.
            pooled: The vector of the whole text, where `config.pooled_dim` is not None.
            tokens_after: Also return the image's tokens after this many blocks, (B, N, W).

        Raises:
            UsageError: An input has the wrong shape or kind, or there is no such block.
        """
        check_image("MMDiT", self.config, x)
        check_vector("MMDiT", "t", t, x.shape[0])
        check_text(
            "MMDiT",
            x.shape[0],
            text,
            mask,
            caption_dim=self.config.caption_dim,
            caption_tokens=self.config.caption_tokens,
        )
        _check_pooled(self.config, x.shape[0], pooled)
        check_block("MMDiT", tokens_after, len(self.joint_blocks))
        condition = self.t_embedder(t)  # (B, W)
        if self.y_embedder is not None:
            condition = condition + self.y_embedder(pooled)
        context = self.context_embedder(text)  # (B, L, W)
        tokens = self._with_positions(self.x_embedder(x))  # (B, N, W)
        if mask is not None:  # of the joint sequence, for every head and query
            mask = F.pad(mask, (0, tokens.shape[1]), value=True)[:, None, None]  # (B, 1, 1, L + N)
        hidden = tokens
        for number, block in enumerate(self.joint_blocks, 1):
            context, tokens = block(context, tokens, condition, mask)
            if number == tokens_after:
                hidden = tokens
        patches = self.final_layer(tokens, condition)  # (B, N, P·P·C)
        prediction = unpatchify(patches, self.config.patch_size)
        return prediction if tokens_after is None else (prediction, hidden)

    def _with_positions(self, tokens: Tensor) -> Tensor:
        # The centre of the stored grid is a view; as a list of tokens it would be a copy.
        whole, side = self.config.pos_embed_max_size, self.config.grid_size
        start = (whole - side) // 2
        grid = self.pos_embed.view(1, whole, whole, -1)
        centre = grid[:, start : start + side, start : start + side]
        placed = tokens.view(tokens.shape[0], side, side, self.config.width) + centre
        return placed.flatten(1, 2)  # (B, N, W)


def _check_pooled(config: MMDiTConfig, batch: int, pooled: Tensor | None) -> None:
    if config.pooled_dim is None:
        if pooled is not None:
            raise UsageError(
                "MMDiT got pooled, but its config has no pooled_dim. Leave it out, or set "
                f"pooled_dim={pooled.shape[-1]}."
            )
    elif pooled is None:
        raise UsageError(
            f"MMDiT got no pooled; expected shape ({batch}, {config.pooled_dim}). Give the "
            "text's vector, or set pooled_dim=None."
        )
    elif tuple(pooled.shape) != (batch, config.pooled_dim):
        raise UsageError(
            f"MMDiT got pooled of shape {tuple(pooled.shape)}; expected (batch, pooled_dim) = "
            f"({batch}, {config.pooled_dim}). Change the input, or pooled_dim."
        )


# Initialisation -----------------------------------------------------------------------------------

_INITIALISERS: Mapping[str, Mapping[str, Initialiser]] = MappingProxyType(
    {
        # Assumption: [SD3]'s own is not published ([SD3] code only loads weights), nor is what
        # [muDiT] trained its baseline with; [REPA]'s MMDiT leaves torch's defaults. This is that of
        # [DiT] code: each block starts as the identity.
        "mmdit": {
            "*.ln_[qk].weight": ones,
            "*.bias": zeros,
            "[ty]_embedder.mlp.*.weight": normal(0.02),
            "*.adaLN_modulation.1.weight": zeros,
            "final_layer.linear.weight": zeros,
            "*.weight": xavier,
        },
        # As "dit_mup": gates start open, and only the output starts at zero.
        "mmdit_mup": {
            "*.ln_[qk].weight": ones,
            "*.bias": zeros,
            "final_layer.linear.weight": zeros,
            "*.weight": kaiming,
        },
    }
)


# Presets ------------------------------------------------------------------------------------------

# The released models, 1024 pixels: heads (and blocks: [SD3] 4 has width 64·depth),
# pos_embed_max_size, qk_norm, dual_attention_blocks.
_RELEASED = {
    "SD3-medium": (24, 24, 192, False, 0),
    "SD3.5-medium": (24, 24, 384, True, 13),
    "SD3.5-large": (38, 38, 192, True, 0),
}
# [muDiT] 5.2, E.4: depth 16 at width 512 to search, 1920 as the base, 5120 as the target, of "18B"
# parameters. SD3's MMDiT has 14.9e9 there. The paper does not tell what makes up the difference,
# nor the head size. Two variants come near: a SwiGLU of full hidden size, 18.15e9 (and 0.185e9
# for the "0.18B" of the proxy), and Stable Diffusion 3.5 medium's second attention in all blocks,
# 17.84e9 (0.182e9).
_PAPER_WIDTHS = (512, 1920, 5120)
_PAPER_DEPTH = 16


def _released(
    depth: int, num_heads: int, pos_embed_max_size: int, qk_norm: bool, dual_attention_blocks: int
) -> MMDiTConfig:
    return MMDiTConfig(
        depth=depth,
        num_heads=num_heads,
        head_dim=64,
        patch_size=2,
        input_size=128,
        in_channels=16,
        caption_dim=4096,
        caption_tokens=333,  # 77 of both CLIPs, side by side, then 256 of T5 (diffusers)
        pooled_dim=2048,
        pos_embed_max_size=pos_embed_max_size,
        qk_norm=qk_norm,
        dual_attention_blocks=dual_attention_blocks,
    )


def _paper(width: int, dual_attention_blocks: int, mlp: Literal["gelu", "swiglu"]) -> MMDiTConfig:
    return MMDiTConfig(
        depth=_PAPER_DEPTH,
        num_heads=width // 64,
        head_dim=64,
        patch_size=2,
        input_size=32,  # 256 pixels
        in_channels=16,
        caption_dim=4096,
        caption_tokens=154,  # [SD3] Figure 2: 77 of both CLIPs, side by side, then 77 of T5
        pooled_dim=2048,
        pos_embed_max_size=16,
        qk_norm=True,
        dual_attention_blocks=dual_attention_blocks,
        mlp=mlp,
        init="mmdit_mup",
    )


PRESETS: Mapping[str, MMDiTConfig] = MappingProxyType(
    {name: _released(*sizes) for name, sizes in _RELEASED.items()}
    | {f"MMDiT-paper-swiglu-{width}": _paper(width, 0, "swiglu") for width in _PAPER_WIDTHS}
    | {f"MMDiT-paper-dual-{width}": _paper(width, _PAPER_DEPTH, "gelu") for width in _PAPER_WIDTHS}
)


def example_inputs(config: MMDiTConfig, batch: int = 2) -> Callable[[int], tuple[Tensor, ...]]:
    """Returns the function width → arguments of `forward`, from torch's global generator."""

    def inputs(width: int) -> tuple[Tensor, ...]:
        del width  # none of them grows
        x = torch.randn(batch, config.in_channels, config.input_size, config.input_size)
        t = 1000 * torch.rand(batch)
        text = torch.randn(batch, config.caption_tokens, config.caption_dim)
        lengths = torch.randint(1, config.caption_tokens + 1, (batch, 1))
        mask = torch.arange(config.caption_tokens) < lengths
        if config.pooled_dim is None:
            return x, t, text, mask
        return x, t, text, mask, torch.randn(batch, config.pooled_dim)

    return inputs

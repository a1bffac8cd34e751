"""DiT: the class-conditional diffusion Transformer with adaptive layer norm, [DiT] code.

Modules carry the original's names, so checkpoints of facebookresearch/DiT load as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from mudit.models.sizes import (
    TransformerConfig,
    check_block,
    check_choice,
    check_image,
    check_labels,
    check_sizes,
    check_vector,
    check_whole_numbers,
    label_error,
)
from mudit.nn import (
    MLP,
    AdaLN,
    Attention,
    FinalLayer,
    Initialiser,
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    initialise,
    kaiming,
    modulate,
    normal,
    sincos,
    unpatchify,
    xavier,
    zeros,
)

_NORM_EPS = 1e-6  # [DiT] code


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig(TransformerConfig):
    """Everything that determines a DiT; valid once constructed.

    Attributes:
        num_classes: Classes, without the null label.
        learn_sigma: Twice the output channels: the prediction, then variance logits.
        init: "dit" as facebookresearch/DiT initialises, or "dit_mup" as the code of [muDiT] does.

    Raises:
        UsageError: A value is not positive, or two values do not fit each other.
    """

    num_classes: int
    learn_sigma: bool = True
    init: Literal["dit", "dit_mup"] = "dit"

    def __post_init__(self) -> None:
        check_sizes(self, width_multiple=4)
        check_whole_numbers(self, "num_classes")
        check_choice(self, "init", _INITIALISERS)

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def null_label(self) -> int:
        """The label that means "no label", the last row of the label table."""
        return self.num_classes


class DiTBlock(nn.Module):
    """Attention and MLP, each normalised, shifted and scaled before, and gated after."""

    def __init__(self, width: int, num_heads: int, mlp_hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=_NORM_EPS)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=_NORM_EPS)
        self.mlp = MLP(width, mlp_hidden)
        self.adaLN_modulation = AdaLN(width, 6)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        condition: Float[Tensor, "batch width"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Returns the tokens after the block."""
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(
            condition
        )
        x = x + gate_attn * self.attn(modulate(self.norm1(x), shift_attn, scale_attn))
        x = x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))
        return x


class DiT(nn.Module):
    """Predicts noise (and variance logits) from a noisy latent, its timestep and a class label.

    Differs from [DiT] code: labels are not dropped in here, in training mode or otherwise. The
    objective replaces them by `config.null_label`, with a generator of its own, so the model is
    a function of its arguments. The label table always has the null label's row.

    Args:
        config: Sizes and the initialisation.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        device = torch.get_default_device()
        with torch.device("meta"):  # so that torch's default initialisation costs nothing
            self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, width)
            self.t_embedder = TimestepEmbedder(width)
            self.y_embedder = LabelEmbedder(config.num_classes, width)
            self.pos_embed = nn.Parameter(
                torch.empty(1, config.num_tokens, width), requires_grad=False
            )
            self.blocks = nn.ModuleList(
                DiTBlock(width, config.num_heads, config.mlp_hidden) for _ in range(config.depth)
            )
            self.final_layer = FinalLayer(width, config.patch_size, config.out_channels)
        if device.type != "meta":
            self.to_empty(device=device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises every parameter in place as `config.init` says, e.g. after `to_empty`."""
        initialise(self, _INITIALISERS[self.config.init])

    def forward(
        self,
        x: Float[Tensor, "batch channels size size"],
        t: Real[Tensor, " batch"],
        labels: Int[Tensor, " batch"],
        *,
        tokens_after: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the prediction for a batch, (B, out_channels, size, size).

        Args:
            x: Noisy latents.
            t: Timesteps, in steps (0..999 in [DiT]), whole or not.
            labels: Classes, or `config.null_label`.
            tokens_after: Also return the tokens after this many blocks, (B, N, W).

        Raises:
            UsageError: An input has the wrong shape or kind, there is no such block, or, on the
                CPU, a label is out of range. (Elsewhere torch's own check reports it: looking
                would stall the device.)
        """
        check_image("DiT", self.config, x)
        check_vector("DiT", "t", t, x.shape[0])
        check_labels("DiT", labels, x.shape[0])
        check_block("DiT", tokens_after, len(self.blocks))
        try:
            condition = self.t_embedder(t) + self.y_embedder(labels)  # (B, W)
        except IndexError:  # raised by torch's embedding on the CPU
            raise label_error("DiT", labels, self.config.num_classes) from None
        tokens = self.x_embedder(x) + self.pos_embed  # (B, N, W)
        hidden = tokens
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens, condition)
            if number == tokens_after:
                hidden = tokens
        patches = self.final_layer(tokens, condition)  # (B, N, P·P·C)
        prediction = unpatchify(patches, self.config.patch_size)
        return prediction if tokens_after is None else (prediction, hidden)


# Initialisation -----------------------------------------------------------------------------------

_INITIALISERS: Mapping[str, Mapping[str, Initialiser]] = MappingProxyType(
    {
        # facebookresearch/DiT, models.py: initialize_weights. Each block starts as the identity.
        "dit": {
            "pos_embed": sincos,
            "*.bias": zeros,
            "t_embedder.mlp.*.weight": normal(0.02),
            "y_embedder.embedding_table.weight": normal(0.02),
            "*.adaLN_modulation.1.weight": zeros,
            "final_layer.linear.weight": zeros,
            "*.weight": xavier,
        },
        # ML-GSAI/Scaling-Diffusion-Transformers-muP, DiT/models_mup.py. Gates start open, and
        # only the output starts at zero.
        "dit_mup": {
            "pos_embed": sincos,
            "*.bias": zeros,
            "y_embedder.embedding_table.weight": normal(1.0),
            "final_layer.linear.weight": zeros,
            "*.weight": kaiming,
        },
    }
)


# Presets ------------------------------------------------------------------------------------------

# [DiT] Table 1: depth, heads, head_dim.
_SIZES = {"S": (12, 6, 64), "B": (12, 12, 64), "L": (24, 16, 64), "XL": (28, 16, 72)}
# [muDiT] 4.1: depth 28, head_dim 72, patch size 2; the widths are 144, 288, 576, 1152.
_LADDER_HEADS = (2, 4, 8, 16)


def _imagenet(
    depth: int, num_heads: int, head_dim: int, patch_size: int, init: Literal["dit", "dit_mup"]
) -> DiTConfig:
    # 256-pixel ImageNet in the latent space of Stable Diffusion's VAE.
    return DiTConfig(
        depth=depth,
        num_heads=num_heads,
        head_dim=head_dim,
        patch_size=patch_size,
        input_size=32,
        in_channels=4,
        num_classes=1000,
        init=init,
    )


PRESETS: Mapping[str, DiTConfig] = MappingProxyType(
    {
        f"DiT-{size}/{patch_size}": _imagenet(*sizes, patch_size, "dit")
        for size, sizes in _SIZES.items()
        for patch_size in (2, 4, 8)
    }
    | {
        f"DiT-ladder-{heads * 72}/2": _imagenet(28, heads, 72, 2, "dit_mup")
        for heads in _LADDER_HEADS
    }
)


def example_inputs(config: DiTConfig, batch: int = 2) -> Callable[[int], tuple[Tensor, ...]]:
    """Returns the function width → arguments of `forward`, from torch's global generator."""

    def inputs(width: int) -> tuple[Tensor, ...]:
        del width  # none of them grows
        x = torch.randn(batch, config.in_channels, config.input_size, config.input_size)
        t = torch.randint(1000, (batch,))
        return x, t, torch.randint(config.num_classes, (batch,))

    return inputs

"""DiT: the class-conditional diffusion Transformer with adaptive layer norm, [DiT] code.

Modules carry the original's names, so checkpoints of facebookresearch/DiT load as they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from mudit.errors import UsageError
from mudit.nn import (
    MLP,
    AdaLN,
    Attention,
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    modulate,
    sincos_positions,
    unpatchify,
)

_NORM_EPS = 1e-6  # [DiT] code
_WHOLE_NUMBERS = (
    "depth",
    "num_heads",
    "head_dim",
    "patch_size",
    "input_size",
    "in_channels",
    "num_classes",
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """Everything that determines a DiT; valid once constructed.

    Attributes:
        depth: Number of blocks.
        num_heads: Attention heads per block; the width is `num_heads * head_dim`.
        head_dim: Size of one head.
        patch_size: Side of a patch, in pixels of the input; must divide `input_size`.
        mlp_ratio: Hidden size of a block's MLP over the width, rounded down to a whole number.
        input_size: Side of the (latent) image, in pixels.
        in_channels: Channels of the (latent) image.
        num_classes: Classes, without the null label.
        learn_sigma: Twice the output channels: the prediction, then variance logits.
        init: "dit" as facebookresearch/DiT initialises, or "dit_mup" as the code of [muDiT] does.

    Raises:
        UsageError: A value is not positive, or two values do not fit each other.
    """

    depth: int
    num_heads: int
    head_dim: int
    patch_size: int
    mlp_ratio: float = 4.0
    input_size: int
    in_channels: int
    num_classes: int
    learn_sigma: bool = True
    init: Literal["dit", "dit_mup"] = "dit"

    def __post_init__(self) -> None:
        for name in _WHOLE_NUMBERS:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UsageError(f"DiTConfig.{name} is {value!r}; expected a whole number from 1.")
        if self.init not in _INITIALISERS:
            raise UsageError(
                f"DiTConfig.init is {self.init!r}; expected one of {sorted(_INITIALISERS)}."
            )
        is_number = isinstance(self.mlp_ratio, int | float)
        if not (is_number and 1 <= self.mlp_ratio * self.width < math.inf):
            raise UsageError(
                f"DiTConfig.mlp_ratio is {self.mlp_ratio!r}, which gives the MLP no finite hidden "
                f"size at width {self.width}; expected a positive number such as 4.0."
            )
        if self.input_size % self.patch_size:
            raise UsageError(
                f"DiTConfig.input_size is {self.input_size}, which patch_size "
                f"{self.patch_size} does not divide; change one of them."
            )
        if self.width % 4:
            raise UsageError(
                f"DiTConfig has width num_heads * head_dim = {self.num_heads} * {self.head_dim} = "
                f"{self.width}; expected a multiple of 4, which the sin-cos positions need. "
                "Make head_dim a multiple of 4."
            )

    @property
    def width(self) -> int:
        """Size of a token."""
        return self.num_heads * self.head_dim

    @property
    def mlp_hidden(self) -> int:
        """Size between the two layers of a block's MLP."""
        return int(self.mlp_ratio * self.width)

    @property
    def num_tokens(self) -> int:
        """Tokens per image."""
        return (self.input_size // self.patch_size) ** 2

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


class FinalLayer(nn.Module):
    """Normalises, shifts and scales, and reads out one patch per token."""

    def __init__(self, width: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=_NORM_EPS)
        self.linear = nn.Linear(width, patch_size**2 * out_channels)
        self.adaLN_modulation = AdaLN(width, 2)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        condition: Float[Tensor, "batch width"],
    ) -> Float[Tensor, "batch tokens patch"]:
        """Returns patches, each flattened in the order (row, column, channel)."""
        shift, scale = self.adaLN_modulation(condition)
        patches: Tensor = self.linear(modulate(self.norm_final(x), shift, scale))
        return patches  # (B, N, P·P·C)


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

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises every parameter in place as `config.init` says, e.g. after `to_empty`."""
        for name, parameter in self.named_parameters():
            _initialiser(self.config.init, name)(parameter)

    def forward(
        self,
        x: Float[Tensor, "batch channels size size"],
        t: Real[Tensor, " batch"],
        labels: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch out_channels size size"]:
        """Returns the prediction for a batch.

        Args:
            x: Noisy latents.
            t: Timesteps, in steps (0..999 in [DiT]), whole or not.
            labels: Classes, or `config.null_label`.

        Raises:
            UsageError: An input has the wrong shape or kind, or, on the CPU, a label is out of
                range. (Elsewhere torch's own check reports it: looking would stall the device.)
        """
        _check_inputs(self.config, x, t, labels)
        try:
            condition = self.t_embedder(t) + self.y_embedder(labels)  # (B, W)
        except IndexError:  # raised by torch's embedding on the CPU
            raise _label_error(self.config, labels) from None
        tokens = self.x_embedder(x) + self.pos_embed  # (B, N, W)
        for block in self.blocks:
            tokens = block(tokens, condition)
        patches = self.final_layer(tokens, condition)  # (B, N, P·P·C)
        return unpatchify(patches, self.config.patch_size)


def _check_inputs(config: DiTConfig, x: Tensor, t: Tensor, labels: Tensor) -> None:
    image = (config.in_channels, config.input_size, config.input_size)
    if x.ndim != 4 or tuple(x.shape[1:]) != image:
        raise UsageError(
            f"DiT got x of shape {tuple(x.shape)}; its config expects (batch, channels, size, "
            f"size) = (batch, {', '.join(map(str, image))}). Change the input, or in_channels and "
            "input_size."
        )
    for name, vector in (("t", t), ("labels", labels)):
        if vector.ndim != 1 or vector.shape[0] != x.shape[0]:
            raise UsageError(
                f"DiT got {name} of shape {tuple(vector.shape)} for a batch of {x.shape[0]}; "
                f"expected ({x.shape[0]},), one per image."
            )
    if labels.dtype not in (torch.int64, torch.int32):
        raise UsageError(f"DiT got labels of dtype {labels.dtype}; expected labels.long().")


def _label_error(config: DiTConfig, labels: Tensor) -> UsageError:
    wrong = labels[(labels < 0) | (labels > config.null_label)]
    return UsageError(
        f"DiT got label {wrong[0].item()}; its config has {config.num_classes} classes, so labels "
        f"run from 0 to {config.num_classes - 1}, and {config.null_label} is the null label. "
        "Change the labels, or num_classes."
    )


# Initialisation -----------------------------------------------------------------------------------

_Initialiser: TypeAlias = Callable[[Tensor], Any]


def _fan_in(weight: Tensor) -> int:
    return math.prod(weight.shape[1:])  # of a convolution: channels times kernel


def _zeros(parameter: Tensor) -> None:
    nn.init.zeros_(parameter)


def _normal(std: float) -> _Initialiser:
    return partial(nn.init.normal_, std=std)


def _kaiming(weight: Tensor) -> None:
    """N(0, 1/fan-in): kaiming_normal_ with a=1, whose gain is exactly 1."""
    nn.init.normal_(weight, std=_fan_in(weight) ** -0.5)


def _xavier(weight: Tensor) -> None:
    """Xavier-uniform; a convolution counts as the matrix (W, C·P·P), so its fan-out is W."""
    bound = math.sqrt(6 / (_fan_in(weight) + weight.shape[0]))
    nn.init.uniform_(weight, -bound, bound)


def _sincos(pos_embed: Tensor) -> None:
    _, num_tokens, width = pos_embed.shape
    pos_embed.copy_(sincos_positions(math.isqrt(num_tokens), width).unsqueeze(0))


# The first pattern that fits a parameter's name decides.
_INITIALISERS: Mapping[str, Mapping[str, _Initialiser]] = MappingProxyType(
    {
        # facebookresearch/DiT, models.py: initialize_weights. Each block starts as the identity.
        "dit": {
            "pos_embed": _sincos,
            "*.bias": _zeros,
            "t_embedder.mlp.*.weight": _normal(0.02),
            "y_embedder.embedding_table.weight": _normal(0.02),
            "*.adaLN_modulation.1.weight": _zeros,
            "final_layer.linear.weight": _zeros,
            "*.weight": _xavier,
        },
        # ML-GSAI/Scaling-Diffusion-Transformers-muP, DiT/models_mup.py. Gates start open, and
        # only the output starts at zero.
        "dit_mup": {
            "pos_embed": _sincos,
            "*.bias": _zeros,
            "y_embedder.embedding_table.weight": _normal(1.0),
            "final_layer.linear.weight": _zeros,
            "*.weight": _kaiming,
        },
    }
)


def _initialiser(init: str, name: str) -> _Initialiser:
    for pattern, initialiser in _INITIALISERS[init].items():
        if fnmatchcase(name, pattern):
            return initialiser
    raise AssertionError(f"no initialiser for {name}")


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


def preset(name: str, **overrides: Any) -> DiTConfig:
    """Returns the preset `name`, with fields replaced.

    Args:
        name: A key of `PRESETS`, e.g. "DiT-XL/2", or "DiT-ladder-288/2" ([muDiT] 4.1).
        overrides: Fields of `DiTConfig` and their new values.

    Raises:
        UsageError: There is no such preset or field, or the result is not valid.
    """
    if name not in PRESETS:
        raise UsageError(f"No DiT preset is named {name!r}; expected one of {', '.join(PRESETS)}.")
    fields = [field.name for field in dataclasses.fields(DiTConfig)]
    if unknown := sorted(overrides.keys() - set(fields)):
        raise UsageError(
            f"DiTConfig has no field {', '.join(unknown)}; expected some of {', '.join(fields)}."
        )
    return dataclasses.replace(PRESETS[name], **overrides)


def scale_to_width(config: DiTConfig, width: int) -> DiTConfig:
    """Returns `config` at another width: more or fewer heads of the same size.

    Raises:
        UsageError: `width` is not a positive multiple of `config.head_dim`.
    """
    num_heads, rest = divmod(width, config.head_dim)
    if rest or num_heads < 1:
        nearest = [h * config.head_dim for h in (num_heads, max(num_heads + 1, 1)) if h > 0]
        raise UsageError(
            f"Width {width} is not a positive multiple of head_dim {config.head_dim}; "
            f"the nearest valid widths are {' and '.join(map(str, nearest))}."
        )
    return dataclasses.replace(config, num_heads=num_heads)


def example_inputs(config: DiTConfig, batch: int = 2) -> Callable[[int], tuple[Tensor, ...]]:
    """Returns the function width → arguments of `forward`, from torch's global generator."""

    def inputs(width: int) -> tuple[Tensor, ...]:
        del width  # none of them grows
        x = torch.randn(batch, config.in_channels, config.input_size, config.input_size)
        t = torch.randint(1000, (batch,))
        return x, t, torch.randint(config.num_classes, (batch,))

    return inputs


def _build(config: DiTConfig, width: int) -> DiT:
    return DiT(scale_to_width(config, width))


def builder(config: DiTConfig) -> Callable[[int], DiT]:
    """Returns the function width → `DiT` of `config` at that width; it can be pickled."""
    return partial(_build, config)

"""An AutoencoderKL that changes nothing, for models that were trained on pixels.

The pipelines of diffusers decode whatever a model makes, so a model of pixels needs a decoder that
is the identity. The class has a group norm and a SiLU that no option takes away; but
SiLU(z) - SiLU(-z) = z for every z, and the norm divides by nearly a constant if two of its channels
hold ± a large number and the others come in pairs ±x, so that the mean is 0.
"""

from __future__ import annotations

from typing import Any

import torch

from mudit.export.extras import diffusers

# Of the two constant channels. The error is x³ over its square, plus the rounding of float32.
_LARGE = 1e4
# Log variance of the encoder's posterior: none to speak of.
_LOG_VARIANCE = -30.0


def pixel_vae(channels: int) -> Any:
    """An AutoencoderKL whose encoder and decoder return what they are given, up to 1e-6.

    Args:
        channels: Of the images; their latents have as many.

    Raises:
        EnvironmentFailure: diffusers is not installed.
    """
    width = 2 * channels + 2
    vae = diffusers().AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(width,),  # one block: nothing is made smaller
        layers_per_block=1,
        norm_num_groups=1,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    # With zeros, the residual blocks add nothing.
    state = {name: torch.zeros_like(tensor) for name, tensor in vae.state_dict().items()}
    for part in ("encoder", "decoder"):
        enter, leave = state[f"{part}.conv_in.weight"], state[f"{part}.conv_out.weight"]
        # Of the norm's input: only the two constants weigh.
        root_variance = _LARGE * (2 / width) ** 0.5
        for channel in range(channels):
            for place, sign in ((2 * channel, 1), (2 * channel + 1, -1)):
                enter[place, channel, 1, 1] = sign  # the kernel's middle
                leave[channel, place, 1, 1] = sign * root_variance
        state[f"{part}.conv_in.bias"][-2:] = torch.tensor([_LARGE, -_LARGE])
        state[f"{part}.conv_norm_out.weight"].fill_(1)
    state["encoder.conv_out.bias"][channels:] = _LOG_VARIANCE
    vae.load_state_dict(state)
    return vae.eval()

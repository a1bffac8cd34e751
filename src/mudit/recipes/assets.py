"""What several recipes read: how it is prepared, and under what licence."""

from __future__ import annotations

from mudit.recipes.recipe import Licence

IMAGENET = Licence(
    of="ImageNet", terms="non-commercial research only", source="[muDiT] Table 6, image-net.org"
)
SD_VAE = Licence(
    of="the VAE stabilityai/sd-vae-ft-ema", terms="MIT", source="its model card on Hugging Face"
)
FASHION = Licence(of="Fashion-MNIST", terms="MIT", source="zalandoresearch/fashion-mnist")
NOTO_EMOJI = Licence(
    of="Noto Color Emoji, the font that is drawn",
    terms="SIL Open Font License 1.1",
    source="googlefonts/noto-emoji",
)
MINILM = Licence(
    of="the text encoder all-MiniLM-L6-v2", terms="Apache-2.0", source="its model card"
)


def imagenet_latents(folder: str) -> tuple[str, ...]:
    """Commands that encode ImageNet, which nobody may hand out, once ([DiT] code: VAE, crop)."""
    return (
        "mudit data latents --source folder:data/imagenet/train --size 256 "
        f"--vae stabilityai/sd-vae-ft-ema --out {folder}",
    )

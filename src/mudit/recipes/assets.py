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


_BYTES = 20  # of a parameter in fp32: weight, gradient, two moments, average


def imagenet_latents(folder: str, vae: str) -> tuple[str, ...]:
    """Commands that encode ImageNet, which nobody may hand out, once ([DiT] code: crop)."""
    return (
        "mudit data latents --source folder:data/imagenet/train --size 256 "
        f"--vae {vae} --out {folder}",
    )


def one_device(parameters: float, *, beyond: bool = False) -> str:
    """What a target of so many parameters needs, as `mudit` trains on one device."""
    need = (
        "`mudit` trains on one device, with training.accumulation parts of a batch at a time. The "
        f"target's weights, gradients, moments and average take {_BYTES * parameters / 1e9:,.0f} "
        "GB, its activations more"
    )
    if not beyond:
        return f"{need}."
    return (
        f"{need}: beyond any one device. Search and finals fit; the target takes a sharded "
        "trainer of yours, with the plan that `mudit transfer --dry-run` prints and `mudit.plan` "
        "makes."
    )

"""Tiny VAEs and image folders that tests make for themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

COLOURS = ("red", "lime", "blue", "white", "black", "yellow", "orange", "purple")


def write_vae(folder: Path, *, seed: int = 0, **options: Any) -> str:
    """An untrained AutoencoderKL: 4 channels, half the side, scale 0.5, shift 0.1."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (4, 8), "layers_per_block": 1, "latent_channels": 4,
        "norm_num_groups": 2, "scaling_factor": 0.5, "shift_factor": 0.1, "sample_size": 16,
    }  # fmt: skip
    AutoencoderKL(**{**sizes, **options}).save_pretrained(folder)
    return str(folder)


def open_vae(folder: str) -> Any:
    """As diffusers opens it."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).eval()


def write_classes(folder: Path, *, count: int = 12, size: int = 16) -> str:
    """Noisy images in two classes; no image looks like its mirror image."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 128, (size, size, 3), dtype=np.uint8) + 127 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return f"folder:{folder}"


def write_captions(folder: Path, *, each: int = 3, size: int = 16) -> str:
    """One-coloured images with captions."""
    folder.mkdir(parents=True)
    lines = []
    for colour in COLOURS:
        for number in range(each):
            file = f"{colour}{number}.png"
            Image.new("RGB", (size, size), colour).save(folder / file)
            lines.append(json.dumps({"file": file, "caption": f"a {colour} square"}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return f"captions:{folder}"

"""DiT and U-ViT on Fashion-MNIST: of a size for two CPU cores."""

from __future__ import annotations

from typing import Literal

from mudit.data import DeclaredDataset
from mudit.diffusion import ObjectiveConfig
from mudit.recipes.assets import FASHION
from mudit.recipes.recipe import Expected, Recipe
from mudit.training import DataConfig, Hyperparameters, ParametrizationConfig
from mudit.tuning import (
    ModelConfig,
    SamplingConfig,
    SearchConfig,
    StudyConfig,
    TaskConfig,
    VerifyConfig,
)

# Debian's package dataset-fashion-mnist.
FOLDER = "/usr/share/datasets/fashion-mnist"
# docs/log.md, 2026-11-28 and 2026-11-23.
_SEARCHED = (
    Expected(
        what="validation loss of the search's trials at lr 2^-9, 2^-8, 2^-7, 2^-6, 2^-5",
        value="0.0937, 0.0794, 0.0744, 0.0724, 0.0828",
        source="docs/log.md, 2026-11-28",
    ),
    Expected(
        what="verdict of the grid across width: μP, sp",
        value="INCONCLUSIVE (drift -0.06 octaves per doubling), FAIL (-0.83)",
        source="docs/log.md, 2026-11-23",
    ),
)
_OWN = "Assumption: a size for two cores, by short trials"
_SOURCES = {
    "model.architecture": "what the recipe is of",
    "model.depth": _OWN,
    "model.head_dim": _OWN,
    "model.patch_size": _OWN + ": 49 patches of 16 pixels",
    "objective.learn_sigma": "as the architecture's authors",
    "parametrization.base_width": "[muDiT] §3.2.1: the proxy's width",
    "proxy.width": _OWN,
    "proxy.batch_size": _OWN,
    "proxy.steps": _OWN,
    "target.width": _OWN + ": four times the proxy's",
    "target.batch_size": _OWN,
    "target.steps": _OWN,
    "search.space": _OWN,
    "hps.lr": "DiT: the best of its search, docs/log.md; Assumption: U-ViT's is the same",
    "training.label_dropout": "[DiT] code",
    "sampling.steps": _OWN,
    "sampling.cfg_scale": _OWN,
    "control": "the control at equal budget; proxy and control share the search at base width",
}


def fashion_dit(data: str = FOLDER) -> Recipe:
    """DiT on Fashion-MNIST: five learning rates at width 32, the best carried to width 128.

    Args:
        data: Folder of the four IDX files.
    """
    return _recipe(
        "dit",
        data,
        lr=2**-6,
        time=(
            "a trial of the search: 57 s on one CPU core (docs/log.md, 2026-11-28)",
            "all of it on two cores: about 10 minutes, reckoned from 0.31 s for a step of the "
            "target on one core; not run to its end",
        ),
        expected=_SEARCHED,
        grids=(_width_grid(data),),
    )


def fashion_uvit(data: str = FOLDER) -> Recipe:
    """U-ViT on Fashion-MNIST: five learning rates at width 32, the best carried to width 128.

    Args:
        data: Folder of the four IDX files.
    """
    return _recipe(
        "uvit",
        data,
        lr=2**-6,
        time=(
            "on two cores: about 10 minutes, reckoned from 0.32 s for a step of the target on one "
            "core; not run",
        ),
        expected=(),
        grids=(),
    )


def _recipe(
    architecture: Literal["dit", "uvit"],
    data: str,
    *,
    lr: float,
    time: tuple[str, ...],
    expected: tuple[Expected, ...],
    grids: tuple[VerifyConfig, ...],
) -> Recipe:
    name = {"dit": "DiT", "uvit": "U-ViT"}[architecture]
    return Recipe(
        name=f"fashion_{architecture}",
        summary=f"{name} on Fashion-MNIST, on two CPU cores: five learning rates at width 32, the "
        "best carried to width 128, an sp control beside it.",
        study=StudyConfig(
            folder=f"runs/fashion_{architecture}",
            data=DataConfig(source=f"idx:{data}"),
            model=ModelConfig(architecture=architecture, depth=4, head_dim=16, patch_size=4),
            objective=ObjectiveConfig(learn_sigma=architecture == "dit"),
            parametrization=ParametrizationConfig(base_width=32),
            hps=Hyperparameters(lr=lr),
            proxy=TaskConfig(width=32, batch_size=64, steps=800),
            target=TaskConfig(width=128, batch_size=64, steps=1_000),
            search=SearchConfig(space={"lr": "log2(-9, -5)"}),
            sampling=SamplingConfig(per_class=20, classes=10, steps=50, cfg_scale=1.5),
            control="sp",
        ),
        sources=_SOURCES,
        data=DeclaredDataset(
            name="Fashion-MNIST", num_samples=60_000, size=28, channels=1, num_classes=10
        ),
        grids=grids,
        prepare=("apt-get install dataset-fashion-mnist",),
        time=time,
        licences=(FASHION,),
        expected=expected,
        notes=(
            "On another system than Debian: Fashion-MNIST's four files in a folder, and "
            "`--data.source idx:FOLDER`.",
        ),
    )


def _width_grid(data: str) -> VerifyConfig:
    """The study of docs/log.md, 2026-11-23: DiT with patches of 7 pixels, 147 runs."""
    return VerifyConfig(
        folder="runs/fashion_dit-width-lr",
        data=DataConfig(source=f"idx:{data}"),
        model=ModelConfig(patch_size=7),
        sizes=(32, 64, 128, 256),
        values="log2(-10, -4)",
        seeds=3,
        target=256,
        task=TaskConfig(width=64, batch_size=64, steps=300),
    )

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
_LOG = "docs/log.md, 2026-11-28"
_RESULTS = (
    "validation loss of the search's trials at lr 2^-9, 2^-8, 2^-7, 2^-6, 2^-5",
    "of the targets: μP, sp",
    "steps to the sp target's last loss: μP, sp",
    "samples that show the class asked for: μP, sp (real images 87.7 %)",
)
_MEASURED = {
    "dit": ("0.0937, 0.0794, 0.0744, 0.0724, 0.0828", "0.0601, 0.0722", "343, 1,000",
            "65.5 %, 11.5 %"),
    "uvit": ("0.0937, 0.0882, 0.0837, 0.0838, 0.0866", "0.0678, 0.0749", "591, 1,000",
             "33.0 %, 19.5 %"),
}  # fmt: skip
_TIME = {
    "dit": "13 minutes on two cores that other work shared, 19 minutes of one core in all",
    "uvit": "18 minutes on two cores that other work shared, 24 minutes of one core in all",
}
_GRID = Expected(
    what="verdict of the grid across width: μP, sp",
    value="INCONCLUSIVE (drift -0.06 octaves per doubling), FAIL (-0.83)",
    source="docs/log.md, 2026-11-23",
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
    "hps.lr": "the best of its search, docs/log.md, 2026-11-28",
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
        lr=2**-7,
        grids=(),
    )


def _recipe(
    architecture: Literal["dit", "uvit"],
    data: str,
    *,
    lr: float,
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
        time=(f"{_TIME[architecture]} ({_LOG})",),
        licences=(FASHION,),
        expected=(
            *(
                Expected(what=what, value=value, source=_LOG)
                for what, value in zip(_RESULTS, _MEASURED[architecture], strict=True)
            ),
            *([_GRID] if grids else []),
        ),
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

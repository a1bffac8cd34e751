"""PixArt-α on SA-1B at 256 pixels: section 5.1 of the paper."""

from __future__ import annotations

import dataclasses
import math

from mudit.analysis import Workload
from mudit.data import DeclaredDataset, TextSizes
from mudit.recipes.assets import SD_VAE, one_device
from mudit.recipes.recipe import Expected, Licence, PublishedCost, Recipe
from mudit.training import (
    DataConfig,
    Hyperparameters,
    ParametrizationConfig,
    TextConfig,
    TrainingConfig,
)
from mudit.tuning import ModelConfig, SamplingConfig, SearchConfig, StudyConfig, TaskConfig

# Images of SA-1B with SAM-LLaVA captions, from the released proxy's 39,185 steps of 1,408 for five
# epochs ([muDiT] code: the checkpoint's name).
_IMAGES = 7_837 * 1_408
# [PixArt] code: lr 2e-5 at batch 256, scaled by the square root of the batch (`auto_lr`), which
# [muDiT] code leaves on for the baseline alone.
BASELINE_LR = 2e-5 * math.sqrt(5_632 / 256)

_SOURCES = {
    "model.architecture": "[muDiT] §5.1.1",
    "model.depth": "[muDiT] §5.1.1: PixArt-α's",
    "model.head_dim": "[muDiT] §5.1.1: fixed; 16 heads become 4",
    "model.patch_size": "[PixArt] code",
    "model.mlp_ratio": "[PixArt] code",
    "model.init": "[muDiT] code: xavier and 0.02 at base width",
    "objective.kind": "[PixArt] code",
    "objective.num_timesteps": "[PixArt] code",
    "objective.betas": "[PixArt] code: 1e-4 to 0.02",
    "objective.learn_sigma": "[PixArt] code",
    "text.encoder": "[PixArt] code: T5-v1.1-XXL, features of 4,096",
    "text.max_tokens": "[PixArt] code",
    "text.features": "Assumption: encoded once, beside the latents",
    "parametrization.base_width": "[muDiT] §5.1.1",
    "parametrization.optimizer": "[muDiT] code: MuAdamW",
    "parametrization.wd": "[muDiT] code: MuAdamW keeps lr times decay",
    "parametrization.eps_rule": "[muDiT] code: the same eps at both widths",
    "proxy.width": "[muDiT] §5.1.1",
    "proxy.batch_size": "[muDiT] §5.1.1: 176 × 8",
    "proxy.steps": "[muDiT] code: 5 epochs, about 39K in §5.1.1",
    "target.width": "[muDiT] §5.1.1: PixArt-α's",
    "target.batch_size": "[muDiT] §5.1.1: 176 × 32",
    "target.steps": "[muDiT] §5.1.1: 30 epochs of 1,959 steps, about 59K",
    "search.space": "[muDiT] §5.1.1",
    "hps.lr": "[muDiT] §5.1.2: the best of the five",
    "hps.weight_decay": "[muDiT] code",
    "hps.eps": "[muDiT] code",
    "hps.beta1": "[muDiT] code: torch's",
    "hps.beta2": "[muDiT] code: torch's",
    "hps.clip": "[muDiT] code; §5.2.2 finds that μP prefers larger ones",
    "hps.warmup_steps": "[muDiT] code: linear, then constant",
    "training.schedule.kind": "[muDiT] code",
    "training.label_dropout": "[PixArt] code",
    "training.accumulation": "[muDiT] code: 176 of the target's images on a GPU, 32 of them",
    "training.ema_decay": "[PixArt] code",
    "training.precision": "Assumption: bf16; differs from [PixArt] code, which has fp16",
    "training.activation_checkpointing": "[PixArt] code: every block",
    "training.device": "Assumption: a run of this size without a GPU is a mistake",
    "training.checkpoint_steps": "Assumption: about once in an epoch of the target",
    "training.log_steps": "Assumption: as the other recipes",
    "training.validation_steps": "Assumption: with the checkpoints",
    "sampling.method": "[muDiT] code: DPM-Solver++, second order",
    "sampling.steps": "[muDiT] code",
    "sampling.cfg_scale": "[muDiT] code",
    "sampling.cfg_channels": "[muDiT] code: the solver guides all",
    "sampling.per_class": "Assumption: a few for the report; the paper's 30,000 are of MS-COCO",
    "sampling.classes": "Assumption: captions of training images",
    "control_init": "[PixArt] code: what the original starts from",
    "seed": "[muDiT] code",
}


def pixart_sam256(data: str = "data/sam256") -> Recipe:
    """PixArt-α-μP on SA-1B: five learning rates at width 288, the best carried to PixArt-α.

    Args:
        data: Folder of cached latents and text features.
    """
    study = StudyConfig(
        folder="runs/pixart_sam256",
        data=DataConfig(source=f"latents:{data}"),
        model=ModelConfig(
            architecture="pixart", depth=28, head_dim=72, patch_size=2, init="pixart_mup"
        ),
        text=TextConfig(
            encoder="hf:DeepFloyd/t5-v1_1-xxl", max_tokens=120, features=f"{data}-text"
        ),
        parametrization=ParametrizationConfig(base_width=288),
        hps=Hyperparameters(lr=2**-10, weight_decay=0.03, eps=1e-10, clip=0.01, warmup_steps=1_000),
        training=TrainingConfig(
            label_dropout=0.1,
            accumulation=32,
            ema_decay=0.9999,
            precision="bf16",
            activation_checkpointing=True,
            device="cuda",
            log_steps=100,
            checkpoint_steps=2_000,
            validation_steps=2_000,
        ),
        proxy=TaskConfig(width=288, batch_size=1_408, steps=39_185),
        target=TaskConfig(width=1152, batch_size=5_632, steps=30 * (_IMAGES // 5_632)),
        search=SearchConfig(space={"lr": "log2(-13, -9)"}),
        sampling=SamplingConfig(
            per_class=4, classes=16, steps=20, method="dpm++", cfg_scale=4.5, cfg_channels="all"
        ),
        control_init="pixart",
        seed=43,
    )
    return Recipe(
        name="pixart_sam256",
        summary="PixArt-α on SA-1B at 256 pixels: five learning rates at width 288, 0.04B "
        "parameters, the best carried to PixArt-α, 0.61B ([muDiT] section 5.1).",
        study=study,
        sources=_SOURCES,
        data=DeclaredDataset(
            name="SA-1B with SAM-LLaVA captions, cached latents",
            num_samples=_IMAGES,
            size=32,
            channels=4,
            num_classes=_IMAGES,
            captioned=True,
            text=TextSizes(tokens=120, dim=4_096, pooled_dim=4_096),
        ),
        baseline=dataclasses.replace(
            study,
            folder="runs/pixart_sam256-sp",
            model=dataclasses.replace(study.model, init="pixart"),
            parametrization=dataclasses.replace(study.parametrization, parametrization="sp"),
            hps=dataclasses.replace(study.hps, lr=BASELINE_LR),
        ),
        prepare=(
            "mudit data latents --source captions:data/sam --size 256 --flipped false "
            f"--vae stabilityai/sd-vae-ft-ema --out {data}",
            f"mudit data text --source latents:{data} --encoder hf:DeepFloyd/t5-v1_1-xxl "
            f"--max_tokens 120 --out {data}-text",
        ),
        published=PublishedCost(
            searches=(Workload(parameters=0.04e9, batch_size=1, steps=5, trials=5),),
            target=Workload(parameters=0.61e9, batch_size=1, steps=30),
            source="[muDiT] E.3.1",
        ),
        time=("not published",),
        licences=(
            Licence(
                of="SA-1B",
                terms="Meta's research licence for the images ([muDiT] Table 6 says Apache-2.0, "
                "which is the code's)",
                source="ai.meta.com/datasets/segment-anything",
            ),
            Licence(
                of="SAM-LLaVA captions",
                terms="made by LLaVA from SA-1B: both licences apply",
                source="[PixArt]",
            ),
            SD_VAE,
            Licence(of="T5-v1.1-XXL", terms="Apache-2.0", source="its model card"),
            Licence(of="[PixArt] code", terms="Apache-2.0", source="[muDiT] Table 6"),
        ),
        expected=_EXPECTED,
        notes=(
            "Pictures are scaled so that the shorter side has 256 pixels (bilinear), cropped at "
            "the centre and never mirrored ([muDiT] code).",
            "Differs from [muDiT]: trials are ranked by the validation bank's loss; Table 2 gives "
            "the training loss, GenEval and FID, whose best lr is 2^-10, too, but for FID on MJHQ.",
            "Differs from [muDiT] code, which samples the raw weights: samples are drawn with the "
            "averaged ones.",
            "The paper's 5.5 % counts rounded sizes (0.04B and 0.61B) and epochs.",
            one_device(611e6),
        ),
    )


_EXPECTED = (
    Expected(what="best lr of the search (2^-9 diverges)", value="2^-10", source="[muDiT] Table 2"),
    Expected(
        what="training loss of the proxies at lr 2^-10, 2^-11, 2^-12, 2^-13",
        value="0.1493, 0.1494, 0.1504, 0.1536",
        source="[muDiT] Table 2",
    ),
    Expected(
        what="the target after 30 epochs: GenEval, FID-30K on MJHQ, on MS-COCO",
        value="0.26, 29.96, 25.84",
        source="[muDiT] Table 3",
    ),
    Expected(
        what="the baseline after 30 epochs: GenEval, FID-30K on MJHQ, on MS-COCO",
        value="0.15, 42.71, 37.61",
        source="[muDiT] Table 3",
    ),
)

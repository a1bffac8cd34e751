"""DiT on ImageNet at 256 pixels: section 4 of the paper."""

from __future__ import annotations

import dataclasses

from mudit.data import DeclaredDataset
from mudit.recipes.assets import IMAGENET, SD_VAE, imagenet_latents, one_device
from mudit.recipes.recipe import Expected, Licence, Recipe
from mudit.training import DataConfig, Hyperparameters, ParametrizationConfig, TrainingConfig
from mudit.tuning import (
    ModelConfig,
    SamplingConfig,
    SearchConfig,
    StudyConfig,
    TaskConfig,
    VerifyConfig,
)

_LRS = "log2(-13, -9)"  # [muDiT] §4.2
_SOURCES = {
    "model.depth": "[muDiT] §4.1: DiT-XL/2's",
    "model.head_dim": "[muDiT] §4.1: fixed; heads scale",
    "model.patch_size": "[muDiT] §4.1: DiT-XL/2's",
    "model.mlp_ratio": "[DiT] code",
    "model.init": "[muDiT] code: kaiming, only the readout zero",
    "objective.kind": "[DiT] code",
    "objective.num_timesteps": "[DiT] code",
    "objective.betas": "[DiT] code: 1e-4 to 0.02",
    "objective.learn_sigma": "[DiT] code",
    "parametrization.base_width": "[muDiT] §4.1: 4 heads",
    "parametrization.optimizer": "[muDiT] §4.1",
    "proxy.width": "[muDiT] §4.2; its others, 144 and 576, are in the grid across width",
    "proxy.batch_size": "[muDiT] §4.2",
    "proxy.steps": "[muDiT] §4.2",
    "target.width": "[muDiT] §4.3: DiT-XL/2",
    "target.batch_size": "[muDiT] §4.3",
    "target.steps": "[muDiT] §4.3",
    "search.space": "[muDiT] §4.2",
    "hps.lr": "[muDiT] §4.2: the best of the five",
    "hps.weight_decay": "[muDiT] §4.1: none",
    "hps.eps": "[DiT] code: torch's",
    "hps.beta1": "[DiT] code: torch's",
    "hps.beta2": "[DiT] code: torch's",
    "hps.clip": "[DiT] code: none",
    "hps.warmup_steps": "[DiT] code: none",
    "training.schedule.kind": "[muDiT] §4.1",
    "training.label_dropout": "[DiT] code",
    "training.accumulation": "[muDiT] E.2.4: 8 GPUs",
    "training.ema_decay": "[DiT] code",
    "training.precision": "[DiT] code",
    "training.device": "Assumption: a run of this size without a GPU is a mistake",
    "training.checkpoint_steps": "[DiT] code",
    "training.log_steps": "[DiT] code",
    "training.validation_steps": "Assumption: with the checkpoints",
    "sampling.method": "[DiT] code",
    "sampling.steps": "[DiT] code",
    "sampling.cfg_scale": "[muDiT] §4.3: no guidance",
    "sampling.cfg_channels": "[DiT] code",
    "sampling.per_class": "[muDiT] §4.1: 50,000 images; differs: 50 of each class, not drawn",
    "sampling.classes": "[muDiT] §4.1",
    "control_init": "[DiT] code: what the original DiT starts from",
}


def dit_imagenet256(data: str = "data/imagenet256") -> Recipe:
    """DiT-μP on ImageNet: five learning rates at width 288, the best carried to DiT-XL/2.

    Args:
        data: Folder of cached latents.
    """
    study = StudyConfig(
        folder="runs/dit_imagenet256",
        data=DataConfig(source=f"latents:{data}"),
        model=ModelConfig(depth=28, head_dim=72, patch_size=2, init="dit_mup"),
        parametrization=ParametrizationConfig(base_width=288),
        hps=Hyperparameters(lr=2**-10),
        training=TrainingConfig(
            label_dropout=0.1,
            accumulation=8,
            ema_decay=0.9999,
            precision="tf32",
            device="cuda",
            log_steps=100,
            checkpoint_steps=50_000,
            validation_steps=50_000,
        ),
        proxy=TaskConfig(width=288, batch_size=256, steps=200_000),
        target=TaskConfig(width=1152, batch_size=256, steps=2_400_000),
        search=SearchConfig(space={"lr": _LRS}),
        sampling=SamplingConfig(
            per_class=50,
            classes=1000,
            steps=250,
            method="ddpm",
            cfg_scale=1.0,
            cfg_channels="first_three",
        ),
        control_init="dit",
    )
    return Recipe(
        name="dit_imagenet256",
        summary="DiT on ImageNet at 256 pixels: five learning rates at width 288, the best carried "
        "to DiT-XL/2, 675M parameters ([muDiT] section 4).",
        study=study,
        sources=_SOURCES,
        data=DeclaredDataset(
            name="ImageNet, cached latents",
            num_samples=1_281_167,
            size=32,
            channels=4,
            num_classes=1000,
            flip=True,
        ),
        baseline=_baseline(study),
        grids=_grids(study),
        prepare=imagenet_latents(data, "stabilityai/sd-vae-ft-ema"),
        time=(
            "a proxy of width 288: 104 A100-hours (8 GPUs, 13 hours); all five: 520 "
            "([muDiT] E.2.4)",
            "the target: 224 A100-days ([muDiT] E.2.4)",
        ),
        licences=(
            IMAGENET,
            SD_VAE,
            Licence(
                of="the released DiT weights, to compare with",
                terms="CC BY-NC 4.0",
                source="[DiT] code, licence",
            ),
        ),
        expected=_EXPECTED,
        notes=(
            "Differs from [muDiT]: trials are ranked by the validation bank's loss, not by FID on "
            "50,000 samples.",
            "The baseline is the original DiT-XL/2: lr 1e-4 under sp, for 7M steps ([DiT]).",
            "The paper has one seed at each point of its grids; a verdict needs `--seeds 2` or "
            "more.",
            one_device(675e6),
        ),
    )


def _baseline(study: StudyConfig) -> StudyConfig:
    """The original DiT-XL/2; [muDiT] §4.1 and §4.3 for lr and steps."""
    return dataclasses.replace(
        study,
        folder="runs/dit_imagenet256-sp",
        model=dataclasses.replace(study.model, init="dit"),
        parametrization=dataclasses.replace(study.parametrization, parametrization="sp"),
        hps=dataclasses.replace(study.hps, lr=1e-4),
        target=dataclasses.replace(study.target, steps=7_000_000),
    )


def _grids(study: StudyConfig) -> tuple[VerifyConfig, ...]:
    """[muDiT] §4.2: lr across widths, batches, steps; E.2.2: φ of the output."""

    def grid(across: str, hp: str, sizes: tuple[int, ...], values: str) -> VerifyConfig:
        short = hp.partition(".")[0]
        return VerifyConfig(
            folder=f"runs/dit_imagenet256-{across}-{short}",
            data=study.data,
            model=study.model,
            parametrization=study.parametrization,
            hps=study.hps,
            training=study.training,
            across=across,  # type: ignore[arg-type]
            sizes=sizes,
            task=study.proxy,
            hp=hp,
            values=values,
            seeds=1,
            target=study.target.width if across == "width" else 0,
            control="none",
            control_init=study.control_init,
        )

    phis = "log2(-6, 6, 2)"
    return (
        grid("width", "lr", (144, 288, 576), _LRS),
        grid("batch", "lr", (128, 256, 512), _LRS),
        grid("steps", "lr", (100_000, 150_000, 200_000), _LRS),
        grid("width", "phi.output", (144, 288, 576), phis),
        grid("steps", "phi.output", (100_000, 150_000, 200_000), phis),
    )


_EXPECTED = (
    Expected(
        what="best lr at widths 144, 288, 576 (2^-9 diverges at all three)",
        value="2^-10",
        source="[muDiT] Table 7",
    ),
    Expected(
        what="best lr at batches 128, 256, 512",
        value="2^-11, 2^-10, 2^-10",
        source="[muDiT] Table 8",
    ),
    Expected(
        what="best lr at 100K, 150K, 200K steps",
        value="2^-9, 2^-10, 2^-10",
        source="[muDiT] Table 9",
    ),
    Expected(
        what="best φ of the output at widths 144, 288, 576",
        value="2^4, 2^4, 2^2; widths 288 and 576 flat from 2^-4 to 2^4, 288 diverges at 2^6",
        source="[muDiT] Table 10",
    ),
    Expected(
        what="FID-50K at width 288 for lr 2^-10, 2^-11, 2^-12, 2^-13",
        value="61.65, 63.85, 65.99, 79.17",
        source="[muDiT] Table 7",
    ),
    Expected(
        what="FID-50K of the target at 0.4M, 1.2M, 2.4M steps",
        value="18.63, 11.25, 9.44",
        source="[muDiT] Table 12",
    ),
    Expected(
        what="FID-50K of the baseline at 0.4M, 1.2M, 2.4M, 7M steps",
        value="20.38, 12.78, 10.75, 9.62",
        source="[muDiT] Table 12; 7M: [DiT]",
    ),
    Expected(
        what="steps of the baseline over those of the target to the same FID",
        value="2.9 (7M over 2.4M)",
        source="[muDiT] §4.3",
    ),
)

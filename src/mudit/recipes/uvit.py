"""U-ViT on ImageNet at 256 pixels: the paper has its theory (C.3), its authors the baseline."""

from __future__ import annotations

import dataclasses

from mudit.data import DeclaredDataset
from mudit.diffusion import ObjectiveConfig
from mudit.recipes.assets import IMAGENET, imagenet_latents, one_device
from mudit.recipes.recipe import Expected, Licence, Recipe
from mudit.training import DataConfig, Hyperparameters, ParametrizationConfig, TrainingConfig
from mudit.tuning import ModelConfig, SamplingConfig, SearchConfig, StudyConfig, TaskConfig

_VAE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_SOURCES = {
    "model.architecture": "[U-ViT] code",
    "model.depth": "[U-ViT] code: U-ViT-H/2's",
    "model.head_dim": "[U-ViT] code: U-ViT-H/2's, as DiT-XL/2's",
    "model.patch_size": "[U-ViT] code",
    "model.mlp_ratio": "[U-ViT] code",
    "model.conv": "[U-ViT] code: not at this size",
    "model.init": "Assumption: only the readout zero, as [muDiT] code does DiT",
    "objective.kind": "[U-ViT] code: noise",
    "objective.num_timesteps": "[U-ViT] code",
    "objective.betas": "[U-ViT] code: Stable Diffusion's",
    "objective.first_step": "[U-ViT] code",
    "objective.learn_sigma": "[U-ViT] code",
    "parametrization.base_width": "Assumption: as [muDiT] §4.1",
    "parametrization.optimizer": "[U-ViT] code",
    "parametrization.wd": "Assumption: as [muDiT] code does PixArt",
    "proxy.width": "Assumption: as [muDiT] §4.2",
    "proxy.batch_size": "Assumption: as [muDiT] §4.2",
    "proxy.steps": "Assumption: as [muDiT] §4.2",
    "target.width": "[U-ViT] code: U-ViT-H/2's",
    "target.batch_size": "[U-ViT] code",
    "target.steps": "[U-ViT] code",
    "search.space": "Assumption: as [muDiT] §4.2",
    "hps.lr": "Assumption: DiT's and PixArt's best, [muDiT] §5.1.2; nobody has searched it",
    "hps.weight_decay": "[U-ViT] code",
    "hps.eps": "[U-ViT] code: torch's",
    "hps.beta1": "[U-ViT] code",
    "hps.beta2": "[U-ViT] code",
    "hps.clip": "[U-ViT] code: none",
    "hps.warmup_steps": "[U-ViT] code",
    "training.schedule.kind": "[U-ViT] code",
    "training.label_dropout": "[U-ViT] code: H's; L has 0.15",
    "training.accumulation": "Assumption: 128 of the target's images at a time",
    "training.ema_decay": "[U-ViT] code",
    "training.precision": "Assumption: bf16; differs from [U-ViT] code, which has fp16",
    "training.device": "Assumption: a run of this size without a GPU is a mistake",
    "training.checkpoint_steps": "Assumption: as [DiT] code",
    "training.log_steps": "Assumption: as the other recipes",
    "training.validation_steps": "Assumption: with the checkpoints",
    "sampling.method": "[U-ViT] code: DPM-Solver, predicting data",
    "sampling.steps": "[U-ViT] code",
    "sampling.cfg_scale": "[U-ViT] code: its 0.4 is added to 1",
    "sampling.per_class": "[U-ViT] code: 50,000 images",
    "sampling.classes": "[U-ViT] code",
    "control_init": "[U-ViT] code: what the original starts from",
}


def uvit_imagenet256(data: str = "data/imagenet256-sd") -> Recipe:
    """U-ViT-μP on ImageNet: five learning rates at width 288, the best carried to U-ViT-H/2.

    Args:
        data: Folder of cached latents.
    """
    study = StudyConfig(
        folder="runs/uvit_imagenet256",
        data=DataConfig(source=f"latents:{data}"),
        model=ModelConfig(
            architecture="uvit", depth=28, head_dim=72, patch_size=2, conv=False, init="uvit_mup"
        ),
        objective=ObjectiveConfig(betas="scaled_linear", first_step=1, learn_sigma=False),
        parametrization=ParametrizationConfig(base_width=288),
        hps=Hyperparameters(
            lr=2**-10, weight_decay=0.03, beta1=0.99, beta2=0.99, warmup_steps=5_000
        ),
        training=TrainingConfig(
            label_dropout=0.1,
            accumulation=8,
            ema_decay=0.9999,
            precision="bf16",
            device="cuda",
            log_steps=100,
            checkpoint_steps=50_000,
            validation_steps=50_000,
        ),
        proxy=TaskConfig(width=288, batch_size=256, steps=200_000),
        target=TaskConfig(width=1152, batch_size=1_024, steps=500_000),
        search=SearchConfig(space={"lr": "log2(-13, -9)"}),
        sampling=SamplingConfig(
            per_class=50, classes=1000, steps=50, method="dpm++", cfg_scale=1.4
        ),
        control_init="uvit",
    )
    return Recipe(
        name="uvit_imagenet256",
        summary="U-ViT on ImageNet at 256 pixels: five learning rates at width 288, the best "
        "carried to U-ViT-H/2, 501M parameters. [muDiT] proves that U-ViT has this μP (C.3) and "
        "trains none.",
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
        baseline=dataclasses.replace(
            study,
            folder="runs/uvit_imagenet256-sp",
            model=dataclasses.replace(study.model, init="uvit"),
            parametrization=dataclasses.replace(study.parametrization, parametrization="sp"),
            hps=dataclasses.replace(study.hps, lr=2e-4),  # [U-ViT] code
        ),
        prepare=imagenet_latents(data, _VAE),
        time=("not known: nobody has run it",),
        licences=(
            IMAGENET,
            Licence(
                of=f"{_VAE}, the VAE of Stable Diffusion 1",
                terms="CreativeML OpenRAIL-M",
                source="its model card",
            ),
            Licence(of="[U-ViT] code", terms="MIT", source="[U-ViT] code, licence"),
        ),
        expected=(
            Expected(
                what="FID-50K of the baseline, guided", value="2.29", source="[U-ViT], abstract"
            ),
        ),
        notes=(
            "The baseline is U-ViT-H/2 as its authors train it, under sp: lr 2e-4.",
            "Its latents are those of Stable Diffusion's own VAE, scaled by 0.18215; "
            "DiT's are of another.",
            one_device(501e6),
        ),
    )

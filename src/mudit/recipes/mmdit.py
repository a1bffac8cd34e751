"""MMDiT of 18B parameters: section 5.2 of the paper. Its data are private."""

from __future__ import annotations

import dataclasses

from mudit.analysis import Workload
from mudit.data import DeclaredDataset, TextSizes
from mudit.diffusion import ObjectiveConfig
from mudit.recipes.assets import one_device
from mudit.recipes.recipe import Expected, Licence, PublishedCost, Recipe
from mudit.training import (
    DataConfig,
    Hyperparameters,
    ParametrizationConfig,
    RepaConfig,
    TextConfig,
    TrainingConfig,
)
from mudit.tuning import (
    PAPER_SPACE,
    FinalsConfig,
    ModelConfig,
    SamplingConfig,
    SearchConfig,
    StudyConfig,
    TaskConfig,
)

_IMAGES = 820_000_000  # [muDiT] §5.2.1
# [muDiT] Table 15: 1e-4, 2e-4, 2.5e-4, 4e-4, 8e-4, over the search's best, 2.5e-4.
_FINAL_LRS = "grid(0.4, 0.8, 1, 1.6, 3.2)"

_SOURCES = {
    "model.architecture": "[muDiT] §5.2.1",
    "model.depth": "[muDiT] §5.2.1",
    "model.head_dim": "Assumption: as Stable Diffusion 3; not stated",
    "model.patch_size": "Assumption: as Stable Diffusion 3; not stated",
    "model.mlp_ratio": "Assumption: as Stable Diffusion 3; not stated",
    "model.mlp": "Assumption: three matrices of 4 n, which give 18.1B and 0.18B; with two of them, "
    "as in [SD3], the stated widths and depth give 14.9B and 0.15B",
    "model.init": "Assumption: as [muDiT] code does DiT; not published",
    "objective.kind": "[muDiT] §5.2.1",
    "objective.learn_sigma": "[SD3] code: a velocity alone",
    "objective.time_law": "Assumption: as [SD3]; not stated",
    "objective.logit_mean": "Assumption: as [SD3]; not stated",
    "objective.logit_std": "Assumption: as [SD3]; not stated",
    "objective.shift": "Assumption: none at 256 pixels; not stated",
    "objective.time_scale": "Assumption: as [SD3] code; not stated",
    "text.encoder": "Assumption: not stated; T5-v1.1-XXL is one of the three of [SD3]",
    "text.max_tokens": "Assumption: as [SD3], 77 + 77; not stated",
    "text.features": "Assumption: encoded once, beside the latents",
    "parametrization.base_width": "[muDiT] §5.2.1; it is not the proxy's",
    "parametrization.optimizer": "[muDiT] §5.2.1",
    "parametrization.wd": "Assumption: as PixArt's; not stated",
    "parametrization.eps_rule": "Assumption: as PixArt's; not stated",
    "proxy.width": "[muDiT] §5.2.1",
    "proxy.batch_size": "[muDiT] §5.2.1",
    "proxy.steps": "[muDiT] §5.2.1",
    "target.width": "[muDiT] §5.2.1",
    "target.batch_size": "[muDiT] §5.2.1",
    "target.steps": "[muDiT] §5.2.1",
    "search.method": "[muDiT] §5.2.1",
    "search.trials": "[muDiT] §5.2.1",
    "search.space": "[muDiT] §5.2.1; Assumption: even in the logarithm but for the REPA weight, "
    "since the best values lie at the geometric centres",
    "search.finals.steps": "[muDiT] E.4.2",
    "search.finals.best": "[muDiT] E.4.2",
    "search.finals.factors": "[muDiT] Table 15, over the search's best lr",
    "hps.lr": "[muDiT] §5.2.2",
    "hps.clip": "[muDiT] §5.2.2",
    "hps.loss_weight.repa": "[muDiT] §5.2.2",
    "hps.warmup_steps": "[muDiT] §5.2.2: has next to no effect",
    "hps.weight_decay": "Assumption: none; not stated",
    "hps.eps": "Assumption: torch's; not stated",
    "hps.beta1": "Assumption: torch's; not stated",
    "hps.beta2": "Assumption: torch's; not stated",
    "repa.encoder": "Assumption: DINOv2 ViT-B/14 as [REPA]; not stated",
    "repa.block": "Assumption: 0, at the same share of the depth as [REPA], block 5 of 16; "
    "not stated",
    "repa.hidden": "[REPA] code",
    "training.schedule.kind": "[muDiT] §5.2.1",
    "training.label_dropout": "Assumption: as PixArt; not stated",
    "training.accumulation": "Assumption: 64 images at a time; not stated",
    "training.ema_decay": "Assumption: as DiT; not stated",
    "training.precision": "Assumption: not stated",
    "training.activation_checkpointing": "Assumption: not stated",
    "training.device": "Assumption: a run of this size without a GPU is a mistake",
    "training.checkpoint_steps": "Assumption: not stated",
    "training.log_steps": "Assumption: as the other recipes",
    "training.validation_steps": "Assumption: not stated",
    "sampling.method": "Assumption: as [REPA] code; not stated",
    "sampling.steps": "Assumption: as [REPA] code; not stated",
    "sampling.cfg_scale": "Assumption: as [SD3] code; not stated",
    "sampling.per_class": "[muDiT] E.4.5: three of each prompt",
    "sampling.classes": "[muDiT] E.4.5: 150 prompts, which are private; differs: captions of "
    "training images",
}


def mmdit_18b(data: str = "data/t2i256") -> Recipe:
    """MMDiT-μP-18B: 80 random trials over four HPs at width 512, finals, the best to width 5120.

    Args:
        data: Folder of cached latents and text features.
    """
    study = StudyConfig(
        folder="runs/mmdit_18b",
        data=DataConfig(source=f"latents:{data}"),
        model=ModelConfig(
            architecture="mmdit",
            depth=16,
            head_dim=64,
            patch_size=2,
            mlp="swiglu",
            init="mmdit_mup",
        ),
        objective=ObjectiveConfig(kind="flow", learn_sigma=False, time_law="logit_normal"),
        text=TextConfig(encoder="hf:google/t5-v1_1-xxl", max_tokens=154, features=f"{data}-text"),
        parametrization=ParametrizationConfig(base_width=1920),
        hps=Hyperparameters(lr=2.5e-4, clip=1.0, warmup_steps=1_000, loss_weight={"repa": 0.5}),
        repa=RepaConfig(encoder="dinov2:facebook/dinov2-base", hidden=2048),
        training=TrainingConfig(
            label_dropout=0.1,
            accumulation=64,
            ema_decay=0.9999,
            precision="bf16",
            activation_checkpointing=True,
            device="cuda",
            log_steps=100,
            checkpoint_steps=2_000,
            validation_steps=10_000,
        ),
        proxy=TaskConfig(width=512, batch_size=4_096, steps=30_000),
        target=TaskConfig(width=5120, batch_size=4_096, steps=200_000),
        search=SearchConfig(
            method="random",
            trials=80,
            space=dict(PAPER_SPACE),
            finals=FinalsConfig(steps=100_000, best=1, factors={"lr": _FINAL_LRS}),
        ),
        sampling=SamplingConfig(per_class=3, classes=150, steps=50, method="euler", cfg_scale=4.5),
    )
    return Recipe(
        name="mmdit_18b",
        summary="MMDiT of 18B parameters for text and images at 256 pixels: 80 random trials over "
        "four HPs at width 512, 0.18B, then five longer runs, the best carried to width 5120 "
        "([muDiT] section 5.2).",
        study=study,
        sources=_SOURCES,
        data=DeclaredDataset(
            name="820M pairs of image and text, cached latents",
            num_samples=_IMAGES,
            size=32,
            channels=16,
            num_classes=_IMAGES,
            captioned=True,
            text=TextSizes(tokens=154, dim=4_096, pooled_dim=2_048),
        ),
        baseline=dataclasses.replace(
            study,
            folder="runs/mmdit_18b-sp",
            model=dataclasses.replace(study.model, init="mmdit"),
            parametrization=dataclasses.replace(study.parametrization, parametrization="sp"),
            # [muDiT] E.4.1: by experts, about five full trainings.
            hps=dataclasses.replace(study.hps, lr=2e-4, clip=0.1),
        ),
        prepare=(
            "mudit data latents --source 'shards:data/t2i/*.tar' --size 256 --flipped false "
            "--keep_images true --vae stabilityai/stable-diffusion-3-medium-diffusers "
            f"--out {data}",
            f"mudit data text --source latents:{data} --encoder hf:google/t5-v1_1-xxl "
            f"--max_tokens 154 --out {data}-text",
        ),
        published=PublishedCost(
            searches=(
                Workload(parameters=0.18e9, batch_size=4_096, steps=30_000, trials=80),
                Workload(parameters=0.18e9, batch_size=4_096, steps=100_000, trials=5),
            ),
            target=Workload(parameters=18e9, batch_size=4_096, steps=200_000),
            source="[muDiT] E.4.3",
            human_runs=5,
        ),
        time=("not published",),
        licences=(
            Licence(
                of="the paper's 820M pairs of image and text",
                terms="private: bring your own",
                source="[muDiT] §5.2.1",
            ),
            Licence(
                of="a VAE of 16 channels, e.g. Stable Diffusion 3's",
                terms="Stability AI Community License",
                source="its model card",
            ),
            Licence(of="T5-v1.1-XXL", terms="Apache-2.0", source="its model card"),
            Licence(of="DINOv2", terms="Apache-2.0", source="facebookresearch/dinov2"),
        ),
        expected=_EXPECTED,
        notes=(
            "Data are one pass over 820M pairs: nothing is seen twice ([muDiT] §5.2.1).",
            "Sizes of text features are those of [SD3]: 154 tokens of 4,096, and a pooled vector "
            "of 2,048. With T5 alone the pooled vector has 4,096.",
            "REPA's encoder sees images, so they are kept beside the latents.",
            "The baseline is the experts' under sp: lr 2e-4, clip 0.1, REPA weight 0.5, warm-up "
            "1,000 steps ([muDiT] E.4.1). Assumption: it starts as DiT does; not stated.",
            "The paper ranks trials by training loss, which on a single pass is what the "
            "validation bank estimates.",
            one_device(18.15e9, beyond=True),
        ),
    )


_EXPECTED = (
    Expected(what="best base lr", value="2.5e-4", source="[muDiT] §5.2.2"),
    Expected(what="best clip, REPA weight", value="1, about 0.5", source="[muDiT] §5.2.2"),
    Expected(
        what="training loss of the finals at lr 1e-4, 2e-4, 2.5e-4, 4e-4, 8e-4",
        value="0.185028, 0.184505, 0.184423, 0.184436, 0.185562",
        source="[muDiT] Table 15",
    ),
    Expected(
        what="the target's training loss",
        value="below the baseline's from 15K steps on; the main text says from 50K",
        source="[muDiT] E.4.4, Figure 6",
    ),
    Expected(
        what="human alignment of the target, of the baseline",
        value="0.715, 0.703",
        source="[muDiT] Table 4",
    ),
)

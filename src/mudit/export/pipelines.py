"""Folders that the pipelines of diffusers load: transformer, scheduler, VAE and texts.

What a pipeline cannot do as `mudit sample` does is refused here, never written: a folder that loads
samples what the run would have sampled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file

from mudit.diffusion import ObjectiveKind
from mudit.errors import UsageError
from mudit.export.autoencoders import write_vae
from mudit.export.extras import diffusers
from mudit.export.schedulers import scheduler_for
from mudit.export.text_encoders import write_text_encoder
from mudit.models import DiTConfig, ModelConfig, PixArtConfig, UViTConfig
from mudit.models.layouts import export_checkpoint
from mudit.training import RunConfig, Trained

_COMPONENTS = Path(__file__).with_name("components")
_NULL_CLASS = 1000  # DiTPipeline's
_MOST_PROMPTS = 64  # captions whose features go with the folder
_NOTHING = [None, None]


class Pipeline(NamedTuple):
    """A pipeline of diffusers, and what its folder holds beside vae, scheduler and transformer.

    Attributes:
        name: Its class.
        transformer: Library and class of the transformer; a file of `components`, or diffusers.
        kinds: Objectives whose times it can tell a network.
        absent: Its parts that are left empty: texts are passed as features.
        ignores_shift: It decodes latents without the VAE's `shift_factor`.
        side_multiple: Images have so many pixels a side, or a multiple.
    """

    name: str
    transformer: tuple[str, str]
    kinds: tuple[ObjectiveKind, ...]
    absent: tuple[str, ...] = ()
    ignores_shift: bool = True
    side_multiple: int = 1

    @property
    def runs_code(self) -> bool:
        """Whether it is loaded with `trust_remote_code=True`."""
        return self.transformer[0] != "diffusers"


_DIT = Pipeline("DiTPipeline", ("mudit_dit", "MuDiT"), ("ddpm",))
_PIXART = Pipeline(
    "PixArtAlphaPipeline",
    ("diffusers", "PixArtTransformer2DModel"),
    ("ddpm",),
    absent=("text_encoder", "tokenizer"),
    side_multiple=8,
)
_SD3 = Pipeline(
    "StableDiffusion3Pipeline",
    ("mudit_sd3", "MuSD3"),
    ("flow", "ddpm"),
    absent=tuple(
        f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")
    ),
    ignores_shift=False,
)


def pipeline_of(config: RunConfig) -> Pipeline:
    """The pipeline that samples such a run.

    Raises:
        UsageError: diffusers has none, or it would not sample as `mudit sample` does.
    """
    model = config.model
    if isinstance(model, UViTConfig):
        raise UsageError(
            "diffusers has no counterpart of U-ViT: neither a transformer with its long skips nor "
            "a pipeline. Use --to authors, which writes the checkpoint of its authors' code."
        )
    pipeline = _for_model(model)
    kind = config.objective.kind
    if kind not in pipeline.kinds:
        raise UsageError(
            f"objective.kind is {kind}; diffusers' {pipeline.name} tells a network whole steps "
            f"of noise alone, so it samples {' and '.join(pipeline.kinds)}. Sample the run with "
            "`mudit sample`, or use --to authors."
        )
    if isinstance(model, DiTConfig) and model.num_classes > _NULL_CLASS:
        raise UsageError(
            f"the model has {model.num_classes} classes; DiTPipeline takes class {_NULL_CLASS} "
            f'for "nothing said", so it has at most {_NULL_CLASS}. Use --to authors.'
        )
    return pipeline


def write_pipeline(
    trained: Trained,
    folder: Path,
    *,
    vae: str = "",
    text_encoder: str = "",
    captions: Sequence[str] = (),
    class_names: Sequence[str] = (),
) -> Pipeline:
    """Write a folder that a pipeline of diffusers loads.

    Args:
        trained: A run.
        folder: Exists, and is empty.
        vae: For a run on latents, the AutoencoderKL: a folder, or a name on the hub.
        text_encoder: For a PixArt, a folder with the T5 encoder that the run's texts were encoded
            by; empty: texts are passed as features.
        captions: Of a text-conditioned model: the texts of `trained.conditioning`, by number.
        class_names: Of a DiT's classes, for the pipeline's `get_label_ids`.

    Raises:
        DataError: The VAE's or text encoder's folder is damaged.
        EnvironmentFailure: An extra is not installed, or the hub cannot be reached.
        UsageError: It would not sample as `mudit sample` does; the message says why.
    """
    config = trained.config
    pipeline = pipeline_of(config)
    library = diffusers()
    scheduler = scheduler_for(config.objective)
    side = write_vae(config, folder / "vae", vae, ignores_shift=pipeline.ignores_shift)
    if side % pipeline.side_multiple:
        raise UsageError(
            f"the run's images have {side} pixels a side; diffusers' {pipeline.name} makes "
            f"multiples of {pipeline.side_multiple} alone. Use --to authors."
        )
    export_checkpoint(trained.model, folder / "transformer", layout="diffusers")
    if pipeline.runs_code:
        shutil.copy(_COMPONENTS / f"{pipeline.transformer[0]}.py", folder / "transformer")
    scheduler.save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {
        "_class_name": pipeline.name,
        "_diffusers_version": library.__version__,
        "transformer": list(pipeline.transformer),
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", type(scheduler).__name__],
        **dict.fromkeys(pipeline.absent, _NOTHING),
    }
    if text_encoder:
        index |= write_text_encoder(trained, folder, Path(text_encoder), captions)
    if isinstance(config.model, DiTConfig):
        index["id2label"] = {str(number): name for number, name in enumerate(class_names)}
    else:
        _write_prompts(trained, folder, list(captions[:_MOST_PROMPTS]))
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    (folder / "model_index.json").write_text(text, encoding="utf-8")
    return pipeline


def _for_model(model: ModelConfig) -> Pipeline:
    if isinstance(model, DiTConfig):
        return _DIT
    return _PIXART if isinstance(model, PixArtConfig) else _SD3


def _write_prompts(trained: Trained, folder: Path, captions: list[str]) -> None:
    """What the model was told of its captions, and of nothing, as its pipeline takes it."""
    tables = trained.conditioning.tables
    assert tables is not None
    names = ("prompt_embeds", "prompt_attention_mask", "pooled_prompt_embeds")
    tensors = {}
    for name, table in zip(names, tables):
        if name == "prompt_attention_mask" and not isinstance(trained.config.model, PixArtConfig):
            continue  # StableDiffusion3Pipeline has no masks; padding is 0
        table = table.cpu().long() if name == "prompt_attention_mask" else table.cpu()
        tensors[name] = table[: len(captions)].contiguous()
        negative = name.replace("pooled_", "negative_pooled_", 1)
        negative = negative if negative != name else f"negative_{name}"
        tensors[negative] = table[-1:].contiguous()
    save_file(tensors, folder / "prompts.safetensors", metadata={"format": "pt"})
    (folder / "prompts.json").write_text(
        json.dumps(captions, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )

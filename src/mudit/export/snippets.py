"""The lines of Python that sample an exported folder, and what has to be said of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mudit.export.pipelines import Pipeline
from mudit.models import is_text_conditioned
from mudit.training import RunConfig

_STEPS = 20
_LINE = 100  # characters
_ENCODERS = (
    'encoders = [f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")]'
)
_CODE = {
    "DiTPipeline": """\
images = pipeline(
    class_labels=[0],
    guidance_scale=1.5,
    num_inference_steps={steps},
    generator=torch.Generator().manual_seed(0),
).images""",
    "PixArtAlphaPipeline": """\
number = 0  # of a caption in prompts.json
texts = load_file(f"{{folder}}/prompts.safetensors")
told = {{name: rows if "negative" in name else rows[[number]] for name, rows in texts.items()}}
images = pipeline(
    negative_prompt=None,
    **told,
    guidance_scale=1.5,
    num_inference_steps={steps},
    generator=torch.Generator().manual_seed(0),
    use_resolution_binning=False,
).images""",
    "StableDiffusion3Pipeline": """\
number = 0  # of a caption in prompts.json
texts = load_file(f"{{folder}}/prompts.safetensors")
told = {{name: rows if "negative" in name else rows[[number]] for name, rows in texts.items()}}
images = pipeline(
    **told,
    guidance_scale=1.5,
    {times},
    generator=torch.Generator().manual_seed(0),
).images""",
}
_RUNS_CODE = {
    "mudit_dit": (
        "`trust_remote_code=True` loads `transformer/mudit_dit.py`, {lines} lines: the stock class "
        'with the timestep\'s frequencies and the class for "nothing said" as they were in '
        "training. DiTTransformer2DModel itself loads the weights, but its images differ."
    ),
    "mudit_sd3": (
        "`trust_remote_code=True` loads `transformer/mudit_sd3.py`, {lines} lines: the stock class "
        "that does not attend to the padding of a text, as in training. SD3Transformer2DModel "
        "itself loads the weights, but its images differ wherever a text is padded."
    ),
}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an exported folder is sampled.

    Attributes:
        text: Markdown, with the code.
        about: What the folder is, in a sentence.
        library: The hub's `library_name`; empty: none that it knows.
    """

    text: str
    about: str
    library: str = ""


def pipeline_sampling(
    config: RunConfig, pipeline: Pipeline, *, where: str, is_on_hub: bool, code_lines: int = 0
) -> Sampling:
    """How a folder for diffusers is sampled.

    Args:
        config: The run's.
        pipeline: That loads it.
        where: The folder, or the name of a repository.
        is_on_hub: Which of the two it is.
        code_lines: Of the file that is loaded with the transformer.
    """
    is_text = is_text_conditioned(config.model)
    is_flow = config.objective.kind == "flow"
    times = (
        f"sigmas=[1 - step / {_STEPS} for step in range({_STEPS})]"
        if is_flow
        else f"num_inference_steps={_STEPS}"
    )
    imports = ["import torch", f"from diffusers import {pipeline.name}"]
    if is_on_hub:
        imports.append("from huggingface_hub import snapshot_download")
    if is_text:
        imports.append("from safetensors.torch import load_file")
    quoted = json.dumps(where, ensure_ascii=False)
    folder = f"folder = snapshot_download({quoted})" if is_on_hub else f"folder = {quoted}"
    options = ["folder"]
    if pipeline.runs_code:
        options.append("trust_remote_code=True")
    if pipeline.name == "StableDiffusion3Pipeline":
        imports.append(f"\n{_ENCODERS}")
        options.append("**dict.fromkeys(encoders)")
    load = f"pipeline = {pipeline.name}.from_pretrained({', '.join(options)})"
    if len(load) > _LINE:
        lines = "".join(f"    {option},\n" for option in options)
        load = f"pipeline = {pipeline.name}.from_pretrained(\n{lines})"
    call = _CODE[pipeline.name].format(steps=_STEPS, times=times)
    code = "\n".join([*imports, "", folder, load, call, 'images[0].save("sample.png")'])
    method = "euler" if is_flow else "dpm++"
    notes = [
        f"From the same noise it makes the same images as `mudit sample --method {method}`, up to "
        "rounding."
    ]
    if is_flow:
        notes.append(
            "Give `sigmas` as above: from `num_inference_steps` alone the scheduler makes other "
            "steps."
        )
    if is_text:
        notes.append(
            "`prompts.safetensors` has the features of the captions in `prompts.json` as the model "
            'is told of them, and those of "nothing said".'
        )
    if pipeline.runs_code:
        notes.append(_RUNS_CODE[pipeline.transformer[0]].format(lines=code_lines))
    if not config.data.source.startswith("latents:"):
        notes.append(
            "The model makes pixels: `vae/` is an AutoencoderKL that changes nothing, in float32."
        )
    return Sampling(
        text=f"```python\n{code}\n```\n\n{' '.join(notes)}",
        about=f"This folder is for diffusers' `{pipeline.name}`.",
        library="diffusers",
    )


def checkpoint_sampling(file: str) -> Sampling:
    """How a checkpoint of the authors' code is used."""
    return Sampling(
        text=(
            f"`{file}` is a state dict as the code of the architecture's authors names it. Build "
            "the model there with the sizes in `mudit/config.json`, and load it."
        ),
        about="This is a checkpoint for the code of the architecture's authors.",
    )

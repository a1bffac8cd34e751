"""A finished run as a folder that others can use: weights, model card, config and plan."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from mudit.data import check_prompts
from mudit.errors import DataError, MuditError
from mudit.export.card import CardFacts, model_card
from mudit.export.folder import fresh_folder, require_own
from mudit.export.hub import check_repository, push_folder
from mudit.export.pipelines import pipeline_of, write_pipeline
from mudit.export.snippets import Sampling, checkpoint_sampling, pipeline_sampling
from mudit.models import DiTConfig, MMDiTConfig, PixArtConfig, builder
from mudit.models.layouts import export_checkpoint
from mudit.parametrization import load_plan
from mudit.records import TrialRecord, ValidationRecord, read_records
from mudit.training import (
    RunConfig,
    load_trained,
    load_weights,
    open_splits,
    read_config,
    read_trial,
)

Layout: TypeAlias = Literal["diffusers", "authors"]


def export_run(
    run: Path,
    out: Path,
    *,
    to: Layout = "diffusers",
    vae: str = "",
    text_encoder: str = "",
    prompts: Sequence[str] = (),
    name: str = "",
    license: str = "",
    data_license: str = "",
    command: str = "",
    made_by: str = "mudit",
    push_to: str = "",
    public: bool = False,
) -> str:
    """Write a finished run's averaged weights as a folder for others, with a model card.

    Args:
        run: The run's folder.
        out: The folder to make; one that an export made is replaced as a whole.
        to: `diffusers`, a folder that a pipeline loads; or `authors`, a checkpoint for the code of
            the architecture's authors.
        vae: For a run on latents, the AutoencoderKL that they were encoded by.
        text_encoder: Where the encoder of the run's texts is now, a folder or `hf:` and a name: it
            encodes the prompts. Of a PixArt, a folder of T5 goes along.
        prompts: Texts whose features go with a pipeline; empty: the captions of the run's classes,
            if it has some.
        name: The model's, for the card; empty: the folder's.
        license: Of the weights, as the hub spells it; empty: not stated.
        data_license: Of the training data; empty: unknown, and the card says so.
        command: What made it, for the card.
        made_by: The program and its version, for the card.
        push_to: A repository on the Hugging Face hub, `user/name`; empty: none.
        public: Whether a new repository can be seen by all.

    Returns:
        Where it is: `out`, or the repository's address.

    Raises:
        DataError: There is no finished run, it diverged, or files are damaged.
        EnvironmentFailure: An extra is not installed, the folder cannot be written, or the hub
            cannot be reached.
        UsageError: What the library cannot do as `mudit sample` does, `out` holds something else,
            or options do not fit the run.
    """
    check_prompts(prompts)
    require_own(out)
    if push_to:
        check_repository(push_to)
    trial = _trial(run)
    config = read_config(RunConfig, run / "config.json")
    if to == "diffusers":
        pipeline_of(config)  # before a text encoder is asked for features
        where_now = text_encoder if prompts and not _is_pipelines(text_encoder) else ""
        trained = load_trained(run, device="cpu", prompts=prompts, text_encoder=where_now)
        if where_now and not isinstance(config.model, PixArtConfig):
            text_encoder = ""  # whose pipeline has no place for it
    with fresh_folder(out) as folder:
        where = push_to or out.as_posix()
        if to == "diffusers":
            pipeline = write_pipeline(
                trained,
                folder,
                vae=vae,
                text_encoder=text_encoder.removeprefix("hf:"),
                captions=prompts or config.captions,
                class_names=_class_names(config),
            )
            code = folder / "transformer" / f"{pipeline.transformer[0]}.py"
            sampling = pipeline_sampling(
                config,
                pipeline,
                where=where,
                is_on_hub=bool(push_to),
                code_lines=len(code.read_text().splitlines()) if pipeline.runs_code else 0,
            )
        else:
            sampling = _write_checkpoint(config, run, folder)
        _keep(run, folder)
        rows = [
            row for row in read_records(run / "records.jsonl") if isinstance(row, ValidationRecord)
        ]
        facts = CardFacts(
            title=name or (push_to or out.resolve().name).rpartition("/")[2],
            license=license,
            data_license=data_license,
            command=command,
            made_by=made_by,
        )
        plan = load_plan(run / "plan.json")
        text = model_card(config, plan, trial, rows, sampling, facts)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return push_folder(out, push_to, public=public) if push_to else str(out)


def _trial(run: Path) -> TrialRecord:
    path = run / "trial.json"
    if not path.exists():
        raise DataError(f"{run} holds no finished run: there is no trial.json in it.")
    trial = read_trial(path)
    if trial.status != "complete":
        ended = f"diverged at step {trial.diverged_step}" if trial.diverged_step else trial.status
        raise DataError(
            f"the run in {run} is not complete: {ended}. Export a run that went to its end."
        )
    return trial


def _is_pipelines(text_encoder: str) -> bool:
    """Whether encoder and tokenizer lie apart in a folder, which is no `text.encoder` of a run."""
    return (Path(text_encoder.removeprefix("hf:")).expanduser() / "text_encoder").is_dir()


def _write_checkpoint(config: RunConfig, run: Path, folder: Path) -> Sampling:
    model = builder(config.model)(config.model.width)
    load_weights(model, run / "ema.safetensors")
    # [SD3] code reads safetensors, the others what torch.save writes.
    file = f"model.{'safetensors' if isinstance(config.model, MMDiTConfig) else 'pth'}"
    export_checkpoint(model, folder / file, layout="original")
    return checkpoint_sampling(file)


def _class_names(config: RunConfig) -> list[str]:
    """A DiT's classes by the names that the data have, or by numbers where the data are gone."""
    if not isinstance(config.model, DiTConfig):
        return []
    numbers = [str(number) for number in range(config.model.num_classes)]
    try:
        names = list(open_splits(config.data).train.class_names)
    except (MuditError, OSError):
        return numbers
    return names if len(names) == len(numbers) else numbers


def _keep(run: Path, folder: Path) -> None:
    (folder / "mudit").mkdir()
    for name in ("config.json", "plan.json", "trial.json"):
        shutil.copy(run / name, folder / "mudit")

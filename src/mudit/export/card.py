"""The model card: what the model is, how it was made, and what is not known about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mudit.export.extras import huggingface_hub
from mudit.export.snippets import Sampling
from mudit.models import is_text_conditioned
from mudit.parametrization import Plan, PlanRow
from mudit.records import TrialRecord, ValidationRecord
from mudit.training import RunConfig

_NAMES = {"DiTConfig": "DiT", "UViTConfig": "U-ViT", "PixArtConfig": "PixArt-α"} | {
    "MMDiTConfig": "MMDiT"
}
_OBJECTIVES = {
    "ddpm": "noise prediction on discrete steps (DDPM)",
    "flow": "rectified flow, velocity prediction",
    "vp_sde": "noise prediction in continuous time (VP-SDE)",
}
_CITATION = """\
```bibtex
@article{zheng2025scaling,
  title   = {Scaling Diffusion Transformers Efficiently via {\\mu}P},
  author  = {Zheng, Chenyu and Zhang, Xinyu and Wang, Rongzhen and Huang, Wei and Tian, Zhi and
             Huang, Weilin and Zhu, Jun and Li, Chongxuan},
  journal = {arXiv preprint arXiv:2505.15270},
  year    = {2025}
}
```"""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a model card says beside what the run's files say.

    Attributes:
        title: The model's name.
        license: Of the weights, as the hub spells it, e.g. `mit`; empty: not stated.
        data_license: Of the training data; empty: unknown.
        command: The command that exported it.
        made_by: The program and its version.
    """

    title: str
    license: str = ""
    data_license: str = ""
    command: str = ""
    made_by: str = "mudit"


def model_card(
    config: RunConfig,
    plan: Plan,
    trial: TrialRecord,
    validation: Iterable[ValidationRecord],
    sampling: Sampling,
    facts: CardFacts,
) -> str:
    """The text of README.md, with the metadata that the hub reads.

    Args:
        config: The run's.
        plan: The run's.
        trial: How it ended.
        validation: Its rows of the validation bank; the last of each kind of weights counts.
        sampling: How the folder is sampled.
        facts: What only the user knows.

    Raises:
        EnvironmentFailure: huggingface_hub is not installed.
    """
    parts = [
        f"---\n{_metadata(config, sampling, facts)}---",
        f"# {facts.title}",
        _about(config, trial, sampling),
        "## How to sample",
        sampling.text,
        "## Parametrization",
        _parametrization(plan),
        "## Base hyperparameters",
        _table(("base HP", "value"), [(k, f"{v:.6g}") for k, v in trial.hps.items()]),
        _training(config, trial),
        "## Metrics",
        _metrics(config, validation),
        "## Training data",
        _data(config, facts),
        "## Intended use, risks and limitations",
        _risks(config),
        "## How it was made",
        _made(facts),
        "## Citation",
        _CITATION,
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(config: RunConfig, sampling: Sampling, facts: CardFacts) -> str:
    name = _NAMES[type(config.model).__name__]
    tag = "text-to-image" if is_text_conditioned(config.model) else "unconditional-image-generation"
    data = huggingface_hub().ModelCardData(
        license=facts.license or None,
        library_name=sampling.library or None,
        pipeline_tag=tag,
        tags=["mudit", config.parametrization.parametrization, name.lower(), "diffusion"],
    )
    return f"{data.to_yaml()}\n"


def _about(config: RunConfig, trial: TrialRecord, sampling: Sampling) -> str:
    model = config.model
    told = "a text" if is_text_conditioned(config.model) else "a class"
    return (
        f"A {_NAMES[type(model).__name__]} of width {model.width} ({model.depth} blocks, "
        f"{model.num_heads} heads of {model.head_dim}; {trial.parameters:,} parameters) that makes "
        f"{model.in_channels} x {model.input_size} x {model.input_size} "
        f"{'latents' if _is_latent(config) else 'pixels'} from noise and {told}. Its objective is "
        f"{_OBJECTIVES[config.objective.kind]}. {sampling.about}"
    )


def _parametrization(plan: Plan) -> str:
    options = plan.options
    rows = [
        (role, kind, str(len(group)), *(_span(row[n] for row in group) for n in range(5)))
        for (role, kind), group in _by_role(plan.rows).items()
    ]
    what = (
        f"Trained in the maximal update parametrization (μP) with base width {plan.base_width}: "
        "base HPs that are good at that width are meant to be good at this one."
        if options.parametrization == "mup"
        else "Trained in the standard parametrization (sp): the control."
    )
    return (
        f"{what} The optimizer is {options.optimizer}, weight decay by the rule "
        f"`{options.wd}`, eps by the rule `{options.eps_rule}`. Multipliers of the base values, "
        "over all tensors of a role and kind:\n\n"
        + _table(("role", "kind", "tensors", "lr", "wd", "eps", "clip", "initial scale"), rows)
        + "\n\nAll of them acted in training alone. The weights are vanilla: nothing has to be "
        "multiplied when they are used. `mudit/plan.json` has a row for each tensor."
    )


def _by_role(rows: Iterable[PlanRow]) -> dict[tuple[str, str], list[tuple[float, ...]]]:
    groups: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for row in rows:
        values = (row.lr, row.weight_decay, row.eps, row.clip, row.init_scale)
        groups.setdefault((row.role, row.kind), []).append(values)
    return dict(sorted(groups.items()))


def _span(values: Iterable[float]) -> str:
    numbers = list(values)
    low, high = f"{min(numbers):.4g}", f"{max(numbers):.4g}"
    return low if low == high else f"{low} to {high}"


def _training(config: RunConfig, trial: TrialRecord) -> str:
    return (
        f"{config.steps} steps of {config.batch_size} images ({config.training.precision}, seed "
        f"{config.seed}, lr schedule `{config.training.schedule.kind}`), "
        f"{trial.train_flops:.3g} FLOPs. The weights are the averaged ones (EMA)."
    )


def _metrics(config: RunConfig, validation: Iterable[ValidationRecord]) -> str:
    last = {row.weights: row for row in validation}
    rows = [
        (f"validation {term}", "averaged" if weights == "ema" else "raw", f"{value:.5g}")
        for weights, row in sorted(last.items())
        for term, value in row.terms.items()
    ]
    if not rows:
        return "None were measured."
    return (
        _table(("loss", "weights", "value"), rows)
        + f"\n\nOver {config.training.bank_size} held-out images, each with a time and noise of "
        "its own, drawn once. They rank runs; they say little about how good images look, which "
        "has not been measured."
    )


def _data(config: RunConfig, facts: CardFacts) -> str:
    size = f" at {config.data.size} pixels" if config.data.size else ""
    license = facts.data_license or (
        "**unknown**: it was not stated when this card was made. Find it out before you use or "
        "pass on the model"
    )
    return f"`{config.data.source}`{size}. Licence of the data: {license}."


def _risks(config: RunConfig) -> str:
    asked = "texts" if is_text_conditioned(config.model) else "classes"
    return (
        "For research on training diffusion Transformers. Not for decisions about people, nor for "
        "images that are taken for real ones.\n\n"
        f"- It knows no {asked} but those that it was trained on, and repeats the biases of that "
        "data.\n"
        "- It may reproduce training images, all the more from small data; whether it does has "
        "not been measured.\n"
        "- There is no filter for unsafe images, and no watermark.\n"
        "- Its images have not been rated by people."
    )


def _made(facts: CardFacts) -> str:
    command = f"\n\n```bash\n{facts.command}\n```" if facts.command else ""
    return (
        f"By {facts.made_by}. `mudit/config.json` is everything that the run depended on, "
        f"`mudit/plan.json` its plan, `mudit/trial.json` how it ended.{command}"
    )


def _is_latent(config: RunConfig) -> bool:
    return config.data.source.startswith("latents:")


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""Each recipe's constants against tables typed in from the papers; its cost against theirs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mudit.data import DeclaredDataset, declared_splits
from mudit.errors import DataError, UsageError
from mudit.models import builder, preset
from mudit.recipes import RECIPES, Recipe, recipe_named, recipe_text, table_text
from mudit.recipes.recipe import value_of
from mudit.training import TextConfig, parameters_of, trainable_parameters
from mudit.tuning import StudyConfig
from mudit.tuning.config import run_config
from mudit.tuning.transfer import target_run_config

ROOT = Path(__file__).parents[3]
PAPER = ("dit_imagenet256", "pixart_sam256", "mmdit_18b", "uvit_imagenet256")

# Facts of the papers and of their code, typed in from them: docs/references.md has the keys.
CONSTANTS: dict[str, dict[str, Any]] = {
    "dit_imagenet256": {
        "model.depth": 28, "model.head_dim": 72, "model.patch_size": 2, "model.init": "dit_mup",
        "model.architecture": "dit", "parametrization.base_width": 288,
        "parametrization.parametrization": "mup", "parametrization.optimizer": "adamw",
        "objective.kind": "ddpm", "objective.betas": "linear", "objective.num_timesteps": 1000,
        "objective.learn_sigma": True, "proxy.width": 288, "proxy.batch_size": 256,
        "proxy.steps": 200_000, "target.width": 1152, "target.batch_size": 256,
        "target.steps": 2_400_000, "search.method": "grid", "hps.lr": 2**-10,
        "hps.weight_decay": 0.0, "hps.eps": 1e-8, "hps.beta1": 0.9, "hps.beta2": 0.999,
        "hps.clip": 0.0, "hps.warmup_steps": 0, "training.schedule.kind": "constant",
        "training.label_dropout": 0.1, "training.ema_decay": 0.9999,
        "training.precision": "tf32", "sampling.steps": 250, "sampling.method": "ddpm",
        "sampling.cfg_scale": 1.0, "sampling.cfg_channels": "first_three",
        "data.source": "latents:data/imagenet256",
    },
    "pixart_sam256": {
        "model.depth": 28, "model.head_dim": 72, "model.patch_size": 2, "model.init": "pixart_mup",
        "model.architecture": "pixart", "parametrization.base_width": 288,
        "objective.kind": "ddpm", "objective.betas": "linear", "objective.num_timesteps": 1000,
        "objective.learn_sigma": True, "proxy.width": 288, "proxy.batch_size": 1408,
        "proxy.steps": 39_185, "target.width": 1152, "target.batch_size": 5632,
        "target.steps": 58_770, "hps.lr": 2**-10, "hps.weight_decay": 0.03, "hps.eps": 1e-10,
        "hps.beta1": 0.9, "hps.beta2": 0.999, "hps.clip": 0.01, "hps.warmup_steps": 1000,
        "parametrization.wd": "independent", "training.label_dropout": 0.1,
        "training.ema_decay": 0.9999, "text.max_tokens": 120, "sampling.steps": 20,
        "sampling.method": "dpm++", "sampling.cfg_scale": 4.5, "seed": 43,
        "training.activation_checkpointing": True,
    },
    "mmdit_18b": {
        "model.depth": 16, "model.architecture": "mmdit", "parametrization.base_width": 1920,
        "objective.kind": "flow", "proxy.width": 512, "proxy.batch_size": 4096,
        "proxy.steps": 30_000, "target.width": 5120, "target.batch_size": 4096,
        "target.steps": 200_000, "search.method": "random", "search.trials": 80,
        "search.finals.steps": 100_000, "search.finals.best": 1, "hps.lr": 2.5e-4,
        "hps.clip": 1.0, "hps.loss_weight.repa": 0.5, "hps.warmup_steps": 1000,
        "repa.hidden": 2048,
    },
    "uvit_imagenet256": {
        "model.depth": 28, "model.head_dim": 72, "model.patch_size": 2, "model.conv": False,
        "model.architecture": "uvit", "objective.kind": "ddpm", "objective.betas": "scaled_linear",
        "objective.first_step": 1, "objective.learn_sigma": False, "target.width": 1152,
        "target.batch_size": 1024, "target.steps": 500_000, "hps.weight_decay": 0.03,
        "hps.beta1": 0.99, "hps.beta2": 0.99, "hps.clip": 0.0, "hps.warmup_steps": 5000,
        "training.label_dropout": 0.1, "training.ema_decay": 0.9999, "sampling.steps": 50,
        "sampling.cfg_scale": 1.4, "sampling.method": "dpm++",
    },
}  # fmt: skip
# Tuned by hand, under sp: what differs from the study.
BASELINES: dict[str, dict[str, Any]] = {
    "dit_imagenet256": {"hps.lr": 1e-4, "model.init": "dit", "target.steps": 7_000_000},
    "pixart_sam256": {"hps.lr": 2e-5 * (5632 / 256) ** 0.5, "model.init": "pixart"},
    "mmdit_18b": {"hps.lr": 2e-4, "hps.clip": 0.1, "model.init": "mmdit"},
    "uvit_imagenet256": {"hps.lr": 2e-4, "model.init": "uvit"},
}
# (images, channels, side, classes or None, (tokens, size of a token) or None)
DATA = {
    "dit_imagenet256": (1_281_167, 4, 32, 1000, None),
    "pixart_sam256": (11_034_496, 4, 32, None, (120, 4096)),
    "mmdit_18b": (820_000_000, 16, 32, None, (154, 4096)),
    "uvit_imagenet256": (1_281_167, 4, 32, 1000, None),
}


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request) -> Recipe:
    return recipe_named(request.param)


@pytest.mark.parametrize("name", PAPER)
def test_constants_are_the_papers(name: str) -> None:
    study = recipe_named(name).study
    found = {option: value_of(study, option) for option in CONSTANTS[name]}
    assert found == CONSTANTS[name]
    if name != "mmdit_18b":
        assert study.search.space == {"lr": "log2(-13, -9)"}
        assert sorted(math.log2(p["lr"]) for p in study.points()) == [-13, -12, -11, -10, -9]


def test_the_mmdits_search_is_the_papers() -> None:
    study = recipe_named("mmdit_18b").study
    bounds = {name: found.bounds[:2] for name, found in study.space().items()}
    assert bounds == {
        "lr": (2.5e-5, 2.5e-3),
        "clip": (0.01, 100),
        "loss_weight.repa": (0.1, 1),
        "warmup_steps": (1, 20_000),
    }
    assert study.trials == 80
    factors = [point["lr"] for point in study.search.finals.combinations()]
    # Table 15.
    assert [2.5e-4 * f for f in factors] == pytest.approx([1e-4, 2e-4, 2.5e-4, 4e-4, 8e-4])
    for point in study.points():  # all of them can be trained
        study.hps.updated(point)


@pytest.mark.parametrize("name", PAPER)
def test_baselines_are_those_tuned_by_hand(name: str) -> None:
    made = recipe_named(name)
    base = made.training(baseline=True)
    assert base.parametrization.parametrization == "sp"
    for option, value in BASELINES[name].items():
        assert value_of(base, option) == pytest.approx(value) or value_of(base, option) == value
    expected = dataclasses.replace(
        made.study,
        folder=base.folder,
        model=base.model,
        parametrization=base.parametrization,
        hps=base.hps,
        target=base.target,
    )
    assert base == expected
    assert base.folder != made.study.folder != made.training().folder
    assert dataclasses.replace(made.training(), folder=made.study.folder) == made.study


def test_the_pixart_baselines_lr_to_four_digits() -> None:
    assert f"{recipe_named('pixart_sam256').training(baseline=True).hps.lr:.4g}" == "9.381e-05"


@pytest.mark.parametrize("name", PAPER)
def test_data_are_declared_as_published(name: str) -> None:
    data = recipe_named(name).data
    images, channels, side, classes, text = DATA[name]
    assert (data.num_samples, data.channels, data.size) == (images, channels, side)
    assert data.captioned == (classes is None)
    assert classes is None or data.num_classes == classes
    assert text is None or (data.text is not None and data.text[:2] == text)


def test_the_dit_grids_are_the_papers() -> None:
    """§4.2 and E.2.2."""
    made = recipe_named("dit_imagenet256")
    lrs, phis = [-13, -12, -11, -10, -9], [-6, -4, -2, 0, 2, 4, 6]
    expected = {
        ("width", "lr"): ((144, 288, 576), lrs),
        ("batch", "lr"): ((128, 256, 512), lrs),
        ("steps", "lr"): ((100_000, 150_000, 200_000), lrs),
        ("width", "phi.output"): ((144, 288, 576), phis),
        ("steps", "phi.output"): ((100_000, 150_000, 200_000), phis),
    }
    found = {
        (grid.across, grid.hp): (grid.sizes, [math.log2(value) for value in grid.grid()])
        for grid in made.grids
    }
    assert found == expected
    assert len({grid.folder for grid in made.grids}) == 5
    for grid in made.grids:
        assert (grid.task.width, grid.task.batch_size, grid.task.steps) == (288, 256, 200_000)
        assert (grid.hps, grid.training, grid.model) == (
            made.study.hps,
            made.study.training,
            made.study.model,
        )
    assert made.grid(across="batch").hp == "lr"
    assert made.grid(hp="phi.output").across == "width"
    with pytest.raises(UsageError, match="no verify study --across batch --hp clip; there are"):
        made.grid(across="batch", hp="clip")
    with pytest.raises(UsageError, match="there is none"):
        recipe_named("mmdit_18b").grid()


# --- every constant has a source ------------------------------------------------------------------


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(value):
        item, name = getattr(value, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(item):
            yield from leaves(item, f"{name}.")
        elif isinstance(item, dict) and name.startswith("hps."):
            yield from ((f"{name}.{key}", one) for key, one in item.items())
        else:
            yield name, item


def test_whatever_differs_from_the_defaults_has_a_source(recipe: Recipe) -> None:
    defaults = dict(leaves(StudyConfig()))
    own = {name for name, value in leaves(recipe.study) if defaults.get(name, ...) != value}
    assert own - {"folder", "data.source"} <= set(recipe.sources)
    for option in recipe.sources:
        value_of(recipe.study, option)


def test_sources_name_references_and_whatever_is_unstated_says_so(recipe: Recipe) -> None:
    text = (ROOT / "docs/references.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^- \*\*\[([\w-]+)\]\*\*", text, flags=re.MULTILINE))
    said = [*recipe.sources.values(), *recipe.notes, *recipe.time]
    said += [one.source for one in (*recipe.expected, *recipe.licences)]
    for words in said:
        assert set(re.findall(r"\[([A-Za-z][\w-]*)\]", words)) <= known, words
        if "not stated" in words or "nobody" in words:
            assert "Assumption:" in words or words in (*recipe.notes, *recipe.time), words
    assert recipe.licences


# --- cost -----------------------------------------------------------------------------------------


def test_published_costs_are_the_papers() -> None:
    pixart = recipe_named("pixart_sam256").published
    assert pixart is not None
    assert pixart.ratio == pytest.approx(5 * 0.04 * 5 / (0.61 * 30))
    assert (f"{100 * pixart.ratio:.2f}", f"{100 * pixart.ratio:.1f}") == ("5.46", "5.5")
    assert pixart.human_ratio is None
    mmdit = recipe_named("mmdit_18b").published
    assert mmdit is not None
    # E.4.3: (80 × 0.18B × 30K + 5 × 0.18B × 100K) / (18B × 200K)
    assert mmdit.ratio == pytest.approx(522 / 3600)
    assert f"{100 * mmdit.ratio:.1f}" == "14.5"
    assert mmdit.human_ratio is not None
    assert f"{100 * mmdit.human_ratio:.1f}" == "2.9"


# Trainable parameters of proxy and target, without [REPA]'s projector, by closed forms.
def _dit(n: int) -> int:
    return 28 * (18 * n**2 + 15 * n) + 3 * n**2 + 1310 * n + 32


def _pixart(n: int) -> int:
    return 28 * (16 * n**2 + 19 * n) + 8 * n**2 + 4413 * n + 32


def _uvit(n: int) -> int:
    return (
        29 * (12 * n**2 + 10 * n) + 14 * (2 * n**2 + n) + 2 * n + 16 * (n + 1)
        + 17 * n + (2 + 256) * n + 1001 * n
    )  # fmt: skip


def _mmdit(n: int) -> int:
    """Two streams, SwiGLU of three matrices 4n without biases; 2,048 pooled, 4,096 per token."""
    d = 64
    stream = 4 * n**2 + 4 * n + 12 * n**2 + 6 * n**2 + 6 * n + 2 * d
    last = 3 * n**2 + 3 * n + 2 * n**2 + 2 * n + 2 * d
    rest = 4 * n**2 + (64 + 1 + 257 + 1 + 2049 + 1 + 4097 + 2) * n + 64 * (n + 1)
    return 31 * stream + last + rest


PARAMETERS = {
    "dit_imagenet256": (_dit, "DiT-XL/2"),
    "pixart_sam256": (_pixart, "PixArt-XL/2"),
    "mmdit_18b": (_mmdit, None),
    "uvit_imagenet256": (_uvit, "U-ViT-H/2-imagenet256"),
}


def sizes_of(name: str) -> list[int]:
    """Of proxy and target, by hand."""
    form, study = PARAMETERS[name][0], recipe_named(name).study
    return [form(task.width) for task in (study.proxy, study.target)]


@pytest.mark.parametrize("name", PAPER)
def test_sizes_need_no_data(name: str) -> None:
    """On the meta device: 18 billion parameters would not fit."""
    made = recipe_named(name)
    study, splits = made.study, declared_splits(made.data)
    runs = [run_config(study, splits, task, hps=study.hps) for task in (study.proxy, study.target)]
    sizes = sizes_of(name)
    assert [parameters_of(run) for run in runs] == sizes
    preset_name = PARAMETERS[name][1]
    if preset_name is not None:
        with torch.device("meta"):
            original = builder(preset(preset_name))(study.target.width)
        assert trainable_parameters(original) == sizes[1]


@pytest.mark.parametrize("name", ["pixart_sam256", "mmdit_18b"])
def test_cost_needs_no_data(name: str, tmp_path, monkeypatch) -> None:
    """Eq. (1) by hand, with the counted sizes."""
    monkeypatch.chdir(tmp_path)
    made, sizes = recipe_named(name), sizes_of(name)
    study, cost = made.study, made.cost()
    assert [cost.proxy_parameters, cost.target_parameters] == sizes
    runs = study.trials * study.proxy.steps + cost.finals * study.search.finals.steps
    searched = runs * sizes[0] * study.proxy.batch_size
    target = sizes[1] * study.target.batch_size * study.target.steps
    assert cost.cost_ratio == pytest.approx(searched / target)
    assert (cost.trials, cost.finals) == ((80, 5) if name == "mmdit_18b" else (5, 0))
    assert not list(tmp_path.iterdir())


def test_published_parameter_counts() -> None:
    assert _dit(1152) == 674_834_720
    assert (_dit(144), _dit(288), _dit(576)) == (10_762_304, 42_550_880, 169_206_944)
    assert (_pixart(288), _pixart(1152)) == (39_246_656, 610_856_096)
    assert _uvit(1152) == 500_832_016
    assert (f"{_mmdit(5120) / 1e9:.2f}", f"{_mmdit(512) / 1e9:.3f}") == ("18.15", "0.185")


def test_the_mmdits_target_is_of_18_billion() -> None:
    """μP's ratios at base width 1920, which is not the proxy's."""
    made = recipe_named("mmdit_18b")
    study = made.study
    run = target_run_config(study, declared_splits(made.data), study.hps, "mup")
    assert (run.model.width, run.model.num_heads) == (5120, 80)
    assert study.target.width / study.parametrization.base_width == pytest.approx(8 / 3)
    assert run.repa.block_of(run.model.depth) == 5


# --- on a machine without the data ----------------------------------------------------------------


def test_missing_data_say_how_to_prepare_them(recipe: Recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = recipe.study
    if "fashion" in recipe.name:
        source = dataclasses.replace(config.data, source="idx:no/fashion")
        config = dataclasses.replace(config, data=source)
    with pytest.raises(DataError, match=r"no such folder. Prepare it: `") as caught:
        recipe.require_data(config)
    assert recipe.prepare[0] in str(caught.value)
    assert "\n" not in str(caught.value)
    _, _, path = config.data.source.partition(":")
    Path(path).mkdir(parents=True)
    if "emoji" in recipe.name:
        with pytest.raises(DataError, match=r"models/minilm \(text.encoder\)"):
            recipe.require_data(config)
        Path("models/minilm").mkdir(parents=True)
    if features := config.text.features:
        with pytest.raises(DataError, match=r"\(text.features\).*--text.features FOLDER"):
            recipe.require_data(config)
        Path(features).mkdir(parents=True)
    recipe.require_data(config)


def test_declared_data_have_no_images() -> None:
    data = recipe_named("dit_imagenet256").data
    with pytest.raises(DataError, match=r"only declared.*Prepare the data first"):
        data.batch(torch.zeros(1).long().numpy())


def test_sizes_hold_for_the_recipes_own_data_alone() -> None:
    made = recipe_named("emoji_mmdit")
    assert made.declared(made.study) is not None
    other = dataclasses.replace(made.study.data, source="captions:elsewhere")
    assert made.declared(dataclasses.replace(made.study, data=other)) is None
    assert made.declared(dataclasses.replace(made.study, text=TextConfig())) is None
    larger = dataclasses.replace(made.study.data, size=64)
    splits = made.declared(dataclasses.replace(made.study, data=larger))
    assert splits is not None
    assert isinstance(splits.train, DeclaredDataset)
    assert splits.train.size == 64


# --- words ----------------------------------------------------------------------------------------


def test_all_is_said(recipe: Recipe) -> None:
    text = recipe_text(recipe, "The search costs 5 %.")
    assert recipe.name in table_text([recipe])
    for part in (*recipe.commands, *recipe.prepare, *recipe.sources, "The search costs 5 %."):
        assert part in text
    said = " ".join(text.split())
    for one in recipe.licences:
        assert f"{one.of}: {one.terms}" in said
    for one in recipe.expected:
        assert f"{one.what}: {one.value} ({one.source})" in said
    for note in recipe.notes:
        assert note in said


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no recipe 'emoji_mdit'.*Did you mean emoji_mmdit"):
        recipe_named("emoji_mdit")


def test_names_are_their_functions() -> None:
    for name, make in RECIPES.items():
        assert (make.__name__, make().name) == (name, name)
        assert make().study.folder == f"runs/{name}"

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exports import drawn_model, run_config
from mudit.records import TrialRecord, ValidationRecord, to_line
from mudit.training import RunConfig, make_plan, save_weights


@pytest.fixture(autouse=True)
def _modules_of_its_own(tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What diffusers loads with `trust_remote_code` is copied into a cache: into another one."""
    import diffusers.utils.dynamic_modules_utils as dynamic

    cache = tmp_path_factory.mktemp("modules")
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(cache))
    monkeypatch.setattr("sys.path", [str(cache), *sys.path])


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")


@functools.cache
def plan_text(kind: type) -> str:
    """A plan of the architecture; runs of the same one differ in little else than sizes."""
    names = {"DiTConfig": "dit", "UViTConfig": "uvit", "PixArtConfig": "pixart"}
    return make_plan(run_config(names.get(kind.__name__, "mmdit"))).to_json()


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a finished run, without training it."""

    def make(config: RunConfig, *, status: str = "complete", name: str = "run") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(config.to_json())
        save_weights(drawn_model(config), folder / "ema.safetensors")
        (folder / "plan.json").write_text(plan_text(type(config.model)))
        rows = [
            ValidationRecord(step=2, weights="raw", denoising=0.9, terms={"denoising": 0.9}),
            ValidationRecord(step=3, weights="raw", denoising=0.25, terms={"denoising": 0.25}),
            ValidationRecord(step=3, weights="ema", denoising=0.125, terms={"denoising": 0.125}),
        ]
        (folder / "records.jsonl").write_text("".join(map(to_line, rows)))
        trial = TrialRecord(
            key="run", role="target", parametrization="mup", width=config.model.width,
            parameters=12345, batch_size=4, steps=3, seed=0, hps=config.hps.flat(),
            status=status, diverged_step=2 if status == "diverged" else None,  # type: ignore[arg-type]
            score=0.25, train_flops=1e9, seconds=1.0,
        )  # fmt: skip
        (folder / "trial.json").write_text(json.dumps(dataclasses.asdict(trial)))
        return folder

    return make

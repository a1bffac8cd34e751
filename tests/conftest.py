from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mudit.tuning import SamplingConfig, StudyConfig, TaskConfig


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_study() -> Callable[[Path], StudyConfig]:
    """A transfer study on digits that takes seconds, in a folder."""

    def make(folder: Path) -> StudyConfig:
        config = StudyConfig(folder=str(folder), workers=1, threads=1)
        return dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, depth=1, head_dim=8),
            parametrization=dataclasses.replace(config.parametrization, base_width=16),
            proxy=TaskConfig(width=16, batch_size=16, steps=12),
            target=TaskConfig(width=32, batch_size=16, steps=20),
            search=dataclasses.replace(config.search, space={"lr": "log2(-8, -6)"}),
            training=dataclasses.replace(
                config.training, log_steps=4, checkpoint_steps=6, bank_size=32
            ),
            sampling=SamplingConfig(per_class=2, steps=4),
        )

    return make


@pytest.fixture
def study(small_study, tmp_path: Path) -> StudyConfig:
    return small_study(tmp_path / "study")

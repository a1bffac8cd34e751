"""Rows that were left out are told when a run begins, and stand in reports."""

from __future__ import annotations

import dataclasses
import json

from PIL import Image

from mudit.training import DataConfig, open_splits
from mudit.tuning import ModelConfig, train_target
from mudit.tuning.facts import data_facts
from mudit.tuning.listener import Silent


class Told(Silent):
    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)


def test_malformed_rows_are_told_and_reported(study, tmp_path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number, colour in enumerate(("red", "lime", "blue", "white") * 8):
        Image.new("RGB", (8, 8), colour).save(folder / f"{number}.png")
        lines.append(json.dumps({"file": f"{number}.png", "caption": f"{colour} {number}"}))
    (folder / "captions.jsonl").write_text("\n".join([*lines, "no JSON"]))
    data = DataConfig(source=f"captions:{folder}", size=8, most_skipped=0.05)
    config = dataclasses.replace(
        study,
        data=data,
        model=ModelConfig(architecture="pixart", depth=1, head_dim=8, patch_size=4),
        target=dataclasses.replace(study.target, batch_size=4, steps=2),
    )
    told = Told()
    train_target(config, listener=told)
    (text,) = told.notices
    assert text.startswith("malformed rows that are left out: 1, e.g. captions.jsonl, line 33: no")
    assert data_facts(open_splits(data)).counts["malformed, left out"] == 1
    (folder / "captions.jsonl").write_text("\n".join(lines))
    assert "malformed, left out" not in data_facts(open_splits(data)).counts

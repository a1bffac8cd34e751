"""Checkpoints on disk: read without executing anything, refused tensor by tensor."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel, PixArtTransformer2DModel, SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from mudit.errors import DataError, UsageError
from mudit.models import builder, config_for, preset
from mudit.models.layouts import EXCHANGES, export_checkpoint, import_checkpoint

STOCK = {
    "dit": DiTTransformer2DModel,
    "pixart": PixArtTransformer2DModel,
    "mmdit": SD3Transformer2DModel,
}
BOTH = [(name, layout) for name, layouts in EXCHANGES.items() for layout in layouts]


def tiny(name: str) -> Any:
    """A model of random weights; the longest text is what its layout reads back."""
    config = config_for(
        name,
        init=name,
        learn_sigma=name in ("dit", "pixart"),
        depth=2,
        num_heads=2,
        head_dim=8,
        patch_size=2,
        input_size=4,
        in_channels=3,
        num_classes=5,
        caption_dim=10,
        caption_tokens=120 if name == "pixart" else 333,
    )
    torch.manual_seed(0)
    model = builder(config)(config.width)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    if name in ("dit", "pixart"):  # the positions are those of the config
        fresh = builder(config)(config.width).state_dict()["pos_embed"]
        model.load_state_dict({**model.state_dict(), "pos_embed": fresh})
    return model


def assert_same(model: Any, other: Any, *, but: tuple[str, ...] = ()) -> None:
    first, second = model.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name in first.keys() - set(but):
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize(("name", "layout"), BOTH)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_written_and_read_is_the_same_model(
    name: str, layout: str, ending: str, tmp_path: Path
) -> None:
    model = tiny(name)
    path = tmp_path / ("folder" if layout == "diffusers" else f"weights.{ending}")
    export_checkpoint(model, path, layout=layout)
    again = import_checkpoint(path, None if layout == "diffusers" else model.config)

    assert again.config == model.config
    unkept = ("y_embedder.y_embedding",) if (name, layout) == ("pixart", "diffusers") else ()
    assert_same(model, again, but=unkept)


@pytest.mark.parametrize("name", STOCK)
def test_diffusers_loads_what_is_exported(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    export_checkpoint(model, tmp_path / "pipeline" / "transformer", layout="diffusers")
    theirs = STOCK[name].from_pretrained(tmp_path / "pipeline" / "transformer")
    expected = load_file(tmp_path / "pipeline/transformer/diffusion_pytorch_model.safetensors")
    for key, value in theirs.state_dict().items():
        assert key == "pos_embed.pos_embed" or torch.equal(value, expected[key]), key
    # As they save it themselves, in pieces, and found inside a pipeline's folder.
    theirs.save_pretrained(tmp_path / "theirs" / "transformer", max_shard_size="8KB")
    assert list((tmp_path / "theirs" / "transformer").glob("*.index.json"))
    again = import_checkpoint(tmp_path / "theirs")
    assert_same(model, again, but=("y_embedder.y_embedding",) if name == "pixart" else ())


@pytest.mark.parametrize("name", ["dit", "pixart"])
def test_the_old_class_of_diffusers_is_read_as_what_it_holds(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    export_checkpoint(model, tmp_path, layout="diffusers")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"_class_name": "Transformer2DModel"})
    )
    assert import_checkpoint(tmp_path).config == model.config


@pytest.mark.parametrize("nesting", ["ema", "state_dict", "model"])
def test_weights_inside_a_training_checkpoint(nesting: str, tmp_path: Path) -> None:
    """As facebookresearch/DiT writes it: both weights, the optimizer's state, the options."""
    model, path = tiny("dit"), tmp_path / "0400000.pt"
    other = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    whole = {nesting: model.state_dict(), "opt": {"state": {}}, "args": argparse.Namespace(lr=1e-4)}
    if nesting == "ema":
        whole = {"model": other} | whole
    torch.save(whole, path)

    assert_same(model, import_checkpoint(path, model.config))


class Planted:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    model, path = tiny("dit"), tmp_path / "weights.pt"
    torch.save({"model": model.state_dict(), "extra": Planted(tmp_path / "executed")}, path)
    with pytest.raises(DataError, match="holds more than tensors"):
        import_checkpoint(path, model.config)
    path.write_bytes(pickle.dumps(Planted(tmp_path / "executed"), protocol=2))
    with pytest.raises(DataError):
        import_checkpoint(path, model.config)

    assert not (tmp_path / "executed").exists()


def test_every_tensor_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    model, path = tiny("uvit"), tmp_path / "weights.safetensors"
    state = dict(model.state_dict())
    del state["norm.bias"]
    state["mid_block.mlp.fc1.weight"] = torch.zeros(3, 16)
    state["extra"] = torch.zeros(1)
    save_file(state, path)
    with pytest.raises(UsageError, match="3 tensors") as caught:
        import_checkpoint(path, model.config)
    for line in (
        "norm.bias: missing, expected (16,)",
        "mid_block.mlp.fc1.weight: (3, 16), expected (64, 16)",
        "extra: (1,), not expected",
    ):
        assert f"  {line}" in str(caught.value).splitlines()


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    config = tiny("dit").config
    with pytest.raises(DataError, match="does not exist"):
        import_checkpoint(tmp_path / "none.safetensors", config)
    with pytest.raises(UsageError, match="holds no config"):
        import_checkpoint(tmp_path / "none.safetensors")
    for name in ("cut.safetensors", "cut.pt"):
        (tmp_path / name).write_bytes(b"\x00" * 40)
        with pytest.raises(DataError, match=name):
            import_checkpoint(tmp_path / name, config)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(DataError, match="holds no state dict"):
        import_checkpoint(tmp_path / "list.pt", config)
    with pytest.raises(DataError, match=r"config\.json"):
        import_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(UsageError, match="UNet2DModel"):
        import_checkpoint(tmp_path)
    with pytest.raises(DataError, match="holds no diffusion_pytorch_model"):
        import_checkpoint(tmp_path, config)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no layout 'diffusers'"):
        export_checkpoint(tiny("uvit"), tmp_path / "folder", layout="diffusers")
    with pytest.raises(UsageError, match=r"expected \.safetensors or \.pth"):
        export_checkpoint(tiny("uvit"), tmp_path / "weights.bin", layout="original")
    config = preset("DiT-S/2", depth=1, mlp_ratio=2.0)
    with pytest.raises(UsageError, match="mlp_ratio"):
        export_checkpoint(builder(config)(config.width), tmp_path / "folder", layout="diffusers")

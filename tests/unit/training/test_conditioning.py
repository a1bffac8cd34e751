"""What a model is told of a class."""

from __future__ import annotations

import pytest
import torch

from mudit.errors import UsageError
from mudit.models import builder, config_for, preset
from mudit.training import Conditioning

CAPTIONS = ("a picture of 0", "a picture of 1")


def made(name: str) -> tuple[object, torch.nn.Module]:
    config = config_for(
        name,
        init=None,
        learn_sigma=False,
        depth=2,
        num_heads=2,
        head_dim=8,
        patch_size=2,
        input_size=4,
        in_channels=1,
        num_classes=2,
        caption_dim=10,
        caption_tokens=20,
    )
    return config, builder(config)(config.width)


@pytest.mark.parametrize("name", ["dit", "uvit"])
def test_class_conditional_models_are_told_the_class(name: str) -> None:
    config, model = made(name)
    conditioning = Conditioning.of(config, (), model)  # type: ignore[arg-type]
    labels = torch.tensor([0, 2, 1])
    assert conditioning.null_label == 2
    (told,) = conditioning(labels)
    assert told is labels


def test_an_unconditional_model_is_told_nothing() -> None:
    config = preset("U-ViT-S/2-cifar10", depth=2, num_heads=1)
    conditioning = Conditioning.of(config, (), builder(config)(config.width))
    assert conditioning(torch.tensor([0])) == ()


@pytest.mark.parametrize(("name", "parts"), [("pixart", 2), ("mmdit", 3)])
def test_text_conditioned_models_are_told_the_caption(name: str, parts: int) -> None:
    config, model = made(name)
    conditioning = Conditioning.of(config, CAPTIONS, model)  # type: ignore[arg-type]
    told = conditioning(torch.tensor([1, 0, 1, 2]))
    assert len(told) == parts
    text, mask = told[:2]
    assert (text.shape, mask.shape) == ((4, 20, 10), (4, 20))
    assert torch.equal(text[0], text[2])
    assert not torch.equal(text[0], text[1])
    assert mask[:3].sum(dim=1).tolist() == [15, 15, 15]
    if name == "pixart":  # its own, of the greatest length
        assert torch.equal(text[3], model.null_text()[0])
        assert mask[3].all()
    else:  # an empty caption
        assert mask[3].tolist() == [True] + [False] * 19
    x, t = torch.randn(4, 1, 4, 4), torch.zeros(4)
    assert model(x, t, *told).shape == x.shape


def test_captions_are_needed() -> None:
    config, model = made("pixart")
    with pytest.raises(UsageError, match="no captions"):
        Conditioning.of(config, (), model)  # type: ignore[arg-type]

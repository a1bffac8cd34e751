"""Representation alignment against closed forms, the encoder's own code, and planted mistakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import mudit
from mudit.data import ArrayDataset, open_dataset
from mudit.errors import DataError, EnvironmentFailure, UsageError
from mudit.models import preset
from mudit.training.alignment import (
    Aligned,
    ClassifierEncoder,
    ClassifierNet,
    Dinov2,
    aligned_builder,
    alignment_loss,
    fit_encoder,
    kept,
)
from mudit.training.checkpoint import save_weights

CPU = torch.device("cpu")
CONFIG = preset("DiT-S/2", depth=2, head_dim=8, num_heads=4, input_size=8, num_classes=10)


# --- the loss -------------------------------------------------------------------------------------


def test_the_loss_is_minus_the_mean_cosine() -> None:
    a = torch.tensor([[[3.0, 0.0], [1.0, 1.0]], [[0.0, 2.0], [1.0, 0.0]]])
    b = torch.tensor([[[5.0, 0.0], [1.0, 0.0]], [[0.0, -7.0], [0.0, 1.0]]])
    expected = torch.tensor([-(1 + math.sqrt(0.5)) / 2, 0.5])
    torch.testing.assert_close(alignment_loss(a, b), expected)
    torch.testing.assert_close(alignment_loss(a, 9 * a), torch.full((2,), -1.0))
    torch.testing.assert_close(alignment_loss(100 * a, b), expected)


def test_features_of_another_grid_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(2, 16, 8\).*\(2, 9, 8\).*another grid"):
        alignment_loss(torch.zeros(2, 16, 8), torch.zeros(2, 9, 8))


# --- the model with its projector -----------------------------------------------------------------


def test_the_prediction_is_the_models_own() -> None:
    torch.manual_seed(0)
    both = aligned_builder(CONFIG, block=1, features=5, hidden=12)(32)
    for parameter in both.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.tensor([1, 9])
    prediction, projected = both(x, t, y)
    assert kept(both) is both.model
    assert kept(both.model) is both.model
    torch.testing.assert_close(prediction, both.model(x, t, y), rtol=0, atol=0)
    assert projected.shape == (2, 16, 5)
    _, tokens = both.model(x, t, y, tokens_after=1)
    w = [part for part in both.projector if isinstance(part, nn.Linear)]
    by_hand = tokens
    for layer in w[:-1]:
        by_hand = functional.silu(by_hand @ layer.weight.T + layer.bias)
    torch.testing.assert_close(projected, by_hand @ w[-1].weight.T + w[-1].bias)


def test_roles_and_multipliers_of_model_and_projector() -> None:
    def inputs(width: int) -> tuple[Tensor, ...]:
        return torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.tensor([1, 9])

    build = aligned_builder(CONFIG, block=1, features=5, hidden=12)
    plan = mudit.plan(build, width=64, base_width=32, inputs=inputs)
    alone = mudit.plan(lambda n: kept(build(n)), width=64, base_width=32, inputs=inputs)
    roles = {row.name.removeprefix("model."): row.role for row in plan.rows}
    assert {row.name: row.role for row in alone.rows}.items() <= roles.items()
    assert roles["projector.0.weight"] == "output"
    assert roles["projector.4.weight"] == "scalar"
    built = plan.build()
    assert isinstance(built, Aligned)
    assert built.projector[0].weight.abs().min() > 0, "a projector must not start at zero"


# --- encoders -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory) -> str:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    folder = tmp_path_factory.mktemp("dinov2")
    transformers.Dinov2Model(config).save_pretrained(folder)
    return str(folder)


def test_dinov2_targets_follow_the_papers_preprocessing(dinov2) -> None:
    from transformers import AutoModel

    images = torch.rand(2, 3, 64, 64) * 2 - 1
    found = Dinov2(dinov2, device=CPU)(images, grid=4)
    assert found.shape == (2, 16, 16)
    # By hand: bytes' range, ImageNet's statistics, and only then the bicubic scaling.
    normal = torch.empty_like(images)
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))):
        normal[:, channel] = ((images[:, channel] + 1) * 127.5 / 255 - mean) / std
    pixels = functional.interpolate(normal, (56, 56), mode="bicubic")
    with torch.no_grad():
        all_tokens = AutoModel.from_pretrained(dinov2).eval()(pixels).last_hidden_state
    torch.testing.assert_close(found, all_tokens[:, 1:], rtol=1e-4, atol=1e-5)
    assert (found - all_tokens[:, :-1]).abs().max() > 0.1, "the class token is not a patch's"


def test_a_grey_image_is_seen_as_a_coloured_one(dinov2) -> None:
    encoder, grey = Dinov2(dinov2, device=CPU), torch.rand(1, 1, 28, 28) * 2 - 1
    torch.testing.assert_close(encoder(grey, grid=2), encoder(grey.repeat(1, 3, 1, 1), grid=2))


def test_an_encoder_that_is_not_there_is_named(tmp_path, monkeypatch) -> None:
    transformers = pytest.importorskip("transformers")
    with pytest.raises(EnvironmentFailure, match=r"no/such.*local folder.*classifier"):
        Dinov2("./no/such", device=CPU)
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(UsageError, match=r"type 'bert'; expected a DINOv2"):
        Dinov2(str(tmp_path / "bert"), device=CPU)


@pytest.mark.slow
def test_a_data_sets_own_classifier_tells_its_classes_apart(tmp_path) -> None:
    splits = open_dataset("digits")
    net = fit_encoder(splits.train, seed=1)
    images, labels = splits.validation.batch(np.arange(splits.validation.num_samples))
    with torch.no_grad():
        accuracy = (net(images).argmax(1) == labels).float().mean().item()
    assert accuracy > 0.9, "ten classes: 0.1 by chance"
    save_weights(net, tmp_path / "net.safetensors")
    encoder = ClassifierEncoder.load(
        tmp_path / "net.safetensors", channels=1, num_classes=10, device=CPU
    )
    features = encoder(images[:3], grid=4)
    assert features.shape == (3, 16, encoder.size)
    # Places are in the order of a model's tokens, row by row.
    blank, marked = torch.full((1, 1, 8, 8), -1.0), torch.full((1, 1, 8, 8), -1.0)
    marked[..., 2:4, 6:8] = 1  # second row, last column
    moved = (encoder(marked, grid=4) - encoder(blank, grid=4)).norm(dim=-1)
    assert moved.argmax() == 1 * 4 + 3


def test_what_an_encoder_cannot_be_made_of_is_refused(tmp_path) -> None:
    one = ArrayDataset(
        name="ones", images=np.zeros((4, 1, 8, 8), np.uint8), labels=np.zeros(4, np.int64),
        class_names=("one",),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"ones have 1 class.*at least two"):
        fit_encoder(one, seed=0)
    with pytest.raises(DataError, match=r"none\.safetensors is missing"):
        ClassifierEncoder.load(
            tmp_path / "none.safetensors", channels=1, num_classes=10, device=CPU
        )
    save_weights(ClassifierNet(1, 3), tmp_path / "three.safetensors")
    with pytest.raises(EnvironmentFailure, match=r"(?s)three\.safetensors.*head\.weight"):
        ClassifierEncoder.load(
            tmp_path / "three.safetensors", channels=1, num_classes=10, device=CPU
        )

"""Images from all four models, under all objectives, by all methods; each with its own noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mudit.diffusion import ObjectiveConfig, SampleNoise, make_objective
from mudit.errors import UsageError
from mudit.evaluation import generate
from mudit.models import builder, config_for
from mudit.training import Conditioning

CAPTIONS = ("a picture of 0", "a picture of 1")
LABELS = torch.tensor([0, 1, 1, 0, 1])
METHODS = {"ddpm": "ddpm ddim dpm++", "vp_sde": "ddpm ddim dpm++", "flow": "euler heun sde dpm++"}


def made(name: str, *, learn_sigma: bool = False) -> tuple[nn.Module, Conditioning]:
    config: Any = config_for(
        name,
        init=None,
        learn_sigma=learn_sigma,
        depth=2,
        num_heads=2,
        head_dim=8,
        patch_size=2,
        input_size=4,
        in_channels=3,
        num_classes=2,
        caption_dim=10,
        caption_tokens=20,
    )
    torch.manual_seed(0)
    model = builder(config)(config.width).eval()
    for parameter in model.parameters():  # zero gates and readouts would hide the condition
        parameter.data += 0.05 * torch.randn(parameter.shape)
    captions = CAPTIONS if name in ("pixart", "mmdit") else ()
    return model, Conditioning.of(config, captions, model)


def drawn(name: str, kind: Any, *, learn_sigma: bool = False, **options: Any) -> Tensor:
    model, conditioning = made(name, learn_sigma=learn_sigma)
    config = ObjectiveConfig(kind=kind, learn_sigma=learn_sigma)
    given = {"labels": LABELS, "noise": SampleNoise.of(len(LABELS), seed=3), "steps": 4} | options
    return generate(model, conditioning, make_objective(config), **given)


@pytest.mark.parametrize("name", ["dit", "uvit", "pixart", "mmdit"])
@pytest.mark.parametrize("kind", METHODS)
def test_every_model_is_sampled_by_every_method_that_suits(name: str, kind: str) -> None:
    """All from the same noise; the condition and guidance reach each."""
    for method in METHODS[kind].split():
        options = {"method": method, "cfg_scale": 1.5}
        x = drawn(name, kind, **options)
        assert x.shape == (5, 3, 4, 4)
        assert bool(x.isfinite().all())
        assert not torch.equal(x, drawn(name, kind, labels=1 - LABELS, **options))
        assert not torch.equal(x, drawn(name, kind, method=method))


@pytest.mark.parametrize(
    ("kind", "method"), [("ddpm", "ddpm"), ("flow", "sde"), ("vp_sde", "ddim"), ("flow", "dpm++")]
)
def test_images_do_not_depend_on_batch_size_or_order(kind: str, method: str) -> None:
    """Up to the rounding of products of matrices of other sizes."""
    options = {"method": method, "cfg_scale": 1.5}
    whole = drawn("dit", kind, **options)
    for size in (1, 2):
        torch.testing.assert_close(
            drawn("dit", kind, batch_size=size, **options), whole, rtol=1e-4, atol=1e-4
        )
    order = [4, 0, 2]
    noise = SampleNoise(seed=3, numbers=tuple(order))
    some = drawn("dit", kind, labels=LABELS[order], noise=noise, **options)
    torch.testing.assert_close(some, whole[order], rtol=1e-4, atol=1e-4)
    # Planted: numbers that start anew in each batch.
    again = drawn("dit", kind, labels=LABELS[order], noise=SampleNoise.of(3, seed=3), **options)
    assert float((again - whole[order]).abs().max()) > 0.1


def test_the_first_method_is_that_of_the_objective() -> None:
    assert torch.equal(drawn("dit", "flow"), drawn("dit", "flow", method="euler"))
    learned = {"learn_sigma": True}
    assert torch.equal(
        drawn("dit", "ddpm", **learned), drawn("dit", "ddpm", method="ddim", **learned)
    )


@pytest.mark.parametrize("kind", METHODS)
def test_an_interval_limits_guidance(kind: str) -> None:
    """[0, 1] is everywhere; within nothing but t = 0 there is none."""
    guided = drawn("dit", kind, cfg_scale=3.0)
    assert torch.equal(guided, drawn("dit", kind, cfg_scale=3.0, cfg_interval=(0.0, 1.0)))
    plain = drawn("dit", kind)
    assert torch.equal(plain, drawn("dit", kind, cfg_scale=3.0, cfg_interval=(0.0, 0.0)))
    part = drawn("dit", kind, cfg_scale=3.0, cfg_interval=(0.0, 0.7))
    assert not torch.equal(part, guided)
    assert not torch.equal(part, plain)


def test_noise_must_be_of_as_many_samples() -> None:
    with pytest.raises(UsageError, match="5 labels and the noise of 3 samples"):
        drawn("dit", "ddpm", noise=SampleNoise.of(3, seed=0))


def test_a_method_that_does_not_suit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"ddim does not suit objective.kind flow"):
        drawn("dit", "flow", method="ddim")


def test_a_class_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="classes run from 0 to 1, got 0 to 2"):
        drawn("dit", "ddpm", labels=LABELS + LABELS)

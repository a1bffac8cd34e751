"""Prompts beside their images, and the judge's shares in words."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mudit.analysis import Share
from mudit.errors import DataError
from mudit.report import Prompts, Retrieval
from mudit.report.figures import drawings
from mudit.report.page import page_html
from pages import Page

LONG = "a very long caption that says <b>more</b> & more, " * 6


def images(*, each: int, shade: int, side: int = 16) -> np.ndarray:
    return np.full((3, each, side, side, 3), shade, np.uint8)


@pytest.fixture
def prompts() -> Prompts:
    return Prompts(
        prompts=("red apple", LONG, "grapes"),
        held_out=(False, False, True),
        images={
            "real": images(each=1, shade=10),
            "mup": images(each=2, shade=20),
            "sp": images(each=2, shade=30),
        },
    )


@pytest.fixture
def retrieval() -> Retrieval:
    return Retrieval(
        judge="a judge",
        known=Share(right=99, images=100, names=20),
        held_out=Share(right=5, images=10, names=20),
        target=Share(right=62, images=100, names=20),
        control=Share(right=31, images=100, names=20),
        target_held_out=Share(right=2, images=10, names=20),
    )


@pytest.fixture
def page(study_contents, prompts, retrieval) -> Page:
    contents = study_contents(
        samples=(), real_images=None, agreement=None, prompts=prompts, retrieval=retrieval
    )
    assert "samples" not in {name for name, _ in drawings(contents)}
    return Page(page_html(contents, []))


def test_each_prompt_stands_whole_beside_its_images(page, prompts) -> None:
    said = " ".join(page.said.split())
    assert all(" ".join(prompt.split()) in said for prompt in prompts.prompts)
    shots = page.all("img")
    assert len(shots) == 3 * (1 + 2 + 2)
    for name, words in {"real": "real image", "mup": "sample of the μP", "sp": "of the sp"}.items():
        shown = [one for one in shots if words in one["alt"] and "grapes" in one["alt"]]
        assert len(shown) == prompts.images[name].shape[1]
        for one in shown:
            assert (one["width"], one["height"]) == ("64", "64")  # 16 pixels, whole ones enlarged
            png = base64.b64decode(one["src"].split(",")[1])
            found = np.asarray(Image.open(io.BytesIO(png)))
            np.testing.assert_array_equal(found, prompts.images[name][2, 0])
    assert "Captions that no training image has" in said


@pytest.mark.parametrize(("side", "shown"), [(8, "64"), (48, "48"), (64, "64"), (256, "128")])
def test_images_are_shown_at_a_size_that_can_be_seen(study_contents, side, shown) -> None:
    prompts = Prompts(
        prompts=("a", "b", "c"),
        held_out=(False,) * 3,
        images={"real": images(each=1, shade=1, side=side)},
    )
    found = Page(page_html(study_contents(prompts=prompts), []))
    assert {one["width"] for one in found.all("img")} == {shown}
    assert "Captions that no training image has" not in found.said


def test_shares_have_intervals_chance_and_a_control(page) -> None:
    said = " ".join(page.said.replace("\u202f", " ").split())
    assert "62 % (52–72)" in said
    assert "31 % (22–41)" in said
    assert "20 % (3–56)" in said
    assert "guessing gets 5.0 %" in said
    assert "62.0 % of its samples are matched with their own caption among 20" in said
    assert "samples matched with their caption62.0 %31.0 %" in said
    assert "classifier" not in said


def test_images_must_fit_the_prompts() -> None:
    with pytest.raises(DataError, match="uint8 of shape"):
        Prompts(prompts=("a",), held_out=(False,), images={"real": images(each=1, shade=0)})
    with pytest.raises(DataError, match="held out"):
        Prompts(prompts=(), held_out=(), images={})

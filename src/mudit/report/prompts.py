"""Samples of captioned data: prompt by prompt, and how often they are matched with it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mudit.report import formats
from mudit.report.contents import Prompts, Retrieval, StudyContents
from mudit.report.markup import Html, el, join, table
from mudit.report.parts import paragraph, run_name, tile
from mudit.report.shell import data_uri

_SMALL, _LARGE = 64, 128  # screen pixels of an image: at least, if it is tiny; at most


def retrieval_tile(facts: Retrieval) -> Html:
    """The share of samples that are matched with their own prompt."""
    share = facts.target
    beside = (
        f"of samples matched with their caption, among {share.names}; real images: "
        f"{formats.percent(facts.known.share)}, chance: {formats.percent(share.chance)}"
    )
    return tile("Right caption", formats.percent(share.share), beside)


def samples(contents: StudyContents, prompts: Prompts) -> Html:
    """Each prompt with its real image and every model's samples, and the judge's verdict."""
    parts = [paragraph(_introduction(prompts))]
    parts += [_cards(prompts, held_out=False)]
    if any(prompts.held_out):
        parts += [
            el("h3", "Captions that no training image has"),
            _cards(prompts, held_out=True),
        ]
    if contents.retrieval is not None:
        parts += _verdict(contents, contents.retrieval)
    return join(parts)


def _introduction(prompts: Prompts) -> str:
    alike = " For each prompt the models start from the same noise."
    return (
        "Samples by prompt, beside the real image that has it as its caption. They are the first "
        "of those drawn; none was chosen by hand." + (alike if len(prompts.images) > 2 else "")
    )


def _cards(prompts: Prompts, *, held_out: bool) -> Html:
    cards = [
        el("li", el("p", prompt), el("div", *_shots(prompts, number), class_="shots"))
        for number, prompt in enumerate(prompts.prompts)
        if prompts.held_out[number] == held_out
    ]
    return el("ul", *cards, class_="prompts")


def _shots(prompts: Prompts, number: int) -> Iterator[Html]:
    for title, images in prompts.images.items():
        name = el("span", title, class_="of") if title == "real" else run_name(title)
        model = formats.parametrization_name(title)
        said = "real image" if title == "real" else f"sample of the {model} target"
        shots = [_image(image, f"{said}: {prompts.prompts[number]}") for image in images[number]]
        yield el("span", el("span", *shots, class_="images"), name, class_="shot")


def _image(image: NDArray[np.uint8], alternative: str) -> Html:
    height, width = image.shape[:2]
    factor = max(1, _SMALL // width) if width < _LARGE else _LARGE / width
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).save(buffer, "PNG")
    return el(
        "img",
        src=data_uri(buffer.getvalue()),
        alt=alternative,
        width=str(round(width * factor)),
        height=str(round(height * factor)),
    )


def _verdict(contents: StudyContents, facts: Retrieval) -> list[Html]:
    names = facts.target.names
    words = (
        f"A judge that was fitted on the real images ({facts.judge}) is shown each sample and "
        f"{names} captions, its prompt and {names - 1} others of other groups, and picks one; "
        f"guessing gets {formats.percent(facts.target.chance)}. Shares with 95 % intervals "
        "(Clopper-Pearson). For captions of training images it has seen the real image, so a "
        "sample is right if it looks more like that than like the other names': a model that only "
        "remembers its training images scores high. Neither number says anything about variety."
    )
    rows = [("real images", facts.known, facts.held_out)]
    rows += [(run_name(contents.parametrization), facts.target, facts.target_held_out)]
    if contents.control is not None and facts.control is not None:
        name = run_name(contents.control.parametrization)
        rows += [(name, facts.control, facts.control_held_out)]
    head = ("matched with their own caption", "captions of training images", "held-out captions")
    cells = [
        (
            name,
            *("–" if one is None else formats.counted(one.share, one.interval) for one in shares),
        )
        for name, *shares in rows
    ]
    return [el("h3", "Which caption is it?"), paragraph(words), table(head, cells, numeric=(1, 2))]

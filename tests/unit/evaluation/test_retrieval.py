"""A judge that knows real images, and knows nothing where there is nothing to know."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mudit.analysis import clopper_pearson
from mudit.data import ArrayDataset
from mudit.errors import UsageError
from mudit.evaluation import fit_judge
from mudit.evaluation.retrieval import NAMES, draw_choices

COLOURS = {
    "red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "yellow": (230, 220, 20),
    "cyan": (20, 210, 220), "pink": (230, 120, 200), "black": (10, 10, 10), "grey": (128, 128, 128),
}  # fmt: skip
SHAPES = ("square", "bar", "stripe", "frame", "half", "corner", "cross", "dot")
NAME = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def picture(name: str, jitter: int) -> np.ndarray:
    """A coloured shape on white, moved by `jitter` pixels."""
    colour, shape = name.split()
    image = np.full((3, 16, 16), 255, np.uint8)
    mask = np.zeros((16, 16), bool)
    places = {
        "square": [np.s_[3:13, 3:13]],
        "bar": [np.s_[1:15, 6:10]],
        "stripe": [np.s_[6:10, 1:15]],
        "frame": [np.s_[1:4, 1:15], np.s_[12:15, 1:15], np.s_[1:15, 1:4], np.s_[1:15, 12:15]],
        "half": [np.s_[:, :8]],
        "corner": [np.s_[:8, 8:]],
        "cross": [np.s_[1:15, 7:9], np.s_[7:9, 1:15]],
        "dot": [np.s_[6:10, 6:10]],
    }
    for place in places[shape]:
        mask[place] = True
    image[:, np.roll(mask, jitter, axis=1)] = np.array(COLOURS[colour], np.uint8)[:, None]
    return image


def dataset(labels: list[int], jitter: int = 0) -> ArrayDataset:
    return ArrayDataset(
        name="shapes",
        images=np.stack([picture(NAME[label], jitter) for label in labels]),
        labels=np.array(labels, dtype=np.int64),
        class_names=NAME,
        captioned=True,
    )


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Two words of each caption; what is held out has known words in a new combination."""
    words = [*COLOURS, *SHAPES]
    return np.array([[word in name.split() for word in words] for name in NAME], np.float32)


HELD_OUT = [label for label in range(len(NAME)) if (label // 8 + label % 8) % 3 == 0]
TRAINED = [label for label in range(len(NAME)) if label not in HELD_OUT]


@pytest.fixture(scope="module")
def judge(vectors):
    found = fit_judge(dataset(TRAINED), dataset(HELD_OUT), vectors)
    assert found is not None
    return found


def tensors(data: ArrayDataset) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(data.images), torch.from_numpy(data.labels)


def within(right: int, images: int, chance: float) -> bool:
    """Whether a count fits a chance; a right one does not in 1 of 1,000 cases."""
    low, high = clopper_pearson(right, images, confidence=0.999)
    return low <= chance <= high


def test_it_matches_real_images_with_their_captions(judge) -> None:
    images, labels = tensors(dataset(TRAINED))
    share = judge.score(images, labels)
    assert share.share == 1
    assert share.names == NAMES
    assert judge.score(images.float() / 127.5 - 1, labels) == share  # in [-1, 1] as well
    assert judge.known.share >= 0.9  # moved by a pixel
    # New combinations of known words: well above chance, 5 %, without having seen one of them.
    assert judge.held_out.images == len(HELD_OUT)
    assert judge.held_out.share >= 0.5


@pytest.mark.parametrize("part", [TRAINED, HELD_OUT], ids=["trained", "held-out"])
def test_images_of_other_captions_and_of_nothing_score_as_chance(judge, part) -> None:
    images, labels = tensors(dataset(part))
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(labels), generator=generator) for _ in range(8)]
    shuffled = [judge.score(images, labels[order], seed=n) for n, order in enumerate(orders)]
    assert all(share.names == NAMES for share in shuffled)
    right, count = (sum(getattr(share, n) for share in shuffled) for n in ("right", "images"))
    assert within(right, count, 1 / NAMES)
    noise = torch.rand(images.shape, generator=generator) * 2 - 1
    # All noise looks alike, so that it names the same few captions whatever was asked for.
    found = [judge.score(noise, labels, seed=seed).share for seed in range(8)]
    assert np.mean(found) < 0.15


def test_a_judge_of_mixed_up_captions_is_found_out_by_its_own_score(vectors) -> None:
    """The planted mistake: captions and images do not belong together."""
    train = dataset(TRAINED)
    mixed = dataclasses.replace(train, labels=np.roll(train.labels, 7))
    judge = fit_judge(mixed, dataset(HELD_OUT), vectors)
    assert judge.held_out.share < 0.3
    images, labels = tensors(train)
    assert judge.score(images, labels).share < 0.3


def test_choices_are_of_other_groups_and_the_same_every_time() -> None:
    groups = np.arange(60) // 2
    labels, pool = np.array([0, 1, 10, 0]), np.arange(50)
    choices = draw_choices(labels, pool, groups, seed=3)
    assert choices.shape == (4, NAMES)
    assert (choices[:, 0] == labels).all()
    assert np.isin(choices, pool).all()
    for row in groups[choices]:
        assert len(set(row)) == NAMES
    assert not (choices[0] == choices[3]).all()  # each image has its own
    np.testing.assert_array_equal(choices, draw_choices(labels, pool, groups, seed=3))
    assert not (choices == draw_choices(labels, pool, groups, seed=4)).all()
    assert draw_choices(labels, np.arange(6), groups, seed=0).shape == (4, 3)  # no more groups
    with pytest.raises(UsageError, match="nothing to choose"):
        draw_choices(labels, np.array([0, 1]), groups, seed=0)


def test_a_tie_and_an_image_without_numbers_are_not_right(vectors) -> None:
    same = fit_judge(dataset(TRAINED), dataset(HELD_OUT), np.ones_like(vectors))
    images, labels = tensors(dataset(TRAINED))
    assert same.score(images, labels).right == 0  # all captions are told alike
    broken = torch.full((2, 3, 16, 16), torch.nan)
    judge = fit_judge(dataset(TRAINED), dataset(HELD_OUT), vectors)
    assert judge.score(broken, labels[:2]).right == 0


def test_one_caption_leaves_nothing_to_judge(vectors) -> None:
    assert fit_judge(dataset([3, 3]), dataset(HELD_OUT), vectors) is None
    assert fit_judge(dataset(TRAINED), dataset([0]), vectors).held_out is None


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(1, 3, 8, 8), [1], "expected .B, 3, 16, 16"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.int64), [1], "int64"),
        (torch.zeros(2, 3, 16, 16), [TRAINED[0], HELD_OUT[0]], "all held out"),
        (torch.zeros(1, 3, 16, 16), [TRAINED[0], TRAINED[1]], "1 images and 2 labels"),
        (torch.zeros(0, 3, 16, 16), [], "at least one image"),
        (torch.zeros(1, 3, 16, 16), [1000], "label of a caption"),
    ],
)
def test_what_it_cannot_judge_is_refused(judge, images, labels, words) -> None:
    with pytest.raises(UsageError, match=words):
        judge.score(images, torch.tensor(labels, dtype=torch.int64))

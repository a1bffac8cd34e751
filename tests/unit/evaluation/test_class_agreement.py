"""The classifier of real images: right on real ones, at chance on noise, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mudit.data import ArrayDataset, open_dataset
from mudit.errors import DataError, UsageError
from mudit.evaluation import fit_classifier


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits")


@pytest.fixture(scope="module")
def classifier(digits):
    return fit_classifier(digits.train, digits.validation)


@pytest.fixture(scope="module")
def real(digits):
    return digits.validation.batch(np.arange(digits.validation.num_samples))


def test_digits_are_told_apart(classifier):
    assert classifier.held_out_accuracy >= 0.97
    assert classifier.num_images == 1438
    assert "support vector machine" in classifier.description


def test_agreement_on_held_out_images_is_the_held_out_accuracy(classifier, real):
    assert classifier.agreement(*real) == pytest.approx(classifier.held_out_accuracy)


def test_agreement_is_a_share_of_the_labels(classifier, real):
    images, _ = real
    found = classifier.predict(images)
    assert found.dtype == torch.int64
    assert classifier.agreement(images, found) == 1
    assert classifier.agreement(images, (found + 1) % 10) == 0
    half = torch.where(torch.arange(len(found)) < 100, found, (found + 1) % 10)
    assert classifier.agreement(images, half) == pytest.approx(100 / len(found))


def test_noise_agrees_at_chance(classifier):
    # Balanced labels, so 1/10 whatever the classifier says, if it does not look at the label:
    # sigma is at most 0.3/sqrt(2000) = 0.007; six of them.
    images = torch.rand((2000, 1, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.arange(2000) % 10
    assert classifier.agreement(images, labels) == pytest.approx(0.1, abs=0.04)


def test_uint8_images_are_judged_as_floating_point_ones(classifier, real):
    images, labels = real
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    assert classifier.agreement(pixels, labels) == classifier.agreement(images, labels)
    assert torch.equal(classifier.predict(images.double()), classifier.predict(images))


def test_values_beyond_the_range_are_clamped(classifier, real):
    images, _ = real
    assert torch.equal(
        classifier.predict(3 * images), classifier.predict((3 * images).clamp(-1, 1))
    )


def test_images_with_nan_agree_with_nothing(classifier, real):
    images, labels = real[0][:4].clone(), real[1][:4]
    images[1, 0, 3, 3] = torch.nan
    images[2, 0, 0, 0] = torch.inf
    assert classifier.predict(images)[1:3].tolist() == [-1, -1]
    assert classifier.agreement(images, labels) == 0.5
    assert classifier.agreement(torch.full_like(images, torch.nan), labels) == 0


def test_agreement_by_class(classifier, real):
    images, labels = real
    right = classifier.predict(images) == labels
    images, labels = images[right], labels[right]
    chosen = (labels == 7) | (labels == 3)
    assert classifier.agreement_by_class(images[chosen], labels[chosen]) == {"3": 1, "7": 1}
    # Threes passed off as fours count against the fours.
    passed_off = torch.where(labels == 3, 4, labels)[chosen]
    assert classifier.agreement_by_class(images[chosen], passed_off) == {"4": 0, "7": 1}


def test_fitting_again_gives_the_same(classifier, digits, real):
    again = fit_classifier(digits.train, digits.validation)
    noise = torch.rand((500, 1, 8, 8), generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert again.held_out_accuracy == classifier.held_out_accuracy
    assert torch.equal(again.predict(noise), classifier.predict(noise))


def larger(dataset, copies):
    """A dataset with `copies` noisy copies of each image."""
    rng = np.random.default_rng(0)
    images = np.repeat(dataset.images.astype(np.int64), copies, axis=0)
    noisy = (images + rng.integers(-2, 3, images.shape)).clip(0, 16).astype(np.uint8)
    return ArrayDataset(
        name="more digits",
        images=noisy,
        labels=np.repeat(dataset.labels, copies),
        class_names=dataset.class_names,
        white=16,
    )


def test_many_images_get_a_network_the_same_every_time(digits):
    train = larger(digits.train, 4)
    first, second = (fit_classifier(train, digits.validation) for _ in range(2))
    assert "network" in first.description
    assert first.held_out_accuracy >= 0.95
    assert first.held_out_accuracy == second.held_out_accuracy


def test_large_images_are_averaged_down(digits):
    def enlarged(dataset):
        return ArrayDataset(
            name="large digits",
            images=dataset.images.repeat(8, axis=2).repeat(8, axis=3),
            labels=dataset.labels,
            class_names=dataset.class_names,
            white=16,
        )

    large = fit_classifier(enlarged(digits.train), enlarged(digits.validation))
    assert large.image_shape == (1, 64, 64)
    assert large.held_out_accuracy >= 0.97


def test_a_single_class_cannot_be_judged():
    one = ArrayDataset(
        name="only cats",
        images=np.zeros((3, 1, 4, 4), np.uint8),
        labels=np.zeros(3, np.int64),
        class_names=("cat",),
    )
    with pytest.raises(DataError, match="only cats have 1 class"):
        fit_classifier(one, one)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(2, 1, 9, 9), torch.zeros(2).long(), r"expected \(B, 1, 8, 8\)"),
        (torch.zeros(2, 8, 8), torch.zeros(2).long(), r"expected \(B, 1, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8).long(), torch.zeros(2).long(), "torch.int64; expected uint8"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(3).long(), "one label for each"),
        (torch.zeros(0, 1, 8, 8), torch.zeros(0).long(), "at least one image"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 10]), "labels from 0 to 10; expected 0 to 9"),
    ],
)
def test_what_cannot_be_judged_is_refused(classifier, images, labels, words):
    with pytest.raises(UsageError, match=words):
        classifier.agreement(images, labels)

"""Does a sample show the class that it was asked for? A classifier of real images says.

The caveat: it was fitted on real images, and has to give every sample some class. It is wrong on
`1 - held_out_accuracy` of the real images already, and may find the right class in a poor sample.
Agreement near `held_out_accuracy` says that classes are told apart as in the data, no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mudit.data import ImageDataset, permutation
from mudit.errors import DataError, UsageError
from mudit.evaluation.pixels import as_unit

# Larger images are averaged down to this side before they are classified.
_MAX_SIDE = 32
# A support vector machine is better on as many images, but its time grows with their square. On
# Fashion-MNIST (28x28, two CPU cores), held-out accuracy and seconds to fit and to judge 5,000:
# machine on 5,000 86 % (4 + 13), on 20,000 88 % (65 + 31); network on 20,000 86 % (10 + 0), on
# 60,000 88 % (15 + 0). Digits, 8x8: machine 99.7 % (under 1 s).
_MAX_FOR_MACHINE = 5_000
# As many values as Fashion-MNIST has; of a larger dataset a part is taken.
_MAX_VALUES = 60_000 * 28 * 28
_MAX_HELD_OUT = 10_000
_UPDATES, _BATCH_SIZE = 2_400, 256
_SEED = 0


class _Model(Protocol):
    def predict(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A classifier of real images, to judge samples with. See the module's caveat.

    Attributes:
        description: What it is, in words.
        class_names: A name for each label.
        image_shape: (C, H, W) of the images that it judges.
        num_images: How many real images it was fitted on.
        held_out_accuracy: Share of held-out real images that it classifies right.
    """

    description: str
    class_names: Sequence[str]
    image_shape: tuple[int, int, int]
    num_images: int
    held_out_accuracy: float
    _model: _Model

    def predict(
        self,
        images: UInt8[Tensor, "batch channels size size"]
        | Float[Tensor, "batch channels size size"],
    ) -> Int[Tensor, " batch"]:
        """The label found in each image; -1 where the image has a value that is not finite.

        Args:
            images: uint8 0 to 255, or floating point in [-1, 1] (clamped).

        Raises:
            UsageError: Images have another shape or dtype.
        """
        values = as_unit(images, self.image_shape, who="the classifier")
        return _predict(self._model, values)

    def agreement(
        self,
        images: UInt8[Tensor, "batch channels size size"]
        | Float[Tensor, "batch channels size size"],
        labels: Int[Tensor, " batch"],
    ) -> float:
        """Share of images in which the classifier finds `labels`; images as in `predict`.

        Raises:
            UsageError: There are no images, or not one label for each.
        """
        return float(self._agrees(images, labels).double().mean())

    def agreement_by_class(
        self,
        images: UInt8[Tensor, "batch channels size size"]
        | Float[Tensor, "batch channels size size"],
        labels: Int[Tensor, " batch"],
    ) -> dict[str, float]:
        """`agreement` for each class name that occurs in `labels`, in the order of labels."""
        agrees = self._agrees(images, labels).double()
        found = sorted(set(labels.tolist()))
        return {
            self.class_names[label]: float(agrees[labels.cpu() == label].mean()) for label in found
        }

    def _agrees(self, images: Tensor, labels: Tensor) -> Tensor:
        if labels.ndim != 1 or len(labels) != len(images) or not len(labels):
            raise UsageError(
                f"the classifier got {len(images)} images and labels of shape "
                f"{tuple(labels.shape)}; expected at least one image and one label for each."
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.class_names):
            raise UsageError(
                f"the classifier got labels from {low} to {high}; expected 0 to "
                f"{len(self.class_names) - 1}."
            )
        return self.predict(images) == labels.cpu()


def fit_classifier(
    train: ImageDataset, validation: ImageDataset, *, most: int | None = None
) -> Classifier:
    """A classifier of the images of `train`, measured on `validation`; the same one every time.

    A support vector machine on pixels; a small neural network where there are more than 5,000
    images. Images above 32x32 are averaged down. Of large datasets, it is fitted on as many images
    as make 47 million values, and measured on at most 10,000.

    Args:
        train: What it is fitted on.
        validation: What it is measured on.
        most: Images of each, at most: for data that take long to read. None: all.

    Raises:
        DataError: The training images have fewer than two classes, or cannot be read.
    """
    side = min(train.size, _MAX_SIDE)
    limit = min(_MAX_VALUES // (train.channels * side * side), most or train.num_samples)
    features, labels = _features(train, limit)
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(
            f"the training images of {train.name} have {len(present)} class; expected at least "
            "two, since a classifier has to tell them apart. Skip it for data without classes."
        )
    model: _Model
    if len(labels) <= _MAX_FOR_MACHINE:
        model, description = _fit_machine(features, labels), "support vector machine on pixels"
    else:
        model, description = _fit_network(features, labels), "small neural network on pixels"
    held_out, held_out_labels = _features(validation, min(_MAX_HELD_OUT, most or _MAX_HELD_OUT))
    return Classifier(
        description=description,
        class_names=train.class_names,
        image_shape=(train.channels, train.size, train.size),
        num_images=len(labels),
        held_out_accuracy=float(np.mean(model.predict(held_out) == held_out_labels)),
        _model=model,
    )


def _fit_machine(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> _Model:
    from sklearn.svm import SVC

    model: _Model = SVC(kernel="rbf", C=10.0, gamma="scale").fit(features, labels)
    return model


def _fit_network(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> _Model:
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # A generator, not a seed: `partial_fit` would start it anew for each epoch's order.
    rng = np.random.RandomState(_SEED)
    model = MLPClassifier((256,), batch_size=_BATCH_SIZE, random_state=rng)
    # One thread: more are no faster at this size, up to 4 times slower on a busy machine, and would
    # make the result depend on their number.
    with threadpool_limits(1):
        # Epochs one by one: `fit` would warn that so few have not converged.
        for _ in range(math.ceil(_UPDATES * _BATCH_SIZE / len(labels))):
            model.partial_fit(features, labels, classes=np.unique(labels))
    fitted: _Model = model
    return fitted


def _features(
    dataset: ImageDataset, limit: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Features and labels of up to `limit` images, drawn in a fixed order."""
    chosen = permutation(dataset.num_samples, _SEED)[:limit]
    features, labels = [], []
    for start in range(0, len(chosen), 1024):
        images, classes = dataset.batch(chosen[start : start + 1024])
        features.append(_flat(images))
        labels.append(classes.numpy())
    return np.concatenate(features), np.concatenate(labels)


def _predict(model: _Model, images: Tensor) -> Tensor:
    finite = images.isfinite().flatten(1).all(1)
    found = torch.full((len(images),), -1)
    if finite.any():
        features = _flat(images[finite].clamp(-1, 1))
        found[finite] = torch.from_numpy(model.predict(features).astype(np.int64))
    return found


def _flat(images: Tensor) -> npt.NDArray[np.float32]:
    """(B, C, H, W) in [-1, 1] as (B, features)."""
    if images.shape[-1] > _MAX_SIDE:
        images = adaptive_avg_pool2d(images, _MAX_SIDE)
    return np.asarray(images.flatten(1).numpy(), dtype=np.float32)

"""Does a sample show what its prompt says? A judge of real images picks its caption among twenty.

The judge is kernel ridge regression from what an image looks like (colours, coarse shape, edges) to
the text encoder's vector of its caption. Shown a sample, it picks the caption whose vector is
nearest to the one that it predicts: of the prompt and 19 others, each of another group.

What it measures depends on the caption. Those of training images the judge has seen, and it knows
nearly all of those images again: a sample is right if it looks more like the real image of its
prompt than like anything else that the names stand for, so a model that only remembers its training
images scores high. Of held-out captions neither the model nor the judge has seen an image; there
`held_out_accuracy` says what the judge makes of the real ones. Neither says anything about variety.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mudit.analysis import Share
from mudit.data import ImageDataset, caption_groups, labels_of, permutation
from mudit.errors import UsageError
from mudit.evaluation.looks import Array, Looks
from mudit.evaluation.pixels import as_unit

NAMES = 20  # captions to choose among, the right one included
# Kernel ridge regression takes the cube of their number: 3,580 take 4 s, 5,000 some 10 s.
_MAX_FITTED = 5_000
_MAX_JUDGED = 1_000
_PENALTY = 0.1  # docs/log.md, 2026-11-28
_SEED = 0

Labels = npt.NDArray[np.int64]


class _Model(Protocol):
    def predict(self, features: Array) -> Array: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalJudge:
    """Picks the caption of an image among several. See the module's caveat.

    Attributes:
        description: What it is, in words.
        image_shape: (C, H, W) of the images that it judges.
        vectors: Of the captions, centred and of unit length, shape (K, F).
        groups: Of the captions, shape (K,).
        pools: Captions of training images, and of held-out ones; other names are drawn from those
            among which an image's own is.
        num_images: How many real images it was fitted on.
        known: What it makes of images that it was fitted on, moved by a 16th of their side.
        held_out: What it makes of held-out images, whose captions it has not seen either; None
            where they are of a single group.
    """

    description: str
    image_shape: tuple[int, int, int]
    vectors: Array
    groups: Labels
    pools: tuple[Labels, Labels]
    num_images: int
    known: Share
    held_out: Share | None
    _looks: Looks
    _model: _Model

    def score(
        self,
        images: UInt8[Tensor, "batch channels size size"]
        | Float[Tensor, "batch channels size size"],
        labels: Int[Tensor, " batch"],
        *,
        seed: int = _SEED,
    ) -> Share:
        """How many images are matched with their own caption.

        Args:
            images: uint8 0 to 255, or floating point in [-1, 1] (clamped). One with a value that is
                not finite is matched with none.
            labels: Their captions, all of training images or all held out. Those of one group
                more often than of another, and images of nothing may score above chance.
            seed: Of the other names; they depend on it and on the labels alone.

        Raises:
            UsageError: Images have another shape or dtype, there are none, or labels are unknown,
                of both kinds, or of the only group of their kind.
        """
        values = as_unit(images, self.image_shape, who="the judge")
        numbers = np.asarray(labels.cpu().numpy(), dtype=np.int64)
        pool = next((pool for pool in self.pools if np.isin(numbers, pool).all()), None)
        if len(numbers) != len(values) or not len(numbers) or pool is None:
            raise UsageError(
                f"the judge got {len(values)} images and {len(numbers)} labels; expected at least "
                "one image, and for each the label of a caption: all of training images, or all "
                "held out."
            )
        choices = draw_choices(numbers, pool, self.groups, seed=seed)
        right = np.zeros(len(numbers), dtype=bool)
        finite = values.isfinite().flatten(1).all(1).numpy()
        if finite.any():
            predicted = self._model.predict(self._looks(values[finite].clamp(-1, 1)))
            scores = np.einsum("bf,bkf->bk", predicted, self.vectors[choices[finite]])
            # A caption that is told like another is a guess: a tie is not right.
            right[finite] = scores[:, 0] > scores[:, 1:].max(axis=1)
        return Share(right=int(right.sum()), images=len(right), names=choices.shape[1])


def draw_choices(labels: Labels, pool: Labels, groups: Labels, *, seed: int) -> Labels:
    """For each label itself and, behind it, other captions, each of another group.

    Args:
        labels: Of images, shape (B,).
        pool: Captions that others are drawn from.
        groups: The group of each caption, shape (K,).
        seed: Of the draws.

    Returns:
        Shape (B, names): 20, or as many as there are groups.

    Raises:
        UsageError: The pool is of a single group.
    """
    names = min(NAMES, len(np.unique(groups[pool])))
    if names < 2:
        raise UsageError("there is nothing to choose among: all captions belong to one group.")
    rng = np.random.default_rng(seed)
    choices = np.empty((len(labels), names), dtype=np.int64)
    for place, label in enumerate(labels.tolist()):
        shuffled = rng.permutation(pool)
        _, first = np.unique(groups[shuffled], return_index=True)
        others = shuffled[first]  # one of each group
        others = others[groups[others] != groups[label]]
        choices[place] = [label, *rng.choice(others, names - 1, replace=False)]
    return choices


def fit_judge(
    train: ImageDataset,
    validation: ImageDataset,
    captions: npt.NDArray[np.floating],
    *,
    most: int | None = None,
) -> RetrievalJudge | None:
    """A judge of captioned images, fitted on `train` and measured; the same one every time.

    Args:
        train: Images to fit it on; of more than 5,000, a part.
        validation: Held-out images.
        captions: The text encoder's vector of each label's caption, shape (K, F).
        most: At most so many images of each part, if fewer than 5,000.

    Returns:
        None where the training images are of a single group: there is nothing to choose among.

    Raises:
        DataError: Images cannot be read.
    """
    from sklearn.kernel_ridge import KernelRidge

    limit = min(most or _MAX_FITTED, _MAX_FITTED)
    groups = caption_groups(train)
    images, labels = _batch(train, limit)
    pools = np.unique(labels_of(train)), np.unique(labels_of(validation))
    if len(np.unique(groups[pools[0]])) < 2:
        return None
    unit = _unit(np.asarray(captions, dtype=np.float32))
    vectors = _unit(unit - unit[pools[0]].mean(axis=0))
    looks = Looks.fit(images)
    # Features have mean square 1, so that distances are about 1.
    model = KernelRidge(alpha=_PENALTY, kernel="rbf", gamma=1.0)
    model.fit(looks(images), vectors[labels])
    judge = RetrievalJudge(
        description="kernel ridge regression from colours, coarse shape and edges to captions",
        image_shape=(train.channels, train.size, train.size),
        vectors=vectors,
        groups=groups,
        pools=pools,
        num_images=len(labels),
        known=Share(right=0, images=1, names=NAMES),
        held_out=None,
        _looks=looks,
        _model=model,
    )
    several = _of_different_groups(groups[labels])
    moved = torch.roll(images[several], (max(1, train.size // 16),) * 2, dims=(2, 3))
    known = judge.score(moved, torch.from_numpy(labels[several]))
    held_out = None
    if len(np.unique(groups[pools[1]])) > 1:
        unseen, unseen_labels = _batch(validation, limit)
        several = _of_different_groups(groups[unseen_labels])
        held_out = judge.score(unseen[several], torch.from_numpy(unseen_labels[several]))
    return dataclasses.replace(judge, known=known, held_out=held_out)


def _batch(dataset: ImageDataset, limit: int) -> tuple[Tensor, Labels]:
    chosen = permutation(dataset.num_samples, _SEED)[:limit]
    images, labels = dataset.batch(chosen)
    return images, labels.numpy()


def _of_different_groups(groups: Labels) -> Labels:
    """Places of the first of each group, as prompts and other names are drawn."""
    _, first = np.unique(groups, return_index=True)
    return np.sort(first)[:_MAX_JUDGED]


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    return unit

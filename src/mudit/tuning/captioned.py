"""What a study on captioned data shows of its samples: prompt by prompt, and what a judge says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mudit.analysis import Share
from mudit.data import Splits, labels_of, open_text_encoder
from mudit.evaluation import RetrievalJudge, as_images, fit_judge, pictures_of
from mudit.report import Prompts, Retrieval
from mudit.training import RunConfig, read_config, text_features
from mudit.tuning.config import StudyConfig
from mudit.tuning.drawn import Samples, as_tensors, judged_pictures, read_samples

# Prompts in the report, of training and of held-out images, and samples of each.
_SHOWN, _SHOWN_HELD_OUT, _EACH = 24, 12, 4
_PARAMETRIZATIONS = ("mup", "sp")
_MOST_CAPTIONS = 100_000


def prompts_of(config: StudyConfig, splits: Splits) -> Prompts | None:
    """The first prompts with their real images and the targets' samples; None without samples."""
    drawn = _drawn(config)
    if not drawn:
        return None
    labels = next(iter(drawn.values()))[1]
    unseen = _held_out(labels, splits)
    shown = [
        label
        for part, most in ((labels[~unseen], _SHOWN), (labels[unseen], _SHOWN_HELD_OUT))
        for label in list(dict.fromkeys(part.tolist()))[:most]
    ]
    images = {"real": _real(shown, config, splits)}
    for name, (samples, asked) in drawn.items():
        images[name] = np.stack([samples[asked == label][:_EACH] for label in shown])
    names = splits.train.class_names
    return Prompts(
        prompts=tuple(names[label] for label in shown),
        held_out=tuple(_held_out(np.array(shown), splits).tolist()),
        images=images,
    )


def retrieval_of(config: StudyConfig, splits: Splits) -> Retrieval | None:
    """What a judge of real images makes of the samples; None if it has nothing to say.

    That is, without samples, with more than 100,000 captions (their vectors would fill the memory),
    and where all training captions are of one group.
    """
    drawn = _drawn(config)
    if "mup" not in drawn or splits.train.num_classes > _MOST_CAPTIONS:
        return None
    train, held_out, most = judged_pictures(config, splits)
    if train.channels not in (1, 3):
        return None
    judge = fit_judge(train, held_out, _caption_vectors(config, splits), most=most)
    if judge is None:
        return None
    scores = {
        (name, unseen): _score(judge, samples, splits, held_out=unseen)
        for name, samples in drawn.items()
        for unseen in (False, True)
    }
    target = scores["mup", False]
    assert target is not None  # at least one caption of a training image is sampled
    return Retrieval(
        judge=judge.description,
        known=judge.known,
        held_out=judge.held_out,
        target=target,
        target_held_out=scores["mup", True],
        control=scores.get(("sp", False)),
        control_held_out=scores.get(("sp", True)),
    )


def _drawn(config: StudyConfig) -> dict[str, Samples]:
    found = {name: read_samples(config, name) for name in _PARAMETRIZATIONS}
    return {name: samples for name, samples in found.items() if samples is not None}


def _held_out(labels: NDArray[np.int64], splits: Splits) -> NDArray[np.bool_]:
    return np.isin(labels, labels_of(splits.validation))


def _score(
    judge: RetrievalJudge, samples: Samples, splits: Splits, *, held_out: bool
) -> Share | None:
    images, labels = as_tensors(samples)
    wanted = _held_out(samples[1], splits) == held_out
    if not wanted.any() or (held_out and judge.held_out is None):
        return None
    return judge.score(images[wanted], labels[wanted])


def _real(labels: list[int], config: StudyConfig, splits: Splits) -> NDArray[np.uint8]:
    """One real image of each caption, shape (captions, 1, H, W, C)."""
    images: dict[int, NDArray[np.uint8]] = {}
    for part in (splits.train, splits.validation):
        present, first = np.unique(labels_of(part), return_index=True)
        wanted = np.isin(present, labels)
        if wanted.any():
            batch, found = pictures_of(part, config.data).batch(first[wanted])
            images |= zip(found.tolist(), as_images(batch), strict=True)
    return np.stack([images[label] for label in labels])[:, None]


def _caption_vectors(config: StudyConfig, splits: Splits) -> NDArray[np.float32]:
    """What the text encoder makes of each caption as a whole, shape (captions, F)."""
    folder, captions = Path(config.folder) / "target_mup", splits.train.class_names
    run = read_config(RunConfig, folder / "config.json")
    tokens: int = run.model.caption_tokens  # type: ignore[union-attr]
    size = config.model.caption_dim
    features = text_features(config.text, captions, folder, tokens=tokens, bytes_dim=size)
    if features is None:
        encoder = open_text_encoder(config.text.encoder, bytes_dim=size)
        return np.asarray(encoder.encode(captions, tokens=tokens, warn=False).pooled.numpy())
    return features.pooled[:-1]  # the last stands for "nothing said"

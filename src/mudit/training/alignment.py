"""Representation alignment: a model's tokens are pulled towards a frozen encoder's features.

Source: [REPA] paper and code. The projector trains beside the model; neither it nor the encoder is
part of what is kept to sample from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mudit.data import ImageDataset, permutation
from mudit.errors import DataError, EnvironmentFailure, UsageError
from mudit.files import write_whole
from mudit.models import ModelConfig, builder
from mudit.nn import Projector
from mudit.training.checkpoint import load_weights, save_weights
from mudit.training.randomness import generator, stream_seed

# The data set's own classifier, in the folder of a run or of its study.
ENCODER_FILE = "repa_encoder.safetensors"

# [REPA] code: statistics of ImageNet's pixels, which DINOv2 was trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# By name on the hub ([REPA] code, DINOv2's model cards), so that plans need no download.
_DINOV2_SIZES = {
    "facebook/dinov2-small": 384,
    "facebook/dinov2-base": 768,
    "facebook/dinov2-large": 1024,
    "facebook/dinov2-giant": 1536,
}

# The data set's own classifier: channels of its two stages, and its training.
_CHANNELS, _STEPS, _BATCH_SIZE, _LR = (32, 64), 600, 128, 2e-3


# --- the model with its projector -----------------------------------------------------------------


class Aligned(nn.Module):
    """A model, and the projection of its tokens after a block.

    Attributes:
        model: One of `mudit.models`; what is kept.
        projector: What is thrown away after training.
    """

    def __init__(self, model: nn.Module, projector: Projector, *, block: int) -> None:
        super().__init__()
        self.model = model
        self.projector = projector
        self._block = block

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The model's prediction, and one feature for each of its tokens, (B, N, F)."""
        prediction, tokens = self.model(*inputs, tokens_after=self._block)
        return prediction, self.projector(tokens)


def _build(config: ModelConfig, block: int, features: int, hidden: int, width: int) -> Aligned:
    model = builder(config)(width)  # before the projector, so that it starts as it does without
    return Aligned(model, Projector(width, features, hidden=hidden), block=block)


def aligned_builder(
    config: ModelConfig, *, block: int, features: int, hidden: int
) -> Callable[[int], Aligned]:
    """The function width → model with projector; it can be pickled.

    Args:
        config: The model's.
        block: After which of its blocks, counted from 1.
        features: Size of the encoder's features.
        hidden: Hidden size of the projector.
    """
    return partial(_build, config, block, features, hidden)


def kept(model: nn.Module) -> nn.Module:
    """The model without its projector."""
    return model.model if isinstance(model, Aligned) else model


def alignment_loss(
    projected: Float[Tensor, "batch tokens features"],
    target: Float[Tensor, "batch tokens features"],
) -> Float[Tensor, " batch"]:
    """Minus the mean cosine over a sample's tokens, -1 at best. [REPA] Eq. 8.

    Raises:
        UsageError: The shapes differ.
    """
    if projected.shape != target.shape:
        raise UsageError(
            f"the projected tokens have shape {tuple(projected.shape)}, the encoder's features "
            f"{tuple(target.shape)}; expected the same. Has the encoder another grid of tokens?"
        )
    wide = projected.to(torch.promote_types(projected.dtype, torch.float32))
    return -functional.cosine_similarity(wide, target.to(wide), dim=-1).mean(dim=1)


# --- encoders -------------------------------------------------------------------------------------


class FeatureEncoder(Protocol):
    """A frozen encoder of images."""

    @property
    def size(self) -> int:
        """Size of a feature."""

    def __call__(
        self, images: Float[Tensor, "batch channels size size"], *, grid: int
    ) -> Float[Tensor, "batch tokens features"]:
        """One feature for each of grid·grid places, row by row, of images in [-1, 1]."""


class Dinov2:
    """DINOv2 patch tokens after the last norm; classes and registers are left out.

    Images are normalised and then scaled to 14 pixels for each token, as [REPA] code does.

    Args:
        name: A hub name, e.g. `facebook/dinov2-base`, or a local folder.
        device: Where it works.

    Raises:
        EnvironmentFailure: transformers is not installed, or the weights cannot be had.
        UsageError: They are of another kind of model.
    """

    def __init__(self, name: str, *, device: torch.device) -> None:
        config = _dinov2_config(name)
        from transformers import AutoModel

        with _loading(name):
            model: nn.Module = AutoModel.from_pretrained(name)
        self._model = model.to(device).eval().requires_grad_(False)
        self._patch: int = config.patch_size
        self._skipped = 1 + getattr(config, "num_register_tokens", 0)
        self.size: int = config.hidden_size

    @torch.no_grad()
    def __call__(self, images: Tensor, *, grid: int) -> Tensor:
        """See `FeatureEncoder`."""
        mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (_MEAN, _STD))
        coloured = images.expand(-1, 3, -1, -1)  # grey has one channel
        pixels = ((coloured + 1) / 2 - mean) / std
        side = grid * self._patch
        if pixels.shape[-1] != side:
            pixels = functional.interpolate(pixels, size=side, mode="bicubic")
        tokens: Tensor = self._model(pixel_values=pixels).last_hidden_state[:, self._skipped :]
        return tokens


def _dinov2_config(name: str) -> Any:
    try:
        from transformers import AutoConfig
    except ImportError:
        raise EnvironmentFailure(
            "repa.encoder needs transformers, which is not installed: pip install 'mudit[text]'."
        ) from None
    with _loading(name):
        config = AutoConfig.from_pretrained(name)
    if not config.model_type.startswith("dinov2"):
        raise UsageError(
            f"repa.encoder names {name}, a model of type {config.model_type!r}; expected a DINOv2, "
            "e.g. facebook/dinov2-base."
        )
    return config


@contextmanager
def _loading(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise EnvironmentFailure(
            f"the encoder {name} cannot be loaded: {str(error).splitlines()[0]} Give repa.encoder "
            "a local folder with config.json and model.safetensors, e.g. "
            "dinov2:models/dinov2-base, or `classifier`, which needs no download."
        ) from None


class ClassifierNet(nn.Module):
    """A small convolutional classifier of a data set's own images.

    Args:
        channels: Of the images.
        num_classes: Classes, or captions.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        first, second = _CHANNELS
        self.stages = nn.Sequential(
            nn.Conv2d(channels, first, 3, padding=1), nn.GroupNorm(8, first), nn.SiLU(),
            nn.Conv2d(first, second, 3, padding=1, stride=2), nn.GroupNorm(8, second), nn.SiLU(),
            nn.Conv2d(second, second, 3, padding=1), nn.GroupNorm(8, second), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(second, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, K)."""
        logits: Tensor = self.head(self.stages(images).mean(dim=(2, 3)))
        return logits


class ClassifierEncoder:
    """The last feature map of a `ClassifierNet`, averaged down to the model's grid.

    Args:
        net: A trained one.
        device: Where it works.
    """

    size = _CHANNELS[-1]

    def __init__(self, net: ClassifierNet, *, device: torch.device) -> None:
        self._stages = net.stages.to(device).eval().requires_grad_(False)

    @classmethod
    def load(
        cls, path: Path, *, channels: int, num_classes: int, device: torch.device
    ) -> ClassifierEncoder:
        """The encoder in a file that `fit_encoder`'s net was saved to.

        Raises:
            DataError: The file is missing, damaged, or of other data.
        """
        net = ClassifierNet(channels, num_classes)
        if not path.exists():
            raise DataError(f"{path} is missing: the study's preparation has not been finished.")
        load_weights(net, path)
        return cls(net, device=device)

    @torch.no_grad()
    def __call__(self, images: Tensor, *, grid: int) -> Tensor:
        """See `FeatureEncoder`."""
        features = functional.adaptive_avg_pool2d(self._stages(images), grid)
        return features.flatten(2).transpose(1, 2)


def feature_size(encoder: str) -> int:
    """Size of the features of `RepaConfig.encoder`.

    Raises:
        EnvironmentFailure: Its config cannot be had.
        UsageError: It is another kind of model.
    """
    kind, _, name = encoder.partition(":")
    if kind != "dinov2":
        return ClassifierEncoder.size
    return _DINOV2_SIZES.get(name) or int(_dinov2_config(name).hidden_size)


def check_encoder(encoder: str) -> None:
    """Make sure that an encoder can be had, without loading its weights.

    Raises:
        EnvironmentFailure: It cannot.
        UsageError: It is another kind of model.
    """
    kind, _, name = encoder.partition(":")
    if kind == "dinov2":
        _dinov2_config(name)


def open_encoder(
    encoder: str, dataset: ImageDataset, folder: Path, *, seed: int, device: torch.device
) -> FeatureEncoder:
    """The encoder that `RepaConfig.encoder` names.

    Args:
        encoder: `classifier` or `dinov2:NAME_OR_FOLDER`.
        dataset: The training images; of latents, those kept beside them.
        folder: The run's; a classifier is looked for there and in the folder above, the study's,
            and trained if it is in neither.
        seed: Of the classifier's training.
        device: Where it works.

    Raises:
        DataError: The data have no classes.
        EnvironmentFailure: The weights cannot be had.
    """
    kind, _, name = encoder.partition(":")
    if kind == "dinov2":
        return Dinov2(name, device=device)
    places = (folder / ENCODER_FILE, folder.parent / ENCODER_FILE)
    path = next((place for place in places if place.exists()), None)
    if path is None:
        path = places[0]
        save_encoder(dataset, path, seed=seed)
    return ClassifierEncoder.load(
        path, channels=dataset.channels, num_classes=dataset.num_classes, device=device
    )


def save_encoder(dataset: ImageDataset, path: Path, *, seed: int) -> None:
    """Train the data set's own classifier and save it.

    Raises:
        DataError: The data have fewer than two classes.
    """
    net = fit_encoder(dataset, seed=seed)
    write_whole(path, partial(save_weights, net))


def fit_encoder(dataset: ImageDataset, *, seed: int) -> ClassifierNet:
    """Trains a `ClassifierNet` on a data set, the same one every time.

    Images are shifted by up to an eighth of their side, so that one image of a caption is more than
    one example.

    Raises:
        DataError: The data have fewer than two classes.
    """
    if dataset.num_classes < 2:
        raise DataError(
            f"repa.encoder is `classifier`, but the images of {dataset.name} have "
            f"{dataset.num_classes} class; expected at least two. Use dinov2:NAME_OR_FOLDER."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "encoder"))
        net = ClassifierNet(dataset.channels, dataset.num_classes)
    optimizer = torch.optim.AdamW(net.parameters(), lr=_LR)
    rng = generator(seed, "encoder")
    size = min(_BATCH_SIZE, dataset.num_samples)
    per_pass = dataset.num_samples // size
    most = max(1, dataset.size // 8)
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _LR * 0.5 * (1 + math.cos(math.pi * step / _STEPS))
        order = permutation(dataset.num_samples, seed + step // per_pass)
        at = step % per_pass * size
        images, labels = dataset.batch(order[at : at + size])
        shift = torch.randint(-most, most + 1, (2,), generator=rng).tolist()
        moved = torch.roll(images, shift, dims=(2, 3))
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(net(moved), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.eval()

"""Frozen text encoders: the built-in one of bytes, and those of transformers."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mudit.data.text import TextFeatures, encode_captions
from mudit.errors import EnvironmentFailure, UsageError

_BATCH = 64
_TOKENISED = 1 << 12
# A tokenizer without a limit says 1e30.
_NO_LIMIT = 100_000


class TextSizes(NamedTuple):
    """The sizes of an encoder's features.

    Attributes:
        tokens: Most tokens of a caption, the end mark included.
        dim: Size of a token.
        pooled_dim: Size of the vector for a whole caption.
    """

    tokens: int
    dim: int
    pooled_dim: int


class TextEncoder(Protocol):
    """A frozen encoder of texts."""

    @property
    def hash(self) -> str:
        """SHA-256 of its weights, hex."""

    def lengths(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption before any is cut off, the end mark included."""

    def sizes(self, captions: Sequence[str], *, most_tokens: int = 0) -> TextSizes:
        """Sizes of the features of captions.

        Args:
            captions: What will be encoded.
            most_tokens: Where longer captions are cut off; 0: where the encoder does.
        """

    def encode(self, captions: Sequence[str], *, tokens: int, warn: bool = True) -> TextFeatures:
        """Features of captions, on the CPU; a longer one is cut off with a warning.

        Args:
            captions: Texts; an empty one stands for "nothing said".
            tokens: Length of the result.
            warn: Whether to warn.
        """


def open_text_encoder(
    spec: str, *, bytes_dim: int = 64, device: torch.device | None = None
) -> TextEncoder:
    """The encoder that a user names.

    Args:
        spec: `bytes`, the built-in one; or `hf:NAME_OR_FOLDER`: T5 (its encoder), CLIP (its text
            model), or another encoder of transformers, from the hub or a local folder.
        bytes_dim: Size of a token of `bytes`.
        device: Where an encoder of transformers works; None: the CPU.

    Raises:
        EnvironmentFailure: transformers is not installed, or the weights cannot be had.
        UsageError: The spec is none of these.
    """
    kind, _, name = spec.partition(":")
    if spec == "bytes":
        return BytesEncoder(bytes_dim)
    if kind == "hf" and name:
        return HubEncoder(name, device=device)
    raise UsageError(
        f"text.encoder is {spec!r}, expected bytes or hf:NAME_OR_FOLDER, e.g. hf:models/minilm."
    )


@functools.lru_cache(maxsize=4)
def text_encoder_hash(spec: str) -> str:
    """`TextEncoder.hash` of an encoder of transformers; see `open_text_encoder`."""
    return open_text_encoder(spec).hash


def text_encoder_spec(name: str) -> str:
    """What a user calls an encoder, as `open_text_encoder` takes it: a folder may stand alone."""
    is_folder = not name.startswith("hf:") and Path(name).expanduser().is_dir()
    return f"hf:{name}" if name and is_folder else name


class BytesEncoder:
    """Frozen random weights over the bytes of a text; see `encode_captions`.

    Args:
        dim: Size of a token, and of the pooled vector.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim

    @property
    def hash(self) -> str:
        """See `TextEncoder.hash`."""
        return hashlib.sha256(f"bytes {self._dim}".encode()).hexdigest()

    def lengths(self, captions: Sequence[str]) -> list[int]:
        """See `TextEncoder.lengths`."""
        return [1 + len(caption.encode()) for caption in captions]

    def sizes(self, captions: Sequence[str], *, most_tokens: int = 0) -> TextSizes:
        """See `TextEncoder.sizes`."""
        longest = 1 + max((len(caption.encode()) for caption in captions), default=0)
        return TextSizes(min(longest, most_tokens or longest), self._dim, self._dim)

    def encode(self, captions: Sequence[str], *, tokens: int, warn: bool = True) -> TextFeatures:
        """See `TextEncoder.encode`."""
        codes = [caption.encode() for caption in captions]
        if warn:
            _warn_of_cuts(captions, [len(code) + 1 for code in codes], tokens, stacklevel=3)
        kept = [code[: tokens - 1].decode(errors="ignore") for code in codes]
        return encode_captions(kept, length=tokens, dim=self._dim, pooled_dim=self._dim)


class HubEncoder:
    """An encoder of transformers.

    Tokens are its last hidden state. The pooled vector is the projected one where the checkpoint is
    a CLIP with a text projection, else CLIP's `pooler_output`, else the mean over a caption's
    tokens.

    Args:
        name: A hub name or a local folder.
        device: Where it works; None: the CPU.

    Raises:
        EnvironmentFailure: transformers is not installed, or the weights cannot be had.
    """

    def __init__(self, name: str, *, device: torch.device | None = None) -> None:
        try:
            import transformers
        except ImportError:
            raise EnvironmentFailure(
                f"text.encoder hf:{name} needs transformers, which is not installed: pip install "
                "'mudit[text]'."
            ) from None
        with _loading(name):
            config = transformers.AutoConfig.from_pretrained(name)
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
        self._name, self._class = name, _model_class(config, transformers)
        own: Any = getattr(config, "text_config", config)  # a whole CLIP has one of two parts
        self._dim: int = own.d_model if hasattr(own, "d_model") else own.hidden_size
        self._projects = self._class.__name__.endswith("WithProjection")
        self._pooled_dim: int = own.projection_dim if self._projects else self._dim
        places = getattr(own, "max_position_embeddings", None)  # T5 has relative ones
        self._device = device or torch.device("cpu")
        self._limit = min(int(self._tokenizer.model_max_length), places or _NO_LIMIT, _NO_LIMIT)

    @cached_property
    def _model(self) -> nn.Module:
        # Sizes, all that a dry run needs, come without the weights.
        with _loading(self._name), _bar_of_downloads(self._name):
            model: nn.Module = self._class.from_pretrained(self._name, dtype=torch.float32)
        return model.to(self._device).eval().requires_grad_(False)

    @cached_property
    def hash(self) -> str:
        """See `TextEncoder.hash`; the same from safetensors or what torch.save writes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        return digest.hexdigest()

    def lengths(self, captions: Sequence[str]) -> list[int]:
        """See `TextEncoder.lengths`."""
        return list(map(len, self._ids(captions)))

    def sizes(self, captions: Sequence[str], *, most_tokens: int = 0) -> TextSizes:
        """See `TextEncoder.sizes`."""
        parts = range(0, len(captions), _TOKENISED)  # of ten million, few at once
        longest = max(
            (max(self.lengths(captions[at : at + _TOKENISED])) for at in parts), default=1
        )
        tokens = min(longest, self._limit, most_tokens or longest)
        return TextSizes(tokens, self._dim, self._pooled_dim)

    @torch.no_grad()
    def encode(self, captions: Sequence[str], *, tokens: int, warn: bool = True) -> TextFeatures:
        """See `TextEncoder.encode`."""
        if warn:  # torch's no_grad is a level of its own
            _warn_of_cuts(captions, self.lengths(captions), tokens, stacklevel=4)
        parts = [
            self._encode(captions[start : start + _BATCH], tokens)
            for start in range(0, len(captions), _BATCH)
        ]
        return TextFeatures(*(torch.cat(column) for column in zip(*parts)))

    def _encode(self, captions: Sequence[str], tokens: int) -> TextFeatures:
        batch = self._tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=tokens,
            return_tensors="pt",
        ).to(self._device)
        mask = batch["attention_mask"].bool()
        output = self._model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        hidden: Tensor = output.last_hidden_state * mask.unsqueeze(-1)
        if self._projects:
            pooled = output.text_embeds
        elif self._class.__name__.startswith("CLIP"):
            pooled = output.pooler_output
        else:
            pooled = hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return TextFeatures(hidden.cpu(), mask.cpu(), pooled.cpu())

    def _ids(self, captions: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(list(captions), verbose=False)["input_ids"]
        return ids


def _model_class(config: Any, transformers: Any) -> Any:
    if config.model_type in ("t5", "mt5", "umt5"):
        return {
            "t5": transformers.T5EncoderModel,
            "mt5": transformers.MT5EncoderModel,
            "umt5": transformers.UMT5EncoderModel,
        }[config.model_type]
    if config.model_type in ("clip", "clip_text_model"):
        named = config.architectures or []
        projects = config.model_type == "clip" or "CLIPTextModelWithProjection" in named
        return transformers.CLIPTextModelWithProjection if projects else transformers.CLIPTextModel
    return transformers.AutoModel


@contextmanager
def _loading(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise EnvironmentFailure(
            f"the text encoder {name} cannot be loaded: {first} Give text.encoder (of a finished "
            "run: --text_encoder of `mudit sample` and `mudit export`) a local folder with "
            "config.json, model.safetensors and the tokenizer's files, e.g. hf:models/minilm, or "
            "`bytes`, which needs no download."
        ) from None


@contextmanager
def _bar_of_downloads(name: str) -> Iterator[None]:
    """No bar for a local folder, read in no time: it would stand among a study's own lines."""
    import transformers

    bars: Any = transformers.utils.logging  # which has no annotations
    shown = bars.is_progress_bar_enabled()
    if Path(name).is_dir():
        bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


class CutOff:
    """Counts captions that are cut off, for one warning: thousands of lines would hide the rest.

    Args:
        tokens: After how many.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens, self._first, self._length = tokens, "", 0
        self._cut = self._seen = 0

    def count(self, captions: Sequence[str], lengths: Sequence[int]) -> None:
        """Take note of some captions and their lengths, tokens."""
        self._seen += len(captions)
        for caption, length in zip(captions, lengths, strict=True):
            if length > self._tokens:
                if not self._cut:
                    self._first, self._length = caption, length
                self._cut += 1

    def warn(self, *, stacklevel: int) -> None:
        """Warn, if any is."""
        if not self._cut:
            return
        shown = self._first if len(self._first) <= 60 else f"{self._first[:57]}..."
        others = f", and so are {self._cut - 1:,} of {self._seen - 1:,} others"
        warnings.warn(
            f"the caption {shown!r} has {self._length} tokens and is cut off after {self._tokens}"
            + (others if self._cut > 1 else ""),
            stacklevel=stacklevel + 1,
        )


def _warn_of_cuts(
    captions: Sequence[str], lengths: Sequence[int], tokens: int, *, stacklevel: int
) -> None:
    cut = CutOff(tokens)
    cut.count(captions, lengths)
    cut.warn(stacklevel=stacklevel)

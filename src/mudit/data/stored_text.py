"""Features of captions, encoded once: the folder that `text.features` names, or a study's own.

A row is a caption, the last one the empty caption, "nothing said". Of each, the tokens that its
mask keeps are stored at their true number: captions of 20 tokens in a table of 120 take a sixth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mudit.data.encode_latents import StoredDtype
from mudit.data.encoders import CutOff, TextEncoder, TextSizes, text_encoder_hash
from mudit.data.store import (
    HEADER,
    Column,
    Layout,
    Store,
    read_layout,
    rows_for_shards,
    write_store,
)
from mudit.data.strings import texts_digest
from mudit.data.text import TextFeatures
from mudit.errors import DataError, EnvironmentFailure, UsageError

KIND = "text"

_BATCH = 64  # captions encoded at once

Array = npt.NDArray[Any]


class StoredText:
    """Features of captions and, last, of an empty one.

    Args:
        folder: What `store_text` wrote.

    Raises:
        DataError: It is missing, not finished or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._store = Store.open(folder, kind=KIND)
        self.sizes = _sizes(self._store.layout)

    def __len__(self) -> int:
        return self._store.layout.num_rows

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows as `rows` would give them."""
        sizes = self.sizes
        return len(self) * (4 * sizes.tokens * sizes.dim + sizes.tokens + 4 * sizes.pooled_dim)

    def rows(self, indices: npt.NDArray[np.int64]) -> TextFeatures:
        """Features of some captions, float32, on the CPU.

        Raises:
            DataError: A shard cannot be read.
        """
        mask = self._store.rows("mask", indices)  # (B, L)
        tokens = np.zeros((len(indices), self.sizes.tokens, self.sizes.dim), dtype=np.float32)
        for place, index in enumerate(indices.tolist()):
            tokens[place, mask[place]] = self._store.ragged("tokens", index)
        pooled = self._store.rows("pooled", indices).astype(np.float32)
        return TextFeatures(*map(torch.from_numpy, (tokens, mask, pooled)))

    @property
    def pooled(self) -> npt.NDArray[np.float32]:
        """The vector of each caption as a whole and, last, of the empty one; for some 100,000."""
        return self._store.span("pooled", 0, len(self)).astype(np.float32)

    def all(self) -> TextFeatures:
        """Of all captions; for few of them."""
        return self.rows(np.arange(len(self), dtype=np.int64))


def store_text(
    captions: Sequence[str],
    encoder: TextEncoder,
    out: Path,
    *,
    spec: str,
    tokens: int,
    max_tokens: int = 0,
    dtype: StoredDtype = "float32",
    shard_rows: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the features of captions and of an empty one, or what is left of them.

    Args:
        captions: Texts; those longer than `tokens` are cut off, with one warning.
        encoder: What encodes them.
        out: The folder.
        spec: What the user calls the encoder; a folder of the same weights keeps its own name.
        tokens: Places for tokens, at most.
        max_tokens: What the user wanted `tokens` to be at most; 0: anything.
        dtype: Of the stored features.
        shard_rows: Captions in a shard; 0: as make 64 MiB if all were of the greatest length.
        on_progress: Told (captions done, captions in all).

    Returns:
        How many shards were written now.

    Raises:
        ConfigMismatchError: The folder holds features of something else.
        DataError: The encoder gives what is not finite in `dtype`.
        EnvironmentFailure: The weights cannot be had, or the disk is full.
        UsageError: A number is out of range.
    """
    if shard_rows < 0:
        raise UsageError(f"--shard_rows is {shard_rows}, expected ≥ 0.")
    sizes = encoder.sizes((), most_tokens=tokens)
    columns = {
        "tokens": Column(dtype=dtype, shape=(sizes.dim,), ragged=True),
        "mask": Column(dtype="bool", shape=(tokens,)),
        "pooled": Column(dtype=dtype, shape=(sizes.pooled_dim,)),
    }
    layout = Layout(
        kind=KIND,
        facts=text_facts(_name_there(out, encoder) or spec, captions, tokens, dtype)
        | {
            "max_tokens": max_tokens,
            "encoder_hash": encoder.hash,
            "dim": sizes.dim,
            "pooled_dim": sizes.pooled_dim,
        },
        columns=columns,
        num_rows=len(captions) + 1,
        shard_rows=shard_rows or rows_for_shards(columns, items=tokens),
    )
    cut = CutOff(tokens)

    def produce(start: int, stop: int) -> Mapping[str, Array]:
        parts: dict[str, list[Array]] = {name: [] for name in (*columns, "tokens.lengths")}
        for first in range(start, stop, _BATCH):
            texts = _texts(captions, first, min(stop, first + _BATCH))
            cut.count(texts, encoder.lengths(texts))
            features = encoder.encode(texts, tokens=tokens, warn=False)
            mask = features.mask.numpy()
            parts["tokens"].append(features.tokens.numpy()[mask])
            parts["tokens.lengths"].append(mask.sum(axis=1))
            parts["mask"].append(mask)
            parts["pooled"].append(features.pooled.numpy())
            if on_progress is not None:
                on_progress(min(stop, first + _BATCH), layout.num_rows)
        found = {name: np.concatenate(values) for name, values in parts.items()}
        return {name: _stored(name, values, dtype, spec) for name, values in found.items()}

    try:
        return write_store(out, layout, produce, on_progress=on_progress)
    finally:
        cut.warn(stacklevel=2)


def text_facts(spec: str, captions: Iterable[str], tokens: int, dtype: str) -> dict[str, str]:
    """What has to agree between stored features and what a run is told, in words."""
    digest = texts_digest(captions)
    return {"encoder": spec, "tokens": str(tokens), "dtype": dtype, "captions": digest}


def stored_text_sizes(folder: Path) -> TextSizes:
    """The sizes of the features in a folder; no encoder is needed.

    Raises:
        DataError: It is missing or damaged.
    """
    return _sizes(read_layout(folder, kind=KIND))


def _sizes(layout: Layout) -> TextSizes:
    facts = layout.facts
    return TextSizes(int(facts["tokens"]), int(facts["dim"]), int(facts["pooled_dim"]))


def stored_tokens(folder: Path, max_tokens: int) -> int:
    """The length that features in a folder should have, where a config says `text.max_tokens`.

    It is theirs, if the config leaves it open or says what `mudit data text` was told: of captions
    that are all shorter the longest decides.

    Raises:
        DataError: The folder is missing or damaged.
    """
    facts = read_layout(folder, kind=KIND).facts
    return int(facts["tokens"]) if max_tokens in (0, facts["max_tokens"]) else max_tokens


def is_stored(folder: Path) -> bool:
    """Whether there are features in a folder, finished or begun."""
    return (folder / HEADER).exists()


def check_text(folder: Path, expected: Mapping[str, str]) -> Layout:
    """What a folder of features says, if it is what is expected; see `text_facts`.

    An encoder of another name is opened, and is the same if its weights are.

    Raises:
        DataError: The folder is missing or damaged, or its features are of another encoder, length
            or storage, or of other captions.
    """
    layout = read_layout(folder, kind=KIND)
    found = layout.facts
    wrong = [name for name in expected if found[name] != expected[name]]
    difference = _other_weights(found, expected["encoder"]) if wrong == ["encoder"] else ""
    if wrong and (wrong != ["encoder"] or difference):
        shown = ", ".join(f"{name}: {found[name]} there, {expected[name]} here" for name in wrong)
        raise DataError(
            f"{folder} holds text features of something else ({shown}{difference}). Correct "
            "text.encoder, text.max_tokens, text.dtype or text.features; or delete the folder, and "
            "the captions are encoded again."
        )
    return layout


def _other_weights(facts: Mapping[str, Any], spec: str) -> str:
    """In words, why an encoder is not that of some features; empty: it has their weights."""
    known = facts["encoder_hash"]
    if "bytes" in (spec, facts["encoder"]):
        return "; the built-in encoder is no other"
    try:
        found = text_encoder_hash(spec)
    except EnvironmentFailure as error:
        return f"; whether its weights are the same cannot be seen: {error}"
    return "" if found == known else f"; hash {known[:12]} there, {found[:12]} here"


def _name_there(folder: Path, encoder: TextEncoder) -> str:
    """What features of an encoder's weights call it, if such have been begun in a folder."""
    if not is_stored(folder):
        return ""
    facts = read_layout(folder, kind=KIND).facts
    return str(facts["encoder"]) if facts["encoder_hash"] == encoder.hash else ""


def _texts(captions: Sequence[str], start: int, stop: int) -> list[str]:
    """Of some rows; the last row is empty."""
    return [captions[row] if row < len(captions) else "" for row in range(start, stop)]


def _stored(name: str, values: Array, dtype: str, spec: str) -> Array:
    if values.dtype.kind != "f":
        return values
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        stored = values.astype(dtype)
    if not np.isfinite(stored).all():
        raise DataError(
            f"the text encoder {spec} gives {name} that are not finite in {dtype}. Store them in "
            "float32."
        )
    return stored

"""Rows of tensors in safetensors shards, written one by one and read memory-mapped.

A store is a folder:

    header.json               what the rows are, how many, in shards of how many
    rows-000000.safetensors   a shard; its metadata repeat what the rows are
    .lock                     held by the command that writes

Nothing that grows with the number of rows is held in memory; a shard is written aside, flushed and
renamed, so a store that was killed goes on with the first shard that is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mudit.errors import ConfigMismatchError, DataError, UsageError
from mudit.files import exclusive, write_bytes, write_text

HEADER = "header.json"

_FORMAT = 1
_SHARD_BYTES = 1 << 26  # what a kill loses at most; ten million latents of 32 kB fill 4,900 shards
_KEY = "mudit"  # one key: safetensors writes several in any order, and shards are to be the same
_LONGEST = 100  # letters of a value that are shown

_NAMED = 5  # skipped rows that the header names; shards name all of theirs

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Skips: TypeAlias = Mapping[int, str]
"""Rows that hold nothing, and why."""
NONE_SKIPPED: Skips = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Column:
    """One tensor of each row.

    Attributes:
        dtype: As NumPy calls it.
        shape: Of a row's tensor; where `ragged`, of one of its items.
        ragged: Whether rows have different numbers of items.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    ragged: bool = False

    @property
    def item_bytes(self) -> int:
        """Bytes of a row's tensor, or of one of its items."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a store holds.

    Attributes:
        kind: `latents` or `text`.
        facts: What its rows were made from and how, as JSON has it.
        columns: By name.
        num_rows: Rows in all.
        shard_rows: Rows in a shard; the last may have fewer.
    """

    kind: str
    facts: Mapping[str, Any]
    columns: Mapping[str, Column]
    num_rows: int
    shard_rows: int

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_rows // self.shard_rows)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it, hex."""
        return hashlib.sha256(json.dumps(self._fields(), sort_keys=True).encode()).hexdigest()

    def to_json(self, skipped: Skips = NONE_SKIPPED) -> str:
        """As `header.json` has it; what was skipped is known in the end, and not in the digest."""
        fields = {**self._fields(), "digest": self.digest}
        if skipped:
            first = [skipped[row] for row in sorted(skipped)[:_NAMED]]
            fields["skipped"] = {"count": len(skipped), "first": first}
        return json.dumps(fields, indent=1) + "\n"

    def shard_metadata(self, shard: int, skipped: Skips = NONE_SKIPPED) -> dict[str, str]:
        """As a shard has it."""
        fields = {"digest": self.digest, "shard": shard, "facts": self.facts}
        if skipped:
            fields["skipped"] = [[row, skipped[row]] for row in sorted(skipped)]
        return {_KEY: json.dumps(fields, sort_keys=True)}

    def bounds(self, shard: int) -> tuple[int, int]:
        """The rows of a shard: first, and one behind the last."""
        return shard * self.shard_rows, min(self.num_rows, (shard + 1) * self.shard_rows)

    def _fields(self) -> dict[str, Any]:
        return {"format": _FORMAT, **json.loads(json.dumps(dataclasses.asdict(self)))}


def rows_for_shards(columns: Mapping[str, Column], *, items: int = 1) -> int:
    """Rows that make a shard of about 64 MiB; `items`: of a row's ragged columns, at most."""
    row = sum(c.item_bytes * (items if c.ragged else 1) for c in columns.values())
    return max(1, _SHARD_BYTES // row)


def shard_file(shard: int) -> str:
    """Name of a shard."""
    return f"rows-{shard:06d}.safetensors"


# --- writing --------------------------------------------------------------------------------------


def write_store(
    folder: Path,
    layout: Layout,
    produce: Callable[[int, int], Mapping[str, Array]],
    *,
    extra: Callable[[], None] = lambda: None,
    skipped: dict[int, str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a store, or the shards that it lacks.

    Args:
        folder: Made if absent.
        layout: What it will hold.
        produce: From a first row and one behind the last, each column's rows. For a ragged column
            `NAME` the items of all rows in one array, and `NAME.lengths`, int64.
        extra: Called once the folder is ours, for files beside the shards.
        skipped: Rows that hold nothing, and why: those of shards that are there are added first,
            `produce` adds its own. Shards and header keep them. None: there can be none.
        on_progress: Told (rows done, rows in all) after each shard.

    Returns:
        How many shards were written now.

    Raises:
        ConfigMismatchError: The folder is a store of something else.
        EnvironmentFailure: The disk is full.
        FolderBusyError: Another command writes it.
        UsageError: The folder holds something else, or a number is out of range.
    """
    if layout.num_rows < 1 or layout.shard_rows < 1:
        raise UsageError(
            f"a store of {layout.num_rows} rows in shards of {layout.shard_rows}; expected at "
            "least one of each. Correct --shard_rows, or take data that are not empty."
        )
    if folder.is_dir() and not (folder / HEADER).exists():
        foreign = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if foreign:
            raise UsageError(
                f"{folder} holds {foreign[0]} and no {HEADER}, so it is no store of mudit. Choose "
                "another folder with --out."
            )
    skipped = {} if skipped is None else skipped
    with exclusive(folder):
        _claim(folder, layout)
        extra()
        missing = set[int]()
        for shard in range(layout.num_shards):
            found = _skipped_in(folder / shard_file(shard), layout, shard)
            if found is None:
                missing.add(shard)
            else:
                skipped |= found
        for shard in range(layout.num_shards):
            start, stop = layout.bounds(shard)
            if shard in missing:
                tensors = _tensors(layout, produce(start, stop), stop - start)
                own = {row: why for row, why in skipped.items() if start <= row < stop}
                content = save(tensors, metadata=layout.shard_metadata(shard, own))
                write_bytes(folder / shard_file(shard), content)
            if on_progress is not None:
                on_progress(stop, layout.num_rows)
        header = layout.to_json(skipped)
        if (folder / HEADER).read_text(encoding="utf-8") != header:
            write_text(folder / HEADER, header)
    return len(missing)


def _claim(folder: Path, layout: Layout) -> None:
    path = folder / HEADER
    if not path.exists():
        write_text(path, layout.to_json())
        return
    there = read_layout(folder, kind=layout.kind)
    if there.digest == layout.digest:
        return
    pairs = _differences(_flat(there), _flat(layout))
    raise ConfigMismatchError(
        f"{folder} was begun with something else: {_shown(pairs, 'there', 'here')}. Repeat the "
        "first command to go on with it, choose another folder with --out, or delete it."
    )


def _tensors(layout: Layout, produced: Mapping[str, Array], count: int) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for name, column in layout.columns.items():
        values = np.ascontiguousarray(produced[name], dtype=column.dtype)
        rows = count
        if column.ragged:
            lengths = produced[f"{name}.lengths"]
            assert len(lengths) == count
            ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            tensors[_ends(name)], rows = ends, int(ends[-1])
        assert values.shape == (rows, *column.shape), (name, values.shape)
        tensors[name] = values
    return tensors


def _ends(name: str) -> str:
    return f"{name}.ends"


def _skipped_in(path: Path, layout: Layout, shard: int) -> Skips | None:
    """The skipped rows of a shard; None if it is not there, or not whole."""
    if not path.exists():
        return None
    try:
        return _open_shard(path, layout, shard)[1]
    except DataError:
        return None


# --- reading --------------------------------------------------------------------------------------


def is_finished(folder: Path) -> bool:
    """Whether a folder is a store that lacks no shard; nothing is read of them.

    Raises:
        DataError: Its header is damaged.
    """
    if not (folder / HEADER).exists():
        return False
    layout = read_layout(folder)
    return all((folder / shard_file(shard)).exists() for shard in range(layout.num_shards))


class Store:
    """Rows of a finished store.

    Random rows are read through safetensors' own mapping. On 400 shards, 256 random rows of 2 kB
    took 2.8 ms; NumPy's memmap took 3.8 ms, a bare mmap 1.6 ms, and both keep a file open for each
    shard, of which a process may have 1,024.

    Attributes:
        folder: Where it is.
        layout: What it holds.
        skipped: Numbers of rows that hold nothing, in order.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self._shards, skipped = [], list[int]()
        for shard in range(layout.num_shards):
            opened, found = _open_shard(folder / shard_file(shard), layout, shard)
            self._shards.append(opened)
            skipped += found
        self.skipped: Indices = np.array(skipped, dtype=np.int64)

    @classmethod
    def open(cls, folder: Path, *, kind: str) -> Store:
        """The store in a folder; all of its shards are looked at, none is read.

        Raises:
            DataError: It is missing, not finished, damaged, or of another kind.
        """
        layout = read_layout(folder, kind=kind)
        missing = [
            shard for shard in range(layout.num_shards) if not (folder / shard_file(shard)).exists()
        ]
        if missing:
            raise DataError(
                f"{folder} lacks {len(missing)} of its {layout.num_shards} shards, the first "
                f"{shard_file(missing[0])}. Repeat the `mudit data {kind}` command that began it: "
                "it does what is left."
            )
        return cls(folder, layout)

    def rows(self, name: str, indices: Indices) -> Array:
        """A column's rows, in the order asked for, shape (B, *shape).

        Raises:
            DataError: A shard cannot be read.
        """
        column = self.layout.columns[name]
        found = np.empty((len(indices), *column.shape), dtype=column.dtype)
        for place, index in enumerate(indices.tolist()):
            shard, row = divmod(index, self.layout.shard_rows)
            with _damage(self.folder / shard_file(shard)):
                found[place] = self._shards[shard].get_slice(name)[row]
        return found

    def span(self, name: str, start: int, stop: int) -> Array:
        """A column's rows `start` to `stop`, shape (stop - start, *shape), shard by shard.

        Raises:
            DataError: A shard cannot be read.
        """
        parts = []
        for shard in range(start // self.layout.shard_rows, self.layout.num_shards):
            first, end = self.layout.bounds(shard)
            if first >= stop:
                break
            with _damage(self.folder / shard_file(shard)):
                rows = self._shards[shard].get_slice(name)
                parts.append(rows[max(start, first) - first : min(stop, end) - first])
        found: Array = np.concatenate(parts)
        return found

    def ragged(self, name: str, index: int) -> Array:
        """All items of a row in a ragged column, shape (items, *shape).

        Raises:
            DataError: The shard cannot be read.
        """
        shard, row = divmod(index, self.layout.shard_rows)
        with _damage(self.folder / shard_file(shard)):
            start, stop = self._shards[shard].get_slice(_ends(name))[row : row + 2].tolist()
            if start == stop:  # which safetensors refuses at the end of a tensor
                column = self.layout.columns[name]
                return np.empty((0, *column.shape), dtype=column.dtype)
            found: Array = self._shards[shard].get_slice(name)[start:stop]
        return found


def read_layout(folder: Path, *, kind: str = "") -> Layout:
    """What a store's header says.

    Args:
        folder: The store's.
        kind: What it should be; empty: any.

    Raises:
        DataError: It is missing, damaged, edited, or of another kind.
    """
    path = folder / HEADER
    if not path.exists():
        raise DataError(
            f"there is no {path}; expected a folder that `mudit data {kind}` wrote. Correct the "
            "path, or make it."
        )
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version, found = fields.pop("format"), fields.pop("kind")
        digest, _ = fields.pop("digest"), fields.pop("skipped", None)  # shards know it better
        columns = {
            name: Column(**{**column, "shape": tuple(column["shape"])})
            for name, column in fields.pop("columns").items()
        }
        layout = Layout(kind=found, columns=columns, **fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged ({type(error).__name__}: {error}); expected what `mudit data "
            f"{kind}` wrote. Restore it, or delete the folder and make it again."
        ) from error
    if version != _FORMAT or (kind and found != kind):
        raise DataError(
            f"{path} is of {found}, format {version}; expected {kind or found}, format {_FORMAT}. "
            "Give a folder that `mudit data` of this version wrote."
        )
    if layout.digest != digest:
        raise DataError(_edited(folder, layout))
    return layout


def _edited(folder: Path, layout: Layout) -> str:
    """What was edited, as far as the first shard tells."""
    text = f"{folder / HEADER} was edited after it was written"
    try:
        with safe_open(folder / shard_file(0), framework="np") as shard:
            facts = json.loads(shard.metadata()[_KEY])["facts"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        facts = layout.facts
    pairs = _differences(facts, layout.facts)
    if pairs:
        text += f": {_shown(pairs, f'in {shard_file(0)}', f'in {HEADER}')}"
    return f"{text}. Put it back, or delete the folder and make it again."


def _open_shard(path: Path, layout: Layout, shard: int) -> tuple[Any, Skips]:
    with _damage(path):
        # Without __exit__: it is mapped for as long as it is used, and holds no open file.
        opened: Any = safe_open(path, framework="np").__enter__()  # type: ignore[no-untyped-call]
        metadata = opened.metadata() or {}
        if metadata == layout.shard_metadata(shard):
            return opened, NONE_SKIPPED
        try:
            found = json.loads(metadata[_KEY])
            skipped = {int(row): str(why) for row, why in found.get("skipped", ())}
            if metadata == layout.shard_metadata(shard, skipped):
                return opened, skipped
            pairs = _differences(found["facts"], layout.facts) or _differences(
                {"shard": found["shard"], "header": found["digest"]},
                {"shard": shard, "header": layout.digest},
            )
        except (KeyError, ValueError, TypeError):
            raise ValueError("it has not the metadata of a shard") from None
    raise DataError(
        f"{path} is not of this store: {_shown(pairs, 'there', f'in {HEADER}')}. Delete the folder "
        f"and make it again with `mudit data {layout.kind}`."
    )


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"the shard {path} cannot be read ({error}); expected a complete one. Delete it and "
            "repeat the command that made it: it does what is missing."
        ) from error


def _flat(layout: Layout) -> dict[str, Any]:
    return {
        **layout.facts,
        "columns": json.loads(json.dumps(dataclasses.asdict(layout)["columns"])),
        "rows": layout.num_rows,
        "shard_rows": layout.shard_rows,
    }


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    names = dict.fromkeys([*one, *other])
    return [(n, one.get(n), other.get(n)) for n in names if one.get(n) != other.get(n)]


def _shown(pairs: list[tuple[str, Any, Any]], there: str, here: str) -> str:
    def short(value: Any) -> str:
        text = json.dumps(value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

    return "; ".join(f"{name}: {short(a)} {there}, {short(b)} {here}" for name, a, b in pairs)

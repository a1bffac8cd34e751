"""Stores of rows: written shard by shard, resumed, refused when something is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mudit.data.store import (
    Column,
    Layout,
    Store,
    is_finished,
    rows_for_shards,
    shard_file,
    write_store,
)
from mudit.data.strings import MappedStrings, Strings, texts_digest
from mudit.errors import ConfigMismatchError, DataError, UsageError

ROWS = 23
LAYOUT = Layout(
    kind="latents",
    facts={"scale": 0.18215, "vae": "some/vae"},
    columns={
        "mean": Column(dtype="float16", shape=(2, 3)),
        "label": Column(dtype="int64"),
        "tokens": Column(dtype="float32", shape=(2,), ragged=True),
    },
    num_rows=ROWS,
    shard_rows=5,
)
LENGTHS = np.arange(ROWS) % 4


def produce(start: int, stop: int) -> dict[str, np.ndarray]:
    rows = np.arange(start, stop)
    lengths = LENGTHS[start:stop]
    items = np.repeat(rows, lengths)[:, None] + np.array([0.0, 0.5])
    mean = rows[:, None, None] + np.arange(6).reshape(2, 3)
    return {"mean": mean, "label": rows, "tokens": items, "tokens.lengths": lengths}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert write_store(tmp_path / "store", LAYOUT, produce) == 5
    return tmp_path / "store"


def test_rows_come_back_in_the_order_asked_for(folder: Path) -> None:
    store = Store.open(folder, kind="latents")
    indices = np.array([22, 0, 7, 7, 4, 5, 13])
    expected = indices[:, None, None] + np.arange(6).reshape(2, 3)
    found = store.rows("mean", indices)
    assert found.dtype == np.float16
    assert np.array_equal(found, expected)
    assert np.array_equal(store.rows("label", indices), indices)
    for index in range(ROWS):
        items = store.ragged("tokens", index)
        assert items.shape == (LENGTHS[index], 2)
        assert np.array_equal(items[:, 1], np.full(LENGTHS[index], index + 0.5))


@pytest.mark.parametrize(("start", "stop"), [(0, ROWS), (3, 4), (4, 11), (5, 10), (20, 23)])
def test_spans_are_the_rows_between(folder: Path, start: int, stop: int) -> None:
    store = Store.open(folder, kind="latents")
    assert np.array_equal(store.span("label", start, stop), np.arange(start, stop))
    rows = np.arange(start, stop)
    assert np.array_equal(store.span("mean", start, stop), store.rows("mean", rows))


def test_a_shard_is_an_ordinary_safetensors_file(folder: Path) -> None:
    tensors = load_file(folder / "rows-000004.safetensors")
    assert tensors["label"].tolist() == [20, 21, 22]
    assert tensors["tokens.ends"].tolist() == [0, 0, 1, 3]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_writer_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"

    def die_in_the_third(start: int, stop: int) -> dict[str, np.ndarray]:
        if start == 10:
            (killed / ".rows-000002.safetensors.tmp").write_bytes(b"half of a sh")
            os.kill(os.getpid(), signal.SIGKILL)
        return produce(start, stop)

    child = os.fork()
    if not child:
        write_store(killed, LAYOUT, die_in_the_third)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in killed.glob("rows-*")}
    assert len(kept) == 2
    assert not is_finished(killed)
    with pytest.raises(DataError, match=r"lacks 3 of its 5 shards, the first rows-000002"):
        Store.open(killed, kind="latents")
    assert write_store(killed, LAYOUT, produce) == 3
    assert is_finished(killed)
    assert {name: (killed / name).stat().st_mtime_ns for name in kept} == kept, "what is done stays"
    assert contents(killed) == contents(folder)


def test_a_damaged_shard_is_named_and_made_again(folder: Path) -> None:
    before, path = contents(folder), folder / "rows-000001.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-7], whole[:100], b"", b"\0" * len(whole)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"the shard .*rows-000001.safetensors cannot be read"):
            Store.open(folder, kind="latents")
        assert write_store(folder, LAYOUT, produce) == 1
    assert contents(folder) == before


def test_a_missing_or_swapped_shard_is_named(folder: Path) -> None:
    (folder / "rows-000003.safetensors").rename(folder / "aside")
    with pytest.raises(DataError, match=r"lacks 1 of its 5 shards, the first rows-000003"):
        Store.open(folder, kind="latents")
    (folder / "rows-000003.safetensors").write_bytes(
        (folder / "rows-000002.safetensors").read_bytes()
    )
    with pytest.raises(DataError, match=r"rows-000003.*not of this store: shard: 2 there, 3 in"):
        Store.open(folder, kind="latents")


def test_a_shard_of_another_vae_is_refused_with_both_names(folder: Path) -> None:
    path = folder / "rows-000001.safetensors"
    other = dataclasses.replace(LAYOUT, facts={**LAYOUT.facts, "vae": "other/vae"})
    save_file(load_file(path), path, metadata=other.shard_metadata(1))
    with pytest.raises(DataError, match=r'vae: "other/vae" there, "some/vae" in header'):
        Store.open(folder, kind="latents")


def test_an_edited_header_is_refused_with_both_values(folder: Path) -> None:
    path = folder / "header.json"
    fields = json.loads(path.read_text())
    fields["facts"]["scale"] = 0.5
    path.write_text(json.dumps(fields))
    words = r"edited.*scale: 0.18215 in rows-000000.safetensors, 0.5 in header.json"
    with pytest.raises(DataError, match=words):
        Store.open(folder, kind="latents")
    # With its digest made to fit, the shards still say what they were written as.
    other = dataclasses.replace(LAYOUT, facts=fields["facts"])
    path.write_text(other.to_json())
    with pytest.raises(DataError, match=r"scale: 0.18215 there, 0.5 in header"):
        Store.open(folder, kind="latents")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "kind": "latents"}'])
def test_a_damaged_header_is_named(folder: Path, text: str) -> None:
    (folder / "header.json").write_text(text)
    with pytest.raises(DataError, match=r"header.json is damaged"):
        Store.open(folder, kind="latents")


def test_other_kinds_and_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is of latents, format 1; expected text"):
        Store.open(folder, kind="text")
    with pytest.raises(DataError, match=r"there is no .*none/header.json"):
        Store.open(tmp_path / "none", kind="latents")
    other = dataclasses.replace(LAYOUT, facts={**LAYOUT.facts, "scale": 1.0}, shard_rows=4)
    words = r"begun with something else: scale: 0.18215 there, 1.0 here; shard_rows: 5 there, 4"
    with pytest.raises(ConfigMismatchError, match=words):
        write_store(folder, other, produce)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").touch()
    with pytest.raises(UsageError, match=r"photos holds a.png and no header.json"):
        write_store(tmp_path / "photos", LAYOUT, produce)
    with pytest.raises(UsageError, match="shards of 0"):
        write_store(tmp_path / "new", dataclasses.replace(LAYOUT, shard_rows=0), produce)


def test_shards_are_of_a_size_that_a_kill_may_cost() -> None:
    columns = {"mean": Column(dtype="float32", shape=(4, 32, 32))}
    assert rows_for_shards(columns) == 2**26 // 2**14
    columns["tokens"] = Column(dtype="float16", shape=(4096,), ragged=True)
    assert rows_for_shards(columns, items=120) == 2**26 // (2**14 + 120 * 8192)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_ten_million_rows_take_no_memory(tmp_path: Path) -> None:
    """Shards of 320 GB, sparse: opened, and read at random, in 32 MiB of anonymous memory."""
    names = ("mean", "std", "mean_flipped", "std_flipped")
    layout = Layout(
        kind="latents",
        facts={},
        columns={
            **{name: Column(dtype="float16", shape=(4, 32, 32)) for name in names},
            "label": Column(dtype="int64"),
        },
        num_rows=10_000_000,
        shard_rows=100_000,
    )
    tmp_path.joinpath("header.json").write_text(layout.to_json())
    for shard in range(layout.num_shards):
        header: dict[str, object] = {"__metadata__": layout.shard_metadata(shard)}
        end = 0
        for name, column in reversed(layout.columns.items()):
            start, end = end, end + column.item_bytes * layout.shard_rows
            shape, dtype = [layout.shard_rows, *column.shape], {"int64": "I64"}.get(column.dtype)
            offsets = [start, end]
            header[name] = {"dtype": dtype or "F16", "shape": shape, "data_offsets": offsets}
        text = json.dumps(header).encode()
        with (tmp_path / shard_file(shard)).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
    before = anonymous_mib()
    store = Store.open(tmp_path, kind="latents")
    rng = np.random.default_rng(0)
    for _ in range(4):
        indices = rng.integers(0, layout.num_rows, 64)
        assert not store.rows("mean_flipped", indices).any()
        assert not store.rows("label", indices).any()
    assert anonymous_mib() - before < 32
    held = np.ones(10_000_000, dtype=np.int64)  # what labels in memory would take is seen
    assert anonymous_mib() - before > 64
    del held


def anonymous_mib() -> float:
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in x]
    return int(line.split()[1]) / 1024


def test_texts_are_mapped(tmp_path: Path) -> None:
    texts = ["", "a", "ünï", "", "\udc80 no UTF-8", "b" * 1000]
    Strings(texts).save(tmp_path / "texts")
    mapped = MappedStrings(tmp_path / "texts")
    assert list(mapped) == [mapped[index] for index in range(6)] == texts
    assert (mapped[-1], mapped[1:3], mapped[::2]) == (texts[-1], texts[1:3], texts[::2])
    assert mapped.digest == texts_digest(texts) == texts_digest(mapped)
    with pytest.raises(IndexError):
        mapped[6]
    Strings().save(tmp_path / "none")
    assert list(MappedStrings(tmp_path / "none")) == []
    content = (tmp_path / "texts").read_bytes()
    (tmp_path / "texts").write_bytes(content[:-3])
    with pytest.raises(DataError, match=r"the texts in .*texts cannot be read"):
        MappedStrings(tmp_path / "texts")

"""Ten million rows of latents and captions: what memory training from a store takes.

A store of synthetic latents (4x4x4 float16: mean, std and the mirrored twin, half a kilobyte a
row), each with a caption of its own, is written shard by shard, 2,048 rows in a shard: as many
shards as latents of 4x32x32 in float32 would fill. A store of text features has a row for each
caption, 2 to 12 tokens of 8 float16. Rows of real size would fill a disk and no more memory: pages
of mapped files are the system's cache, which drops them when memory is short.

In a fresh process: open both, draw batches of 256 rows in the order of training, half of them
mirrored, noise from the step's generator; ask for their captions and their captions' features.
Memory is anonymous memory (RssAnon of /proc/self/status): what the process itself holds, beyond
what it held before opening; that of mapped files (RssFile) stands beside it.

Bar: less than 300 MiB at the peak at ten million rows, most of it one epoch's order being made.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe, publish, quick, table

from mudit.data.latents import KIND, NAMES
from mudit.data.store import Column, Layout, rows_for_shards, write_store
from mudit.data.strings import Strings, texts_digest

_BAR_MIB = 300
_SHAPE = (4, 4, 4)
_NAMES = ("mean", "std", "mean_flipped", "std_flipped")

# In a fresh process.
_READ = """
import json, re, sys, threading, time
import numpy as np
from mudit.data import StoredText, batch_indices, flips, open_dataset
from pathlib import Path
from mudit.training import generator

def memory(key):
    with open("/proc/self/status") as status:
        return int(re.search(key + r":\\s*(\\d+)", status.read())[1]) / 1024

peak, stop = 0.0, threading.Event()
def watch():
    global peak
    while not stop.wait(0.002):
        peak = max(peak, memory("RssAnon"))

folder, batches = sys.argv[1], int(sys.argv[2])
open_dataset("digits")  # what is imported and made once counts as before
before = memory("RssAnon")
threading.Thread(target=watch).start()
start = time.perf_counter()
data = open_dataset("latents:" + folder, flip=True).train
text = StoredText(Path(folder + "-text"))
opened = time.perf_counter() - start
after_opening = memory("RssAnon")
start = time.perf_counter()
batch_indices(data.num_samples, 256, 0, 0)
order = time.perf_counter() - start
start = time.perf_counter()
for step in range(batches):
    indices = batch_indices(data.num_samples, 256, 0, step)
    x0, labels = data.batch(indices, flips(0, step, 256), generator(0, "step", step))
    names = [data.class_names[label] for label in labels.tolist()]
    told = text.rows(labels.numpy())
seconds = time.perf_counter() - start
after = memory("RssAnon")
stop.set()
print(json.dumps({
    "open_s": opened, "order_s": order, "rows_per_s": 256 * batches / seconds,
    "opening": after_opening - before, "held": after - before, "peak": peak - before,
    "file": memory("RssFile"),
}))
"""


def write(folder: Path, count: int) -> tuple[float, float]:
    """A synthetic store; returns the seconds that it took and its size in GiB."""
    start = time.perf_counter()
    columns = {name: Column(dtype="float16", shape=_SHAPE) for name in _NAMES}
    columns["label"] = Column(dtype="int64")
    captions = Strings(f"synthetic caption number {number}" for number in range(count))
    layout = Layout(
        kind=KIND,
        facts={
            "vae": "none", "vae_hash": "0" * 64, "scale": 1.0, "shift": 0.0, "image_size": 32,
            "preprocessing": "synthetic", "name": "synthetic", "source": "synthetic",
            "source_fingerprint": "", "flip": False, "captioned": True,
            "names": texts_digest(captions), "held_out": count // 20,
        },
        columns=columns,
        num_rows=count,
        # As many shards as rows of 32 kB (4x32x32 in float32, with the twin) would fill.
        shard_rows=min(rows_for_shards(columns), 2048),
    )  # fmt: skip

    def produce(first: int, last: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(first)
        values = rng.standard_normal((last - first, *_SHAPE)).astype(np.float16)
        return {**dict.fromkeys(_NAMES, values), "label": np.arange(first, last)}

    write_store(folder, layout, produce, extra=lambda: captions.save(folder / NAMES))
    size = sum(path.stat().st_size for path in folder.iterdir())
    return time.perf_counter() - start, size / 2**30


def write_text(folder: Path, count: int) -> None:
    """A synthetic store of text features, the empty caption's included."""
    columns = {
        "tokens": Column(dtype="float16", shape=(8,), ragged=True),
        "mask": Column(dtype="bool", shape=(12,)),
        "pooled": Column(dtype="float16", shape=(8,)),
    }
    facts = {"encoder": "none", "tokens": "12", "dtype": "float16", "captions": "", "dim": 8}
    layout = Layout(
        kind="text",
        facts={**facts, "encoder_hash": "", "pooled_dim": 8},
        columns=columns,
        num_rows=count + 1,
        shard_rows=2048,
    )

    def produce(first: int, last: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(first)
        lengths = rng.integers(2, 13, last - first)
        return {
            "tokens": rng.standard_normal((lengths.sum(), 8)).astype(np.float16),
            "tokens.lengths": lengths,
            "mask": np.arange(12) < lengths[:, None],
            "pooled": np.zeros((last - first, 8), np.float16),
        }

    write_store(folder, layout, produce)


def read(folder: Path, batches: int) -> dict[str, float]:
    """What reading it takes, in a fresh process."""
    command = [sys.executable, "-c", _READ, str(folder), str(batches)]
    found: dict[str, float] = json.loads(subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout)  # fmt: skip
    return found


def main() -> None:
    """Measure and publish."""
    is_quick = quick(__doc__)
    machine = describe("mudit", "numpy", "safetensors")
    rows, passed = [], True
    for count in (2_000, 20_000) if is_quick else (100_000, 1_000_000, 10_000_000):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "store"
            seconds, size = write(folder, count)
            write_text(Path(f"{folder}-text"), count)
            shards = sum(path.name.startswith("rows-") for path in folder.iterdir())
            found = read(folder, 5 if is_quick else 200)
        passed &= found["peak"] < _BAR_MIB
        rows.append((
            f"{count:,}", shards, f"{size:.2f}", f"{seconds:.0f}", f"{found['open_s']:.2f}",
            f"{found['order_s']:.2f}", f"{found['rows_per_s']:,.0f}", f"{found['opening']:.0f}",
            f"{found['held']:.0f}", f"{found['peak']:.0f}", f"{found['file']:.0f}",
        ))  # fmt: skip
    header = (
        ">rows", ">shards", ">GiB on disk", ">s to write", ">s to open", ">s for an epoch's order",
        ">rows a second", ">MiB to open", ">MiB held", ">MiB at peak", ">MiB of mapped files",
    )  # fmt: skip
    verdict = f"Peak below {_BAR_MIB} MiB: **{'PASS' if passed else 'FAIL'}**."
    body = f"{__doc__.partition(chr(10))[2].strip()}\n\n{table(header, rows)}\n{verdict}"
    publish(
        "store_memory",
        title="Memory of training from a store of ten million rows",
        machine=machine,
        body=body,
        quick=is_quick,
    )


if __name__ == "__main__":
    main()

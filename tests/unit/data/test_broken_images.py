"""Images that cannot be decoded: `mudit data latents` skips them, and nobody sees their rows."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mudit.data.encode_latents as encoding
from latents import COLOURS, write_captions, write_classes, write_vae
from mudit.cli import main
from mudit.data import (
    caption_groups,
    encode_latents,
    images_of,
    open_autoencoder,
    open_captions_of,
    open_dataset,
)
from mudit.data.gaps import Gaps, TextsLeft
from mudit.data.store import Store
from mudit.errors import BrokenImageError, DataError, UsageError

pytest.importorskip("diffusers")

SHARE = 0.5
# The one image of its caption, two in a row, and the last of the list.
BROKEN = ("only.png", "blue0.png", "blue1.png", "purple2.png")


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> str:
    return write_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Captioned images, none broken; each has a colour of its own, its caption names it."""
    folder = tmp_path_factory.mktemp("whole") / "images"
    write_captions(folder)
    lines = (folder / "captions.jsonl").read_text().splitlines()
    lines.insert(4, json.dumps({"file": "only.png", "caption": "the only one of its kind"}))
    Image.new("RGB", (16, 16), "teal").save(folder / "only.png")
    for number, line in enumerate(lines):
        row = json.loads(line)
        lines[number] = json.dumps(row | {"group": row["caption"][:5]})
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def damaged(whole: Path) -> Path:
    """The same, some of them cut off or no images at all."""
    folder = whole.parent / "damaged"
    folder.mkdir()
    for path in whole.iterdir():
        content = path.read_bytes()
        if path.name in BROKEN:
            content = content[: len(content) - 30] if path.name != "blue1.png" else b"no image"
        (folder / path.name).write_bytes(content)
    return folder


def encode(images: Path, vae: str, out: Path, **options) -> encoding.Encoded:
    source = f"captions:{images}"
    options = {
        "batch_size": 4,
        "shard_rows": 5,
        "keep_images": True,
        "most_skipped": SHARE,
    } | options
    return encode_latents(
        open_dataset(source, size=16), open_autoencoder(vae), out, source=source, **options
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def by_colour(latents) -> dict[tuple[str, tuple[int, ...]], torch.Tensor]:
    """Means by caption and the colour of the image that is kept beside them."""
    indices = np.arange(latents.num_samples)
    means, labels = latents.batch(indices)
    pixels, again = images_of(latents).batch(indices)
    assert torch.equal(labels, again)
    assert np.array_equal(labels.numpy(), latents.labels)
    colours = ((pixels[:, :, 0, 0] + 1) * 127.5).round().int().tolist()
    return {
        (latents.class_names[label], tuple(colour)): mean
        for label, colour, mean in zip(labels, colours, means, strict=True)
    }


def test_they_are_counted_named_and_seen_by_nobody(whole, damaged, vae, tmp_path) -> None:
    made = encode(damaged, vae, tmp_path / "damaged")
    assert (made.rows, made.skipped.count) == (25 - 4, 4)
    for name in BROKEN:
        assert name in str(made.skipped)
    assert "UnidentifiedImageError" in str(made.skipped)
    assert "OSError" in str(made.skipped)
    header = json.loads((tmp_path / "damaged/header.json").read_text())
    assert header["skipped"] == {"count": 4, "first": list(made.skipped.examples)}
    encode(whole, vae, tmp_path / "whole")
    assert "skipped" not in (tmp_path / "whole/header.json").read_text()
    splits, all_of = (open_dataset(f"latents:{tmp_path / n}") for n in ("damaged", "whole"))
    numbers = [part.num_samples for part in (splits.train, splits.validation)]
    assert sum(numbers) == 21
    for part, other in ((splits.train, all_of.train), (splits.validation, all_of.validation)):
        seen, expected = by_colour(part), by_colour(other)
        assert seen.keys() <= expected.keys()
        for key, mean in seen.items():
            torch.testing.assert_close(mean, expected[key])
            assert mean.abs().min() > 0
        assert part.fingerprint != other.fingerprint
    captions = [f"a {colour} square" for colour in COLOURS]
    assert list(splits.train.class_names) == captions, "nor a caption that only a broken one has"
    assert list(all_of.train.class_names) == [
        *captions[:2],
        "the only one of its kind",
        *captions[2:],
    ]
    assert list(open_captions_of(f"latents:{tmp_path / 'damaged'}")[0]) == captions
    kept = [number for number, name in enumerate(all_of.train.class_names) if name in captions]
    assert np.array_equal(caption_groups(splits.train), caption_groups(all_of.train)[kept])


def test_a_batch_of_any_size_skips_the_same(damaged, vae, tmp_path) -> None:
    skips = []
    for size in (1, 4, 25):
        encode(damaged, vae, tmp_path / str(size), batch_size=size)
        skips.append(Store.open(tmp_path / str(size), kind="latents"))
    for store in skips:
        assert np.array_equal(store.skipped, skips[0].skipped)
        rows = np.arange(25)
        for name in ("mean", "std_flipped"):
            assert not store.rows(name, store.skipped).any()
            np.testing.assert_allclose(store.rows(name, rows), skips[0].rows(name, rows), atol=1e-5)
    headers = {(tmp_path / str(size) / "header.json").read_bytes() for size in (1, 4, 25)}
    assert len(headers) == 1


def test_a_clean_folder_is_byte_for_byte_as_without_a_share(whole, vae, tmp_path) -> None:
    encode(whole, vae, tmp_path / "a", most_skipped=0.0)
    encode(whole, vae, tmp_path / "b", most_skipped=1.0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert b"skipped" not in b"".join(contents(tmp_path / "a").values())


def test_too_many_stop_it_and_a_larger_share_goes_on(damaged, vae, tmp_path) -> None:
    encode(damaged, vae, tmp_path / "whole")
    with pytest.raises(
        DataError, match=r"so far 3 hold images.*most the share 0\.1 .*only\.png"
    ) as no:
        encode(damaged, vae, tmp_path / "cut", most_skipped=0.1)
    assert "--most_skipped" in str(no.value)
    kept = {path.name for path in (tmp_path / "cut").glob("rows-*")}
    assert kept < {path.name for path in (tmp_path / "whole").glob("rows-*")}
    made = encode(damaged, vae, tmp_path / "cut")
    assert made.shards == 5 - len(kept)
    assert made.skipped.count == 4, "those of shards that were there before count, too"
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    with pytest.raises(DataError, match="so far 4 hold images"):
        encode(damaged, vae, tmp_path / "cut", most_skipped=0.1)
    with pytest.raises(UsageError, match="most_skipped is 2"):
        encode(damaged, vae, tmp_path / "cut", most_skipped=2)


def test_malformed_rows_count_with_them(damaged, vae, tmp_path) -> None:
    list_file = damaged / "captions.jsonl"
    text = list_file.read_text()
    list_file.write_text(text + "\nno JSON\nnor this")
    try:
        splits = open_dataset(f"captions:{damaged}", size=16, most_skipped=0.2)
    finally:
        list_file.write_text(text)
    options = {"source": "x", "batch_size": 4}
    made = encode_latents(
        splits, open_autoencoder(vae), tmp_path / "a", most_skipped=6 / 27, **options
    )
    assert made.rows == 21
    with pytest.raises(DataError, match=r"of the 27 rows of x 2 are malformed, and so far 4 hold"):
        encode_latents(splits, open_autoencoder(vae), tmp_path / "b", most_skipped=0.2, **options)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("after", [2, 5])
def test_a_killed_command_goes_on_to_the_same_bytes(damaged, vae, tmp_path, after: int) -> None:
    """Also where all shards are there and the header does not tell of the skipped rows yet."""
    encode(damaged, vae, tmp_path / "whole")

    def die(done: int, total: int) -> None:
        if len(list((tmp_path / "killed").glob("rows-*"))) == after:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        encode(damaged, vae, tmp_path / "killed", on_progress=die)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert contents(tmp_path / "killed") != contents(tmp_path / "whole")
    if after == 5:
        assert open_dataset(f"latents:{tmp_path / 'killed'}").train.num_samples > 0
    assert encode(damaged, vae, tmp_path / "killed").shards == 5 - after
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_classes_keep_their_names_and_the_first_image_may_be_broken(vae, tmp_path) -> None:
    source = write_classes(tmp_path / "images", count=3)
    train = open_dataset(source, size=16).train
    (tmp_path / "images" / train.files[0]).write_bytes(b"no image")
    words = ["data", "latents", "--source", source, "--size", "16", "--vae", vae]
    words += ["--out", str(tmp_path / "out")]
    assert main(words) == 3
    assert main([*words, "--most_skipped", "0.2"]) == 0
    latents = open_dataset(f"latents:{tmp_path / 'out'}").train
    assert latents.num_samples == train.num_samples - 1
    assert list(latents.class_names) == ["cat", "dog"]
    assert np.array_equal(latents.labels, train.labels[1:])


def test_a_part_without_any_image_is_refused(whole, vae, tmp_path) -> None:
    splits = open_dataset(f"captions:{whole}", size=16)
    for index in range(splits.validation.num_samples):
        path = whole / splits.validation.files[index]
        path.rename(path.with_suffix(".kept"))
        path.write_bytes(b"x" * path.with_suffix(".kept").stat().st_size)
    try:
        with pytest.raises(DataError, match=r"none of the \d+ images of a part"):
            encode(whole, vae, tmp_path / "out")
    finally:
        for path in whole.glob("*.kept"):
            path.rename(path.with_suffix(".png"))
    with pytest.raises(DataError, match=r"none of the \d+ images of a part"):
        open_dataset(f"latents:{tmp_path / 'out'}")


def test_a_file_that_is_gone_is_not_broken(whole, vae, tmp_path) -> None:
    """A disk that is away for a moment must not cost images."""
    splits = open_dataset(f"captions:{whole}", size=16)
    path = whole / "red0.png"
    path.rename(whole / "away")
    try:
        with pytest.raises(DataError, match=r"red0\.png \(No such file.*Restore it") as gone:
            splits.train.read(list(splits.train.files).index("red0.png"))
    finally:
        (whole / "away").rename(path)
    assert not isinstance(gone.value, BrokenImageError)


def test_training_on_pixels_says_what_a_removal_costs(damaged) -> None:
    splits = open_dataset(f"captions:{damaged}", size=16)
    with pytest.raises(
        BrokenImageError, match=r"a new --folder.*`mudit data latents` leaves"
    ) as no:
        splits.train.batch(np.arange(splits.train.num_samples))
    assert no.value.name.endswith(".png")


@pytest.mark.parametrize("gone", [[], [0], [9], [0, 1, 2], [3, 4, 8], [1, 3, 5, 7, 9]])
def test_gaps_there_and_back(gone: list[int]) -> None:
    gaps = Gaps(np.array(gone, dtype=np.int64))
    left = np.array([number for number in range(10) if number not in gone])
    assert np.array_equal(gaps.opened(np.arange(len(left))), left)
    assert np.array_equal(gaps.closed(left), np.arange(len(left)))
    texts = TextsLeft([str(number) for number in range(10)], gaps)
    expected = list(map(str, left))
    assert list(texts) == [texts[index] for index in range(len(texts))] == expected
    assert texts[1:3] == expected[1:3]
    assert texts[-1] == expected[-1]
    with pytest.raises(IndexError):
        texts[len(left)]

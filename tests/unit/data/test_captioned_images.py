"""Captioned images from lists, tar files and tables; malformed rows; what must not be read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mudit.data import caption_groups, open_dataset
from mudit.data.captioned import Row, captioned_splits
from mudit.data.strings import Strings
from mudit.errors import DataError, EnvironmentFailure, UsageError

OPTIONS = {"spec": "x", "name": "x", "root": Path(), "size": 8, "flip": False, "most_skipped": 0}
COLOURS = ("red", "lime", "blue", "white", "black", "yellow")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """An empty cache folder for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MUDIT_CACHE", str(folder))
    return folder


def picture(colour: str, mode: str = "RGB", size: int = 12) -> Image.Image:
    return Image.new("RGB", (size, size), colour).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def write_folder(folder: Path, extra: tuple[str, ...] = (), repeats: int = 4) -> Path:
    """Each colour's picture some times over, listed in captions.jsonl, then the extra lines."""
    folder.mkdir()
    lines = []
    for number in range(repeats):
        for colour in COLOURS:
            file = f"{colour}{number}.png"
            (folder / file).write_bytes(encoded(picture(colour)))
            lines.append(json.dumps({"file": file, "caption": f"a {colour} square"}))
    (folder / "captions.jsonl").write_text("\n".join([*lines, *extra]) + "\n")
    return folder


def seen(splits) -> dict[str, tuple[int, ...]]:
    """The colour of the middle of each image by its caption, over both parts."""
    found = {}
    for part in (splits.train, splits.validation):
        images, labels = part.batch(np.arange(part.num_samples))
        for image, label in zip(images, labels.tolist()):
            found[part.class_names[label]] = tuple(((image[:, 4, 4] + 1) * 127.5).int().tolist())
    return found


EXPECTED = {f"a {colour} square": picture(colour).getpixel((0, 0)) for colour in COLOURS}


def test_a_list_of_images_and_captions(tmp_path) -> None:
    splits = open_dataset(f"captions:{write_folder(tmp_path / 'set')}", size=8)
    train, validation = splits.train, splits.validation
    assert train.captioned
    assert train.num_samples + validation.num_samples == 24
    assert train.num_classes == 6, "equal captions are one"
    assert list(train.class_names) == [f"a {colour} square" for colour in COLOURS]
    assert train.batch(np.array([0]))[0].shape == (1, 3, 8, 8)
    assert seen(splits) == EXPECTED
    assert not set(train.labels.tolist()) & set(validation.labels.tolist())


def test_pixels_of_small_data_are_decoded_once_and_are_the_same(tmp_path, monkeypatch) -> None:
    folder = write_folder(tmp_path / "set")
    often, once = (open_dataset(f"captions:{folder}", size=8).train for _ in range(2))
    flips = np.array([False, True, False])
    first, again, other = np.array([3, 1, 3]), np.array([1, 3, 1]), np.array([3, 2, 1])
    with monkeypatch.context() as patched:
        patched.setattr("mudit.data.captioned._MOST_KEPT", 0)
        expected = [often.batch(part, flips)[0] for part in (first, again, other)]
        assert torch.equal(expected[0], often.batch(first, flips)[0])
    assert torch.equal(expected[0], once.batch(first, flips)[0])
    for file in once.files:
        (folder / file).unlink()
    assert torch.equal(expected[1], once.batch(again, flips)[0])
    with pytest.raises(DataError, match=re.escape(once.files[2])):
        once.batch(other)
    with pytest.raises(DataError, match="cannot read"):
        often.batch(again)


def test_csv_with_other_names_of_columns_gives_the_same(tmp_path) -> None:
    folder = write_folder(tmp_path / "set")
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    (folder / "captions.jsonl").unlink()
    text = "\ufefffile_name,text\n" + "".join(f'{r["file"]},"{r["caption"]}"\n' for r in rows)
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    assert seen(open_dataset(f"captions:{folder}", size=8)) == EXPECTED


def test_groups_stay_on_one_side(tmp_path) -> None:
    rows = [
        Row(f"{number}.png", "", 0, 1, f"caption {number}", f"group {number % 40}")
        for number in range(400)
    ]
    splits = captioned_splits(rows, **OPTIONS)
    sides = [
        {int(f.split(".")[0]) % 40 for f in part.files}
        for part in (splits.train, splits.validation)
    ]
    assert not sides[0] & sides[1]
    assert 1 <= len(sides[1]) <= 6, "40 groups, one in twenty: more is 1 in 500"
    groups = caption_groups(splits.train)  # by caption, of both parts
    names = [int(name.split()[1]) % 40 for name in splits.train.class_names]
    assert len({*zip(groups.tolist(), names)}) == len(set(groups.tolist())) == 40
    np.testing.assert_array_equal(groups, caption_groups(splits.validation))
    more = captioned_splits(rows[:200], **OPTIONS)
    assert set(more.validation.files) <= set(splits.validation.files), "none changes sides"


@pytest.mark.parametrize("as_group", [int, str])
def test_groups_of_a_list_may_be_numbers(tmp_path, as_group) -> None:
    folder = write_folder(tmp_path / "set", repeats=1)
    rows = [{"file": "red0.png", "caption": f"{n}", "group": as_group(n % 7)} for n in range(140)]
    rows += [{"file": "red0.png", "caption": f"lone {n}", "group": None} for n in range(2)]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = open_dataset(f"captions:{folder}", size=8)
    groups = dict(zip(splits.train.class_names, caption_groups(splits.train).tolist()))
    by_number = {(int(name) % 7, group) for name, group in groups.items() if name.isdigit()}
    assert len(by_number) == len({group for _, group in by_number}) == 7
    assert len(set(groups.values())) == 9, "no group is none's"
    sides = [
        {groups[part.class_names[n]] for n in part.labels}
        for part in (splits.train, splits.validation)
    ]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file": "red0.png"}', ["line 25", "no caption"]),
        ('{"file": "red0.png", "caption": "  "}', ["no caption"]),
        ('{"file": "red0.png", "caption": 3}', ["no caption"]),
        ('{"caption": "a"}', ["no file"]),
        ('{"file": "none.png", "caption": "a"}', ["none.png", "No such file"]),
        ('{"file": "../secret.png", "caption": "a"}', ["../secret.png lies outside"]),
        ('{"file": "/etc/hostname.png", "caption": "a"}', ["lies outside"]),
        ('{"file": "link.png", "caption": "a"}', ["link.png is a link", "outside"]),
        ('{"file": "captions.jsonl", "caption": "a"}', ["is no image"]),
        ('{"file": "red0.png", "caption": "a", "group": 3.0}', ["line 25", "group 3.0 is neither"]),
        ('{"file": "red0.png", "caption": "a", "group": true}', ["group True is neither"]),
        ('{"file": "red0.png", "caption": "a", "group": ["b"]}', ["group ['b'] is neither"]),
        ('{"file": "red0.png", "caption"', ["no JSON"]),
        ("[1]", ["no JSON object"]),
    ],
)
def test_malformed_rows_are_counted_named_and_skipped(tmp_path, line, words) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(picture("red")))
    folder = write_folder(tmp_path / "set", (line,))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    splits = open_dataset(f"captions:{folder}", size=8, most_skipped=0.05)
    assert splits.skipped.count == 1
    assert all(word in splits.skipped.examples[0] for word in words)
    assert seen(splits) == EXPECTED
    with pytest.raises(DataError, match=r"1 of the 25 rows of captions:.*share 0\.01.*line 25"):
        open_dataset(f"captions:{folder}", size=8)


def test_captions_without_any_are_refused(tmp_path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    with pytest.raises(DataError, match=r"neither captions\.jsonl.*nor tar files"):
        open_dataset(f"captions:{folder}", size=8)
    (folder / "captions.jsonl").write_text("")
    with pytest.raises(DataError, match="no images with captions"):
        open_dataset(f"captions:{folder}", size=8)
    with pytest.raises(DataError, match="no folder or tar file"):
        open_dataset(f"captions:{folder}/none", size=8)
    (folder / "a.png").write_bytes(encoded(picture("red")))
    (folder / "captions.jsonl").write_text('{"file": "a.png", "caption": "one"}\n')
    with pytest.raises(DataError, match="have one caption"):
        open_dataset(f"captions:{folder}", size=8)
    with pytest.raises(UsageError, match="no size was given"):
        open_dataset(f"captions:{folder}")
    with pytest.raises(UsageError, match=r"most_skipped is 2"):
        open_dataset(f"captions:{folder}", size=8, most_skipped=2)


def test_images_of_all_modes_are_made_rgb_and_a_broken_one_is_named(tmp_path) -> None:
    folder = write_folder(tmp_path / "set", repeats=1)
    (folder / "red0.png").write_bytes(encoded(picture("red", "RGBA")))
    (folder / "lime0.png").write_bytes(encoded(picture("lime").convert("P", palette=1)))
    (folder / "white0.png").write_bytes(encoded(picture("white", "L")))
    (folder / "black0.png").write_bytes(encoded(picture("black", "1")))
    (folder / "blue0.png").write_bytes(encoded(picture("blue", "CMYK"), "JPEG"))
    found = seen(open_dataset(f"captions:{folder}", size=8))
    for caption, colour in EXPECTED.items():
        assert np.abs(np.subtract(found[caption], colour)).max() <= 3, caption
    (folder / "red0.png").write_bytes(encoded(picture("red"))[:40])
    splits = open_dataset(f"captions:{folder}", size=8)
    with pytest.raises(DataError, match=r"red0\.png"):
        seen(splits)


def test_the_fingerprint_changes_with_names_lengths_and_captions(tmp_path) -> None:
    folder = write_folder(tmp_path / "set")
    first = open_dataset(f"captions:{folder}", size=8).fingerprint
    assert open_dataset(f"captions:{folder}", size=8).fingerprint == first
    (folder / "red0.png").write_bytes(encoded(picture("red")) + b" ")
    second = open_dataset(f"captions:{folder}", size=8).fingerprint
    (folder / "captions.jsonl").write_text(
        (folder / "captions.jsonl").read_text().replace("a red square", "a rose square")
    )
    third = open_dataset(f"captions:{folder}", size=8).fingerprint
    assert len({first, second, third}) == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file": "pipe.png", "caption": "a"}', "no plain file"),
        ('{"file": "inner.png", "caption": "a"}', "no plain file"),
        ('{"file": "empty.png", "caption": "a"}', "empty.png is empty"),
        ('{"file": "away/red.png", "caption": "a"}', "lies outside"),
        ('{"file": "\\ud800.png", "caption": "a"}', "cannot be found"),
        ('{"file": "a\\u0000.png", "caption": "a"}', "cannot be found"),
        ('{"file": "red0.png", "caption": "\\ud800"}', "not Unicode"),
        ('{"file": "' + 5000 * "a" + '.png", "caption": "a"}', "aaa..."),
        ('{"file": "a\\n\\u001b[2J.png", "caption": "a"}', "cannot be found"),
        ('{"file": ["red0.png"], "caption": {}}', "no caption (looked for caption, text"),
        ("[" * 200_000, "no JSON"),
    ],
    ids=lambda value: value[:40],
)
def test_rows_that_would_break_a_reader_are_malformed(tmp_path, line, words) -> None:
    folder = write_folder(tmp_path / "set", (line,))
    os.mkfifo(folder / "pipe.png")  # reading it would never end
    (folder / "inner.png").mkdir()
    (folder / "empty.png").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "red.png").write_bytes(encoded(picture("red")))
    (folder / "away").symlink_to(tmp_path / "outside")
    splits = open_dataset(f"captions:{folder}", size=8, most_skipped=0.05)
    (text,) = splits.skipped.examples
    assert words in text
    assert text.isprintable()
    assert len(text) < 400
    assert seen(splits) == EXPECTED


def test_links_within_the_folder_are_followed(tmp_path) -> None:
    line = '{"file": "sub/link.png", "caption": "linked"}'
    folder = write_folder(tmp_path / "set", (line,))
    (folder / "sub").mkdir()
    (folder / "sub" / "link.png").symlink_to("../blue0.png")
    assert seen(open_dataset(f"captions:{folder}", size=8))["linked"] == (0, 0, 255)


def test_a_csv_may_have_quotes_and_line_ends_and_names_its_bad_rows(tmp_path) -> None:
    folder = write_folder(tmp_path / "set")
    (folder / "captions.jsonl").unlink()
    rows = [f'{colour}0.png,"a ""{colour}"",\nsquare",1' for colour in COLOURS]
    bad = ["red0.png", 'red1.png,"' + 200_000 * "x" + '",', "none.png,a,b"]
    (folder / "captions.csv").write_text("\n".join(["file,caption,width", *rows, *bad, ""]))
    splits = open_dataset(f"captions:{folder}", size=8, most_skipped=0.5)
    assert seen(splits) == {
        f'a "{colour}",\nsquare': picture(colour).getpixel((0, 0)) for colour in COLOURS
    }
    assert splits.skipped.count == 3
    told = " ".join(splits.skipped.examples)
    assert all(words in told for words in ("line 14: no caption", "line 15: no CSV", "line 16: "))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"a red square', "no CSV (unexpected end of data)"),
        ("a red square, and more", "more fields (3) than columns (2)"),
        (r'"a \"red\" square"', "no CSV"),
        (r'"a square, \"red\""', "no CSV"),
        (r'"a red square of 5\""', "no CSV"),
    ],
)
def test_a_bad_line_of_a_csv_costs_no_other_and_is_told(tmp_path, text, words) -> None:
    folder = write_folder(tmp_path / "set")
    (folder / "captions.jsonl").unlink()
    rows = [f"{colour}{n}.png,a {colour} square" for n in range(4) for colour in COLOURS]
    rows[8] = f"{rows[8].partition(',')[0]},{text}"
    (folder / "captions.csv").write_text("\n".join(["file,caption", *rows, ""]))
    splits = open_dataset(f"captions:{folder}", size=8, most_skipped=0.05)
    assert splits.train.num_samples + splits.validation.num_samples == 23
    assert splits.skipped.count == 1
    assert splits.skipped.examples[0].startswith("captions.csv, line 10: " + words)
    assert seen(splits) == EXPECTED


@pytest.mark.parametrize("header", ["", "file,label", "caption", "file;caption", "\x00"])
def test_a_csv_without_captions_is_refused_at_once(tmp_path, header) -> None:
    folder = write_folder(tmp_path / "set")
    (folder / "captions.jsonl").unlink()
    (folder / "captions.csv").write_text(f"{header}\nred0.png,a\n")
    with pytest.raises(DataError, match=r"first line of .*captions\.csv.*one of caption, text"):
        open_dataset(f"captions:{folder}", size=8)


def test_two_lists_are_refused(tmp_path) -> None:
    folder = write_folder(tmp_path / "set")
    (folder / "metadata.csv").write_text("file_name,text\n")
    with pytest.raises(DataError, match=r"captions\.jsonl and metadata\.csv; expected one"):
        open_dataset(f"captions:{folder}", size=8)


def test_a_list_without_permission_is_named(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "set"
    (folder / "captions.jsonl").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot read .*captions\.jsonl"):
        open_dataset(f"captions:{folder}", size=8)


def test_neither_captions_nor_groups_straddle(tmp_path) -> None:
    """Captions join groups and groups join captions, in chains, too."""
    rng = np.random.default_rng(0)
    rows = [
        Row(f"{n}.png", "", 0, 1, f"caption {rng.integers(300)}", f"group {rng.integers(400)}")
        for n in range(300)
    ]
    rows += [Row(f"x{n}.png", "", 0, 1, f"lone {n}") for n in range(200)]
    splits = captioned_splits(rows, **OPTIONS)
    by_file = {row.file: row for row in rows}
    for attribute in ("caption", "group"):
        train, held_out = (
            {getattr(by_file[file], attribute) for file in part.files} - {""}
            for part in (splits.train, splits.validation)
        )
        assert not train & held_out, attribute
        groups = caption_groups(splits.train)
        for part in (splits.train, splits.validation):
            of = dict(zip(part.files, groups[part.labels].tolist(), strict=True))
            joined: dict[str, set[int]] = {}
            for file, group in of.items():
                joined.setdefault(getattr(by_file[file], attribute), set()).add(group)
            assert all(len(found) == 1 for name, found in joined.items() if name), attribute
    # The split by captions alone would have done what this test is against.
    alone = captioned_splits([row._replace(group="") for row in rows], **OPTIONS)
    sides = [{by_file[f].group for f in p.files} - {""} for p in (alone.train, alone.validation)]
    assert sides[0] & sides[1]


def test_about_a_twentieth_of_the_captions_is_held_out_and_stays_so() -> None:
    rows = [Row(f"{n}.png", "", 0, 1, f"caption {n}") for n in range(2000)]
    splits = captioned_splits(rows, **OPTIONS)
    by_hand = {
        row.file
        for row in rows
        if int(hashlib.sha256(row.caption.encode()).hexdigest(), 16) % 20 == 0
    }
    assert set(splits.validation.files) == by_hand
    assert 60 < len(by_hand) < 140  # Binomial(2000, 1/20): 100, sigma 9.7
    fewer = captioned_splits(rows[::3], **OPTIONS)
    assert set(fewer.validation.files) <= by_hand


@pytest.mark.parametrize("count", range(2, 9))
def test_few_captions_still_have_two_splits(count) -> None:
    rows = [Row(f"{n}.png", "", 0, 1, f"{n}") for n in range(count)]
    splits = captioned_splits(rows, **OPTIONS)
    assert splits.train.num_samples >= 1
    assert splits.validation.num_samples >= 1


# --- tar files ------------------------------------------------------------------------------------


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(colours=COLOURS, ending: str = ".txt") -> list[tuple[str, bytes]]:
    members = []
    for number, colour in enumerate(colours):
        text = f"a {colour} square"
        content = json.dumps({"caption": text}) if ending == ".json" else text
        members.append((f"sa_{number}.png", encoded(picture(colour))))
        members.append((f"sa_{number}{ending}", content.encode()))
    return members


@pytest.mark.parametrize("ending", [".txt", ".json", ".caption"])
def test_images_beside_their_captions_in_tar_files(tmp_path, ending) -> None:
    write_tar(tmp_path / "a.tar", samples(COLOURS[:3], ending))
    write_tar(tmp_path / "b.tar", samples(COLOURS[3:], ending))
    assert seen(open_dataset(f"captions:{tmp_path}", size=8)) == EXPECTED
    assert seen(open_dataset(f"shards:{tmp_path}/{{a,b}}.tar", size=8)) == EXPECTED
    assert seen(open_dataset(f"shards:{tmp_path}/*.tar", size=8)) == EXPECTED
    one = seen(open_dataset(f"captions:{tmp_path}/b.tar", size=8))
    assert one == {key: EXPECTED[key] for key in list(EXPECTED)[3:]}


def test_a_tar_made_by_webdataset_is_read_the_same(tmp_path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as sink:
        for number, colour in enumerate(COLOURS):
            image = np.asarray(picture(colour))
            sink.write({"__key__": f"{number:06}", "png": image, "txt": f"a {colour} square"})
    assert seen(open_dataset(f"shards:{tmp_path}/w.tar", size=8)) == EXPECTED


def test_a_tar_member_never_leaves_its_folder(tmp_path) -> None:
    """Names that would are malformed, links are too, and nothing is written anywhere."""
    (tmp_path / "in").mkdir()
    bad = [
        ("../out.png", encoded(picture("red"))), ("../out.txt", b"out"),
        ("/abs.png", encoded(picture("red"))), ("/abs.txt", b"abs"),
    ]  # fmt: skip
    path = write_tar(tmp_path / "in" / "a.tar", samples() + bad)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    splits = open_dataset(f"captions:{path}", size=8, most_skipped=0.6)
    assert seen(splits) == EXPECTED
    assert splits.skipped.count == 5
    assert any("leaves its folder" in text for text in splits.skipped.examples)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("x.png", b"png")], "no caption"),
        ([("x.txt", b"text")], "no image"),
        ([("x.png", b"png"), ("x.json", b"{")], "cannot be read"),
        ([("x.png", b"png"), ("x.txt", b"\xff\xfe\x00")], "cannot be read"),
        ([("x.png", b"png"), ("x.json", b'{"caption": null}')], "no caption"),
    ],
)
def test_a_malformed_sample_is_named(tmp_path, members, words) -> None:
    path = write_tar(tmp_path / "a.tar", samples() + members)
    splits = open_dataset(f"captions:{path}", size=8, most_skipped=0.5)
    (text,) = splits.skipped.examples
    assert "a.tar, sample x" in text
    assert words in text


def test_tars_that_cannot_be_read_in_place_are_refused(tmp_path) -> None:
    write_tar(tmp_path / "a.tar", samples(), "w:gz")
    with pytest.raises(DataError, match=r"a\.tar.*without compression"):
        open_dataset(f"captions:{tmp_path}/a.tar", size=8)
    with pytest.raises(DataError, match="no file matches"):
        open_dataset(f"shards:{tmp_path}/none-*.tar", size=8)


def test_a_url_is_fetched_once_and_its_absence_is_explained(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MUDIT_CACHE", str(tmp_path / "cache"))
    path = write_tar(tmp_path / "a.tar", samples())
    assert seen(open_dataset(f"shards:{path.as_uri()}", size=8)) == EXPECTED
    path.unlink()
    assert seen(open_dataset(f"shards:{path.as_uri()}", size=8)) == EXPECTED, "from the cache"
    with pytest.raises(EnvironmentFailure, match=r"cannot fetch http.*local path"):
        open_dataset("shards:http://127.0.0.1:9/b.tar", size=8)
    assert not list((tmp_path / "cache").rglob(".b.tar*"))


# --- Hugging Face ---------------------------------------------------------------------------------


def test_a_hugging_face_data_set_from_folders(tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    images = [picture(colour) for colour in COLOURS]
    texts = [[f"a {colour} square", "another"] for colour in COLOURS]
    made = datasets.Dataset.from_dict({"image": images, "caption": texts})
    made.save_to_disk(tmp_path / "saved")
    assert seen(open_dataset(f"hf:{tmp_path}/saved", size=8)) == EXPECTED
    folder = write_folder(tmp_path / "set", repeats=1)
    lines = (folder / "captions.jsonl").read_text()
    renamed = lines.replace('"file"', '"file_name"').replace('"caption"', '"text"')
    (folder / "metadata.jsonl").write_text(renamed)
    (folder / "captions.jsonl").unlink()
    assert seen(open_dataset(f"hf:{folder}", size=8)) == EXPECTED
    made.remove_columns("caption").save_to_disk(tmp_path / "no captions")
    with pytest.raises(DataError, match=r"columns image \(Image\).*one of captions"):
        open_dataset(f"hf:{tmp_path}/no captions", size=8)


def test_rows_of_a_table_without_image_or_text_are_malformed(tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"text": datasets.Value("string"), "picture": datasets.Image()})
    images = [*map(picture, COLOURS), None, picture("red"), picture("red")]
    texts = [*(f"a {colour} square" for colour in COLOURS), "no image", None, " "]
    made = datasets.Dataset.from_dict({"text": texts, "picture": images}, kinds)
    made.save_to_disk(tmp_path / "saved")
    splits = open_dataset(f"hf:{tmp_path}/saved", size=8, most_skipped=0.5)
    assert seen(splits) == EXPECTED
    assert splits.skipped.count == 3
    assert splits.skipped.examples[0] == "row 6: no image in picture"
    # A table that points into another: rows are those that are shown.
    made.select([8, *range(5, -1, -1)]).save_to_disk(tmp_path / "turned")
    turned = open_dataset(f"hf:{tmp_path}/turned", size=8, most_skipped=0.5)
    assert seen(turned) == EXPECTED
    assert turned.train.class_names[0] == "a yellow square"


def test_a_table_is_the_same_wherever_it_lies_and_its_broken_image_is_named(tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("pyarrow")
    cells = [{"bytes": encoded(picture(colour)), "path": None} for colour in COLOURS]
    cells[2]["bytes"] = cells[2]["bytes"][:40]
    kinds = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    made = datasets.Dataset.from_dict({"image": cells, "caption": list(COLOURS)}, kinds)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.to_parquet(tmp_path / name / "train.parquet")
    one, two = (open_dataset(f"hf:{tmp_path}/{name}", size=8) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    with pytest.raises(DataError, match="one, row 2"):
        seen(one)


def test_a_folder_that_is_no_table_is_named(tmp_path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"the folder .*set cannot be read as a data set"):
        open_dataset(f"hf:{tmp_path}/set", size=8)


def test_a_hub_that_does_not_answer_is_explained(monkeypatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        EnvironmentFailure, match=r"nobody/nothing.*save_to_disk\('nothing'\).*hf:nothing"
    ):
        open_dataset("hf:nobody/nothing", size=8)


# --- size -----------------------------------------------------------------------------------------


def test_strings_are_a_sequence() -> None:
    values = ["", "a", "é", "日本", "a", "\udcff"]
    strings = Strings(values)
    assert list(strings) == values
    assert (len(strings), strings[-1], list(strings[1:3])) == (6, "\udcff", ["a", "é"])
    assert "日本" in strings
    with pytest.raises(IndexError):
        strings[6]


def test_many_rows_take_little_memory(tmp_path) -> None:
    count = 20_000
    rows = (Row(f"images/{n:08}.jpg", "", 0, 1000, f"a picture of thing {n}") for n in range(count))
    tracemalloc.start()
    splits = captioned_splits(rows, **OPTIONS)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert splits.train.num_classes == count
    # Text of 45 bytes and five numbers of 8: ten million rows would take some 1.1 GB, 2.5 at most.
    assert held < 120 * count
    assert peak < 300 * count


def test_an_index_out_of_range_is_refused(tmp_path) -> None:
    splits = open_dataset(f"captions:{write_folder(tmp_path / 'set')}", size=8, flip=True)
    with pytest.raises(UsageError, match="indices from 0 to 99"):
        splits.train.batch(np.array([0, 99]))
    flipped, _ = splits.train.batch(np.array([0, 1]), np.array([True, False]))
    plain, _ = splits.train.batch(np.array([0, 1]))
    torch.testing.assert_close(flipped[0], plain[0].flip(-1))
    assert splits.train.flip
    assert not splits.validation.flip

"""The emoji of the system's colour font as a captioned data set."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mudit.data import draw_emoji, open_dataset
from mudit.data.emoji import FONTS, find_font, known_emoji
from mudit.errors import DataError, UsageError

pytest.importorskip("emoji")
try:
    FONT = find_font()
except DataError:
    FONT = None
needs_font = pytest.mark.skipif(FONT is None, reason=f"no colour font at {', '.join(FONTS)}")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emoji")
    return folder, draw_emoji(folder, size=24)


def rows(folder) -> dict[str, dict]:
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


def test_names_are_unicodes() -> None:
    by_text = {one.text: one for one in known_emoji()}
    assert len(by_text) > 3000
    for text, name in (("🍎", "red apple"), ("🚲", "bicycle"), ("🐙", "octopus")):
        assert by_text[text].name == name
        assert unicodedata.name(text).lower() in by_text[text].caption
    assert by_text["🍎"].caption == "red apple, apple"


def test_variants_of_an_emoji_are_one_group() -> None:
    by_text = {one.text: one for one in known_emoji()}
    variants = [
        ("👋", "👋🏻", "👋🏿"),
        ("🧑‍🔬", "👩‍🔬", "👨🏽‍🔬"),
        ("🏃", "🏃‍♀️", "🏃🏾‍♂️", "🏃‍➡️", "🏃🏿‍♀️‍➡️"),
        ("🧒", "👦", "👧🏽"),
        ("🧓", "👴", "👵🏼"),
        ("🫅", "🤴", "👸🏿"),
        ("🧑‍🎄", "🎅", "🤶🏻"),
        ("👫", "👬🏽", "👭", "🧑‍🤝‍🧑", "👩🏻‍🤝‍👨🏿"),
        ("💏", "👩‍❤️‍💋‍👨", "👨🏻‍❤️‍💋‍👨🏿"),
        ("💑", "👩‍❤️‍👩", "🧑🏻‍❤️‍🧑🏿"),
        ("🫄", "🤰", "🫃🏽"),
    ]
    groups = [{by_text[text].group for text in texts} for texts in variants]
    assert all(len(group) == 1 for group in groups), groups
    others = {by_text["🍎"].group, by_text["🍏"].group, by_text["🇩🇪"].group, by_text["🇦🇹"].group}
    assert len(set.union(*groups, others)) == len(variants) + 4


def test_keywords_say_something_new() -> None:
    by_text = {one.text: one for one in known_emoji()}
    assert by_text["🧑‍🌾"].keywords == (), "the first character of a sequence says nothing"
    for one in by_text.values():
        assert len({one.name.lower(), *one.keywords}) == 1 + len(one.keywords)
        assert "_" not in one.caption
        assert one.caption == one.caption.strip()


@needs_font
@pytest.mark.slow
def test_every_emoji_is_drawn_in_colour_on_white(drawn) -> None:
    folder, found = drawn
    listed = rows(folder)
    assert found.pictures == len(listed) == len(list((folder / "images").iterdir()))
    assert found.pictures > 1000
    note = (folder / "LICENCE.txt").read_text(encoding="utf-8")
    assert "SIL Open Font License 1.1" in note
    assert hashlib.sha256(FONT.read_bytes()).hexdigest() in note
    blank = 0
    for row in listed.values():
        with Image.open(folder / row["file"]) as image:
            assert (image.size, image.mode) == ((24, 24), "RGB")
            pixels = np.asarray(image)
        assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] >= 250).all(), row
        blank += bool((pixels > 240).all())
    assert blank <= 1, "white squares and the like"
    apple = np.asarray(Image.open(folder / listed["red apple"]["file"])).astype(int)
    assert (apple[14, 12, 0] - apple[14, 12, 1:] > 60).all(), "red in its middle"


def ink(folder, row) -> int:
    """Pixels that are not white."""
    with Image.open(folder / row["file"]) as image:
        return int((np.asarray(image).min(axis=2) < 200).sum())


@needs_font
@pytest.mark.slow
def test_what_is_called_small_is_small(drawn) -> None:
    folder, _ = drawn
    listed = rows(folder)
    sizes = [
        ink(folder, listed[f"black {size} square"])
        for size in ("small", "medium-small", "medium", "large")
    ]
    assert sizes == sorted(sizes)
    assert 4 * sizes[0] < sizes[3]


@needs_font
@pytest.mark.slow
def test_equal_pictures_are_on_one_side(drawn) -> None:
    # Norway's flag is also Bouvet Island's and Svalbard's.
    folder, _ = drawn
    groups: dict[bytes, set[str]] = {}
    for row in rows(folder).values():
        groups.setdefault((folder / row["file"]).read_bytes(), set()).add(row["group"])
    assert all(len(found) == 1 for found in groups.values())
    assert len(groups) < len(rows(folder)), "there are some"


@needs_font
@pytest.mark.slow
def test_a_drawing_is_the_fonts_own_bitmap(drawn) -> None:
    # 136x128 pixels in a white cell of 144x144; shrunk to one pixel it keeps its mean colour.
    from PIL import ImageDraw, ImageFont

    face = ImageFont.truetype(str(FONT), 109)
    canvas = Image.new("RGB", (400, 400), "white")
    ImageDraw.Draw(canvas).text((100, 100), "🍎", font=face, embedded_color=True)
    missing = (255 - np.asarray(canvas).astype(float)).sum(axis=(0, 1)) / 144**2
    folder, _ = drawn
    with Image.open(folder / rows(folder)["red apple"]["file"]) as image:
        found = (255 - np.asarray(image).astype(float)).mean(axis=(0, 1))
    np.testing.assert_allclose(found, missing, atol=1.5)  # rounding, ringing that is cut at white


@needs_font
@pytest.mark.slow
def test_the_set_is_split_by_name_and_read_as_captions(drawn) -> None:
    folder, found = drawn
    splits = open_dataset(f"captions:{folder}", size=16)
    assert splits.train.num_samples + splits.validation.num_samples == found.pictures
    assert splits.skipped.count == 0
    groups = {row["caption"]: row["group"] for row in rows(folder).values()}
    sides = [
        {groups[part.class_names[label]] for label in set(part.labels.tolist())}
        for part in (splits.train, splits.validation)
    ]
    assert not sides[0] & sides[1]
    assert 0.01 < splits.validation.num_samples / found.pictures < 0.12


@needs_font
@pytest.mark.slow
def test_again_it_draws_nothing_and_mends_what_is_missing(drawn) -> None:
    folder, found = drawn
    files = {path: path.stat().st_mtime_ns for path in (folder / "images").iterdir()}
    gone = folder / rows(folder)["octopus"]["file"]
    content, listing = gone.read_bytes(), (folder / "captions.jsonl").read_bytes()
    gone.unlink()
    assert draw_emoji(folder, size=24) == found
    assert gone.read_bytes() == content
    assert (folder / "captions.jsonl").read_bytes() == listing
    assert all(path.stat().st_mtime_ns == files[path] for path in files if path != gone)
    with pytest.raises(UsageError, match="of another size or font"):
        draw_emoji(folder, size=32)


def test_what_cannot_be_drawn_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"no colour font at .*none\.ttf.*--font"):
        draw_emoji(tmp_path, size=24, font=str(tmp_path / "none.ttf"))
    (tmp_path / "no.ttf").write_bytes(b"no font")
    with pytest.raises(DataError, match=r"no\.ttf cannot be used"):
        draw_emoji(tmp_path, size=24, font=str(tmp_path / "no.ttf"))
    with pytest.raises(UsageError, match="--size is 4"):
        draw_emoji(tmp_path, size=4)


def test_a_font_of_outlines_is_refused(tmp_path) -> None:
    """DejaVu Sans, which matplotlib ships, has outlines of some emoji and colours of none."""
    import matplotlib

    font = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    with pytest.raises(DataError, match="draws no emoji in colour"):
        draw_emoji(tmp_path, size=24, font=str(font))


@needs_font
def test_a_list_of_somebody_elses_is_not_overwritten(tmp_path) -> None:
    (tmp_path / "captions.jsonl").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other pictures.*--out"):
        draw_emoji(tmp_path, size=24)
    assert (tmp_path / "captions.jsonl").read_text() == "mine"

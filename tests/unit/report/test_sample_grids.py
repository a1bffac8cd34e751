from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mudit.errors import DataError
from mudit.report import SampleGrid
from mudit.report.grids import PAGE_PIXELS, draw_grids, enlarged, grids_info, shared_labels
from mudit.report.theme import LIGHT, to_png, type_style


def grid(number, size, *, columns, labels=(), channels=3):
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (number, size, size, channels)).astype(np.uint8)
    return SampleGrid(title="images", images=images, labels=labels, columns=columns)


def test_labels_are_written_once_where_they_are_shared():
    assert shared_labels("abab", 2) == (("a", "b"), (), ())
    assert shared_labels("aabb", 2) == ((), ("a", "b"), ())
    assert shared_labels("abba", 2) == ((), (), ("a", "b", "b", "a"))
    assert shared_labels("abc", 3) == (("a", "b", "c"), (), ())
    assert shared_labels("abc", 1) == ((), ("a", "b", "c"), ())
    assert shared_labels("ababa", 2) == (("a", "b"), (), ())
    assert shared_labels("", 2) == ((), (), ())


def test_tiny_images_grow_by_whole_pixels():
    images = np.arange(2 * 4, dtype=np.uint8).reshape(2, 2, 2, 1)
    large = enlarged(images, 7)
    assert large.shape == (2, 6, 6, 3)
    assert (large[:, ::3, ::3] == images).all()
    assert (large[0, :3, 3:6] == images[0, 0, 1]).all()


def test_large_images_shrink_to_the_mean_of_what_they_cover():
    images = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    images[0, :2, :2] = [[[100] * 3, [200] * 3], [[100] * 3, [200] * 3]]
    small = enlarged(images, 2)
    assert small.shape == (1, 2, 2, 3)
    assert small[0, 0, 0, 0] == 150
    assert small[0, 1, 1, 0] == 0


def test_samples_and_real_images_stand_beside_each_other(study_contents):
    info = grids_info(study_contents())
    ((target, control, real),) = info.lines
    assert [panel.title for panel in (target, control, real)] == ["μP target", "sp target", "real"]
    assert target.column_labels == ("a", "b")
    assert target.cells.shape[1] % 8 == 0  # 8×8 images, whole pixels
    assert target.width + control.width + real.width <= PAGE_PIXELS


def test_row_labels_that_all_share_are_written_at_the_left(study_contents):
    labels = tuple("cat" for _ in range(10)) + tuple("dog" for _ in range(10))
    one = grid(20, 8, columns=10, labels=labels)
    info = grids_info(study_contents(samples=(one, one), real_images=one))
    ((first, *others),) = info.lines
    assert first.row_labels == ("cat", "dog")
    assert first.left > 0
    assert [(panel.row_labels, panel.left) for panel in others] == [((), 0), ((), 0)]
    different = grid(20, 8, columns=10, labels=labels[::-1])
    info = grids_info(study_contents(samples=(one, different), real_images=None))
    assert [panel.row_labels[0] for line in info.lines for panel in line] == ["cat", "dog"]


def test_grids_too_wide_for_one_line_are_stacked(study_contents):
    wide = grid(60, 8, columns=30)
    info = grids_info(study_contents(samples=(wide, wide), real_images=None))
    assert [len(line) for line in info.lines] == [1, 1]


def test_no_images_no_figure(study_contents):
    assert grids_info(study_contents(samples=(), real_images=None)).lines == ()


@pytest.mark.parametrize(
    "one",
    [
        grid(7, 3, columns=3, labels=tuple("abcdefg"), channels=1),
        grid(4, 300, columns=2, labels=("a long caption of a picture",) * 4),
        grid(1, 16, columns=5),
        grid(90, 32, columns=45),
    ],
)
def test_pixels_arrive_where_the_layout_says(study_contents, one):
    info = grids_info(study_contents(samples=(one,), real_images=None))
    ((panel,),) = info.lines
    with type_style(LIGHT):
        png = to_png(draw_grids(info, LIGHT))
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert picture.shape[1] == PAGE_PIXELS
    height, width = panel.cells.shape[1:3]
    row, column = divmod(len(panel.cells) - 1, panel.columns)
    x = 10 + panel.left + column * (width + 2)
    y = 10 + panel.height - 2 - height
    assert (picture[y : y + height, x : x + width] == panel.cells[-1]).all()
    assert panel.rows == row + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((1, 2, 2, 3))}, "uint8"),
        ({"images": np.zeros((1, 2, 2, 4), dtype=np.uint8)}, "shape"),
        ({"images": np.zeros((0, 2, 2, 3), dtype=np.uint8)}, "shape"),
        ({"labels": ("a", "b")}, "label per image"),
        ({"columns": 0}, "column"),
    ],
)
def test_images_of_another_kind_are_refused(changes, message):
    images = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    with pytest.raises(DataError, match=message):
        SampleGrid(**{"title": "x", "images": images} | changes)

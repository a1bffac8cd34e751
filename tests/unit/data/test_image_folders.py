"""Image folders: ADM's crop against arithmetic, the split, and every kind of bad input."""

from __future__ import annotations

import io
import shutil
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mudit.data import centre_crop, open_dataset
from mudit.data.images import read_image
from mudit.errors import DataError, UsageError

RNG = np.random.default_rng(0)


def noise(height, width, channels=3):
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


# --- ADM's crop -----------------------------------------------------------------------------------


def test_halving_takes_means_of_four_and_the_crop_the_middle():
    # 4 high, 8 wide, to 2: halved once to 2x4 (means of 2x2 blocks), no rescaling, columns 1 and 2.
    grey = np.array(
        [
            [9, 9, 0, 4, 10, 20, 9, 9],
            [9, 9, 8, 8, 30, 40, 9, 9],
            [9, 9, 1, 3, 100, 100, 9, 9],
            [9, 9, 5, 7, 200, 200, 9, 9],
        ],
        dtype=np.uint8,
    )
    found = centre_crop(Image.fromarray(grey), 2)
    assert np.asarray(found).tolist() == [[5, 25], [4, 150]]


def test_an_image_of_the_right_size_is_left_alone():
    pixels = noise(6, 6)
    np.testing.assert_array_equal(centre_crop(Image.fromarray(pixels), 6), pixels)


def box(x):
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def bicubic(x):
    """Keys's kernel with a = -1/2, by its two polynomials."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def resample(image, length, axis, kernel):
    """One axis resampled in float; the kernel is widened when shrinking."""
    old = image.shape[axis]
    ratio = old / length
    centres = (np.arange(length) + 0.5) * ratio
    positions = np.arange(old) + 0.5
    weights = kernel((positions[None] - centres[:, None]) / max(ratio, 1))
    weights /= weights.sum(1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)


def rounded(values):
    """To whole levels, halves up."""
    return np.floor(values + 0.5).clip(0, 255)


def resized(image, height, width, kernel):
    return rounded(resample(rounded(resample(image, width, 1, kernel)), height, 0, kernel))


def by_hand(pixels, sizes, size):
    """`sizes`: (height, width) after each step, worked out on paper; the last one is bicubic."""
    image = pixels.astype(float)
    for height, width in sizes[:-1]:
        image = resized(image, height, width, box)
    image = resized(image, *sizes[-1], bicubic)
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("shape", "size", "sizes"),
    [
        ((6, 8), 4, [(4, 5)]),  # 6 < 8: no halving; 8 * 4/6 = 5.33
        ((9, 5), 8, [(14, 8)]),  # enlarged: 9 * 8/5 = 14.4
        ((24, 36), 5, [(12, 18), (6, 9), (5, 8)]),  # 9 * 5/6 = 7.5, rounded to even
        ((23, 37), 5, [(11, 18), (5, 9), (5, 9)]),  # halves are rounded down
        ((8, 8), 4, [(4, 4), (4, 4)]),  # twice the size is halved
        ((7, 7), 4, [(4, 4)]),  # less is not
    ],
)
def test_the_crop_equals_one_worked_out_by_hand(shape, size, sizes):
    pixels = noise(*shape)
    found = np.asarray(centre_crop(Image.fromarray(pixels), size)).astype(float)
    assert found.shape == (size, size, 3)
    # One level: Pillow's weights are integers, so a half may fall to either side.
    np.testing.assert_allclose(found, by_hand(pixels, sizes, size), atol=1)


# --- what a folder gives --------------------------------------------------------------------------


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Three classes, 40 files; the image `i` of class `c` has colour (10c, i, 255)."""
    root = tmp_path / "pets"
    for label, (name, count) in enumerate({"ant": 14, "Bee": 12, "cat": 14}.items()):
        for i in range(count):
            save(root / name / f"{i:03}.png", np.full((9, 12, 3), (10 * label, i, 255), np.uint8))
    return root


def everything(dataset):
    return dataset.batch(np.arange(dataset.num_samples))


def test_classes_are_the_sorted_subfolders(folder):
    splits = open_dataset(f"folder:{folder}", size=4)
    train, validation = splits.train, splits.validation
    assert train.class_names == validation.class_names == ("Bee", "ant", "cat")
    assert (train.name, train.channels, train.size, train.num_classes) == ("pets", 3, 4, 3)
    assert train.num_samples + validation.num_samples == 40
    assert not set(train.files) & set(validation.files)
    images, labels = everything(train)
    assert images.shape == (train.num_samples, 3, 4, 4)
    assert images.dtype == torch.float32
    for file, image, label in zip(train.files, images, labels):
        name, number = file.split("/")
        assert train.class_names[label] == name
        colour = ["ant", "Bee", "cat"].index(name) * 10, int(number[:3]), 255
        for channel, value in zip(image, colour):
            assert channel.unique().tolist() == pytest.approx([value / 127.5 - 1], abs=1e-6)


def test_results_come_in_index_order(folder):
    train = open_dataset(f"folder:{folder}", size=4).train
    images, labels = everything(train)
    indices = RNG.permutation(train.num_samples)
    shuffled, their_labels = train.batch(indices)
    assert torch.equal(shuffled, images[indices])
    assert torch.equal(their_labels, labels[indices])


def test_flips_mirror_left_to_right(tmp_path):
    for i in range(2):
        save(tmp_path / "a" / f"{i}.png", noise(4, 4))
    train = open_dataset(f"folder:{tmp_path}", size=4).train
    assert train.flip
    plain, _ = train.batch(np.array([0, 0]))
    turned, _ = train.batch(np.array([0, 0]), np.array([False, True]))
    assert torch.equal(turned[0], plain[0])
    assert torch.equal(turned[1], torch.from_numpy(plain[1].numpy()[..., ::-1].copy()))


def test_flip_is_on_unless_said_otherwise(folder):
    splits = open_dataset(f"folder:{folder}", size=4)
    assert (splits.train.flip, splits.validation.flip) == (True, False)
    assert not open_dataset(f"folder:{folder}", size=4, flip=False).train.flip


def test_about_a_twentieth_is_held_out(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(1000):
            (tmp_path / name / f"{i}.jpg").touch()
    splits = open_dataset(f"folder:{tmp_path}", size=4)
    # Binomial(2000, 1/20): 100, sigma 9.7.
    assert 60 < splits.validation.num_samples < 140


def test_a_file_stays_in_its_split_when_others_come(folder):
    before = open_dataset(f"folder:{folder}", size=4)
    for i in range(100, 150):
        shutil.copy(folder / "ant" / "000.png", folder / "ant" / f"{i}.png")
    after = open_dataset(f"folder:{folder}", size=4)
    assert set(before.train.files) <= set(after.train.files)


def test_the_split_does_not_depend_on_where_the_folder_is(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "pets")
    first, second = (open_dataset(f"folder:{path}", size=4) for path in (folder, moved))
    assert first.validation.files == second.validation.files
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("count", range(2, 12))
def test_few_images_still_have_two_splits(tmp_path, count):
    for i in range(count):
        save(tmp_path / "a" / f"{i}.png", noise(4, 4))
    splits = open_dataset(f"folder:{tmp_path}", size=4)
    assert splits.validation.num_samples >= 1
    assert splits.train.num_samples >= 1


def test_the_fingerprint_follows_names_and_lengths(folder):
    before = open_dataset(f"folder:{folder}", size=4).fingerprint
    assert open_dataset(f"folder:{folder}", size=8).fingerprint == before
    path = folder / "cat" / "003.png"
    path.rename(folder / "cat" / "3.png")
    renamed = open_dataset(f"folder:{folder}", size=4).fingerprint
    save(folder / "cat" / "3.png", noise(9, 12))
    changed = open_dataset(f"folder:{folder}", size=4).fingerprint
    assert len({before, renamed, changed}) == 3


def test_hidden_and_other_files_are_passed_over(folder):
    count = len(open_dataset(f"folder:{folder}", size=4).train.files)
    (folder / "ant" / "notes.txt").write_text("x")
    (folder / "ant" / "._000.png").write_text("x")
    (folder / ".cache").mkdir()
    (folder / "readme.png").write_text("x")
    (folder / "ant" / "inner.png").mkdir()
    assert len(open_dataset(f"folder:{folder}", size=4).train.files) == count


@pytest.mark.parametrize("ending", ["png", "PNG", "bmp", "webp"])
def test_lossless_formats_come_back(tmp_path, ending):
    pixels = noise(6, 6)
    options = {"lossless": True, "format": "webp"} if ending == "webp" else {}
    save(tmp_path / f"a.{ending}", pixels, **options)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{ending}"), pixels)


@pytest.mark.parametrize("ending", ["jpg", "jpeg"])
def test_jpeg_comes_back_nearly(tmp_path, ending):
    pixels = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    save(tmp_path / f"a.{ending}", pixels, quality=95)
    np.testing.assert_allclose(read_image(tmp_path / f"a.{ending}"), pixels, atol=4)


def test_grey_palette_and_transparent_images_become_rgb(tmp_path):
    grey = noise(5, 5, 1)[..., 0]
    save(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, -1))
    clear = noise(5, 5, 4)
    save(tmp_path / "clear.png", clear)
    np.testing.assert_array_equal(read_image(tmp_path / "clear.png"), clear[..., :3])
    palette = Image.fromarray(clear).quantize(8)
    palette.save(tmp_path / "palette.png")
    expected = np.asarray(palette.convert("RGBA"))[..., :3]
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), expected)


# --- bad input ------------------------------------------------------------------------------------


def refusal(action, path):
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert str(path) in message
    assert "expected" in message
    assert "\n" not in message
    return message


def opening(folder):
    return lambda: open_dataset(f"folder:{folder}", size=4)


@pytest.mark.parametrize(("size", "words"), [(None, "no size was given"), (0, "size is 0")])
def test_a_missing_size_is_refused(folder, size, words):
    with pytest.raises(UsageError, match=words):
        open_dataset(f"folder:{folder}", size=size)


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "nothing"
    assert "there is no folder" in refusal(opening(path), path)


def test_a_file_instead_of_a_folder_is_named(tmp_path):
    path = tmp_path / "file"
    path.touch()
    assert "there is no folder" in refusal(opening(path), path)


def test_a_folder_without_subfolders_is_named(tmp_path):
    save(tmp_path / "a.png", noise(4, 4))
    assert "put all images into one subfolder" in refusal(opening(tmp_path), tmp_path)


def test_an_empty_class_is_named(folder):
    (folder / "dog").mkdir()
    (folder / "dog" / "notes.txt").touch()
    assert "no images" in refusal(opening(folder), folder / "dog")


def test_a_dangling_link_is_named(folder):
    (folder / "ant" / "link.png").symlink_to(folder / "gone.png")
    assert "points to" in refusal(opening(folder), folder / "ant" / "link.png")


def test_a_level_too_high_is_recognised(folder):
    # .../{train,val}/class/file, the usual layout of ImageNet
    upper = folder.parent
    assert f"use folder:{folder}" in refusal(opening(upper), folder)


def test_a_single_image_is_too_few(tmp_path):
    save(tmp_path / "a" / "a.png", noise(4, 4))
    assert "has 1 image" in refusal(opening(tmp_path), tmp_path)


def encoded(ending):
    stream = io.BytesIO()
    Image.fromarray(noise(40, 40)).save(stream, {"jpg": "jpeg"}.get(ending, ending))
    return stream.getvalue()


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.95])
def test_a_truncated_image_is_named(folder, ending, share):
    raw = encoded(ending)
    path = folder / "ant" / f"broken.{ending}"
    path.write_bytes(raw[: int(share * len(raw))])
    splits = open_dataset(f"folder:{folder}", size=4)
    part = splits.train if f"ant/{path.name}" in splits.train.files else splits.validation
    assert "Replace or remove it" in refusal(lambda: everything(part), path)


def test_a_file_that_is_no_image_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("<html>404</html>")
    assert "UnidentifiedImageError" in refusal(lambda: read_image(path), path)


def test_an_image_that_has_gone_is_named(folder):
    train = open_dataset(f"folder:{folder}", size=4).train
    path = folder / train.files[3]
    path.unlink()
    assert "(No such file or directory)" in refusal(lambda: everything(train), path)


def test_a_broken_chunk_is_named(tmp_path):
    # Pillow raises SyntaxError for it, not OSError.
    raw = encoded("png")
    path = tmp_path / "a.png"
    path.write_bytes(raw[:33] + struct.pack(">I4s", 4, b"\0\1\2\3") + raw[33:])
    refusal(lambda: read_image(path), path)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_named(tmp_path, side):
    # A header that promises 100 (Pillow warns) or 400 megapixels (Pillow raises).
    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "DecompressionBomb" in refusal(lambda: read_image(path), path)


def test_sixteen_bits_are_refused_rather_than_cut(tmp_path):
    path = tmp_path / "a.png"
    save(path, np.full((4, 4), 1000, np.uint16))
    assert "more than 8 bits" in refusal(lambda: read_image(path), path)

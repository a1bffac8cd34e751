"""Pictures of every mode as a viewer shows them: upright, over white, 16 bits scaled."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mudit.data.images import read_image, read_picture
from mudit.errors import DataError

RNG = np.random.default_rng(0)


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    stream.seek(0)
    return stream


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """alpha * colour + (1 - alpha) * white."""
    share = alpha[..., None] / 255
    return share * colours + (1 - share) * 255


def test_transparent_colours_lie_over_white():
    pixels = RNG.integers(0, 256, (9, 9, 4), dtype=np.uint8)
    found = np.asarray(read_picture(file_of(Image.fromarray(pixels)))).astype(float)
    np.testing.assert_allclose(found, over_white(pixels[..., :3], pixels[..., 3]), atol=1)
    # ADM's reading of the same file drops alpha.
    plain = read_image(file_of(Image.fromarray(pixels)))
    np.testing.assert_array_equal(plain, pixels[..., :3])


def test_transparent_grey_lies_over_white():
    pixels = RNG.integers(0, 256, (9, 9, 2), dtype=np.uint8)
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    found = np.asarray(read_picture(file_of(Image.fromarray(pixels, "LA")))).astype(float)
    np.testing.assert_allclose(found, over_white(grey, pixels[..., 1]), atol=1)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_colour_that_counts_as_transparent_is_white(mode):
    red, blue = (255, 0, 0), (0, 0, 255)
    image = Image.new("RGB", (4, 4), blue)
    image.paste(red, (0, 0, 2, 4))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    found = np.asarray(
        read_picture(file_of(image, transparency=image.getpixel((0, 0)))).convert("RGB")
    )
    assert (found[:, :2] == 255).all()
    assert (found[:, 2:] != 255).any(axis=2).all(), "the other colour is kept"


def test_a_palette_with_an_alpha_for_each_colour_lies_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 100, 0])
    image.putpixel((1, 0), 1)
    found = np.asarray(read_picture(file_of(image, transparency=bytes([0, 128])))).astype(float)
    half = over_white(np.array([[200.0, 100.0, 0.0]]), np.array([128.0]))
    np.testing.assert_allclose(found[0], [[255, 255, 255], half[0]], atol=1)


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 1, 128, 129, 255, 256, 32767, 32768, 65278, 65535]], dtype=np.uint16)
    found = np.asarray(read_picture(file_of(Image.fromarray(values))))
    expected = np.floor(values / 257 + 0.5)  # the nearest of 256 levels
    np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, axis=2))
    # The trap: what Pillow's own conversion makes of the brightest.
    assert found[0, -1, 0] == 255
    assert found[0, 5, 0] == 1
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(file_of(Image.fromarray(values)), name="deep.png")


def test_a_cmyk_jpeg_is_rgb():
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for image, expected in ((white, (255, 255, 255)), (red, (255, 0, 0))):
        found = np.asarray(read_picture(file_of(image, "JPEG", quality=100))).astype(int)
        assert np.abs(found - expected).max() <= 3


def as_held(upright: np.ndarray) -> np.ndarray:
    """What a camera on its side stores of a view, for orientation 6: stored left is shown up."""
    return np.rot90(upright)  # anticlockwise; a viewer turns it back, clockwise


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_phones_picture_is_turned_upright(kind):
    upright = np.zeros((40, 24, 3), dtype=np.uint8)  # higher than wide
    upright[:10], upright[30:, :12] = (255, 0, 0), (0, 0, 255)  # red sky, something at lower left
    exif = Image.Exif()
    exif[0x0112] = 6  # "the 0th row is at the right, the 0th column at the top"
    held = Image.fromarray(np.ascontiguousarray(as_held(upright)))
    assert held.size == (40, 24)
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    found = np.asarray(read_picture(file_of(held, kind, exif=exif, **options))).astype(int)
    assert found.shape == upright.shape
    assert np.abs(found - upright).max() <= 40
    # ADM's reading of the same file lets it lie.
    assert read_image(file_of(held, kind, exif=exif, **options)).size == (40, 24)


@pytest.mark.parametrize("exif", [b"Exif\0\0MM", b"Exif\0\0MM\0*\0\0\0\x08\0", b"Exif\0\0"])
def test_damaged_exif_does_not_cost_a_picture(exif):
    image = Image.new("RGB", (8, 4), "red")
    assert read_picture(file_of(image, "PNG", exif=exif)).size == (8, 4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_opaque_modes_are_what_pillow_makes_of_them(mode):
    image = Image.fromarray(RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)).convert(mode)
    np.testing.assert_array_equal(read_picture(file_of(image)), image.convert("RGB"))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_known_white_are_refused_by_name(mode):
    with pytest.raises(DataError, match=rf"deep\.tif has pixels of mode {mode}"):
        read_picture(file_of(Image.new(mode, (4, 4), 7), "TIFF"), name="deep.tif")


def test_a_damaged_picture_is_named():
    content = file_of(Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)))
    cut = io.BytesIO(content.getvalue()[:2000])
    with pytest.raises(DataError, match=r"cannot read the image a\.tar, member b\.png"):
        read_picture(cut, name="a.tar, member b.png")

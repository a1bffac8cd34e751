"""Digits and IDX files: what comes out, and what is said when something is wrong."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mudit.data import ArrayDataset, open_dataset
from mudit.errors import DataError, UsageError

FASHION = Path("/usr/share/datasets/fashion-mnist")


def everything(dataset):
    return dataset.batch(np.arange(dataset.num_samples))


# --- digits ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits")


def test_digits_are_scikit_learns_images_in_two_parts(digits):
    found = torch.cat([everything(digits.train)[0], everything(digits.validation)[0]])
    bunch = load_digits()
    expected = torch.from_numpy(bunch.images / 8 - 1).to(torch.float32)
    rows = sorted(map(tuple, found.flatten(1).tolist()))
    assert rows == sorted(map(tuple, expected.flatten(1).tolist()))
    assert found.dtype == torch.float32
    assert (found.min(), found.max()) == (-1, 1)


def test_digits_keep_their_labels(digits):
    bunch = load_digits()
    label_of = {
        tuple(image): int(label)
        for image, label in zip(bunch.images.reshape(-1, 64).tolist(), bunch.target)
    }
    for dataset in (digits.train, digits.validation):
        images, labels = everything(dataset)
        assert labels.dtype == torch.int64
        keys = ((images + 1) * 8).flatten(1).tolist()
        assert [label_of[tuple(key)] for key in keys] == labels.tolist()


def test_digits_hold_out_a_fifth_of_each_class(digits):
    train, validation = digits.train, digits.validation
    assert train.num_samples + validation.num_samples == 1797
    held_out = torch.bincount(everything(validation)[1], minlength=10)
    share = held_out / (held_out + torch.bincount(everything(train)[1], minlength=10))
    assert share == pytest.approx(0.2, abs=0.003)


def test_digits_say_what_they_are(digits):
    for dataset in (digits.train, digits.validation):
        assert (dataset.name, dataset.channels, dataset.size) == ("digits", 1, 8)
        assert dataset.num_classes == 10
        assert dataset.class_names == tuple("0123456789")
        assert not dataset.flip


def test_only_training_images_are_to_be_flipped():
    splits = open_dataset("digits", flip=True)
    assert splits.train.flip
    assert not splits.validation.flip


def test_a_batch_follows_its_indices(digits):
    images, labels = everything(digits.train)
    indices = np.array([5, 3, 3, 0])
    some, their_labels = digits.train.batch(indices)
    assert torch.equal(some, images[indices])
    assert torch.equal(their_labels, labels[indices])


def test_flips_mirror_left_to_right(digits):
    indices = np.arange(4)
    plain, _ = digits.train.batch(indices)
    turned, _ = digits.train.batch(indices, np.array([True, False, True, False]))
    assert torch.equal(turned[1::2], plain[1::2])
    assert torch.equal(turned[::2], torch.from_numpy(plain[::2].numpy()[..., ::-1].copy()))


def test_an_empty_batch_is_empty(digits):
    images, labels = digits.train.batch(np.array([], dtype=np.int64))
    assert images.shape == (0, 1, 8, 8)
    assert labels.shape == (0,)


@pytest.mark.parametrize("index", [-1, 1438])
def test_an_index_out_of_range_is_refused(digits, index):
    with pytest.raises(UsageError, match="expected 0 to 1437"):
        digits.train.batch(np.array([0, index]))


def test_flips_of_another_length_are_refused(digits):
    with pytest.raises(UsageError, match=r"flips of shape \(1,\)"):
        digits.train.batch(np.array([0, 1]), np.array([True]))


def test_a_dataset_goes_to_another_process(digits):
    copy = pickle.loads(pickle.dumps(digits))
    assert copy.fingerprint == digits.fingerprint == open_dataset("digits").fingerprint


def test_the_fingerprint_follows_the_content():
    def prints(**changes):
        fields = {
            "name": "x",
            "images": np.zeros((2, 1, 2, 2), np.uint8),
            "labels": np.array([0, 1]),
            "class_names": ("0", "1"),
        }
        return ArrayDataset(**(fields | changes)).fingerprint

    changed = np.zeros((2, 1, 2, 2), np.uint8)
    changed[1, 0, 1, 1] = 1
    different = [
        prints(),
        prints(images=changed),
        prints(labels=np.array([1, 1])),
        prints(images=np.zeros((2, 2, 2, 1), np.uint8)),
        prints(white=16),
    ]
    assert len(set(different)) == len(different)
    assert prints(name="y", flip=True) == prints()
    assert len(prints()) == 64


# --- what a user writes ---------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["cifar", "", "idx", "idx:", "folder:", "digits:x", "Digits"])
def test_an_unknown_dataset_is_refused_with_the_forms(spec):
    with pytest.raises(UsageError) as caught:
        open_dataset(spec, size=8)
    for words in (repr(spec), "`digits`", "`idx:FOLDER`", "`folder:PATH`"):
        assert words in str(caught.value)


def test_a_size_that_the_data_do_not_have_is_refused():
    assert open_dataset("digits", size=8).train.size == 8
    with pytest.raises(UsageError, match="size is 16, but the images of digits have 8x8"):
        open_dataset("digits", size=16)


# --- IDX ------------------------------------------------------------------------------------------


def idx_bytes(array, kind=8):
    header = bytes([0, 0, kind, array.ndim])
    return header + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (12, 5, 5), dtype=np.uint8),
    "train-labels-idx1-ubyte": np.arange(12, dtype=np.uint8) % 3,
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (4, 5, 5), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": np.arange(4, dtype=np.uint8),
}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "mnist"
    root.mkdir()
    for name, array in ARRAYS.items():
        (root / name).write_bytes(idx_bytes(array))
    return root


def rename(folder, change, pack=bytes):
    for name in ARRAYS:
        path = folder / name
        (folder / change(name)).write_bytes(pack(path.read_bytes()))
        if change(name) != name:
            path.unlink()


@pytest.mark.parametrize("form", ["plain", "gz", "dot", "dot gz", "gz of two members"])
def test_idx_files_come_back(folder, form):
    if form == "gz":
        rename(folder, lambda name: f"{name}.gz", gzip.compress)
    elif form == "dot":
        rename(folder, lambda name: name.replace("-idx", ".idx"))
    elif form == "dot gz":
        rename(folder, lambda name: name.replace("-idx", ".idx") + ".gz", gzip.compress)
    elif form == "gz of two members":
        two = lambda raw: gzip.compress(raw[:6]) + gzip.compress(raw[6:])  # noqa: E731
        rename(folder, lambda name: f"{name}.gz", two)
    splits = open_dataset(f"idx:{folder}")
    for part, prefix in ((splits.train, "train"), (splits.validation, "t10k")):
        images, labels = everything(part)
        pixels = ARRAYS[f"{prefix}-images-idx3-ubyte"]
        torch.testing.assert_close(
            images, torch.from_numpy(pixels / 127.5 - 1).float()[:, None], atol=1e-6, rtol=0
        )
        assert labels.tolist() == ARRAYS[f"{prefix}-labels-idx1-ubyte"].tolist()
        assert (part.name, part.channels, part.size, part.flip) == ("mnist", 1, 5, False)
        assert part.class_names == ("0", "1", "2", "3")  # 3 occurs in t10k only


def test_black_is_minus_one_and_white_is_one(folder):
    ends = np.zeros((12, 5, 5), np.uint8)
    ends[:, 0] = 255
    (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(ends))
    images, _ = everything(open_dataset(f"idx:{folder}").train)
    assert images.unique().tolist() == [-1, 1]


def refusal(folder, **options):
    with pytest.raises(DataError) as caught:
        open_dataset(f"idx:{folder}", **options)
    message = str(caught.value)
    assert str(folder) in message
    assert "expected" in message
    assert "\n" not in message
    return message


def test_a_missing_folder_is_named(tmp_path):
    assert "there is no folder" in refusal(tmp_path / "nothing")


def test_missing_files_are_listed(folder):
    (folder / "train-labels-idx1-ubyte").unlink()
    (folder / "t10k-images-idx3-ubyte").unlink()
    message = refusal(folder)
    assert "lacks train-labels-idx1-ubyte, t10k-images-idx3-ubyte;" in message


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", list(ARRAYS))
def test_a_truncated_file_is_named_with_both_lengths(folder, name, packed):
    raw = idx_bytes(ARRAYS[name])
    path = folder / name
    if packed:
        path.unlink()
        path = folder / f"{name}.gz"
        path.write_bytes(gzip.compress(raw[:-3]))
    else:
        path.write_bytes(raw[:-3])
    message = refusal(folder)
    assert str(path) in message
    assert f"expected {len(raw)} bytes" in message
    assert f"got {len(raw) - 3} bytes" in message


def test_a_truncated_gzip_stream_is_named(folder):
    rename(folder, lambda name: f"{name}.gz", gzip.compress)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:200])
    message = refusal(folder)
    assert str(path) in message
    assert "expected 316 bytes" in message
    assert "after decompression" in message


def test_a_header_cut_short_is_named(folder):
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:9])
    message = refusal(folder)
    assert f"{path} has the wrong length: expected 16 bytes of header, got 9" in message


def test_a_file_that_is_too_long_is_named(folder):
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"\0")
    message = refusal(folder)
    assert str(path) in message
    assert "expected 12 bytes for dimensions [4], got 13" in message


@pytest.mark.parametrize("start", [b"", b"\x89PNG", bytes([0, 0, 13, 3]), bytes([0, 0, 8, 1])])
def test_a_file_of_another_kind_is_named(folder, start):
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(start + path.read_bytes()[4:] if start else b"")
    message = refusal(folder)
    assert f"{path} starts with bytes 0x{start.hex()}; expected 0x00000803" in message


def test_a_file_that_is_not_gzip_is_named(folder):
    rename(folder, lambda name: f"{name}.gz")
    path = folder / "train-images-idx3-ubyte.gz"
    assert f"{path} is damaged or not gzip" in refusal(folder)


def test_a_damaged_gzip_is_named(folder):
    rename(folder, lambda name: f"{name}.gz", gzip.compress)
    path = folder / "train-labels-idx1-ubyte.gz"
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 1  # the checksum
    path.write_bytes(raw)
    assert f"{path} is damaged or not gzip" in refusal(folder)


def test_as_many_labels_as_images_are_asked_for(folder):
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(np.zeros(11, np.uint8)))
    message = refusal(folder)
    assert f"{path} has 11 labels" in message
    assert "has 12 images" in message


def test_images_that_are_not_square_are_refused(folder):
    path = folder / "train-images-idx3-ubyte"
    for name in ("train", "t10k"):
        array = ARRAYS[f"{name}-images-idx3-ubyte"][:, :4]
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(array))
    assert f"{path} has images of 4x5 pixels; expected square" in refusal(folder)


def test_images_of_two_sizes_are_refused(folder):
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(idx_bytes(np.zeros((4, 6, 6), np.uint8)))
    message = refusal(folder)
    assert f"{path} of 6x6" in message
    assert "5x5" in message


@pytest.mark.parametrize("shape", [(0, 5, 5), (4, 0, 0)])
def test_an_empty_file_is_refused(folder, shape):
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(idx_bytes(np.zeros(shape, np.uint8)))
    assert f"{path} says that it has {shape[0]} images of {shape[1]}x" in refusal(folder)


@pytest.mark.skipif(
    not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_debians_fashion_mnist():
    splits = open_dataset(f"idx:{FASHION}")
    assert (splits.train.num_samples, splits.validation.num_samples) == (60_000, 10_000)
    for part in (splits.train, splits.validation):
        assert (part.name, part.size, part.num_classes) == ("fashion-mnist", 28, 10)
        # The data sheet: classes are balanced.
        assert set(np.bincount(part.labels)) == {part.num_samples // 10}
    # The first labels, as in the data set's README: ankle boot, then in t10k ankle boot, pullover.
    assert splits.train.batch(np.array([0]))[1].tolist() == [9]
    assert splits.validation.batch(np.array([0, 1]))[1].tolist() == [9, 2]

"""CIFAR-10's binary files, small ones of the same layout and the real ones."""

import os

import numpy as np
import pytest

from deepprism_jax.data import class_names, make_source
from deepprism_jax.data.sources import cifar10 as cifar10_module
from deepprism_jax.data.sources.cifar10 import FILES, FOLDER, read_cifar10

RECORDS = 20
LAYOUT = {"image_size": (32, 32), "channels": 3}


@pytest.fixture
def binaries(tmp_path, monkeypatch):
    """Write files of 20 records each, and return their folder with the truth."""
    monkeypatch.setattr(cifar10_module, "RECORDS", RECORDS)
    rng = np.random.default_rng(0)
    folder = tmp_path / FOLDER
    folder.mkdir()
    truth = {}
    for split, names in FILES.items():
        images = rng.integers(0, 256, (len(names) * RECORDS, 32, 32, 3), np.uint8)
        labels = rng.integers(0, 10, len(images), np.uint8)
        truth[split] = images, labels
        for i, name in enumerate(names):
            with (folder / name).open("wb") as file:
                for j in range(i * RECORDS, (i + 1) * RECORDS):
                    red, green, blue = np.moveaxis(images[j], -1, 0)
                    file.write(bytes([labels[j]]))
                    file.write(red.tobytes() + green.tobytes() + blue.tobytes())
    return folder, truth


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_and_labels(binaries, split):
    folder, truth = binaries
    images, labels = read_cifar10(folder, split)
    np.testing.assert_array_equal(images, truth[split][0])
    np.testing.assert_array_equal(labels, truth[split][1])
    source = make_source("cifar10", split=split, path=str(folder), **LAYOUT)
    assert len(source) == len(images)
    np.testing.assert_array_equal(source[3]["image"], images[3])
    assert [source[i]["label"] for i in range(RECORDS)] == labels[:RECORDS].tolist()
    assert class_names(source)[3] == "cat"


def test_the_folder_above_will_do(binaries):
    folder, truth = binaries
    images, _ = read_cifar10(folder.parent, "test")
    np.testing.assert_array_equal(images, truth["test"][0])


def test_channels(binaries):
    folder, _ = binaries
    source = make_source(
        "cifar10", split="test", path=str(folder), image_size=(16, 16), channels=1
    )
    assert source[0]["image"].shape == (32, 32, 1)


def test_truncated_file(binaries):
    folder, _ = binaries
    os.truncate(folder / "data_batch_3.bin", 1000)
    with pytest.raises(
        ValueError,
        match=r"data_batch_3.bin is truncated: 1,000 bytes instead of 61,460; unpack",
    ):
        read_cifar10(folder, "train")


def test_file_of_another_set(binaries):
    folder, _ = binaries
    with (folder / "test_batch.bin").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"test_batch.bin is too long: 61,464 bytes"):
        read_cifar10(folder, "test")


def test_label_out_of_range(binaries):
    folder, _ = binaries
    with (folder / "data_batch_2.bin").open("r+b") as file:
        file.seek(7 * 3073)
        file.write(b"\x63")
    with pytest.raises(ValueError, match=r"data_batch_2.bin .* record 7 has label 99"):
        read_cifar10(folder, "train")


def test_missing_file(binaries):
    folder, _ = binaries
    (folder / "data_batch_5.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_5.bin is missing"):
        read_cifar10(folder, "train")


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere; unpack"):
        read_cifar10(tmp_path / "nowhere", "train")


def test_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no CIFAR-10 files; unpack"):
        read_cifar10(tmp_path, "train")


def test_python_version(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").touch()
    with pytest.raises(FileNotFoundError, match="the Python version of CIFAR-10"):
        read_cifar10(tmp_path, "train")


def test_unknown_split(binaries):
    folder, _ = binaries
    with pytest.raises(ValueError, match="'cifar10' has no split 'val'; choose train"):
        read_cifar10(folder, "val")


def test_image_size_above_32(binaries):
    folder, _ = binaries
    with pytest.raises(ValueError, match="64x64 is larger than CIFAR-10's 32x32"):
        make_source("cifar10", split="test", path=str(folder), image_size=(64, 64))


@pytest.mark.skipif(
    "DEEPPRISM_CIFAR10" not in os.environ,
    reason="DEEPPRISM_CIFAR10 does not name a cifar-10-batches-bin folder",
)
@pytest.mark.parametrize(("split", "count"), [("train", 50_000), ("test", 10_000)])
def test_the_real_files(split, count):
    images, labels = read_cifar10(os.environ["DEEPPRISM_CIFAR10"], split)
    assert images.shape == (count, 32, 32, 3)
    assert (np.bincount(labels) == count // 10).all()
    # The well-known channel means of the training images; the test's are within 0.004.
    np.testing.assert_allclose(
        images.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=0.005
    )

"""Sources by name, and those whose images lie in memory."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepprism_jax.data import ArraySource, Source, class_names, make_source
from deepprism_jax.data.source import CachedSource
from deepprism_jax.data.sources import photos as photos_module


def installed(package: str, file: str) -> np.ndarray:
    spec = importlib.util.find_spec(package)
    return np.asarray(Image.open(Path(spec.origin).parent / file))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "photo"}, "unknown source 'photo'; perhaps photos"),
        ({"name": "s3"}, "unknown source 's3'; choose one of photos, folder, cifar10"),
        ({"name": "folder"}, "'folder' needs a path; set --data.path DIR"),
        ({"name": "cifar10"}, "source 'cifar10' needs a path"),
        ({"name": "tfds"}, "source 'tfds' needs the name of a data set"),
        ({"name": "photos", "path": "pics"}, "'photos' takes no path, and got 'pics'"),
        ({"name": "folder", "path": "x", "dataset": "y"}, "takes no data set name"),
        ({"name": "photos", "channels": 5}, "channels=5; choose 1"),
        ({"name": "photos", "image_size": (0, 3)}, r"image_size=\(0, 3\) must be"),
        ({"name": "photos", "resize": "crop"}, "resize='crop'; choose cover or keep"),
        (
            {"name": "photos", "split": "val"},
            "'photos' has no split 'val'; choose train or",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        make_source(**{"split": "train", "image_size": (8, 8), **arguments})
    assert "\n" not in str(error.value)


def test_photographs_of_the_two_splits_are_of_different_scenes():
    # motorcycle_left and motorcycle_right are one scene, hence one word.
    train, test = (
        {re.split("[_.]", Path(name).name)[0] for name in names}
        for names in photos_module.PHOTOGRAPHS.values()
    )
    assert not train & test
    assert len(train) == 7
    assert len(test) == 3


def reduced(image: np.ndarray, r: int) -> np.ndarray:
    """Means of r x r pixels; what is left over at the far edges is cut off."""
    height, width = image.shape[0] // r * r, image.shape[1] // r * r
    blocks = image[:height, :width].reshape(height // r, r, width // r, r, 3)
    return blocks.mean((1, 3))


def test_training_photographs_are_there_in_several_sizes():
    source = make_source("photos", split="train", image_size=(32, 32))
    assert isinstance(source, Source)
    assert len(source) == 26
    astronaut = installed("skimage", "data/astronaut.png")
    # Its 512 pixels are 16 sides of 32: spans of 8 and 6, 4, and 3 sides.
    for index, reduction in enumerate((2, 4, 5)):
        copy, expected = source[index]["image"], reduced(astronaut, reduction)
        inside = copy[: expected.shape[0], : expected.shape[1]]
        # Pillow divides in fixed point: the last bit may differ from rounding.
        assert np.abs(inside - expected).max() < 1


@pytest.mark.parametrize(
    ("image_size", "tiles"), [((32, 32), 57), ((64, 64), 73), ((256, 256), 5)]
)
def test_test_photographs_are_tiles(image_size, tiles):
    source = make_source("photos", split="test", image_size=image_size)
    assert len(source) == tiles


def test_tiles_cover_a_photograph_once():
    source = make_source("photos", split="test", image_size=(50, 41))
    # 300 x 451 is 3 x 50 and 5 x 41 at half size, and a rest.
    chelsea = reduced(installed("skimage", "data/chelsea.png"), 2)[:, :205]
    tiles = np.stack([source[i]["image"] for i in range(15)]).reshape(3, 5, 50, 41, 3)
    whole = tiles.transpose(0, 2, 1, 3, 4).reshape(chelsea.shape)
    assert np.abs(whole - chelsea).max() < 1


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("channels", [1, 4])
def test_photographs_are_converted(split, channels):
    source = make_source(
        "photos", split=split, image_size=(200, 200), channels=channels
    )
    assert source[0]["image"].shape[-1] == channels


def test_large_crops_leave_out_small_photographs():
    source = make_source("photos", split="train", image_size=(600, 600))
    assert [source[i]["image"].shape for i in range(len(source))] == [
        (872, 1000, 3),
        (1411, 1411, 3),
    ]


@pytest.mark.parametrize(
    ("split", "size", "sizes"),
    [("train", 1412, "1411x1411"), ("test", 428, "300x451, 400x600, 427x640")],
)
def test_crop_larger_than_every_photograph(split, size, sizes):
    with pytest.raises(ValueError, match=f"larger than every {split} .*{sizes}"):
        make_source("photos", split=split, image_size=(size, size))


def test_missing_photograph_names_the_package(monkeypatch):
    names = {"train": ("skimage/data/nothing.png",)}
    monkeypatch.setattr(photos_module, "PHOTOGRAPHS", names)
    with pytest.raises(
        FileNotFoundError, match=r"nothing.png is missing; .*scikit-imag"
    ):
        make_source("photos", split="train", image_size=(32, 32))


class Counted(ArraySource):
    """Counts how often it is read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_labels_come_with_names():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    source = ArraySource(images, np.array([1, -1, 0]), ["no", "yes"])
    assert class_names(CachedSource(source)) == ("no", "yes")
    assert [CachedSource(source)[i]["label"] for i in range(3)] == [1, -1, 0]
    assert class_names(ArraySource(images)) == ()
    for labels, names, message in (
        (np.array([0, 1, 2]), ("a", "b"), r"label 2 has no name; .* 0 \.\.\. 1"),
        (np.array([0, 1]), ("a", "b"), "2 labels for 3 images"),
        (np.array([0, 1, 1]), (), "labels and class_names go together"),
        (None, ("a",), "labels and class_names go together"),
    ):
        with pytest.raises(ValueError, match=message):
            ArraySource(images, labels, names)


def test_cache_keeps_what_there_is_room_for():
    images = np.arange(4 * 10, dtype=np.uint8).reshape(4, 2, 5, 1)
    source = Counted(images)
    cached = CachedSource(source, budget=25)
    for _ in range(3):
        for i in range(len(cached)):
            np.testing.assert_array_equal(cached[i]["image"], images[i])
    assert source.reads == 2 + 3 * 2

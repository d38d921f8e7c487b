"""Real photographs that come inside the scikit-image and scikit-learn packages.

Training sees astronaut, flower, hubble_deep_field, ihc, motorcycle_left, retina and
rocket; chelsea (a cat), china (a temple) and coffee (a cup) are held out for the
test. Those are the packages' colour photographs but one: motorcycle_right shows the
scene of motorcycle_left once more.

A small piece of a large photograph is a blank patch. So every photograph is there in
several sizes, reduced by whole numbers until its shorter side is about 2 and 3 times
the image's: a crop then shows a good part of it. For training they are 3, 4, 6 and 8
times as large, because the smallest copies have too few different crops to learn from.

The files are read where the packages lie; nothing is downloaded.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from deepprism_jax.data.images import to_channels
from deepprism_jax.data.source import ArraySource

PHOTOGRAPHS = {
    "train": (
        "skimage/data/astronaut.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/ihc.png",
        "skimage/data/motorcycle_left.png",
        "skimage/data/retina.jpg",
        "skimage/data/rocket.jpg",
        "sklearn/datasets/images/flower.jpg",
    ),
    "test": (
        "skimage/data/chelsea.png",
        "skimage/data/coffee.png",
        "sklearn/datasets/images/china.jpg",
    ),
}
"""File of every photograph, by split."""

SPANS = {"train": (3, 4, 6, 8), "test": (2, 3)}
"""Sizes of the copies: their shorter side over the image's, at least."""


def load_photos(
    split: str, *, image_size: tuple[int, int], channels: int
) -> ArraySource:
    """Return the `train` photographs whole, or the `test` photographs as tiles.

    Training cuts its crops from whole copies. The test set is fixed: all
    non-overlapping tiles of `image_size`, row by row from the upper left corner, of
    the copies of the held-out photographs: 57 of 32 x 32, 73 of 64 x 64.

    Raises:
      ValueError: unknown split, or no photograph is as large as `image_size`.
      FileNotFoundError: an installed package lacks a photograph.
    """
    if split not in PHOTOGRAPHS:
        raise ValueError(
            f"source 'photos' has no split {split!r}; choose train or test"
        )
    height, width = image_size
    photographs = [read_photograph(name) for name in PHOTOGRAPHS[split]]
    copies = [
        copy
        for photograph in photographs
        for copy in _copies(photograph, max(image_size), SPANS[split])
    ]
    large = [x for x in copies if x.shape[0] >= height and x.shape[1] >= width]
    if not large:
        sizes = ", ".join(f"{x.height}x{x.width}" for x in photographs)
        raise ValueError(
            f"image_size {height}x{width} is larger than every {split} photograph "
            f"({sizes}); choose a smaller one, or another source"
        )
    if split == "train":
        return ArraySource([to_channels(x, channels) for x in large])
    tiles = [tile for x in large for tile in _tiles(x, height, width)]
    return ArraySource(np.stack([to_channels(tile, channels) for tile in tiles]))


def read_photograph(name: str) -> Image.Image:
    """Return a photograph by its file in an installed package, as RGB.

    Raises:
      FileNotFoundError: it is missing.
    """
    package, _, file = name.partition("/")
    spec = find_spec(package)
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    if path is None or not path.is_file():
        distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
        raise FileNotFoundError(
            f"photograph {path or name} is missing; "
            f"pip install --force-reinstall {distribution}"
        )
    with Image.open(path) as image:
        return image.convert("RGB")


def _copies(
    photograph: Image.Image, side: int, spans: tuple[int, ...]
) -> list[np.ndarray]:
    """Reduce to each span of images of a side; a pixel is the mean of r x r."""
    shorter = min(photograph.size)
    reductions = {max(shorter // (span * side), 1) for span in spans}
    return [np.asarray(photograph.reduce(r)) for r in sorted(reductions)]


def _tiles(image: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    return [
        image[top : top + height, left : left + width]
        for top in range(0, image.shape[0] - height + 1, height)
        for left in range(0, image.shape[1] - width + 1, width)
    ]

"""The images that denoisers are trained on, one each."""

import math
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from deepprism_jax.data.images import MODES, decode_whole, resized, to_channels
from deepprism_jax.data.sources.folder import image_files
from deepprism_jax.data.sources.photos import read_photograph
from deepprism_jax.training.sinddm.config import PictureConfig

Picture = UInt8[np.ndarray, "h w c"]

BUNDLED = "sklearn/datasets/images/china.jpg"


def read_pictures(config: PictureConfig) -> dict[str, np.ndarray]:
    """Return all images, uint8 [h, w, c], by name; of one size.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: an image cannot be read, names or sizes contradict each other, or
            an option lies outside its range.
    """
    if config.channels not in MODES:
        raise ValueError(
            f"data.channels={config.channels}; choose 1 (grayscale), 3 or 4 (RGBA)"
        )
    sides = config.image_size
    if min(sides) < 0 or (min(sides) == 0) != (max(sides) == 0):
        raise ValueError(
            f"data.image_size={sides} must be two positive numbers, height and width, "
            "or 0 0"
        )
    if config.longest < 0:
        raise ValueError(f"data.longest={config.longest} must be a number from 0 up")
    if not config.path:
        pixels = to_channels(np.asarray(read_photograph(BUNDLED)), config.channels)
        return {Path(BUNDLED).stem: fitted(pixels, config)}
    found: dict[str, np.ndarray] = {}
    for name, path in _files(Path(config.path)).items():
        found[name] = fitted(decode_whole(path, config.channels), config)
    sizes = {name: image.shape[:2] for name, image in found.items()}
    first = next(iter(sizes))
    for name, size in sizes.items():
        if size != sizes[first]:
            raise ValueError(
                f"{name} has {size[0]}x{size[1]} px and {first} "
                f"{sizes[first][0]}x{sizes[first][1]}; models that train together need "
                "images of one size: set --data.image-size HEIGHT WIDTH"
            )
    return found


def count_pictures(config: PictureConfig) -> int:
    """Return how many images there are; none is read.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: two have one name.
    """
    return len(_files(Path(config.path))) if config.path else 1


def fitted(image: Picture, config: PictureConfig) -> np.ndarray:
    """Return an image of `image_size`, or no longer than `longest`.

    Raises:
        ValueError: it is smaller than `image_size`.
    """
    height, width = image.shape[:2]
    if max(config.image_size) == 0:
        most = config.longest or math.inf
        ratio = min(most / max(height, width), 1.0)
        rows, columns = (max(round(ratio * side), 1) for side in (height, width))
        return resized(image, (rows, columns))
    tall, wide = config.image_size
    if height < tall or width < wide:
        raise ValueError(
            f"data.image_size={config.image_size} is larger than an image of {height}x"
            f"{width} px; choose one that all images reach"
        )
    ratio = max(tall / height, wide / width)
    height, width = max(round(ratio * height), tall), max(round(ratio * width), wide)
    image = resized(image, (height, width))
    top, left = (height - tall) // 2, (width - wide) // 2
    return image[top : top + tall, left : left + wide]


def _files(path: Path) -> dict[str, Path]:
    if not path.exists():
        raise FileNotFoundError(
            f"data.path={str(path)!r} is not there; give an image, or a folder of "
            "images"
        )
    if path.is_file():
        return {path.stem: path}
    files: dict[str, Path] = {}
    for name in image_files(path):
        file = Path(name)
        stem = "-".join(file.relative_to(path).with_suffix("").parts)
        if stem in files:
            raise ValueError(
                f"{file.name} and {files[stem].name} in {file.parent} have one name; "
                "rename one of them"
            )
        files[stem] = file
    if not files:
        raise FileNotFoundError(f"data.path={str(path)!r} is a folder without images")
    return files

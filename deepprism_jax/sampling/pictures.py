"""Images that the user gives: read, made to fit, coloured as the training image."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from skimage.exposure import match_histograms

from deepprism_jax.data.images import decode_whole
from deepprism_jax.diffusion.pyramid import Size
from deepprism_jax.sampling.options import Options
from deepprism_jax.training.preflight import refusing

Pixels = UInt8[np.ndarray, "_ _ _"]
"""An image, height, width and channels; each of its own size."""


def read_given(options: Options, channels: int) -> dict[str, Pixels]:
    """Read the images that options name, `input` and `mask`.

    Raises:
        PreflightError: one is no image.
    """
    files = (("input", options.input, channels), ("mask", options.mask, 1))
    with refusing():
        return {name: decode_whole(path, depth) for name, path, depth in files if path}


def size_of(image: Pixels | None) -> Size | None:
    """Return height and width of an image, where there is one."""
    return None if image is None else (image.shape[0], image.shape[1])


def conversion(path: str | Path, channels: int) -> str:
    """Say what `data.images.decode` changes of an image's colours; "" where nothing."""
    with Image.open(path) as image:
        transparent, gray = image.has_transparency_data, image.mode in ("1", "L", "I")
    if transparent and channels < 4:
        return "transparent parts are laid over white"
    if gray and channels > 1:
        return "it is gray and gets three equal channels"
    if not gray and channels == 1:
        return "its colours become gray"
    return ""


def with_colours_of(image: Pixels, reference: Pixels) -> Pixels:
    """Give every channel of an image the distribution of values in the reference's."""
    # Of 8-bit images it would cut off the fractions.
    matched = match_histograms(image.astype(float), reference, channel_axis=-1)
    return np.clip(np.round(matched), 0, 255).astype(np.uint8)

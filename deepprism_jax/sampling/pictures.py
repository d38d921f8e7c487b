"""Images that the user gives: read, made to fit, coloured as the training image."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from skimage.exposure import match_histograms

from deepprism_jax.data.images import decode

Pixels = UInt8[np.ndarray, "_ _ _"]
"""An image, height, width and channels; each of its own size."""


def read_picture(path: str | Path, channels: int) -> Pixels:
    """Read an image file at its own size, upright.

    Raises:
        UnreadableImageError: it is no image, see `data.images.decode`.
    """
    return decode(path, image_size=(1, 1), channels=channels, resize="keep")


def conversion(path: str | Path, channels: int) -> str:
    """Say what `read_picture` changes of an image's colours; "" where nothing."""
    with Image.open(path) as image:
        transparent, gray = image.has_transparency_data, image.mode in ("1", "L", "I")
    if transparent and channels < 4:
        return "transparent parts are laid over white"
    if gray and channels > 1:
        return "it is gray and gets three equal channels"
    if not gray and channels == 1:
        return "its colours become gray"
    return ""


def resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resample an image to (height, width); one of that size is returned as it is."""
    if image.shape[:2] == size:
        return image
    flat = image[..., 0] if image.shape[-1] == 1 else image
    height, width = size
    result = Image.fromarray(flat).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(result).reshape(height, width, -1)


def with_colours_of(image: Pixels, reference: Pixels) -> Pixels:
    """Give every channel of an image the distribution of values in the reference's."""
    # Of 8-bit images it would cut off the fractions.
    matched = match_histograms(image.astype(float), reference, channel_axis=-1)
    return np.clip(np.round(matched), 0, 255).astype(np.uint8)

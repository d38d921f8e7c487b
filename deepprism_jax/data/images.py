"""Image files and arrays of any mode to uint8 pixels with 1, 3 or 4 channels.

Gray is the luma of ITU-R 601, a transparent image is laid over white, and a
missing alpha channel is opaque: all through Pillow, so that a file and an array
with the same pixels convert alike.
"""

import math
from io import BytesIO
from os import PathLike
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

Resize = Literal["cover", "keep"]
"""`cover`: every image becomes just large enough for the crop, as latent diffusion
does for ImageNet; `keep`: only images too small for the crop are enlarged."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for every number of channels that a network may see."""

# EXIF tag 274 is the orientation; these values exchange height and width.
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)


class UnreadableImageError(ValueError):
    """An image that Pillow cannot turn into pixels; says which and why."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.reason = reason


def check_layout(image_size: tuple[int, int], channels: int) -> None:
    """Raise ValueError unless `image_size` is (height, width), `channels` 1, 3 or 4."""
    if len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(
            f"image_size={image_size} must be two positive numbers, height and width"
        )
    if channels not in MODES:
        raise ValueError(
            f"channels={channels}; choose 1 (grayscale), 3 (RGB) or 4 (RGBA)"
        )


def decode(
    file: str | PathLike | BytesIO,
    *,
    image_size: tuple[int, int],
    channels: int,
    resize: Resize = "cover",
) -> UInt8[np.ndarray, "h w c"]:
    """Read an image file upright, with `h >= height` and `w >= width`.

    Reads whatever Pillow reads: palettes, CMYK, 16-bit, transparency, EXIF
    orientation, the first frame of an animation. Resampling is bicubic and
    antialiased; JPEG is decoded at the smallest of its own scales that is still
    twice the wanted size.

    Raises:
      UnreadableImageError: the file is no image, is truncated, or holds pixels
        without a known range (32-bit floats).
    """
    try:
        with Image.open(file) as image:
            width, height = image.size
            sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
            upright = (height, width) if sideways else (width, height)
            twice = 2 * _scale(upright, image_size, resize)
            image.draft(None, (math.ceil(twice * width), math.ceil(twice * height)))
            ImageOps.exif_transpose(image, in_place=True)
            image = _with_channels(image, channels)
    except MemoryError:
        raise
    except Exception as error:  # Decoders of broken files raise errors of any type.
        raise UnreadableImageError(str(file), _reason(error)) from error
    scale = _scale(image.size, image_size, resize)
    if scale != 1:
        height, width = image_size
        image = image.resize(
            (
                max(width, round(scale * image.width)),
                max(height, round(scale * image.height)),
            ),
            Image.Resampling.BICUBIC,
        )
    pixels = np.asarray(image)
    return pixels[..., None] if channels == 1 else pixels


def decode_whole(
    file: str | PathLike | BytesIO, channels: int
) -> UInt8[np.ndarray, "h w c"]:
    """Do as `decode` at the image's own size."""
    return decode(file, image_size=(1, 1), channels=channels, resize="keep")


def to_pillow(image: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    """Return an array of 1, 3 or 4 channels as Pillow's image of the same pixels."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def resized(
    image: UInt8[np.ndarray, "h w c"], size: tuple[int, int]
) -> UInt8[np.ndarray, "_ _ c"]:
    """Resample to (height, width) by LANCZOS; of that size, it is returned as it is."""
    if image.shape[:2] == size:
        return image
    height, width = size
    result = to_pillow(image).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(result).reshape(height, width, -1)


def broken_header(file: str | PathLike) -> str:
    """Say why `file` is no image, from its first bytes alone; "" where it is one."""
    try:
        with Image.open(file):
            return ""
    except Exception as error:  # Decoders of broken files raise errors of any type.
        return _reason(error)


def to_channels(
    image: UInt8[np.ndarray, "h w c"], channels: int
) -> UInt8[np.ndarray, "h w d"]:
    """Convert an array between grayscale (1), RGB (3) and RGBA (4) channels."""
    if image.shape[-1] == channels:
        return image
    if image.shape[-1] not in MODES:
        raise ValueError(
            f"an image of shape {image.shape} has neither 1, 3 nor 4 channels"
        )
    converted = np.asarray(_with_channels(to_pillow(image), channels))
    return converted[..., None] if channels == 1 else converted


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # Its text repeats the file's name.
        return "not an image"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _scale(size: tuple[int, int], image_size: tuple[int, int], resize: Resize) -> float:
    """Return the factor that takes an image of (width, height) to the crop's size."""
    width, height = size
    cover = max(image_size[0] / height, image_size[1] / width)
    return cover if resize == "cover" else max(1.0, cover)


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    """Convert any Pillow mode to the 8-bit mode that has `channels` channels."""
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no known range; save 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        wide = np.asarray(image).clip(0, 65535).astype(np.uint32)
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if channels < 4:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")  # P, CMYK, YCbCr and HSV lead there first.
    return image.convert(MODES[channels])

"""Images as bytes: JPEG and WebP by Pillow, and the integers of a quantised latent.

The integers are entropy-coded as the colours of a lossless WebP, which predicts each
from its neighbours; all that the decoder needs beside the network is in the bytes.
"""

import io
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

Pixels = UInt8[np.ndarray, "h w 3"]
Latent = Float[np.ndarray, "h w 3"]

_HEADER = struct.Struct("<2H3h3f")
"""Height and width of the image, smallest integer and step of every channel."""


def _picture(pixels: Pixels, **settings: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **settings)
    return file.getvalue()


def jpeg(pixels: Pixels, quality: int) -> bytes:
    """Progressive JPEG with Huffman tables of its own, chroma halved."""
    return _picture(
        pixels, format="JPEG", quality=quality, optimize=True, progressive=True
    )


def webp(pixels: Pixels, quality: int) -> bytes:
    """WebP at its greatest effort."""
    return _picture(pixels, format="WEBP", quality=quality, method=6)


CODECS: Mapping[str, Callable[[Pixels, int], bytes]] = {"JPEG": jpeg, "WebP": webp}
"""What the latent stands beside, by name; qualities are 1 to 100."""


def pixels_of(coded: bytes) -> Pixels:
    """Decode a JPEG or WebP."""
    with Image.open(io.BytesIO(coded)) as image:
        return np.asarray(image.convert("RGB"))


class Qualities:
    """One image by one codec, at every quality that is asked for, each made once."""

    def __init__(self, pixels: Pixels, codec: str):
        self._encode = partial(CODECS[codec], pixels)
        self._made: dict[int, bytes] = {}

    def at(self, quality: int) -> bytes:
        """Return the picture of a quality, 1 to 100."""
        if quality not in self._made:
            self._made[quality] = self._encode(quality)
        return self._made[quality]

    def within(self, most: int) -> bytes | None:
        """Return the best picture of at most so many bytes; None if there is none."""
        best, low, high = None, 1, 100
        while low <= high:
            middle = (low + high) // 2
            if len(coded := self.at(middle)) <= most:
                best, low = coded, middle + 1
            else:
                high = middle - 1
        return best


def pack(latent: Latent, size: tuple[int, int], step: float) -> bytes:
    """Quantise a latent uniformly, and return it as bytes.

    Args:
        latent: one number a channel and position.
        size: height and width of the image.
        step: of the quantiser, in standard deviations of a channel.

    Raises:
        ValueError: a channel spans more than 256 steps.
    """
    steps = np.asarray(step * latent.std((0, 1)), np.float32)
    integers = np.round(latent / steps).astype(int)
    lowest = integers.min((0, 1))
    if (integers - lowest).max() > 255:
        raise ValueError(f"a step of {step} needs more than 256 levels; take a longer")
    colours = (integers - lowest).astype(np.uint8)
    coded = _picture(colours, format="WEBP", lossless=True, quality=100, method=6)
    return _HEADER.pack(*size, *lowest, *steps) + coded


def unpack(stream: bytes) -> tuple[Latent, tuple[int, int]]:
    """Return the quantised latent, float32, and the image's height and width."""
    height, width, *rest = _HEADER.unpack_from(stream)
    lowest, steps = np.array(rest[:3]), np.array(rest[3:], np.float32)
    integers = pixels_of(stream[_HEADER.size :]).astype(int) + lowest
    return (integers * steps).astype(np.float32), (height, width)

"""The one place where 8-bit pixels and the network's floats meet."""

import jax.numpy as jnp

from deepprism_jax.typing import Image, ImageU8


def to_float(images: ImageU8) -> Image:
    """Map uint8 pixels 0..255 to float32 in [-1, 1].

    Raises:
        TypeError: the images are not uint8.
    """
    if images.dtype != jnp.uint8:
        raise TypeError(
            f"images are {images.dtype}, not uint8: give pixels 0..255; floats in "
            "[-1, 1] need no to_float"
        )
    return images.astype(jnp.float32) * (2.0 / 255.0) - 1.0


def to_uint8(images: Image) -> ImageU8:
    """Map floats in [-1, 1] to uint8 0..255: clip, then round to the nearest.

    Raises:
        TypeError: the images are not floats.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images are {images.dtype}, not floats: give values in [-1, 1]; pixels "
            "0..255 need no to_uint8"
        )
    scaled = (jnp.clip(images.astype(jnp.float32), -1.0, 1.0) + 1.0) * 127.5
    return jnp.round(scaled).astype(jnp.uint8)

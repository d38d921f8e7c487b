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


def check_range(images: Image) -> None:
    """Refuse floats that are evidently not in [-1, 1].

    That is, values beyond it (or NaN), and images of which no pixel is darker than
    the middle, as when [0, 1] was given. It looks at values, so it is for the host:
    what is being traced has none.

    Raises:
        ValueError: the images lie in another range.
    """
    low, high = float(jnp.min(images)), float(jnp.max(images))
    # Rounding may lead out of the range by a little.
    if not (low >= -1.001 and high <= 1.001):
        raise ValueError(
            f"images lie in [{low:.4g}, {high:.4g}], beyond [-1, 1]: clip what a "
            "network gave, map pixels 0..255 by ops.to_float"
        )
    if low >= 0.0 and high > 0.0:
        raise ValueError(
            f"images lie in [{low:.4g}, {high:.4g}], which looks like [0, 1] where "
            "[-1, 1] is due: map them by 2 * x - 1"
        )

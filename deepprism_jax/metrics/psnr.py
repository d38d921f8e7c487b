"""Peak signal-to-noise ratio of 8-bit images."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from deepprism_jax.metrics.state import Mask, Moments, Pixels, check_pair

DATA_RANGE = 255.0
"""Difference between the brightest and the darkest 8-bit pixel."""


def psnr(images: Pixels, reconstructions: Pixels) -> Float[Array, "*b"]:
    """Return the PSNR of every image, in dB: 10 log10(255^2 / mean square error).

    The mean runs over height, width and channels. An identical pair, whose PSNR is
    infinite, gets the PSNR of one value of the image off by one grey level,
    20 log10(255) + 10 log10(h w c) (83.0 dB at 32x32x3). No 8-bit pair that differs
    can score higher, so the order of images is kept, no other pair is changed, and
    the mean over a data set stays finite.

    Raises:
        TypeError: an array is not uint8.
        ValueError: the shapes differ.
    """
    check_pair(images, reconstructions)
    difference = jnp.asarray(images, jnp.int32) - jnp.asarray(
        reconstructions, jnp.int32
    )
    # Integers make the sum of a row exact: up to 33,000 values a row fit 31 bits.
    rows = jnp.sum(jnp.square(difference), axis=(-2, -1)).astype(jnp.float32)
    values = images.shape[-3] * images.shape[-2] * images.shape[-1]
    error = jnp.maximum(jnp.sum(rows, axis=-1), 1.0) / values
    return 10.0 * jnp.log10(DATA_RANGE**2 / error)


class PSNR(Moments):
    """Mean and standard deviation over images of `psnr`."""

    __slots__ = ()

    @classmethod
    def from_batch(
        cls, images: Pixels, reconstructions: Pixels, mask: Mask | None = None
    ) -> "PSNR":
        """Measure one batch; images where `mask` is False do not count."""
        return cls.from_values(psnr(images, reconstructions), mask)

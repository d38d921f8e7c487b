"""Multi-scale structural similarity of 8-bit images (Wang et al., 2003)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepprism_jax.losses.structural import WINDOW, similarity_maps
from deepprism_jax.metrics.psnr import DATA_RANGE
from deepprism_jax.metrics.state import Mask, Moments, Pixels, check_pair

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, the finest first (Wang et al., 2003, section 3.2)."""

MIN_SIDE = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1
"""The smallest height and width whose coarsest scale holds a whole window."""


def ms_ssim(images: Pixels, reconstructions: Pixels) -> Float[Array, "*b"]:
    """Return the MS-SSIM of every image, in [0, 1].

    The mean contrast-structure term of SSIM at the four finer of five scales and the
    mean SSIM at the coarsest, each to the power of its weight, multiplied; one channel
    at a time, then averaged over channels. A negative mean counts as 0. Scales are made
    by averaging 2x2 pixels. A side that is odd gets a line of zeros at both of its ends
    first. All of this is as in the package pytorch-msssim.

    Raises:
        TypeError: an array is not uint8.
        ValueError: the shapes differ, or a side is smaller than 161.
    """
    check_pair(images, reconstructions)
    height, width = images.shape[-3], images.shape[-2]
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"images of {height}x{width} are too small for the {len(WEIGHTS)} scales "
            f"of MS-SSIM: give both sides at least {MIN_SIDE} pixels, or use SSIM"
        )
    x = jnp.asarray(images, jnp.float32)
    y = jnp.asarray(reconstructions, jnp.float32)
    product = jnp.ones((), jnp.float32)
    for weight in WEIGHTS[:-1]:
        _, contrast = similarity_maps(x, y, DATA_RANGE)
        product *= _power(contrast.numerator / contrast.denominator, weight)
        x, y = _halve(x), _halve(y)
    luminance, contrast = similarity_maps(x, y, DATA_RANGE)
    similarity = luminance.numerator * contrast.numerator
    similarity /= luminance.denominator * contrast.denominator
    return jnp.mean(product * _power(similarity, WEIGHTS[-1]), axis=-1)


def _power(similarity: jax.Array, weight: float) -> jax.Array:
    mean = jnp.mean(similarity, axis=(-3, -2))
    # Float32 may put the similarity of identical images 1e-7 above 1.
    return jnp.clip(mean, 0.0, 1.0) ** weight


def _halve(x: jax.Array) -> jax.Array:
    """Average 2x2 pixels; zeros around an odd side count."""
    *batch, height, width, channels = x.shape
    odd = [(size % 2, size % 2) for size in (height, width)]
    x = jnp.pad(x, [(0, 0)] * len(batch) + [*odd, (0, 0)])
    # An odd side is odd still, and its last line finds no partner.
    height, width = x.shape[-3] // 2, x.shape[-2] // 2
    x = x[..., : 2 * height, : 2 * width, :]
    x = x.reshape(*batch, height, 2, width, 2, channels)
    return jnp.mean(x, axis=(-4, -2))


class MSSSIM(Moments):
    """Mean and standard deviation over images of `ms_ssim`."""

    __slots__ = ()

    @classmethod
    def from_batch(
        cls, images: Pixels, reconstructions: Pixels, mask: Mask | None = None
    ) -> "MSSSIM":
        """Measure one batch; images where `mask` is False do not count."""
        return cls.from_values(ms_ssim(images, reconstructions), mask)

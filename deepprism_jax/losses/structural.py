"""Structural similarity as a loss (Wang et al., 2004), and what its metrics share."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.losses.pixel import check_alike
from deepprism_jax.typing import Image, Scalar

SIGMA = 1.5
RADIUS = 5
WINDOW = 2 * RADIUS + 1
"""The Gaussian is cut at 3.5 sigma, which leaves 11 taps."""


def structural_loss(x: Image, y: Image) -> Scalar:
    """Mean over a batch of 1 - SSIM of images in [-1, 1]; 0 where they are equal.

    Computed in float32. SSIM is `similarity`, the one that evaluations report, but of
    images that are not rounded to 8 bits.

    Raises:
        ValueError: the shapes differ, or an image is smaller than the window.
    """
    check_alike(x, y)
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    return 1.0 - jnp.mean(similarity(x, y, 2.0))


def similarity(
    x: Float[Array, "*b h w c"], y: Float[Array, "*b h w c"], data_range: float
) -> Float[Array, "*b"]:
    """Return the SSIM of every image, at most 1.

    Averaged over the places where the window lies wholly inside the image, and over
    channels; `data_range` is the greatest value less the smallest that there may be.

    Raises:
        ValueError: an image is smaller than the window.
    """
    height, width = x.shape[-3], x.shape[-2]
    if min(height, width) < WINDOW:
        raise ValueError(
            f"images of {height}x{width} are smaller than the {WINDOW}x{WINDOW} window "
            f"of SSIM: give both sides at least {WINDOW} pixels"
        )
    luminance, contrast = similarity_maps(x, y, data_range)
    # One division instead of two: close to 1 every rounding is a part of the spread.
    product = luminance.numerator * contrast.numerator
    product /= luminance.denominator * contrast.denominator
    return jnp.mean(product, axis=(-3, -2, -1))


class Fraction(NamedTuple):
    """A factor of SSIM, around every place that has a whole window."""

    numerator: Float[Array, "*b h w c"]
    denominator: Float[Array, "*b h w c"]


def similarity_maps(
    x: Float[Array, "*b h w c"], y: Float[Array, "*b h w c"], data_range: float
) -> tuple[Fraction, Fraction]:
    """Return the two factors of SSIM.

    The first compares the means, (2 m_x m_y + C1) / (m_x^2 + m_y^2 + C1); the second
    contrast and structure, (2 s_xy + C2) / (s_x^2 + s_y^2 + C2), where C1 and
    C2 are the squares of 0.01 and 0.03 of `data_range`. Both maps are smaller than the
    images by the window, less one pixel.
    """
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    # Variance and covariance do not feel a shift, but E[x^2] - E[x]^2 in float32 does.
    shift = jnp.mean(0.5 * (x + y), axis=(-3, -2), keepdims=True)
    x, y = x - shift, y - shift
    # s_x^2 and s_y^2 occur only as their sum, so four maps are enough.
    maps = gaussian_window(jnp.stack([x, y, x * x + y * y, x * y]))
    mean_x, mean_y, squares, product = maps
    variances = squares - mean_x**2 - mean_y**2
    covariance = product - mean_x * mean_y
    mean_x, mean_y = mean_x + shift, mean_y + shift
    luminance = Fraction(2 * mean_x * mean_y + c1, mean_x**2 + mean_y**2 + c1)
    return luminance, Fraction(2 * covariance + c2, variances + c2)


def gaussian_window(x: Float[Array, "*b h w c"]) -> Float[Array, "*b h-10 w-10 c"]:
    """Return the Gaussian-weighted mean around every place that has a whole window.

    Two passes of shifted sums over rows of `w * c` numbers: on XLA's CPU backend this
    is 10 to 15 times as fast as a convolution.
    """
    *batch, height, width, channels = x.shape
    taps = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    weights = [float(tap) for tap in taps / taps.sum()]
    height, width = height - 2 * RADIUS, width - 2 * RADIUS

    x = x.reshape(*batch, x.shape[-3], x.shape[-2] * channels)
    down = sum(w * x[..., i : i + height, :] for i, w in enumerate(weights))
    # Fused, the second pass would recompute the first once for each of its taps.
    down = lax.optimization_barrier(down)
    starts = range(0, WINDOW * channels, channels)
    span = width * channels
    both = sum(
        w * down[..., i : i + span] for i, w in zip(starts, weights, strict=True)
    )
    return jnp.reshape(both, (*batch, height, width, channels))

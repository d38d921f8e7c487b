"""Structural similarity of 8-bit images (Wang et al., 2004)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from deepprism_jax.losses.structural import similarity
from deepprism_jax.metrics.psnr import DATA_RANGE
from deepprism_jax.metrics.state import Mask, Moments, Pixels, check_pair


def ssim(images: Pixels, reconstructions: Pixels) -> Float[Array, "*b"]:
    """Return the SSIM of every image, at most 1.

    (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2)), where
    means, variances and covariance are taken under a Gaussian window (sigma 1.5, 11
    taps), one channel at a time; averaged over the places where the window lies wholly
    inside the image, and over channels. It is scikit-image's `structural_similarity`
    with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    channel_axis=-1, data_range=255`.

    Raises:
        TypeError: an array is not uint8.
        ValueError: the shapes differ, or an image is smaller than the window.
    """
    check_pair(images, reconstructions)
    x, y = (jnp.asarray(one, jnp.float32) for one in (images, reconstructions))
    return similarity(x, y, DATA_RANGE)


class SSIM(Moments):
    """Mean and standard deviation over images of `ssim`."""

    __slots__ = ()

    @classmethod
    def from_batch(
        cls, images: Pixels, reconstructions: Pixels, mask: Mask | None = None
    ) -> "SSIM":
        """Measure one batch; images where `mask` is False do not count."""
        return cls.from_values(ssim(images, reconstructions), mask)

"""Fréchet distance between the patches of two images: SIFID.

Shaham et al., "SinGAN: Learning a Generative Model from a Single Natural Image", 2019,
section 4: features are taken at every position of an early layer, so that one image is
a whole set of them, each of a patch. `models.early_maps` gives such layers.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deepprism_jax.metrics.fid import frechet_distance
from deepprism_jax.metrics.gaussian import Gaussian
from deepprism_jax.metrics.state import Mask, Moments

Maps = Float[Array | np.ndarray, "b h w d"]
"""Feature maps of a batch of images."""


def patches(maps: Float[Array | np.ndarray, "h w d"]) -> Gaussian:
    """Return mean and covariance of one image's features over all positions.

    Raises:
        ValueError: a feature is not finite.
    """
    maps = np.asarray(maps)
    return Gaussian.from_batch(maps.reshape(-1, maps.shape[-1]))


def sifid(image: Gaussian, maps: Maps) -> Float[np.ndarray, " b"]:
    """Return the distance of every sample from the image, at least 0.

    Samples may be of another size than the image.

    Args:
        image: `patches` of the one real image, which serve for all samples.
        maps: feature maps of the samples, by the same layer of the same network.

    Raises:
        ValueError: a feature is not finite, a side has a single position, or the
            numbers of features differ.
    """
    real = image.statistics
    distances = [frechet_distance(real, patches(m).statistics) for m in maps]
    return np.array(distances)


class SIFID(Moments):
    """Mean and standard deviation over samples of `sifid`."""

    __slots__ = ()

    @classmethod
    def from_batch(
        cls, image: Gaussian, maps: Maps, mask: Mask | None = None
    ) -> "SIFID":
        """Measure one batch; samples where `mask` is False do not count."""
        return cls.from_values(jnp.asarray(sifid(image, maps), jnp.float32), mask)


def few_positions(maps: Maps) -> str | None:
    """Return what a reader must know if covariances are singular, else None."""
    _, height, width, features = maps.shape
    if height * width > features:
        return None
    return (
        f"SIFID from {height * width} positions of {features} features: covariances "
        "are singular and the distance is too large; compare it only at equal sizes"
    )

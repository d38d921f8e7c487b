"""Learned perceptual distance of 8-bit images (Zhang et al., 2018)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepprism_jax.losses.perceptual import PerceptualDistance
from deepprism_jax.metrics.state import Mask, Moments, Pixels, check_pair
from deepprism_jax.ops.pixels import to_float


def lpips(
    images: Pixels,
    reconstructions: Pixels,
    distance: PerceptualDistance,
    frozen: dict[str, Any] | None = None,
) -> Float[Array, " b"]:
    """Return the LPIPS of every pair, at least 0: what `lpips.LPIPS(net=...)` gives.

    Figures of different networks cannot be compared: give the network's name with
    them. Pixels are mapped to [-1, 1], as that package wants them; it takes [0, 1] as
    well, without a word, and is then wrong. Computed in full float32, on accelerators
    too.

    Args:
        images: gray or RGB, [b, h, w, c].
        reconstructions: of the same shape.
        distance: a perceptual distance with LPIPS's heads.
        frozen: `distance.frozen`, as an argument of the function that is compiled, so
            that the weights do not become a part of it.

    Raises:
        TypeError: an array is not uint8.
        ValueError: the shapes differ, the distance has no heads, or the network does
            not take such images.
    """
    check_pair(images, reconstructions)
    frozen = distance.frozen if frozen is None else frozen
    if frozen["heads"] is None:
        raise ValueError(
            "a perceptual distance without LPIPS's heads is no LPIPS: load them with "
            "weights.torchvision.load_perceptual_distance(net, weights, heads)"
        )
    x, y = (to_float(jnp.asarray(pixels)) for pixels in (images, reconstructions))
    # Accelerators round products to bfloat16 or TF32 unless they are told not to.
    with jax.default_matmul_precision("float32"):
        return distance.apply(frozen, x, y)


class LPIPS(Moments):
    """Mean and standard deviation over images of `lpips`."""

    __slots__ = ()

    @classmethod
    def from_batch(
        cls,
        images: Pixels,
        reconstructions: Pixels,
        distance: PerceptualDistance,
        frozen: dict[str, Any] | None = None,
        mask: Mask | None = None,
    ) -> "LPIPS":
        """Measure one batch; images where `mask` is False do not count."""
        return cls.from_values(lpips(images, reconstructions, distance, frozen), mask)

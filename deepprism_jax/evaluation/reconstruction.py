"""What a method makes of images: pixels, and whether they were numbers before."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from deepprism_jax.layers.functional import Functional, Values
from deepprism_jax.ops import to_float, to_uint8
from deepprism_jax.typing import ImageU8


class Reconstruction(NamedTuple):
    """What a method makes of a batch of 8-bit images."""

    pixels: ImageU8
    """8-bit images [b, h, w, c]."""
    finite: Bool[Array | np.ndarray, " b"]
    """False where a number was NaN or infinite before it became a pixel."""


Reconstruct = Callable[[Any], Reconstruction]
"""8-bit images [b, h, w, c] to their reconstructions."""


def by_network(network: Functional, values: Values, images: ImageU8) -> Reconstruction:
    """Code 8-bit images by an autoencoder as likely as can be, and decode them.

    An 8-bit pixel cannot say that the network gave no number, so that is told beside.
    """
    decoded = network.bind(values).reconstruct(to_float(images))
    finite = jnp.isfinite(decoded).all(axis=(1, 2, 3))
    return Reconstruction(to_uint8(decoded), finite)


def by_function(function: Callable[[Any], Any]) -> Reconstruct:
    """Return a method of a function from 8-bit images to 8-bit images."""

    def reconstruct(images: Any) -> Reconstruction:
        pixels = function(images)
        return Reconstruction(pixels, np.ones(len(pixels), bool))

    return reconstruct

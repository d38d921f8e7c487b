"""What feature networks for distributions of images take and give."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


class ImageFeatures(NamedTuple):
    """Features of a batch of images, in float32."""

    pool: Float[Array | np.ndarray, "*b d"]
    """What the last pooling leaves: compared by FID, KID, precision and recall."""
    logits: Float[Array | np.ndarray, "*b k"]
    """Unnormalised log-probabilities of the classes: the inception score."""


@runtime_checkable
class ImageFeatureNetwork(Protocol):
    """A frozen network without parameters of its own, made for 8-bit images."""

    @property
    def name(self) -> str:
        """What its figures are headed by."""
        ...

    @property
    def resize(self) -> str:
        """How it brings images to its size, in words."""
        ...

    def shapes(self) -> Any:
        """Return the pytree of `jax.ShapeDtypeStruct` that `apply` takes as params."""
        ...

    def apply(
        self, params: Any, images: UInt8[jax.Array | np.ndarray, "b h w c"]
    ) -> ImageFeatures:
        """Return the features of gray or RGB images."""
        ...


def to_rgb(
    images: UInt8[Array | np.ndarray, "b h w c"], network: str
) -> Float[Array, "b h w 3"]:
    """Return 8-bit images as float32 in [0, 255]; gray becomes three equal channels.

    Raises:
        TypeError: images are not 8-bit, so that their range cannot be told.
        ValueError: for a number of channels other than one and three.
    """
    if images.dtype != np.uint8:
        raise TypeError(
            f"images are {images.dtype}, not uint8: convert images in [-1, 1] with "
            "deepprism_jax.ops.pixels.to_uint8"
        )
    if images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{network} reads gray or RGB images, got {images.shape[-1]} channels; "
            "convert the images"
        )
    pixels = jnp.asarray(images, jnp.float32)
    return jnp.broadcast_to(pixels, (*pixels.shape[:-1], 3))

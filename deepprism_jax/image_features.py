"""What a feature network for distributions of images gives: two arrays an image."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
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

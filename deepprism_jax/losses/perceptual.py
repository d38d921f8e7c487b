"""Perceptual distance between images: eq. (7), in the form of LPIPS.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric
(2018), eq. (1), with features V_l(x) scaled to unit length at every position:

    d(x, y) = sum_l mean_hw sum_c w_lc (V_l(x) - V_l(y))^2_hwc,    w >= 0

The weights are either LPIPS's frozen heads, one number a channel, or one learnable
number w_l a layer, as in eq. (7); never both. The factor 1/2 of eq. (7) belongs to the
term's weight, so that with heads the value is LPIPS itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from deepprism_jax.ops.pixels import check_range

# Under the root of the length: bounds the gradient where a position has no features.
# Lengths are of order 1 to 100, so the distance itself does not see it.
EPSILON = 1e-8


@runtime_checkable
class FeatureExtractor(Protocol):
    """What maps images to features, as `models.feature_networks` does."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of every feature map."""
        ...

    def apply(self, params: Any, images: Array) -> Sequence[Array]:
        """Return the feature maps [b, h_l, w_l, C_l] of images [b, h, w, c]."""
        ...


def perceptual_distance(
    features_x: Sequence[Float[Array, "b _ _ _"]],
    features_y: Sequence[Float[Array, "b _ _ _"]],
    weights: Sequence[Array] | Float[Array, " layers"],
) -> Float[Array, " b"]:
    """Eq. (7) between two lists of feature maps: one distance a pair of images.

    `weights` holds for each layer one number or one number a channel. In float32.
    """
    if not len(features_x) == len(features_y) == len(weights):
        raise ValueError(
            f"{len(features_x)} and {len(features_y)} feature maps need as many "
            f"weights, got {len(weights)}"
        )
    distances = [
        jnp.mean(
            jnp.sum(w * jnp.square(unit_length(x) - unit_length(y)), axis=-1),
            axis=(1, 2),
        )
        for x, y, w in zip(features_x, features_y, weights, strict=True)
    ]
    return jnp.sum(jnp.stack(distances), axis=0)


def layer_weights(raw: Float[Array, " layers"]) -> Float[Array, " layers"]:
    """Turn free numbers into the learnable w_l: softplus, then scaled to a mean of 1.

    Only their ratios are learned. Minimising eq. (7) over the weights themselves would
    drive them all to zero, and with them the term; with the mean held, what is left to
    gain is to prefer the layers that already agree.
    """
    weights = jax.nn.softplus(raw.astype(jnp.float32))
    return weights / jnp.mean(weights)


@dataclass(frozen=True)
class PerceptualDistance:
    """A feature network, its frozen parameters, and LPIPS heads where it has them.

    Called on two batches of images it gives their distances. A training step should use
    `apply` and take `frozen` as an argument, so that the parameters stay out of the
    compiled program:

        frozen, raw = distance.frozen, distance.init()
        loss = jnp.mean(distance.apply(frozen, x, y, raw))
    """

    network: FeatureExtractor
    params: Any
    heads: tuple[Any, ...] | None = None

    @property
    def learnable(self) -> bool:
        """Whether the layer weights w_l are learned, that is, there are no heads."""
        return self.heads is None

    @property
    def frozen(self) -> dict[str, Any]:
        """Every array that is never trained: `{"params": ..., "heads": ...}`."""
        return {"params": self.params, "heads": self.heads}

    def init(self) -> Float[Array, " layers"]:
        """Return the first value of the free numbers behind w_l: all w_l are 1."""
        if not self.learnable:
            raise ValueError("frozen LPIPS heads leave no layer weights to learn")
        return jnp.zeros(len(self.network.channels), jnp.float32)

    def apply(
        self,
        frozen: dict[str, Any],
        x: Float[Array, "b h w c"],
        y: Float[Array, "b h w c"],
        raw: Float[Array, " layers"] | None = None,
    ) -> Float[Array, " b"]:
        """Distances of images in [-1, 1], as a function of everything it depends on.

        `raw` are the free numbers of `layer_weights`: required without heads, refused
        with them.
        """
        heads = frozen["heads"]
        if (heads is None) == (raw is None):
            raise ValueError(
                "the perceptual distance takes frozen heads or learnable layer "
                "weights: " + ("got neither" if raw is None else "got both")
            )
        weights = heads if raw is None else layer_weights(raw)
        return perceptual_distance(
            self.network.apply(frozen["params"], x),
            self.network.apply(frozen["params"], y),
            weights,
        )

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        y: Float[Array, "b h w c"],
        raw: Float[Array, " layers"] | None = None,
    ) -> Float[Array, " b"]:
        """Distances of images in [-1, 1] with this object's own parameters.

        Outside of a compiled function it looks at the images; `apply` never does.

        Raises:
            ValueError: the images evidently lie in another range, such as [0, 1], which
                would give a number as well.
        """
        for images in (x, y):
            if not isinstance(images, Tracer):
                check_range(images)
        return self.apply(self.frozen, x, y, raw)


def unit_length(features: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """Return features scaled to unit length at every position, in float32."""
    features = features.astype(jnp.float32)
    square = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    return features * jax.lax.rsqrt(square + EPSILON)

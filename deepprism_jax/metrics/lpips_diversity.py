"""Mean LPIPS between all pairs of samples, from one look at each.

LPIPS (Zhang et al., 2018) is a weighted squared difference of unit-length features, and
the mean of squared differences over all pairs of n numbers is twice their variance with
n - 1 in the denominator. So features of pairs never have to be there together.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepprism_jax.losses.perceptual import PerceptualDistance, unit_length
from deepprism_jax.metrics.state import Mask, Pixels, Score
from deepprism_jax.ops.pixels import to_float

Features = tuple[Array, ...]
"""Maps of every layer, each [h_l, w_l, C_l]."""


class LPIPSDiversity(NamedTuple):
    """Mean features of samples, and the sum of their LPIPS from it.

    Parts are merged by the formula of Chan, Golub and LeVeque (1979).
    """

    count: Array
    mean: Features
    deviation: Array
    heads: Features
    """LPIPS's weight of every channel, a layer at a time."""

    @classmethod
    def from_batch(
        cls,
        samples: Pixels,
        distance: PerceptualDistance,
        frozen: dict[str, Any] | None = None,
        mask: Mask | None = None,
    ) -> "LPIPSDiversity":
        """Take in samples; those where `mask` is False do not count.

        In full float32, on accelerators too.

        Args:
            samples: 8-bit, gray or RGB, [b, h, w, c].
            distance: a perceptual distance with LPIPS's heads.
            frozen: `distance.frozen`, as an argument of the function that is compiled.
            mask: True [b] where a sample counts.

        Raises:
            TypeError: samples are not uint8.
            ValueError: the distance has no heads, or the network does not take such
                images.
        """
        frozen = distance.frozen if frozen is None else frozen
        if frozen["heads"] is None:
            raise ValueError(
                "a perceptual distance without LPIPS's heads is no LPIPS: load them "
                "with weights.torchvision.load_perceptual_distance(net, weights, heads)"
            )
        x = to_float(jnp.asarray(samples))
        with jax.default_matmul_precision("float32"):
            maps = distance.network.apply(frozen["params"], x)
        features = tuple(map(unit_length, maps))
        valid = jnp.ones(len(x), bool) if mask is None else jnp.asarray(mask)
        count = jnp.sum(valid, dtype=jnp.int32)
        mean = tuple(
            jnp.tensordot(valid / jnp.maximum(count, 1), f, 1, precision="highest")
            for f in features
        )
        heads = tuple(jnp.asarray(w) for w in frozen["heads"])
        deviations = jax.vmap(_distance, (0, None, None))(features, mean, heads)
        deviation = jnp.sum(jnp.where(valid, deviations, 0.0))
        return cls(count, mean, deviation, heads)

    @jax.jit
    def merge(self, other: "LPIPSDiversity") -> "LPIPSDiversity":
        """Return the state of both parts together; samples are all of one size."""
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1)
        between = _distance(self.mean, other.mean, self.heads) * self.count * share
        mean = tuple(
            a + (b - a) * share for a, b in zip(self.mean, other.mean, strict=True)
        )
        deviation = self.deviation + other.deviation + between
        return LPIPSDiversity(count, mean, deviation, self.heads)

    def compute(self) -> Score:
        """Return the mean LPIPS over all pairs of different samples.

        Raises:
            ValueError: there are fewer than two samples.
        """
        count, deviation = jax.device_get((self.count, self.deviation))
        count = int(count)
        if count < 2:
            raise ValueError(
                f"diversity needs at least 2 samples, got {count}: draw more"
            )
        value = 2 * float(deviation) / (count - 1)
        return Score(value, None, count * (count - 1) // 2, "pairs", count)


def _distance(x: Features, y: Features, heads: Features) -> Float[Array, ""]:
    """Return the weighted squared difference: a mean over positions, a sum of layers.

    It is that of `losses.perceptual` without another scaling to unit length.
    """
    terms = [
        jnp.mean(jnp.sum(w * jnp.square(a - b), axis=-1))
        for a, b, w in zip(x, y, heads, strict=True)
    ]
    return jnp.sum(jnp.stack(terms))

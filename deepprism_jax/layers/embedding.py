"""Times as vectors: sines and cosines, then a small dense network."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int


def sinusoidal(
    t: Int[Array, "*b"] | Float[Array, "*b"], channels: int, longest: float = 1e4
) -> Float[Array, "*b c"]:
    """Return sines, then cosines, of t at `channels / 2` frequencies.

    They fall geometrically from 1 to 1 / `longest` (Vaswani et al., 2017).

    Raises:
        ValueError: the channels are not an even number from 4 up.
    """
    if channels < 4 or channels % 2:
        raise ValueError(f"embedding channels={channels} must be even and at least 4")
    half = channels // 2
    rates = jnp.exp(jnp.arange(half) * (-math.log(longest) / (half - 1)))
    angles = jnp.asarray(t, jnp.float32)[..., None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class TimeEmbedding(nnx.Module):
    """Several numbers of an image, such as time and scale, as one vector.

    Args:
        numbers: how many there are.
        channels: of the sinusoidal embedding of each, and of the result.
        hidden: channels between the two dense layers.
        rngs: source of the initial parameters.
    """

    def __init__(self, numbers: int, channels: int, hidden: int, *, rngs: nnx.Rngs):
        self.channels = channels
        self.dense1 = nnx.Linear(numbers * channels, hidden, rngs=rngs)
        self.dense2 = nnx.Linear(hidden, channels, rngs=rngs)

    def __call__(self, *numbers: jax.Array) -> jax.Array:
        """Embed numbers [B] each: [B, channels], float32."""
        parts = [sinusoidal(number, self.channels) for number in numbers]
        h = self.dense1(jnp.concatenate(parts, axis=-1))
        return self.dense2(nnx.gelu(h, approximate=False))

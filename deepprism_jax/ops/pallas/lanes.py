"""The channel axis along the lanes: shifts by one, with the ends of each topology.

These run inside kernels, on values [positions, D] of one field.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu

from deepprism_jax.choices import ChannelPadding


def shifted(v: jax.Array, tap: int, padding: ChannelPadding) -> jax.Array:
    """What tap 0, 1 or 2 of the channel axis reads: v at d - 1, d or d + 1."""
    if tap == 1:
        return v
    packed = v.dtype == jnp.bfloat16
    if packed:  # two positions in a word, which moves as one
        v = pltpu.bitcast(v, jnp.int32)
    rolled = pltpu.roll(v, 1 if tap == 0 else v.shape[-1] - 1, v.ndim - 1)
    if padding != "circular":
        end = v if padding == "replicate" else jnp.zeros_like(v)
        rolled = jnp.where(_lane(v) == (0 if tap == 0 else _last(v)), end, rolled)
    return pltpu.bitcast(rolled, jnp.bfloat16) if packed else rolled


def unshifted(v: jax.Array, tap: int, padding: ChannelPadding) -> jax.Array:
    """Adjoint of `shifted`, in float32: v goes back to where the tap had read it."""
    if tap == 1:
        return v
    rolled = pltpu.roll(v, v.shape[-1] - 1 if tap == 0 else 1, v.ndim - 1)
    if padding == "circular":
        return rolled
    lane, first, last = _lane(v), 0, _last(v)
    # What was rolled around lies at `empty`, and belongs to `end` where that was read.
    empty, end = (last, first) if tap == 0 else (first, last)
    rolled = jnp.where(lane == empty, 0.0, rolled)
    if padding == "replicate":
        rolled += jnp.where(lane == end, v, 0.0)
    return rolled


def _lane(v: jax.Array) -> jax.Array:
    return lax.broadcasted_iota(jnp.int32, v.shape, v.ndim - 1)


def _last(v: jax.Array) -> int:
    return v.shape[-1] - 1

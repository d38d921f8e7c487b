"""SiLU by the hyperbolic tangent, one instruction where exp and 1 / x are several."""

import jax
import jax.numpy as jnp


def silu(v: jax.Array) -> jax.Array:
    """v * sigmoid(v)."""
    half = 0.5 * v
    return half + half * jnp.tanh(half)


def silu_and_slope(v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """SiLU and its derivative."""
    half = 0.5 * v
    tangent = jnp.tanh(half)
    above = 1.0 + tangent  # twice the sigmoid
    value = half * above
    return value, 0.5 * (above + value * (1.0 - tangent))

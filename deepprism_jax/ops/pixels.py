"""The one place where 8-bit pixels and the network's floats meet."""

import jax
import jax.numpy as jnp


def to_float(images: jax.Array) -> jax.Array:
    """Map uint8 pixels 0..255 to float32 in [-1, 1]."""
    return images.astype(jnp.float32) * (2.0 / 255.0) - 1.0


def to_uint8(images: jax.Array) -> jax.Array:
    """Map floats in [-1, 1] to uint8 0..255: clip, then round to the nearest."""
    scaled = (jnp.clip(images.astype(jnp.float32), -1.0, 1.0) + 1.0) * 127.5
    return jnp.round(scaled).astype(jnp.uint8)

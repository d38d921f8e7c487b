"""Spatial resampling of feature maps."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def upsample_nearest(
    x: Float[Array, "*b h w c"], factor: int = 2
) -> Float[Array, "*b h_out w_out c"]:
    """Repeat every position `factor` times along height and width."""
    *batch, height, width, channels = x.shape
    x = jnp.broadcast_to(
        x[..., :, None, :, None, :],
        (*batch, height, factor, width, factor, channels),
    )
    return x.reshape(*batch, height * factor, width * factor, channels)

"""Vector quantisation: the two stop-gradient terms of VQ-VAE and its straight-through.

van den Oord et al., Neural Discrete Representation Learning (2017), eq. (3), where
z are the encoder's outputs, e the nearest codes and sg stops the gradient:

    || sg(z) - e ||^2 + beta || z - sg(e) ||^2

Both terms are means over all elements, so beta does not depend on the latent's size.
"""

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from deepprism_jax.typing import Scalar


def codebook_loss(z: Float[Array, "*z"], codes: Float[Array, "*z"]) -> Scalar:
    """mean((sg(z) - e)^2): moves the codes to the encoder's outputs, and only them."""
    return _mean_square(stop_gradient(z), codes)


def commitment_loss(z: Float[Array, "*z"], codes: Float[Array, "*z"]) -> Scalar:
    """mean((z - sg(e))^2): holds the encoder to its codes, and moves only the encoder.

    Its weight beta (0.25 in the paper) is the caller's.
    """
    return _mean_square(z, stop_gradient(codes))


def straight_through(
    z: Float[Array, "*z"], codes: Float[Array, "*z"]
) -> Float[Array, "*z"]:
    """Return `codes` forward, bit for bit, and hand their gradient to `z` backward."""
    # z - sg(z) is exactly zero; the usual z + sg(codes - z) rounds, so that the decoder
    # would see something else in training than in use.
    return stop_gradient(codes) + (z - stop_gradient(z))


def _mean_square(x: Array, y: Array) -> Array:
    return jnp.mean(jnp.square(x.astype(jnp.float32) - y.astype(jnp.float32)))

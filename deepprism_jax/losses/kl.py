"""Kullback-Leibler divergence of the Gaussian posterior: eq. (8)."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def gaussian_kl(
    mean: Float[Array, "b *latent"],
    logvar: Float[Array, "b *latent"],
    other_mean: ArrayLike = 0.0,
    other_logvar: ArrayLike = 0.0,
) -> Float[Array, " b"]:
    """KL(N(mean, exp(logvar)) || N(other_mean, exp(other_logvar))), summed a latent.

    Eq. (8), with the squares of its sigmas that the print lost:

        1/2 sum(((mu1 - mu2)^2 + sigma1^2) / sigma2^2 - 1 - log sigma1^2 + log sigma2^2)

    The other Gaussian broadcasts against the first; by default it is the standard one.
    Returns one non-negative number for every entry of the batch, in nats, in float32.
    """
    mean = mean.astype(jnp.float32)
    log_ratio = logvar.astype(jnp.float32) - other_logvar
    distance = jnp.square(mean - other_mean) * jnp.exp(
        -jnp.asarray(other_logvar, jnp.float32)
    )
    # expm1 keeps the terms near zero, where the posterior meets the prior, from
    # cancelling into noise.
    terms = distance + jnp.expm1(log_ratio) - log_ratio
    return 0.5 * jnp.sum(terms, axis=tuple(range(1, terms.ndim)))

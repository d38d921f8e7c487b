"""The Gaussian posterior of a variational autoencoder (Kingma and Welling, 2013)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepprism_jax.losses.kl import gaussian_kl

_LOGVAR_RANGE = (-30.0, 20.0)  # as latent-diffusion: variances stay finite and positive


class DiagonalGaussian(NamedTuple):
    """Normal distribution with independent coordinates, one a number of the latent."""

    mean: jax.Array
    logvar: jax.Array

    @classmethod
    def from_moments(cls, moments: Float[Array, "*b h w two_z"]) -> "DiagonalGaussian":
        """Split the encoder's output into mean and clipped log-variance."""
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return cls(mean, jnp.clip(logvar, *_LOGVAR_RANGE))

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw `mean + exp(logvar / 2) * eps`, differentiable in mean and logvar."""
        eps = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.logvar) * eps

    def mode(self) -> jax.Array:
        """The most likely code: the mean."""
        return self.mean

    def kl(self) -> jax.Array:
        """Divergence from the standard normal, summed over a latent: [B] (eq. 8)."""
        return gaussian_kl(self.mean, self.logvar)

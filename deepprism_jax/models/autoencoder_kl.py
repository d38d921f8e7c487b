"""The autoencoder with a Gaussian posterior, held near the standard normal by a KL."""

import os

from deepprism_jax.models.autoencoder import Autoencoder
from deepprism_jax.models.posterior import DiagonalGaussian
from deepprism_jax.typing import Image
from deepprism_jax.weights.diffusers import from_diffusers


class AutoencoderKL(Autoencoder):
    """KL autoencoder of the paper (section 4.1), of any kind of convolution.

    >>> model = AutoencoderKL(width=64, rngs=nnx.Rngs(0))
    >>> z = model.encode(images).mode()      # [B, H/4, W/4, 3]
    >>> y = model.decode(z)                  # [B, H, W, 3]

    Width C has 221 C + 1271 parameters with `conv="deepprism"`, and
    386 C^2 + 271 C + 63 with `conv="dense"` (Table 3).
    """

    moments = 2

    @classmethod
    def from_diffusers(cls, path: str | os.PathLike[str]) -> "AutoencoderKL":
        """Load an autoencoder of latent-diffusion; see `weights.diffusers`."""
        return from_diffusers(cls, path)

    def encode(self, x: Image) -> DiagonalGaussian:
        """Posterior of images [..., H, W, C] in [-1, 1], over [..., H/f, W/f, z]."""
        return DiagonalGaussian.from_moments(self.moments_of(x))

    def reconstruct(self, x: Image) -> Image:
        """Decode the most likely code of each image: [..., H, W, C], about [-1, 1]."""
        return self.decode(self.encode(x).mode())

"""The networks."""

from deepprism_jax.models.autoencoder_kl import AutoencoderKL as AutoencoderKL
from deepprism_jax.models.autoencoder_vq import AutoencoderVQ as AutoencoderVQ

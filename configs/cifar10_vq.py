"""CIFAR-10, DeepPrism, VQ: a codebook of 1,024 codes of 3 numbers instead of the KL.

    python train.py cifar10_vq --data.path cifar-10-batches-bin

An image becomes 64 codes of 10 bits, 80 bytes. Not run to its end here.
"""

from dataclasses import replace

from configs import cifar10_deepprism
from deepprism_jax.training.config import Config


def get_config() -> Config:
    """Width 64; codes move by moving averages and dead ones are revived."""
    config = cifar10_deepprism.get_config()
    return replace(config, model=replace(config.model, latent="vq"))

"""CIFAR-10, dense, KL: the baseline of `cifar10_deepprism`, one field apart.

python train.py cifar10_dense --data.path cifar-10-batches-bin
"""

from dataclasses import replace

from configs import cifar10_deepprism
from deepprism_jax.training.config import Config


def get_config() -> Config:
    """Width 64 with dense convolutions: 1,598,463 parameters."""
    config = cifar10_deepprism.get_config()
    return replace(
        config,
        model=replace(config.model, conv="dense"),
        optimizer=replace(config.optimizer, learning_rate=1e-3),
    )

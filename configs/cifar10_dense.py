"""CIFAR-10, dense, KL: the baseline of `cifar10_deepprism`.

    python train.py cifar10_dense --data.path cifar-10-batches-bin

The kind of convolution differs, and the learning rate: 1e-3, Adam's usual one, not yet
tuned. Not run here.
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

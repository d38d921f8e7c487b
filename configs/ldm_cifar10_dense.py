"""Latent diffusion on CIFAR-10, dense: the baseline of `ldm_cifar10_deepprism`.

    python train.py ldm_cifar10_dense --data.path cifar-10-batches-bin
"""

from dataclasses import replace

from configs import ldm_cifar10_deepprism
from deepprism_jax.training.ldm.config import LDMConfig


def get_config() -> LDMConfig:
    """The same U-Net with dense convolutions, and the rate that dense layers want."""
    config = ldm_cifar10_deepprism.get_config()
    return replace(
        config,
        model=replace(config.model, conv="dense", fields=1),
        optimizer=replace(config.optimizer, learning_rate=1e-3, time_ratio=1.0),
    )

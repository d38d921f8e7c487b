"""Latent diffusion on CIFAR-10, dense: the baseline of `ldm_cifar10_deepprism`.

    python train.py ldm_cifar10_dense --data.path cifar-10-batches-bin

Hardware: as `ldm_cifar10_deepprism`, which takes about as long. Figures: `eval/loss`
0.751; docs/results.md. The learning rate is the only one that was tried.
"""

from dataclasses import replace

from configs import ldm_cifar10_deepprism
from deepprism_jax.training.ldm.config import LDMConfig


def get_config() -> LDMConfig:
    """Width 64, whose step takes 1.8 times as long; at width 128 it is 7.3 times."""
    config = ldm_cifar10_deepprism.get_config()
    return replace(
        config,
        model=replace(config.model, conv="dense", width=64, fields=1),
        optimizer=replace(config.optimizer, learning_rate=1e-3, time_ratio=1.0),
        train=replace(config.train, steps=9_000),
    )

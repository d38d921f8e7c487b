"""CIFAR-10, dense, KL: the baseline of `cifar10_deepprism`.

    python train.py cifar10_dense --data.path cifar-10-batches-bin

Dense at the same width, with one block a level: 24.60 +- 2.42 dB, SSIM 0.814 +- 0.071
on all 10,000 test images, after 28,800 training images in 113 minutes on a core of a
two-core CPU machine that other work shared (the first 24,000 images took 63 minutes
of processor time). Learning rate 3e-4: after 1,250 images 0.6 dB ahead of 1e-3.
Deviations from the paper as for `cifar10_deepprism`.
"""

from dataclasses import replace

from configs import cifar10_deepprism
from deepprism_jax.training.config import Config


def get_config() -> Config:
    """Width 128 with dense convolutions: 4,584,895 parameters."""
    config = cifar10_deepprism.get_config()
    return replace(
        config,
        model=replace(config.model, conv="dense", fields=1, blocks=1),
        optimizer=replace(config.optimizer, learning_rate=3e-4, warmup_steps=100),
        train=replace(config.train, steps=3_600, eval_every=300),
    )

"""CIFAR-10, DeepPrism, VQ: a codebook of 1,024 codes of 3 numbers instead of the KL.

    python train.py cifar10_vq --data.path cifar-10-batches-bin

An image becomes 64 codes of 10 bits, 80 bytes. Otherwise as `cifar10_deepprism`, whose
note names the deviations from the paper. Hardware, time and figures: of a run
with four fields and 3,500 steps, 23.36 +- 2.39 dB and SSIM 0.764 (docs/results.md);
as it stands here it was not run.
"""

from dataclasses import replace

from configs import cifar10_deepprism
from deepprism_jax.training.config import Config


def get_config() -> Config:
    """Width 128; codes move by moving averages and dead ones are revived."""
    config = cifar10_deepprism.get_config()
    return replace(config, model=replace(config.model, latent="vq"))

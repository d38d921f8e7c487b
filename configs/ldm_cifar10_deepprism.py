"""Latent diffusion on CIFAR-10, DeepPrism, class-conditional.

    python train.py cifar10_deepprism --data.path cifar-10-batches-bin
    python train.py ldm_cifar10_deepprism --data.path cifar-10-batches-bin

Hardware and time: one core of a two-core CPU machine with the C++ kernels
(ops/native); 100,000 latents are encoded in 5 minutes, then 64 minutes. Figures:
`eval/loss` 0.768; 2,000 samples with guidance 2, by 20 steps of DPM-Solver++, beside
5,000 test images: Fréchet distance 113 and kernel distance 0.116 of EfficientNet-Lite0
features. Samples, and the dense baseline beside it: docs/results.md.

Width, fields and both learning rates were chosen by trials of 2 to 5 minutes.
"""

from deepprism_jax.training.config import TrainConfig
from deepprism_jax.training.ldm.config import (
    AutoencoderConfig,
    LatentDataConfig,
    LDMConfig,
    LDMOptimizerConfig,
    UNetConfig,
)


def get_config() -> LDMConfig:
    """Width 128, two fields: 27,125 parameters without the layers of time and class."""
    return LDMConfig(
        model=UNetConfig(width=128, fields=2, classes=10),
        autoencoder=AutoencoderConfig(path="runs/cifar10_deepprism"),
        data=LatentDataConfig(source="cifar10", image_size=(32, 32)),
        optimizer=LDMOptimizerConfig(
            learning_rate=1e-2,
            time_ratio=0.1,
            b2=0.99,
            warmup_steps=200,
            schedule="cosine",
        ),
        train=TrainConfig(
            steps=20_000,
            batch_size=64,
            log_every=100,
            eval_every=2_000,
            save_every=1_000,
        ),
    )

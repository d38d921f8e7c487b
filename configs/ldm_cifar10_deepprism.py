"""Latent diffusion on CIFAR-10, DeepPrism, class-conditional.

python train.py cifar10_deepprism --data.path cifar-10-batches-bin
python train.py ldm_cifar10_deepprism --data.path cifar-10-batches-bin
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
    """Latents of 8 x 8 x 3 numbers."""
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

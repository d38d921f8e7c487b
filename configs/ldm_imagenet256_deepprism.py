"""Latent diffusion on ImageNet at 256 px, DeepPrism, class-conditional.

    python train.py imagenet256_deepprism --data.path TFDS_DIR
    python train.py ldm_imagenet256_deepprism --data.path TFDS_DIR

The U-Net of section 4.3: width 256 at every level, 43,789 parameters without the
layers of time and class, on latents of 64 x 64 x 3 numbers; 200 passes over the data.
Deviations: target v and the cosine schedule, which learnt faster in the trials of
`ldm_cifar10_deepprism`, as did its two learning rates.

Hardware, time and figures: not run here; the whole data set was not at hand.
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
    """Batch 1,024, bfloat16."""
    return LDMConfig(
        model=UNetConfig(width=256, classes=1000),
        autoencoder=AutoencoderConfig(path="runs/imagenet256_deepprism"),
        data=LatentDataConfig(
            source="tfds",
            name="imagenet2012",
            image_size=(256, 256),
            eval_split="validation",
        ),
        optimizer=LDMOptimizerConfig(
            learning_rate=1e-2,
            time_ratio=0.1,
            b2=0.99,
            warmup_steps=1_000,
            schedule="cosine",
        ),
        train=TrainConfig(
            steps=250_000,
            batch_size=1024,
            dtype="bfloat16",
            ema_decay=0.9999,
            log_every=100,
            eval_every=10_000,
            save_every=5_000,
        ),
    )

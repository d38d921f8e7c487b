"""Latent diffusion on CelebA-HQ at 256 px, dense: the published layout of LDM-4.

    python train.py ldm_celebahq_dense --data.path TFDS_DIR --autoencoder.path RUN

The unconditional U-Net of Rombach et al., 2022, table 12: width 224 with the multiples
1, 2, 3, 4, attention at 2, 4 and 8 times smaller: 274,056,163 parameters, as published.
Noise, target, batch and learning rate are theirs: `scaled_linear` from 0.0015 to
0.0195, the noise itself, 48 images, 2e-6 an image. `--autoencoder.path` is any of
factor 4 with 3 channels, of ours or imported (docs/weights.md). Deviations: heads of
one number at every level, clipping at 1 and a moving average of 0.9999.

Hardware, time and figures: not run here; the data set was not at hand.
"""

from deepprism_jax.training.config import TrainConfig
from deepprism_jax.training.ldm.config import (
    AutoencoderConfig,
    DenoisingConfig,
    LatentDataConfig,
    LDMConfig,
    LDMOptimizerConfig,
    UNetConfig,
)


def get_config() -> LDMConfig:
    """TFDS's `celeb_a_hq/256`, of which there is one split."""
    return LDMConfig(
        model=UNetConfig(
            conv="dense",
            width=224,
            multipliers=(1, 2, 3, 4),
            attention=(2, 4, 8),
            heads=7,
        ),
        autoencoder=AutoencoderConfig(path="runs/celebahq"),
        data=LatentDataConfig(
            source="tfds",
            name="celeb_a_hq/256",
            image_size=(256, 256),
            train_split="train[:29000]",
            eval_split="train[29000:]",
        ),
        diffusion=DenoisingConfig(
            schedule="scaled_linear", target="eps", class_dropout=0.0
        ),
        optimizer=LDMOptimizerConfig(learning_rate=2e-6, scale_by_batch=True),
        train=TrainConfig(
            steps=410_000,
            batch_size=48,
            ema_decay=0.9999,
            log_every=100,
            eval_every=10_000,
            save_every=5_000,
        ),
    )

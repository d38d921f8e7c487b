"""ImageNet at 256 px, DeepPrism, KL, perceptual and adversarial: the paper's setting.

    python -m deepprism_jax.weights get squeezenet1_1 lpips_squeeze
    python train.py imagenet256_deepprism --data.path TFDS_DIR \
        --loss.perceptual-heads lpips

Hyper-parameters of section 4.1: width 256, learning rate 2e-5 (not scaled by the
batch: the paper does not say), perceptual weight 1, KL weight 1e-6, adversarial weight
1/2. Deviations: SqueezeNet features instead of VGG's, GroupNorm in the discriminator,
and the adversarial term starts at a third of training.

Hardware, time and figures: not run here; the whole data set was not at hand. The path
was driven for a few steps on 450 images of it, at width 32 on two CPU cores.
"""

from deepprism_jax.training.config import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> Config:
    """Width 256: 57,847 parameters; the latent of an image is 64 x 64 x 3 numbers."""
    return Config(
        model=ModelConfig(width=256),
        data=DataConfig(
            source="tfds",
            name="imagenet2012",
            image_size=(256, 256),
            eval_split="validation",
        ),
        loss=LossConfig(
            perceptual_weight=1.0,
            adversarial_weight=0.5,
            adversarial_start=0.33,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-5, clip_norm=0.0),
        train=TrainConfig(
            steps=400_000,
            batch_size=64,
            dtype="bfloat16",
            ema_decay=0.9999,
            log_every=100,
            eval_every=20_000,
            eval_images=5_000,
            save_every=5_000,
        ),
    )

"""ImageNet at 256 px, dense: the baseline of `imagenet256_deepprism`.

    python -m deepprism_jax.weights get squeezenet1_1 lpips_squeeze
    python train.py imagenet256_dense --data.path TFDS_DIR \
        --loss.perceptual-heads lpips

Learning rate 4.5e-6, the paper's for standard convolutions (section 4.1).

Hardware, time and figures: not run here; the whole data set was not at hand.
"""

from dataclasses import replace

from configs import imagenet256_deepprism
from deepprism_jax.training.config import Config


def get_config() -> Config:
    """Width 256 with dense convolutions: 25,366,335 parameters."""
    config = imagenet256_deepprism.get_config()
    return replace(
        config,
        model=replace(config.model, conv="dense"),
        optimizer=replace(config.optimizer, learning_rate=4.5e-6),
    )

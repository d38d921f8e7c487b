"""Single-image diffusion (SinDDM), DeepPrism: new views of one photograph.

python train.py sinddm_deepprism --data.path IMAGE
"""

from deepprism_jax.training.config import OptimizerConfig, TrainConfig
from deepprism_jax.training.sinddm.config import SinDDMConfig


def get_config() -> SinDDMConfig:
    """Width 160 throughout."""
    return SinDDMConfig(
        optimizer=OptimizerConfig(
            learning_rate=5e-3,
            b2=0.99,
            warmup_steps=20,
            schedule="cosine",
            final_ratio=0.02,
        ),
        train=TrainConfig(
            steps=10_000,
            batch_size=1,
            ema_decay=0.995,
            log_every=100,
            eval_every=2_000,
            save_every=1_000,
        ),
    )

"""Single-image diffusion (SinDDM), DeepPrism: new views of one photograph.

    python train.py sinddm_deepprism --data.path IMAGE

Hardware and time: one core of a two-core CPU machine with the C++ kernels
(ops/native), 160 px (`--data.longest 160`): 11 to 12 minutes; at 250 px a step
takes about twice as long. Figures: `eval/loss` 0.076 (balloons) to 0.121
(starry_night); samples in docs/results.md.

Deviations from the SinDDM program, for so short a run: docs/sinddm.md.
"""

from deepprism_jax.training.config import OptimizerConfig, TrainConfig
from deepprism_jax.training.sinddm.config import SinDDMConfig


def get_config() -> SinDDMConfig:
    """Width 160 throughout."""
    return SinDDMConfig(
        optimizer=OptimizerConfig(
            name="soap",
            learning_rate=5e-3,
            b2=0.99,
            warmup_steps=20,
            schedule="cosine",
            final_ratio=0.02,
        ),
        train=TrainConfig(
            steps=8_000,
            batch_size=1,
            ema_decay=0.995,
            log_every=100,
            eval_every=2_000,
            save_every=1_000,
        ),
    )

"""Training with channels cut over devices: the numbers of one device."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from deepprism_jax.training import cuts
from deepprism_jax.training.autoencoder.trainer import AutoencoderTrainer
from deepprism_jax.training.config import (
    Config,
    DataConfig,
    DiscriminatorConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from deepprism_jax.training.setup import mesh_of

DATA = DataConfig(image_size=(4, 4))
# Adam would take the sign of rounding, all the gradient of a bias before a norm.
SGD = OptimizerConfig(name="sgd", learning_rate=0.1)
NO_CRITIC = LossConfig()
ADVERSARIAL = LossConfig(
    adversarial_weight=1.0,
    adversarial_start=1.0,
    adversarial_ramp=0.0,
    discriminator_warmup=1.0,
)


def config_of(loss=NO_CRITIC, **model):
    small = {"width": 8, "blocks": 0, "downsamples": 0, "norm_groups": 4, **model}
    return Config(
        model=ModelConfig(**small),
        data=DATA,
        train=TrainConfig(steps=4, batch_size=4),
        loss=loss,
        discriminator=DiscriminatorConfig(width=8, layers=1),
        optimizer=SGD,
    )


def two_steps(config, **sizes):
    config = replace(config, mesh=MeshConfig(**sizes))
    trainer = AutoencoderTrainer(
        config, mesh_of(config, jax.devices()[: 4 if sizes else 1])
    )
    state = trainer.init()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 4, 3), np.uint8)
    for images in pixels:
        batch = trainer.shard_batch({"image": images})
        state, metrics = trainer.step(state, batch)
    return jax.device_get((state.params, metrics)), (trainer, state, batch)


def reconstructed(trainer, state, batch):
    values = trainer.inference_values(state)
    return np.asarray(trainer.reconstruct(values, batch["image"]), np.int32)


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        pytest.param(
            config_of(conv="dense", attention=False),
            {"channel": 2, "fsdp": 2},
            id="dense",
        ),
        pytest.param(
            config_of(fields=2),
            {"channel": 2},
            id="two fields",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            config_of(latent="vq", codebook_size=8, downsamples=1),
            {"channel": 4},
            id="codebook",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            config_of(ADVERSARIAL, conv="dense"),
            {"channel": 2, "fsdp": 2},
            id="dense, adversarial, fsdp",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_channels_over_devices_change_no_number(config, sizes, monkeypatch):
    monkeypatch.setattr(cuts, "LARGE", 128)
    (params, metrics), whole = two_steps(config)
    (cut_params, cut_metrics), (trainer, *rest) = two_steps(config, **sizes)
    for name in metrics:
        np.testing.assert_allclose(
            cut_metrics[name], metrics[name], rtol=2e-4, atol=1e-6, err_msg=name
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-5),
        cut_params,
        params,
    )
    if config.model.attention:
        found = [reconstructed(*whole), reconstructed(trainer, *rest)]
        assert np.abs(found[0] - found[1]).max() <= 1
    program = trainer.lower_step().as_text()
    halo = config.model.conv == "deepprism"
    assert ("collective_permute" in program) == halo

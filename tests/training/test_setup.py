"""What a run's networks are checked for before any work."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from deepprism_jax.losses import PerceptualDistance
from deepprism_jax.models.feature_networks import SQUEEZENET
from deepprism_jax.training.autoencoder import trainer
from deepprism_jax.training.autoencoder.networks import make_autoencoder
from deepprism_jax.training.config import (
    Config,
    DataConfig,
    DiscriminatorConfig,
    LossConfig,
    ModelConfig,
)
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.systems import make_trainer

MODEL = ModelConfig(
    conv="dense", width=8, blocks=0, downsamples=1, norm_groups=4, attention=False
)


def refused(config):
    with pytest.raises(PreflightError) as caught:
        make_trainer(config)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (DataConfig(image_size=(16, 16)), "needs images of at least 17x17, got 16x16"),
        (DataConfig(channels=4), "reads gray or RGB images, got 4 channels"),
        (DataConfig(image_size=(18, 18)), None),
    ],
)
def test_the_feature_network_must_take_the_images(data, says, monkeypatch, tmp_path):
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), SQUEEZENET.shapes())
    distance = PerceptualDistance(SQUEEZENET, params)
    monkeypatch.setattr(trainer, "make_perceptual", lambda config: distance)
    weights = tmp_path / "weights.npz"
    weights.touch()
    loss = LossConfig(perceptual_weight=1.0, perceptual_weights=str(weights))
    config = Config(model=MODEL, data=data, loss=loss)
    if says is None:
        make_trainer(config)
    else:
        assert says in refused(config)


def test_the_discriminator_must_take_the_images():
    loss = LossConfig(adversarial_weight=0.5)
    small = DataConfig(image_size=(4, 4))
    problem = refused(Config(model=MODEL, data=small, loss=loss))
    assert "use --discriminator.layers=1 or larger images" in problem
    critic = DiscriminatorConfig(layers=1)
    make_trainer(Config(model=MODEL, data=small, loss=loss, discriminator=critic))


@pytest.mark.parametrize(
    ("conv", "option", "fitting"),
    [("deepprism", "fields", 4), ("group", "groups", 8), ("low_rank", "rank", 3)],
)
def test_options_of_the_discriminator_reach_it(conv, option, fitting):
    def config(value):
        critic = DiscriminatorConfig(conv=conv, width=16, **{option: value})
        loss = LossConfig(adversarial_weight=0.5)
        return Config(model=MODEL, loss=loss, discriminator=critic)

    assert f"--discriminator.{option}=33 must" in refused(config(33))

    def parameters(value):
        critic = make_trainer(config(value)).discriminator
        assert critic is not None
        return sum(x.size for x in critic.shapes.values())

    assert parameters(fitting) != parameters(1)


def test_widths_of_the_levels_reach_the_autoencoder():
    config = Config(model=ModelConfig(width=32, multipliers=(1, 2, 1)))
    model = nnx.eval_shape(lambda: make_autoencoder(config, nnx.Rngs(0)))
    assert model.options["multipliers"] == (1, 2, 1)

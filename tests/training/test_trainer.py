"""The compiled step: the same numbers however the batch is spread."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from deepprism_jax.training import cuts
from deepprism_jax.training import state as state_module
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
from deepprism_jax.training.sharding import make_mesh

TINY = Config(
    model=ModelConfig(
        conv="dense",
        width=8,
        blocks=0,
        downsamples=1,
        norm_groups=4,
        attention=False,
        latent="vq",
        codebook_size=4,
    ),
    data=DataConfig(image_size=(8, 8)),
    train=TrainConfig(steps=4, batch_size=8),
)


def _images():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3))
    return {"image": pixels.astype(np.uint8)}


def one_step(config, devices):
    trainer = AutoencoderTrainer(config, make_mesh(jax.devices()[:devices]))
    state, metrics = trainer.step(trainer.init(), trainer.shard_pieces(_images()))
    return trainer, state, jax.device_get(metrics)


def with_train(**changes):
    return dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, **changes))


def with_mesh(config, **sizes):
    return dataclasses.replace(config, mesh=MeshConfig(**sizes))


def with_kl(config):
    model = dataclasses.replace(config.model, latent="kl")
    return dataclasses.replace(config, model=model)


@pytest.fixture(scope="module")
def reference():
    return one_step(with_kl(TINY), devices=1)


def assert_same(left, right):
    """States equal but for the order of additions: Adam's first step hides no sign."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5),
        jax.device_get(left.params),
        jax.device_get(right.params),
    )


@pytest.mark.parametrize(
    ("devices", "pieces"),
    [
        pytest.param(4, 1, id="4 devices", marks=pytest.mark.slow),
        pytest.param(2, 2, id="2 devices x 2 pieces"),
    ],
)
def test_spreading_a_batch_changes_nothing(reference, devices, pieces):
    _, expected, expected_metrics = reference
    config = with_kl(with_train(accumulation=pieces))
    _, state, metrics = one_step(config, devices)
    assert_same(state, expected)
    assert metrics.keys() == expected_metrics.keys()
    for name in metrics:
        assert metrics[name] == pytest.approx(expected_metrics[name], rel=1e-4)


def test_the_state_is_donated_and_the_step_counted(reference):
    trainer, state, _ = reference
    assert int(state.step) == 1
    kept = jax.tree.map(jnp.copy, state)
    trainer.step(kept, trainer.shard_batch(_images()))
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(kept.params["autoencoder"]["encoder.conv_in.kernel"])


def test_the_moving_average_is_what_is_evaluated(reference):
    trainer, state, _ = reference
    values = trainer.inference_values(state)
    name = "encoder.conv_in.kernel"
    np.testing.assert_array_equal(values[name], state.ema[name])
    batch = trainer.shard_batch(_images())["image"]
    y = trainer.reconstruct(values, batch)
    assert y.shape == batch.shape
    assert y.dtype == jnp.uint8


def test_bfloat16_is_what_convolutions_compute_in():
    config = with_kl(with_train(dtype="bfloat16"))
    trainer = AutoencoderTrainer(config, make_mesh(jax.devices()[:1]))
    types = {leaf.dtype for leaf in jax.tree.leaves(trainer.state_shapes.params)}
    assert types == {jnp.dtype("float32")}
    program = trainer.lower_step().as_text().splitlines()
    convolutions = [line for line in program if "stablehlo.convolution" in line]
    assert convolutions
    assert all("bf16" in line for line in convolutions)


@pytest.mark.slow
def test_bfloat16_computes_in_it_and_keeps_float32_parameters():
    _, state, metrics = one_step(with_train(dtype="bfloat16"), devices=1)
    leaves = jax.tree.leaves(state.params)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert np.isfinite(metrics["reconstruction"])
    assert 0 < metrics["codebook_used"] <= 1


def test_the_discriminator_keeps_still_until_its_first_step_and_starts_fresh():
    rate = 1e-3
    config = dataclasses.replace(
        with_kl(with_train(steps=8)),
        loss=LossConfig(
            adversarial_weight=0.5,
            adversarial_start=4.0,
            adversarial_ramp=1.0,
            discriminator_warmup=2.0,
        ),
        discriminator=DiscriminatorConfig(width=8, layers=1),
        optimizer=OptimizerConfig(learning_rate=rate, clip_norm=0.0),
    )
    trainer = AutoencoderTrainer(config, make_mesh(jax.devices()[:1]))
    state = trainer.init()
    batch = trainer.shard_batch(_images())

    def of_the_discriminator(state):
        state = jax.device_get(state)
        return state.params["discriminator"], state.opt_state["discriminator"]

    fresh = of_the_discriminator(state)
    for _ in range(2):
        state, _ = trainer.step(state, batch)
    chex.assert_trees_all_equal(of_the_discriminator(state), fresh)
    state, metrics = trainer.step(state, batch)
    moves = jax.tree.map(np.subtract, of_the_discriminator(state)[0], fresh[0])
    assert metrics["grad_norm_discriminator"] > 0
    # Adam's first step is the learning rate, whatever the gradient.
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(moves))
    assert largest == pytest.approx(rate, rel=1e-2)


@pytest.mark.slow
def test_pieces_hold_the_same_images_on_any_number_of_devices():
    # The adaptive weight is of each piece, so it tells which images that has.
    loss = LossConfig(
        adversarial_weight=1.0,
        adversarial_start=1.0,
        adversarial_ramp=0.0,
        discriminator_warmup=1.0,
    )
    config = dataclasses.replace(
        with_kl(with_train(accumulation=2)),
        loss=loss,
        discriminator=DiscriminatorConfig(width=4, layers=1),
    )
    found = []
    for devices in (1, 2):
        trainer = AutoencoderTrainer(config, make_mesh(jax.devices()[:devices]))
        state = trainer.init()._replace(step=jax.numpy.int32(2))
        _, metrics = trainer.step(state, trainer.shard_pieces(_images()))
        found.append(float(metrics["adversarial_factor"]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    assert found[0] > 0


def curve(config, devices, steps=3):
    """Losses and final state of a few steps, each on other images."""
    trainer = AutoencoderTrainer(config, mesh_of(config, jax.devices()[:devices]))
    state, losses = trainer.init(), []
    generator = np.random.default_rng(0)
    for _ in range(steps):
        pixels = generator.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
        batch = trainer.shard_batch({"image": pixels})
        state, metrics = trainer.step(state, batch)
        losses.append(float(metrics["reconstruction"]))
    return losses, state, trainer


@pytest.fixture(scope="module")
def alone():
    return curve(with_kl(TINY), devices=1)


def test_the_curve_is_the_same_on_a_mesh_that_cuts_the_state(alone, monkeypatch):
    monkeypatch.setattr(cuts, "LARGE", 32)
    monkeypatch.setattr(state_module, "_ONE_VECTOR_BELOW", 0)
    config = with_mesh(with_kl(TINY), data=2, fsdp=2)
    losses, state, trainer = curve(config, devices=4)
    np.testing.assert_allclose(losses, alone[0], rtol=2e-5)
    assert_same(state, alone[1])
    name = "decoder.body.0.conv1.kernel"
    for cut in (state.params["autoencoder"][name], state.ema[name]):
        assert {shard.data.size for shard in cut.addressable_shards} == {cut.size // 2}
    moments = [
        x
        for x in jax.tree.leaves(state.opt_state["autoencoder"])
        if x.sharding.spec != PartitionSpec()
    ]
    assert len(moments) >= 2 * 5
    values = trainer.inference_values(state)
    images = trainer.shard_batch(_images())["image"]
    expected = alone[2].reconstruct(
        alone[2].inference_values(alone[1]), alone[2].shard_batch(_images())["image"]
    )
    found = np.asarray(trainer.reconstruct(values, images), np.int32)
    assert np.abs(found - np.asarray(expected, np.int32)).max() <= 1


@pytest.mark.slow
def test_recomputing_blocks_changes_no_number_and_keeps_less(alone):
    config = with_kl(with_train(remat="blocks"))
    losses, state, trainer = curve(config, devices=1)
    np.testing.assert_allclose(losses, alone[0], rtol=2e-5)
    assert_same(state, alone[1])
    again = trainer.lower_step().as_text()
    assert again.count("convolution") > alone[2].lower_step().as_text().count(
        "convolution"
    )

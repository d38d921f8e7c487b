"""The autoencoder as a system: from its config to what the training program runs."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from deepprism_jax.data import eval_batches, train_batches
from deepprism_jax.layers.functional import Functional
from deepprism_jax.models.feature_networks import feature_network
from deepprism_jax.paths import AnyPath
from deepprism_jax.training.autoencoder.checks import check as check
from deepprism_jax.training.autoencoder.checks import check_files
from deepprism_jax.training.autoencoder.evaluator import Evaluator
from deepprism_jax.training.autoencoder.networks import (
    describe_perceptual,
    make_autoencoder,
    make_discriminator,
)
from deepprism_jax.training.autoencoder.peak import ideal_seconds as ideal_seconds
from deepprism_jax.training.autoencoder.trainer import AutoencoderTrainer
from deepprism_jax.training.config import Config
from deepprism_jax.training.preflight import naming_options, plural, refusing
from deepprism_jax.training.setup import Data, mesh_of, open_split
from deepprism_jax.training.setup import mesh_shape as mesh_shape
from deepprism_jax.training.sharding import data_part, mesh_sizes


def make_trainer(config: Config) -> AutoencoderTrainer:
    """Check the config and make its networks on a mesh of all devices.

    Raises:
        PreflightError: the config contradicts itself, the devices or the files.
    """
    check(config, devices=jax.device_count(), processes=jax.process_count())
    check_files(config)
    with refusing():
        trainer = AutoencoderTrainer(config, mesh_of(config))
        check_images(trainer)
    return trainer


def planned_trainer(config: Config, devices: Any) -> AutoencoderTrainer:
    """Return the trainer on devices that need not be there; no weights are read.

    Raises:
        ValueError: the networks cannot be made, or do not take the images.
    """
    distance = describe_perceptual(config.loss)
    trainer = AutoencoderTrainer(config, mesh_of(config, devices), distance)
    check_images(trainer)
    return trainer


def check_images(trainer: AutoencoderTrainer) -> None:
    """Check that every network of a run takes its images; nothing is computed.

    Raises:
        ValueError: one does not; says which images it takes.
    """
    data = trainer.config.data
    shape = (*data.image_size, data.channels)
    trainer.model.check_image(shape)
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    if (critic := trainer.discriminator) is not None:
        with naming_options(trainer.config, "discriminator"):
            jax.eval_shape(lambda v, x: critic.bind(v)(x), critic.shapes, images)
    if (distance := trainer.perceptual) is not None:
        jax.eval_shape(distance.network.apply, distance.params, images)


def open_data(config: Config) -> Data:
    """Open both splits of the config's data.

    Raises:
        PreflightError: a split is missing, empty, damaged, or does not fit.
    """
    data, train = config.data, config.train
    with refusing():
        index, count = data_part(mesh_of(config))
        shared = {
            "image_size": data.image_size,
            "channels": data.channels,
            "process_index": index,
            "process_count": count,
        }
        source = open_split(data, data.train_split)
        batches = train_batches(
            source,
            batch_size=train.batch_size,
            seed=train.seed,
            crop=data.crop,
            flip=data.flip,
            pieces=train.accumulation,
            **shared,
        )
        held_out = eval_batches(
            open_split(data, data.eval_split),
            # What a micro-batch of training needs is room enough to evaluate.
            batch_size=train.batch_size // train.accumulation,
            limit=train.eval_images,
            **shared,
        )
    return Data(batches, held_out, len(source), held_out.images)


def make_evaluator(
    trainer: AutoencoderTrainer, data: Data, interrupted: Callable[[], bool]
) -> Evaluator:
    """Return what scores and shows reconstructions of the evaluation split."""
    return Evaluator(trainer, data.held_out, interrupted=interrupted)


def keep_inputs(workdir: AnyPath, data: Data) -> None:
    """Nothing: an autoencoder is used without its data."""
    del workdir, data


def prepare(
    trainer: AutoencoderTrainer,
    data: Data,
    workdir: AnyPath,
    begin: Callable[[str, int], None],
) -> None:
    """Nothing."""
    del trainer, data, workdir, begin


def networks(config: Config) -> dict[str, Any]:
    """Return the shapes of all that a run trains or keeps, by network and name.

    Raises:
        PreflightError: the config's networks cannot be made.
    """
    makers: dict[str, Any] = {"autoencoder": make_autoencoder}
    if config.loss.adversarial_weight > 0:
        makers["discriminator"] = make_discriminator
    found: dict[str, Any] = {}
    for name, make in makers.items():
        with refusing():
            module = nnx.eval_shape(lambda make=make: make(config, nnx.Rngs(0)))
        found[name] = Functional(module).shapes
    loss = config.loss
    if loss.perceptual_weight > 0 and not loss.perceptual_heads:
        layers = len(feature_network(loss.perceptual_net).channels)
        shape = jax.ShapeDtypeStruct((layers,), "float32")
        found["perceptual"] = {"layer_weights": shape}
    return found


def batch_line(config: Config) -> str:
    """Say how a batch is cut over devices and accumulation."""
    train, devices = config.train, jax.device_count()
    data, fsdp, channel = mesh_sizes(devices, **asdict(config.mesh))
    parts = data * fsdp
    share = f"{devices} {plural(devices, 'device')}"
    if channel > 1:
        share = f"{parts} {plural(parts, 'part')} of {channel} devices"
    each = train.batch_size // (parts * train.accumulation)
    return (
        f"batch: {train.batch_size} images = {share} x "
        f"{train.accumulation} accumulation {plural(train.accumulation, 'step')} "
        f"x {each} images"
    )


def data_line(config: Config, data: Data) -> str:
    """Say which images there are."""
    height, width = config.data.image_size
    return (
        f"data: {config.data.source}, {data.train_images:,} images to train on and "
        f"{data.held_out_images:,} to evaluate on, at {height}x{width}"
    )


def images_per_step(config: Config, data: Data) -> int:
    """Return how many images a step works on, over all devices."""
    del data
    return config.train.batch_size


def spanned(config: Config) -> list[str]:
    """Name what is laid out over `train.steps`, besides the learning rate."""
    if not config.loss.adversarial_weight > 0:
        return []
    fields = ("adversarial_start", "adversarial_ramp", "discriminator_warmup")
    return [f"loss.{name}" for name in fields if 0 < getattr(config.loss, name) < 1]

"""What a run works with, made and checked before any work: networks and data."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from deepprism_jax.data import eval_batches, make_source, train_batches
from deepprism_jax.training.config import Config, DataConfig
from deepprism_jax.training.networks import naming_options
from deepprism_jax.training.preflight import check, check_files, refusing
from deepprism_jax.training.sharding import data_part, make_mesh
from deepprism_jax.training.trainer import Trainer


class Data(NamedTuple):
    """The two streams of a run, of this process."""

    train: Any
    """Endless batches whose position can be saved."""
    held_out: Any
    """Masked batches of the evaluation split, the same at every evaluation."""
    train_images: int
    held_out_images: int


def make_trainer(config: Config) -> Trainer:
    """Check the config and make its networks on a mesh of all devices.

    Raises:
        PreflightError: the config contradicts itself, the devices or the files.
    """
    check(config, devices=jax.device_count(), processes=jax.process_count())
    check_files(config)
    with refusing():
        trainer = Trainer(config, mesh_of(config))
        check_images(trainer)
    return trainer


def mesh_of(config: Config, devices: Sequence[Any] | None = None) -> Mesh:
    """Arrange all devices, or the given ones, as the config says.

    Raises:
        ValueError: they cannot be.
    """
    return make_mesh(devices, **asdict(config.mesh))


def check_images(trainer: Trainer) -> None:
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


def open_split(data: DataConfig, split: str) -> Any:
    """Open one split of the data.

    Raises:
        ValueError, OSError: see `make_source`.
    """
    return make_source(
        data.source,
        split=split,
        path=data.path,
        dataset=data.name,
        image_size=data.image_size,
        channels=data.channels,
        resize=data.resize,
    )

"""What a run works with, opened and checked before any work: mesh and data."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from jax.sharding import Mesh

from deepprism_jax.data import make_source
from deepprism_jax.training.config import DataConfig
from deepprism_jax.training.sharding import AXES, make_mesh, mesh_sizes


class Data(NamedTuple):
    """The two streams of a run, of this process."""

    train: Any
    """Endless batches of which the position can be saved."""
    held_out: Any
    """What is evaluated on, the same at every evaluation."""
    train_images: int
    held_out_images: int


def mesh_of(config: Any, devices: Sequence[Any] | None = None) -> Mesh:
    """Arrange all devices, or the given ones, as the config says.

    Raises:
        ValueError: they cannot be.
    """
    return make_mesh(devices, **asdict(config.mesh))


def mesh_shape(config: Any, devices: int) -> dict[str, int]:
    """Return how the config arranges that many devices: sizes by axis.

    Raises:
        ValueError: it cannot.
    """
    sizes = mesh_sizes(devices, **asdict(config.mesh))
    return dict(zip(AXES, sizes, strict=True))


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

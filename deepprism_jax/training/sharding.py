"""Where arrays live: one mesh, one axis, the batch spread over it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices of all processes (or the given ones) along `data`."""
    chosen = jax.devices() if devices is None else devices
    return Mesh(np.asarray(chosen), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The first axis cut into one part a device."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def place_batch(mesh: Mesh, batch: Any) -> Any:
    """Make global arrays of this process's part of a batch (a tree of NumPy arrays)."""
    sharding = split_batch(mesh)
    return jax.tree.map(
        lambda part: jax.make_array_from_process_local_data(sharding, part), batch
    )

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


def spread(mesh: Any, function: Any) -> Any:
    """Run `function(values, batch)` on every device for its own part of the batch.

    Left to the compiler, an operator that it does not know, such as a kernel of ours,
    would see the whole batch on every device. The result is split as the batch is.
    """
    whole, parts = PartitionSpec(), PartitionSpec(DATA_AXIS)
    return jax.shard_map(
        function, mesh=mesh, in_specs=(whole, parts), out_specs=parts, check_vma=False
    )


def place_batch(mesh: Mesh, batch: Any) -> Any:
    """Make global arrays of this process's part of a batch (a tree of NumPy arrays)."""
    sharding = split_batch(mesh)
    return jax.tree.map(
        lambda part: jax.make_array_from_process_local_data(sharding, part), batch
    )

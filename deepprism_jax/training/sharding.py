"""The mesh of a run: devices as a grid, and which rows of a batch each one gets.

Three axes, most of them of size one: the batch is cut over `data` and `fsdp`,
parameters and optimizer over `fsdp` as well, channels over `channel`; docs/tpu.md tells
what each is for. One device is a mesh of 1 x 1 x 1.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS, FSDP_AXIS, CHANNEL_AXIS = AXES = ("data", "fsdp", "channel")
BATCH_AXES = (DATA_AXIS, FSDP_AXIS)
"""The axes that share a batch, in the order of its rows."""


def mesh_sizes(
    devices: int, *, data: int = 0, fsdp: int = 1, channel: int = 1
) -> tuple[int, int, int]:
    """Return the sizes of the three axes; `data=0` takes what the others leave.

    Raises:
        ValueError: they do not give the number of devices; says what would.
    """
    for name, size, least in zip(AXES, (data, fsdp, channel), (0, 1, 1), strict=True):
        if size < least:
            raise ValueError(f"mesh.{name}={size} must be a number from {least} up")
    others = fsdp * channel
    if devices % others:
        asked = f"mesh.fsdp={fsdp} x mesh.channel={channel} = {others}"
        near = max(d for d in range(1, min(others, devices) + 1) if devices % d == 0)
        raise ValueError(
            f"{asked} must divide the number of devices, {devices}; the nearest "
            f"product that does is {near}"
        )
    rest = devices // others
    if data not in (0, rest):
        raise ValueError(
            f"mesh.data={data} x mesh.fsdp={fsdp} x mesh.channel={channel} must be the "
            f"number of devices, {devices}; set --mesh.data {rest}, or leave it out"
        )
    return rest, fsdp, channel


def make_mesh(
    devices: Sequence[Any] | None = None,
    *,
    data: int = 0,
    fsdp: int = 1,
    channel: int = 1,
) -> Mesh:
    """Arrange all devices of all processes (or the given ones) in a grid.

    Devices that are near each other on a TPU's torus become neighbours along `channel`
    and `fsdp`, which send more than `data` does; rows of the batch that one process
    holds follow each other.

    Raises:
        ValueError: see `mesh_sizes`.
    """
    chosen = list(jax.devices() if devices is None else devices)
    sizes = mesh_sizes(len(chosen), data=data, fsdp=fsdp, channel=channel)
    grid = np.asarray(chosen).reshape(sizes)
    if math.prod(sizes[1:]) > 1:
        grid = mesh_utils.create_device_mesh(
            sizes, chosen, allow_split_physical_axes=True
        )
    for axis in range(len(BATCH_AXES)):
        grid = np.take(grid, _by_process(np.moveaxis(grid, axis, 0)), axis)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _by_process(parts: np.ndarray) -> list[int]:
    """Order the parts of a grid by the processes that hold their devices."""
    owners = [sorted({device.process_index for device in part.flat}) for part in parts]
    return sorted(range(len(parts)), key=lambda place: owners[place])


def batch_parts(mesh: Mesh) -> int:
    """Return into how many parts a batch is cut."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


@functools.cache  # it is asked for at every step
def data_part(mesh: Mesh) -> tuple[int, int]:
    """Return which part of every batch this process reads, and of how many parts.

    Processes that share the channels of the same images read the same part.

    Raises:
        ValueError: the rows that this process needs do not lie side by side.
    """
    parts = batch_parts(mesh)
    indices = split_batch(mesh).addressable_devices_indices_map((parts,)).values()
    rows = sorted({(index[0].start or 0) for index in indices if index is not None})
    first, count = rows[0], len(rows)
    if rows != list(range(first, first + count)) or parts % count or first % count:
        raise ValueError(
            f"the mesh {dict(mesh.shape)} gives process {jax.process_index()} the "
            f"parts {rows} of {parts} of a batch, which are not one piece: choose "
            "mesh.fsdp and mesh.channel that divide the devices of a process, or are "
            "multiples of them"
        )
    return first // count, parts // count


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The first axis cut into one part for all devices that share it."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def spread(mesh: Any, function: Any, specs: Any = None) -> Any:
    """Run `function(values, batch)` on every device for its own part of the batch.

    Left to the compiler, an operator that it does not know, such as a kernel of ours,
    would see the whole batch on every device. The result is split as the batch is.
    `specs` says how the values are cut; where it is None, every device has them all.
    """
    parts = PartitionSpec(BATCH_AXES)
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec() if specs is None else specs, parts),
        out_specs=parts,
        check_vma=False,
    )


def place_batch(mesh: Mesh, batch: Any) -> Any:
    """Make global arrays of this process's part of a batch (a tree of NumPy arrays)."""
    sharding = split_batch(mesh)
    place, count = data_part(mesh)

    def make(part: np.ndarray) -> jax.Array:
        shape = (len(part) * count, *part.shape[1:])
        before = place * len(part)

        def rows(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(shape[0])
            return part[start - before : stop - before]

        return jax.make_array_from_callback(shape, sharding, rows)

    return jax.tree.map(make, batch)


def local_rows(array: jax.Array) -> np.ndarray:
    """Return this process's rows of an array that is spread over its first axis."""
    # Devices that share the channels of an image have the same rows.
    parts = {
        shard.index[0].start or 0: shard.data for shard in array.addressable_shards
    }
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])

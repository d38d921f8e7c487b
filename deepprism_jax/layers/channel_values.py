"""Values of a network on their way into feature maps that are cut over devices.

A device holds [F, D / count] of the C = F * D channels of a map (`ops.channel_shards`),
and so of every value that has a number for each. As `jax.shard_map` cuts an axis into
runs, the fields are first made an axis of their own.

>>> axes = functional.channel_axes
>>> in_specs = specs(axes, "channel")
>>> values = fields_apart(values, axes, fields)      # outside, as are gradients after
>>> values = fields_together(values, axes)           # inside: what `bind` takes
"""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import PartitionSpec


def specs(axes: Mapping[str, int | None], mesh_axis: str) -> dict[str, PartitionSpec]:
    """Return how `jax.shard_map` cuts values whose fields are apart."""
    return {
        name: PartitionSpec()
        if axis is None
        else PartitionSpec(*[None] * (axis + 1), mesh_axis)
        for name, axis in axes.items()
    }


def fields_apart(
    values: Mapping[str, Any], axes: Mapping[str, int | None], fields: int
) -> dict[str, jax.Array]:
    """Reshape the channel axis [F * D] of every value that has one to [F, D]."""
    return {
        name: value
        if (axis := axes[name]) is None
        else value.reshape(*value.shape[:axis], fields, -1, *value.shape[axis + 1 :])
        for name, value in values.items()
    }


def fields_together(
    values: Mapping[str, Any], axes: Mapping[str, int | None]
) -> dict[str, jax.Array]:
    """Undo `fields_apart`, of whole values or of a device's part of them."""
    return {
        name: value
        if (axis := axes[name]) is None
        else value.reshape(*value.shape[:axis], -1, *value.shape[axis + 2 :])
        for name, value in values.items()
    }

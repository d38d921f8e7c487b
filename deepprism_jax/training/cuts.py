"""How a value of the state is cut over a mesh, and how a device gets what it computes.

Stored, a large value is cut over `fsdp`, along the longest axis that divides, and where
it counts channels over `channel` too; a small one is on every device. In the step, a
device gathers over `fsdp` what it computes with, of its own channels; the gradient goes
back the same way as it is reduced.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deepprism_jax.training.sharding import (
    AXES,
    BATCH_AXES,
    CHANNEL_AXIS,
    DATA_AXIS,
    FSDP_AXIS,
)

LARGE = 2**16
"""Values of fewer numbers are stored on every device: to cut them gains nothing."""


@dataclass(frozen=True)
class Cut:
    """How one value is cut.

    Args:
        stored: how it is stored.
        fsdp: axis cut over `fsdp`, or None.
        channel: axis whose channels a device keeps its part of, or None.
        fields: fields that lie one behind the other along that axis; each is cut.
        parts: size of the mesh along `fsdp`.
    """

    stored: PartitionSpec
    fsdp: int | None = None
    channel: int | None = None
    fields: int = 1
    parts: int = 1

    @property
    def averaged(self) -> tuple[str, ...]:
        """The axes over which gradients are averaged that are not scattered.

        Devices that share channels compute the gradient of what all of them hold alike
        each by itself. It is the same, but for operators that are not deterministic;
        averaged, what follows from it stays the same too.
        """
        batch = BATCH_AXES if self.fsdp is None else (DATA_AXIS,)
        return batch if self.channel is not None else (*batch, CHANNEL_AXIS)

    @property
    def spec(self) -> PartitionSpec:
        """How `fold(value)` enters and leaves `jax.shard_map`."""
        axes: dict[int, str] = {}
        if self.channel is not None:
            # The fold puts the fields before the depth that is cut.
            axes[self.channel + (self.fields > 1)] = CHANNEL_AXIS
        if self.fsdp is not None:
            behind = self.channel is not None and self.channel < self.fsdp
            axes[self.fsdp + (behind and self.fields > 1)] = FSDP_AXIS
        return _spec(axes)

    def fold(self, value: jax.Array) -> jax.Array:
        """Give every field its own row, so that each can be cut: outside."""
        if self.channel is None or self.fields == 1:
            return value
        before, after = value.shape[: self.channel], value.shape[self.channel + 1 :]
        return value.reshape(*before, self.fields, -1, *after)

    def unfold(self, value: jax.Array) -> jax.Array:
        """Undo `fold`; inside `jax.shard_map` of this device's part."""
        if self.channel is None or self.fields == 1:
            return value
        before, after = value.shape[: self.channel], value.shape[self.channel + 2 :]
        return value.reshape(*before, -1, *after)

    def whole(self, value: jax.Array) -> jax.Array:
        """Gather what was cut over `fsdp`: what this device computes with."""
        value = self.unfold(value)
        if self.fsdp is None:
            return value
        return lax.all_gather(value, FSDP_AXIS, axis=self.fsdp, tiled=True)

    def scatter(self, gradient: jax.Array) -> jax.Array:
        """Average over `fsdp` what is cut over it, and keep the part stored here."""
        if self.fsdp is None:
            return gradient
        total = lax.psum_scatter(
            gradient, FSDP_AXIS, scatter_dimension=self.fsdp, tiled=True
        )
        return total / self.parts


WHOLE = Cut(PartitionSpec())
"""On every device."""


def specs_of(cuts: Any) -> Any:
    """Return the specs by which a tree of values enters `jax.shard_map`, folded."""
    return jax.tree.map(lambda cut: cut.spec, cuts)


def fold(cuts: Any, values: Any) -> Any:
    """Fold a tree of values: before `jax.shard_map`, or before its result is given."""
    return jax.tree.map(lambda cut, value: cut.fold(value), cuts, values)


def unfold(cuts: Any, values: Any) -> Any:
    """Undo `fold`, outside."""
    return jax.tree.map(lambda cut, value: cut.unfold(value), cuts, values)


def whole(cuts: Any, values: Any) -> Any:
    """Return what a device computes with, of its parts of a tree of folded values."""
    return jax.tree.map(lambda cut, value: cut.whole(value), cuts, values)


def mean_gradients(cuts: Any, gradients: Any, metrics: Any) -> tuple[Any, Any]:
    """Average over all parts of the batch; gradients come back cut as they are stored.

    All that is on every device goes in one reduction: on some platforms nothing joins
    hundreds of small ones. What is cut over `fsdp` is scattered as it is added up.
    """
    leaves, tree = jax.tree.flatten(cuts)
    values = tree.flatten_up_to(gradients)
    values = [cut.scatter(value) for cut, value in zip(leaves, values, strict=True)]
    groups: dict[tuple[str, ...], list[int]] = {AXES: []}
    for place, cut in enumerate(leaves):
        groups.setdefault(cut.averaged, []).append(place)
    for axes, places in groups.items():
        some = [values[place] for place in places]
        if axes == AXES:
            some, metrics = lax.pmean((some, metrics), axes)
        else:
            some = lax.pmean(some, axes)
        for place, value in zip(places, some, strict=True):
            values[place] = leaves[place].fold(value)
    return tree.unflatten(values), metrics


def make_cut(
    shape: tuple[int, ...], mesh: Mesh, *, channel: int | None = None, fields: int = 1
) -> Cut:
    """Choose how a value is cut.

    Args:
        shape: of the whole value.
        mesh: of the run.
        channel: axis that counts channels, if any.
        fields: fields that lie one behind the other along that axis.
    """
    parts = mesh.shape[FSDP_AXIS]
    if mesh.shape[CHANNEL_AXIS] == 1:
        channel = None
    names: dict[int, str] = {}
    fsdp = None
    if math.prod(shape) >= LARGE:
        if channel is not None and fields == 1:
            names[channel] = CHANNEL_AXIS
        free = [i for i in range(len(shape)) if i != channel and not shape[i] % parts]
        if parts > 1 and free:
            fsdp = max(free, key=lambda i: shape[i])
            names[fsdp] = FSDP_AXIS
    return Cut(_spec(names), fsdp, channel, fields if channel is not None else 1, parts)


def _spec(names: Mapping[int, str]) -> PartitionSpec:
    """Return the spec of an array of which some axes are cut, by their places."""
    return PartitionSpec(*(names.get(i) for i in range(max(names, default=-1) + 1)))


def shardings_like(tree: Any, cuts: Mapping[str, Cut], mesh: Mesh) -> Any:
    """Return where each array of a tree lives, known by its name.

    Optimizers keep values like those that they train, under the same names; what has
    another name or another shape, such as a count of steps, is on every device.

    Args:
        tree: arrays or shapes, in nested containers of dictionaries by name.
        cuts: name to cut.
        mesh: of the run.
    """

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        cut = cuts.get(keys[-1]) if keys else None
        spec = PartitionSpec() if cut is None else cut.stored
        return NamedSharding(mesh, spec if leaf.ndim >= len(spec) else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, tree)

"""Gradients of a batch that is spread over a mesh: each device its part, then the mean.

`jax.shard_map` around the gradients keeps what a formulation expands to inside of a
device: what is reduced is exactly the parameters.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from deepprism_jax.layers.remat import Remat, rematerializing
from deepprism_jax.ops.channel_shards import over_channels
from deepprism_jax.training import cuts
from deepprism_jax.training.sharding import BATCH_AXES, CHANNEL_AXIS
from deepprism_jax.training.state import TrainState

_ALL = PartitionSpec()


def cutting_channels(mesh: Mesh, fields: int) -> AbstractContextManager[None]:
    """Trace layers for the part of the channels that a device of the mesh has."""
    return over_channels(CHANNEL_AXIS, mesh.shape[CHANNEL_AXIS], fields)


@runtime_checkable
class Objective(Protocol):
    """A loss on one device, with its gradients."""

    def gradients(
        self,
        params: Any,
        extra: Any,
        frozen: Any,
        batch: Any,
        keys: jax.Array,
        common_key: jax.Array,
        step: jax.Array,
    ) -> tuple[Any, Any, Any, Any]:
        """Return gradients like `params`, the new `extra`, what else to add, metrics.

        Args:
            params, extra: as in `TrainState`.
            frozen: arrays that every step reads.
            batch: arrays whose rows are images.
            keys: one key an image, whatever device it is on.
            common_key: the same on all devices.
            step: number of this step, from 0.
        """
        ...


@dataclass(frozen=True)
class Gradients:
    """The mean gradients of a batch, as one program over a mesh.

    Args:
        objective: the loss on one device.
        mesh: of the run.
        cuts: how each parameter is cut, a tree like `TrainState.params`.
        accumulation: micro-batches, one after the other.
        remat: what is computed again instead of kept.
        fields: fields of every feature map, each of which is cut over `channel`.
    """

    objective: Objective
    mesh: Mesh
    cuts: Any
    accumulation: int = 1
    remat: Remat = "none"
    fields: int = 1

    def __call__(
        self, state: TrainState, batch: Any, frozen: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Return what the objective does, as means over all devices."""
        on_all = jax.shard_map(
            self._on_device,
            mesh=self.mesh,
            in_specs=(
                cuts.specs_of(self.cuts),
                _ALL,
                _ALL,
                _ALL,
                PartitionSpec(BATCH_AXES),
                _ALL,
            ),
            out_specs=(cuts.specs_of(self.cuts), _ALL, _ALL, _ALL),
            check_vma=False,
        )
        params = cuts.fold(self.cuts, state.params)
        grads, extra, added, metrics = on_all(
            params, state.extra, state.key, state.step, batch, frozen
        )
        return cuts.unfold(self.cuts, grads), extra, added, metrics

    def _on_device(self, params, extra, key, step, batch, frozen):
        params = cuts.whole(self.cuts, params)
        with rematerializing(self.remat), cutting_channels(self.mesh, self.fields):
            grads, extra, added, metrics = self._accumulated(
                params, extra, key, step, batch, frozen
            )
        grads, metrics = cuts.mean_gradients(self.cuts, grads, metrics)
        return grads, extra, added, metrics

    def _accumulated(self, params, extra, key, step, batch, frozen):
        """Mean gradients of this device's part of the batch, piece by piece."""
        count, pieces = jax.tree.leaves(batch)[0].shape[0], self.accumulation
        key, common_key = jax.random.split(
            jax.random.fold_in(jax.random.wrap_key_data(key), step)
        )
        # The device has its share of each piece of the batch, piece after piece.
        share = count // pieces
        piece, row = jnp.divmod(jnp.arange(count), share)
        devices, device = lax.axis_size(BATCH_AXES), lax.axis_index(BATCH_AXES)
        places = (piece * devices + device) * share + row
        image_keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(places)
        common_keys = jax.random.split(common_key, pieces)

        def accumulate(extra, piece):
            batch, keys, common_key = piece
            grads, extra, added, metrics = self.objective.gradients(
                params, extra, frozen, batch, keys, common_key, step
            )
            return extra, (grads, added, metrics)

        if pieces == 1:
            extra, found = accumulate(extra, (batch, image_keys, common_keys[0]))
            return found[0], extra, *found[1:]
        cut = jax.tree.map(
            lambda a: a.reshape(pieces, count // pieces, *a.shape[1:]),
            (batch, image_keys),
        )
        first_piece = jax.tree.map(lambda a: a[0], (*cut, common_keys))
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(accumulate, extra, first_piece)[1],
        )

        def add(carry, piece):
            extra, total = carry
            extra, new = accumulate(extra, piece)
            return (extra, jax.tree.map(jnp.add, total, new)), None

        (extra, total), _ = lax.scan(add, (extra, zeros), (*cut, common_keys))
        grads, added, metrics = total
        grads, metrics = jax.tree.map(lambda a: a / pieces, (grads, metrics))
        return grads, extra, added, metrics

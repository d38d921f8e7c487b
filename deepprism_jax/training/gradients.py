"""Gradients of a batch that is spread over a mesh: each device its part, then the mean.

`jax.shard_map` around the gradients keeps what a formulation expands to inside of a
device: what is reduced is exactly the parameters.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from deepprism_jax.layers.remat import Remat, rematerializing
from deepprism_jax.ops.channel_shards import over_channels
from deepprism_jax.training import cuts
from deepprism_jax.training.autoencoder.objective import Objective
from deepprism_jax.training.sharding import BATCH_AXES, CHANNEL_AXIS
from deepprism_jax.training.state import TrainState

_ALL = PartitionSpec()


def cutting_channels(mesh: Mesh, fields: int) -> AbstractContextManager[None]:
    """Trace layers for the part of the channels that a device of the mesh has."""
    return over_channels(CHANNEL_AXIS, mesh.shape[CHANNEL_AXIS], fields)


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
        self, state: TrainState, images: jax.Array, frozen: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Return gradients like `params`, the new `extra`, revived codes, metrics."""
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
        grads, extra, revived, metrics = on_all(
            params, state.extra, state.key, state.step, images, frozen
        )
        return cuts.unfold(self.cuts, grads), extra, revived, metrics

    def _on_device(self, params, extra, key, step, images, frozen):
        params = cuts.whole(self.cuts, params)
        with rematerializing(self.remat), cutting_channels(self.mesh, self.fields):
            grads, extra, revived, metrics = self._accumulated(
                params, extra, key, step, images, frozen
            )
        grads, metrics = cuts.mean_gradients(self.cuts, grads, metrics)
        return grads, extra, revived, metrics

    def _accumulated(self, params, extra, key, step, images, frozen):
        """Mean gradients of this device's part of the batch, piece by piece."""
        count, pieces = images.shape[0], self.accumulation
        key, codebook_key = jax.random.split(
            jax.random.fold_in(jax.random.wrap_key_data(key), step)
        )
        # The device has its share of each piece of the batch, piece after piece.
        share = count // pieces
        piece, row = jnp.divmod(jnp.arange(count), share)
        devices, device = lax.axis_size(BATCH_AXES), lax.axis_index(BATCH_AXES)
        places = (piece * devices + device) * share + row
        image_keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(places)
        codebook_keys = jax.random.split(codebook_key, pieces)

        def accumulate(extra, piece):
            images, keys, codebook_key = piece
            grads, extra, revived, metrics = self.objective.gradients(
                params, extra, frozen, images, keys, codebook_key, step
            )
            return extra, (grads, revived, metrics)

        if pieces == 1:
            extra, found = accumulate(extra, (images, image_keys, codebook_keys[0]))
            return found[0], extra, *found[1:]
        cut = jax.tree.map(
            lambda a: a.reshape(pieces, count // pieces, *a.shape[1:]),
            (images, image_keys),
        )
        first_piece = jax.tree.map(lambda a: a[0], (*cut, codebook_keys))
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(accumulate, extra, first_piece)[1],
        )

        def add(carry, piece):
            extra, total = carry
            extra, new = accumulate(extra, piece)
            return (extra, jax.tree.map(jnp.add, total, new)), None

        (extra, total), _ = lax.scan(add, (extra, zeros), (*cut, codebook_keys))
        grads, revived, metrics = total
        grads, metrics = jax.tree.map(lambda a: a / pieces, (grads, metrics))
        return grads, extra, revived, metrics

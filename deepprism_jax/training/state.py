"""All that a training run remembers between two steps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

Tree = Any


class TrainState(NamedTuple):
    """A plain pytree: dictionaries of arrays, saved and restored as it stands."""

    step: jax.Array
    """Optimizer steps taken, int32."""
    params: Tree
    """Trained by gradients: {"autoencoder": {...}, "perceptual": {...},
    "discriminator": {...}}, the last two where their term is on."""
    ema: Tree
    """Moving average of the autoencoder's parameters; empty where it is off."""
    extra: Tree
    """Kept but not trained: {"buffers": {...}, "lecam": {...}}."""
    opt_state: Tree
    """{"autoencoder": ..., "discriminator": ...}."""
    key: jax.Array
    """Seed of all noise, as key data; the noise of a step is folded from its number."""


# A DeepPrism network has hundreds of tensors of 27 numbers, and walking them costs more
# than the arithmetic.
_ONE_VECTOR_BELOW = 1_000_000


def beginning_with(
    state: TrainState, main: str, values: Mapping[str, np.ndarray]
) -> TrainState:
    """Return a state on the host whose main group, average and buffers are given ones.

    Where many models train together, all begin with them.
    """

    def replaced(group: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: np.broadcast_to(values[name], x.shape) for name, x in group.items()
        }

    params = {**state.params, main: replaced(state.params[main])}
    extra = dict(state.extra)
    if "buffers" in extra:
        extra["buffers"] = replaced(extra["buffers"])
    return state._replace(params=params, ema=replaced(state.ema), extra=extra)


def as_one_vector(tree: Tree) -> bool:
    """Whether parameters (arrays or shapes) are so few that one vector is faster."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree)) < _ONE_VECTOR_BELOW


def move_average(ema: Tree, params: Tree, decay: float, step: jax.Array) -> Tree:
    """Move the average towards the parameters, faster while it is young.

    The decay is min(decay, (1 + step) / (10 + step)), so that the average of a short
    run is not dominated by its initialisation.
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(ema, params)
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    if not as_one_vector(ema):
        return jax.tree.map(lambda a, b: a + rate * (b - a), ema, params)
    average, unravel = ravel_pytree(ema)
    current, _ = ravel_pytree(params)
    return unravel(average + rate * (current - average))

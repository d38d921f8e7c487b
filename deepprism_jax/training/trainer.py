"""The training step as a program on a mesh: compiled once, state in, state out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh

from deepprism_jax.layers.functional import Functional, Values
from deepprism_jax.training import cuts
from deepprism_jax.training.sharding import (
    batch_parts,
    data_part,
    place_batch,
    replicated,
    split_batch,
)
from deepprism_jax.training.state import TrainState, beginning_with, move_average
from deepprism_jax.weights.pretrained import describe

Batch = Mapping[str, Any]
"""Arrays by name, or what chooses a program."""
Metrics = dict[str, jax.Array]


@dataclass(frozen=True)
class Player:
    """What one optimizer trains.

    Args:
        members: groups of `TrainState.params`.
        optimizer: moves them.
        begins: first step that it trains in; nothing of it changes before.
    """

    members: tuple[str, ...]
    optimizer: optax.GradientTransformation
    begins: int = 0

    def group(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return its members of a tree like `TrainState.params`."""
        return {name: params[name] for name in self.members if name in params}

    def move(self, step: jax.Array, group: Any, opt_state: Any, gradient: Any):
        """Return its members and the optimizer's state after a step."""

        def update(operands: Any) -> Any:
            group, opt_state, gradient = operands
            updates, opt_state = self.optimizer.update(gradient, opt_state, group)
            return optax.apply_updates(group, updates), opt_state

        operands = group, opt_state, gradient
        if self.begins == 0:
            return update(operands)
        return lax.cond(step >= self.begins, update, lambda held: held[:2], operands)


class Trainer:
    """Initial state and training step of one experiment on one mesh.

    The step is pure: randomness is folded from the state's key and step, the noise
    of an image from its place in the global batch. So a run does not depend on how many
    devices share the batch, but for the order of float additions.

    What is trained, and by which loss, a subclass says: it sets the attributes and has
    the methods below that raise.
    """

    config: Any
    """The experiment, of which `train` and `optimizer` are read here."""
    mesh: Mesh
    """Its devices."""
    main: str
    """The group of `TrainState.params` that is averaged, evaluated and exported."""
    model: Any
    """Its module without values: options, checks and factor."""
    network: Functional
    """The same as a function of its values."""
    cuts: dict[str, Any]
    """How each parameter is cut, a tree like `TrainState.params`."""
    players: dict[str, Player]
    """Optimizers by name."""
    schedule: optax.Schedule
    """Learning rate by step, for the log."""
    frozen: Any = None
    """Arrays that every step reads and none changes."""

    def initial(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return `params` and `extra` before the first step (`TrainState`)."""
        raise NotImplementedError

    def gradients(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[Any, Any, Values, Metrics]:
        """Return gradients like `params`, the new `extra`, what else to add, metrics.

        What else is added to parameters of the main group, by name, no optimizer sees.
        """
        raise NotImplementedError

    def batch_shapes(self) -> Any:
        """Return shapes and types of a batch."""
        raise NotImplementedError

    @cached_property
    def state_shapes(self) -> TrainState:
        """Shapes and types of the state, of which nothing is computed."""
        return jax.eval_shape(self._init)

    @cached_property
    def state_sharding(self) -> TrainState:
        """Where each array of the state lives."""
        return self.shardings(self.state_shapes)

    @property
    def state_target(self) -> TrainState:
        """What the state is restored as: shapes, and where each array lives."""
        return jax.tree.map(
            lambda x, sharding: x.update(sharding=sharding),
            self.state_shapes,
            self.state_sharding,
        )

    @cached_property
    def values_sharding(self) -> Any:
        """Where each of the `inference_values` lives."""
        return self.shardings(self.network.shapes)

    @property
    def batch_sharding(self) -> Any:
        """Where a batch lives."""
        return split_batch(self.mesh)

    def shard_batch(self, batch: Any) -> Any:
        """Global arrays of this process's part of a batch of NumPy arrays."""
        return place_batch(self.mesh, batch)

    def shard_pieces(self, batch: Any) -> Any:
        """The same for a batch to train on, as `data.train_batches` gives it.

        Of every piece that is computed at once each device gets its share, so that the
        pieces hold the same images on any number of devices.
        """
        _, count = data_part(self.mesh)
        local = batch_parts(self.mesh) // count

        def arrange(rows: Any) -> Any:
            shape = (self.config.train.accumulation, local, -1, *rows.shape[1:])
            return np.swapaxes(rows.reshape(shape), 0, 1).reshape(rows.shape)

        if self.config.train.accumulation > 1 and local > 1:
            batch = jax.tree.map(arrange, batch)
        return self.shard_batch(batch)

    def init(self, start: Mapping[str, np.ndarray] | None = None) -> TrainState:
        """The state before the first step, on the mesh.

        Args:
            start: values of the main group and its buffers to begin with.
        """
        # Drawn outside of jit, where the random numbers of a shape are compiled once
        # for all kernels of that shape; one program would compile each of them anew.
        place = jax.jit(lambda state: state, out_shardings=self.state_sharding)
        state = jax.device_get(self._init())
        return place(
            state if start is None else beginning_with(state, self.main, start)
        )

    @cached_property
    def step(self) -> Any:
        """`(state, batch) -> (state, metrics)`, compiled; `shard_pieces` gives batches.

        The state is donated: the one passed in must not be used again. Metrics are
        float32 scalars on the device, means over the batch.
        """
        return lambda state, batch: self._jitted(state, batch, self.frozen)

    def lower_step(self) -> jax.stages.Lowered:
        """The step of this configuration, lowered and not run: for plans of memory."""
        return self._jitted.lower(self.state_shapes, self.batch_shapes(), self.frozen)

    @cached_property
    def gathered(self) -> Any:
        """`inference_values` on the host, whole; every process calls."""
        # Parts that lie on other hosts come here first.
        gather = jax.jit(lambda x: x, out_shardings=replicated(self.mesh))
        return lambda values: jax.device_get(gather(values))

    def program_of(self, batch: Any) -> str:
        """Return the name of the program that a batch's step runs."""
        del batch
        return "step"

    def inference_values(self, state: TrainState) -> Values:
        """What evaluation and export use: the moving average where it is on."""
        params = state.ema or state.params[self.main]
        return {**params, **state.extra.get("buffers", {})}

    def describe(self) -> dict[str, Any]:
        """Return what makes the model again from its `inference_values`."""
        return describe(self.model)

    def models(self, values: Any) -> dict[str, nnx.Module]:
        """Return what is exported, by the folder's name; "" is the run's one model."""
        return {"": self.network.bind(values)}

    def shardings(self, tree: Any) -> Any:
        """Return where each array of a tree lives, known by its name."""
        named: dict[str, cuts.Cut] = {}
        for group in self.cuts.values():
            named |= group
        return cuts.shardings_like(tree, named, self.mesh)

    @cached_property
    def _jitted(self) -> Any:
        return jax.jit(
            self._step,
            donate_argnums=(0,),
            in_shardings=(self.state_sharding, self.batch_sharding, None),
            out_shardings=(self.state_sharding, replicated(self.mesh)),
        )

    def _init(self) -> TrainState:
        train = self.config.train
        networks_key, noise_key = jax.random.split(jax.random.key(train.seed))
        params, extra = self.initial(networks_key)
        averaged = train.ema_decay > 0
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params[self.main]) if averaged else {},
            extra=extra,
            opt_state={
                name: player.optimizer.init(player.group(params))
                for name, player in self.players.items()
            },
            key=jax.random.key_data(noise_key),
        )

    def _average(self, ema: Any, params: Any, step: jax.Array) -> Any:
        return move_average(ema, params, self.config.train.ema_decay, step)

    def _step(self, state: TrainState, batch: Batch, frozen: Any):
        grads, extra, added, metrics = self.gradients(state, batch, frozen)
        params, opt_state = dict(state.params), {}
        for name, player in self.players.items():
            gradient = player.group(grads)
            group, opt_state[name] = player.move(
                state.step, player.group(state.params), state.opt_state[name], gradient
            )
            params.update(group)
            metrics[f"grad_norm_{name}"] = optax.tree.norm(gradient)
        for name, move in added.items():
            params[self.main] = {
                **params[self.main],
                name: params[self.main][name] + move,
            }
        metrics["learning_rate"] = jnp.float32(self.schedule(state.step))
        ema = state.ema
        if ema:
            ema = self._average(ema, params[self.main], state.step)
            for name, move in added.items():
                # What restarted elsewhere has no past to average with.
                moved = jnp.any(move != 0, axis=-1, keepdims=True)
                ema = {
                    **ema,
                    name: jnp.where(moved, params[self.main][name], ema[name]),
                }
        state = TrainState(state.step + 1, params, ema, extra, opt_state, state.key)
        return state, metrics

"""The training step as a program on a mesh: compiled once, state in, state out."""

from functools import cached_property, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh

from deepprism_jax import losses
from deepprism_jax.layers.functional import Functional, Values, values_of
from deepprism_jax.losses import PerceptualDistance
from deepprism_jax.training import cuts
from deepprism_jax.training.config import Config
from deepprism_jax.training.evaluation import reconstruct_pixels
from deepprism_jax.training.gradients import Gradients, cutting_channels
from deepprism_jax.training.networks import (
    make_autoencoder,
    make_discriminator,
    make_perceptual,
)
from deepprism_jax.training.optimizer import make_optimizer, make_schedule
from deepprism_jax.training.preflight import as_steps
from deepprism_jax.training.sharding import (
    BATCH_AXES,
    batch_parts,
    data_part,
    place_batch,
    replicated,
    split_batch,
    spread,
)
from deepprism_jax.training.state import TrainState, move_average
from deepprism_jax.training.step import AdversarialPlan, Objective

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class Trainer:
    """Initial state, training step and reconstruction of one experiment on one mesh.

    The step is pure: randomness is folded from the state's key and step, the noise
    of an image from its place in the global batch. So a run does not depend on how many
    devices share the batch, but for the order of float additions.

    Args:
        config: the experiment.
        mesh: its devices.
        perceptual: the perceptual distance, where it is not to be read from the files
            that the configuration names.

    Raises:
        ValueError, FileNotFoundError: the configuration's networks cannot be made.
    """

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        perceptual: PerceptualDistance | None = None,
    ):
        self.config = config
        self.mesh = mesh
        train, loss = config.train, config.loss
        self.perceptual = perceptual or make_perceptual(config)
        self.autoencoder = Functional(
            nnx.eval_shape(lambda: make_autoencoder(config, nnx.Rngs(0)))
        )
        self.discriminator = None
        if loss.adversarial_weight > 0:
            self.discriminator = Functional(
                nnx.eval_shape(lambda: make_discriminator(config, nnx.Rngs(0)))
            )
        plan = AdversarialPlan(
            start=as_steps(loss.adversarial_start, train.steps),
            ramp=as_steps(loss.adversarial_ramp, train.steps),
            warmup=as_steps(loss.discriminator_warmup, train.steps),
        )
        self._begins = {"autoencoder": 0, "discriminator": plan.first_step}
        self._optimizers: dict[str, optax.GradientTransformation] = {}
        schedule = partial(make_schedule, config.optimizer, batch_size=train.batch_size)
        self.schedule = schedule(steps=train.steps)
        shapes = self._parameter_shapes()
        for player, ratio in (
            ("autoencoder", 1.0),
            ("discriminator", config.optimizer.discriminator_ratio),
        ):
            if player in shapes:
                # Steps are counted from the first one that the player trains in.
                steps = max(train.steps - self._begins[player], 1)
                self._optimizers[player] = make_optimizer(
                    config.optimizer,
                    schedule(steps=steps, ratio=ratio),
                    self._group(shapes, player),
                )
        self.objective = Objective(
            autoencoder=self.autoencoder,
            discriminator=self.discriminator,
            perceptual=self.perceptual,
            loss=loss,
            plan=plan,
            axis_name=BATCH_AXES,
        )
        self.cuts = self._cuts()
        self._gradients = Gradients(
            self.objective,
            mesh,
            self.cuts,
            accumulation=train.accumulation,
            remat=train.remat,
            fields=self._fields,
        )
        self._frozen = None if self.perceptual is None else self.perceptual.frozen

    @cached_property
    def state_shapes(self) -> TrainState:
        """Shapes and types of the state, of which nothing is computed."""
        return jax.eval_shape(self._init)

    @cached_property
    def state_sharding(self) -> TrainState:
        """Where each array of the state lives."""
        return self._shardings(self.state_shapes)

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
        return self._shardings(self.autoencoder.shapes)

    @property
    def batch_sharding(self) -> Any:
        """Where a batch lives."""
        return split_batch(self.mesh)

    @cached_property
    def model(self) -> Any:
        """The autoencoder without values: its options, checks and factor."""
        return nnx.eval_shape(lambda: make_autoencoder(self.config, nnx.Rngs(0)))

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

    def init(self) -> TrainState:
        """The state before the first step, on the mesh."""
        # Drawn outside of jit, where the random numbers of a shape are compiled once
        # for all kernels of that shape; one program would compile each of them anew.
        place = jax.jit(lambda state: state, out_shardings=self.state_sharding)
        return place(jax.device_get(self._init()))

    @cached_property
    def step(self) -> Any:
        """`(state, {"image": uint8 [B, H, W, C]}) -> (state, metrics)`, compiled.

        The batch is one of `shard_pieces`.

        The state is donated: the one passed in must not be used again. Metrics are
        float32 scalars on the device, means over the batch.
        """
        return lambda state, batch: self._jitted(state, batch, self._frozen)

    def lower_step(self) -> jax.stages.Lowered:
        """The step of this configuration, lowered and not run: for plans of memory."""
        data, batch_size = self.config.data, self.config.train.batch_size
        shape = (batch_size, *data.image_size, data.channels)
        batch = {"image": jax.ShapeDtypeStruct(shape, jnp.uint8)}
        return self._jitted.lower(self.state_shapes, batch, self._frozen)

    @cached_property
    def _jitted(self) -> Any:
        return jax.jit(
            self._step,
            donate_argnums=(0,),
            in_shardings=(self.state_sharding, self.batch_sharding, None),
            out_shardings=(self.state_sharding, replicated(self.mesh)),
        )

    def inference_values(self, state: TrainState) -> Values:
        """What evaluation and export use: the moving average where it is on."""
        params = state.ema or state.params["autoencoder"]
        return {**params, **state.extra["buffers"]}

    @cached_property
    def reconstruct(self) -> Any:
        """`(values, uint8 images) -> uint8 images`: the most likely code, decoded."""
        cut = self._cut_each(self.autoencoder)

        def local(values: Values, images: jax.Array) -> jax.Array:
            with cutting_channels(self.mesh, self._fields):
                own = cuts.whole(cut, values)
                return reconstruct_pixels(self.autoencoder, own, images)

        on_all = spread(self.mesh, local, cuts.specs_of(cut))
        return jax.jit(
            lambda values, images: on_all(cuts.fold(cut, values), images),
            in_shardings=(self.values_sharding, self.batch_sharding),
            out_shardings=self.batch_sharding,
        )

    def _init(self) -> TrainState:
        config = self.config
        networks_key, noise_key = jax.random.split(jax.random.key(config.train.seed))
        rngs = nnx.Rngs(networks_key)
        values = values_of(make_autoencoder(config, rngs))
        params: dict[str, Any] = {
            "autoencoder": {name: values[name] for name in self.autoencoder.parameters}
        }
        buffers = {name: values[name] for name in self.autoencoder.buffers}
        if self.discriminator is not None:
            params["discriminator"] = values_of(make_discriminator(config, rngs))
        if self.perceptual is not None and self.perceptual.learnable:
            params["perceptual"] = {"layer_weights": self.perceptual.init()}
        extra: dict[str, Any] = {"buffers": buffers}
        if self.discriminator is not None and config.loss.lecam_weight > 0:
            extra["lecam"] = losses.lecam_init()._asdict()
        averaged = config.train.ema_decay > 0
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params["autoencoder"]) if averaged else {},
            extra=extra,
            opt_state={
                player: optimizer.init(self._group(params, player))
                for player, optimizer in self._optimizers.items()
            },
            key=jax.random.key_data(noise_key),
        )

    @property
    def _fields(self) -> int:
        """Fields of every feature map."""
        model = self.config.model
        return model.fields if model.conv == "deepprism" else 1

    def _cuts(self) -> dict[str, Any]:
        """How each parameter is cut, a tree like `TrainState.params`."""
        each = self._cut_each(self.autoencoder)
        found = {
            "autoencoder": {name: each[name] for name in self.autoencoder.parameters}
        }
        if self.discriminator is not None:
            found["discriminator"] = self._cut_each(self.discriminator)
        if self.perceptual is not None and self.perceptual.learnable:
            found["perceptual"] = {"layer_weights": cuts.WHOLE}
        return found

    def _cut_each(self, network: Functional) -> dict[str, cuts.Cut]:
        axes = network.channel_axes
        return {
            name: cuts.make_cut(
                x.shape, self.mesh, channel=axes[name], fields=self._fields
            )
            for name, x in network.shapes.items()
        }

    def _shardings(self, tree: Any) -> Any:
        named: dict[str, cuts.Cut] = {}
        for group in self.cuts.values():
            named |= group
        return cuts.shardings_like(tree, named, self.mesh)

    def _parameter_shapes(self) -> dict[str, Any]:
        shapes: dict[str, Any] = {
            "autoencoder": {
                name: self.autoencoder.shapes[name]
                for name in self.autoencoder.parameters
            }
        }
        if self.discriminator is not None:
            shapes["discriminator"] = self.discriminator.shapes
        return shapes

    @staticmethod
    def _group(params: dict[str, Any], player: str) -> dict[str, Any]:
        """What one optimizer trains: the layer weights w_l go with the autoencoder."""
        members = {
            "autoencoder": ("autoencoder", "perceptual"),
            "discriminator": ("discriminator",),
        }[player]
        return {name: params[name] for name in members if name in params}

    def _step(self, state: TrainState, batch: Batch, frozen: Any):
        grads, extra, revived, metrics = self._gradients(state, batch["image"], frozen)
        params, opt_state = dict(state.params), {}
        for player, optimizer in self._optimizers.items():
            group, gradient = (
                self._group(tree, player) for tree in (state.params, grads)
            )
            group, opt_state[player] = self._move(
                player,
                optimizer,
                state.step,
                (group, state.opt_state[player], gradient),
            )
            params.update(group)
            metrics[f"grad_norm_{player}"] = optax.tree.norm(gradient)
        for name, move in revived.items():
            params["autoencoder"] = {
                **params["autoencoder"],
                name: params["autoencoder"][name] + move,
            }
        metrics["learning_rate"] = jnp.float32(self.schedule(state.step))
        ema = state.ema
        if ema:
            decay = self.config.train.ema_decay
            ema = move_average(ema, params["autoencoder"], decay, state.step)
            for name, move in revived.items():
                # A code that restarted elsewhere has no past to average with.
                moved = jnp.any(move != 0, axis=-1, keepdims=True)
                now = params["autoencoder"][name]
                ema = {**ema, name: jnp.where(moved, now, ema[name])}
        state = TrainState(state.step + 1, params, ema, extra, opt_state, state.key)
        return state, metrics

    def _move(self, player: str, optimizer: Any, step: jax.Array, operands: Any):
        """Take one step of a player; before its first one, nothing of it changes."""

        def update(operands):
            group, opt_state, gradient = operands
            updates, opt_state = optimizer.update(gradient, opt_state, group)
            return cast(Any, optax.apply_updates(group, updates)), opt_state

        begin = self._begins[player]
        if begin == 0:
            return update(operands)
        return lax.cond(step >= begin, update, lambda held: held[:2], operands)

"""Denoisers of single images as a training step on a mesh: one model, or many."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deepprism_jax.layers.functional import Functional, Values, values_of
from deepprism_jax.layers.remat import rematerializing
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.training.optimizer import make_optimizer, make_schedule
from deepprism_jax.training.preflight import naming_options
from deepprism_jax.training.sharding import replicated
from deepprism_jax.training.sinddm.config import SinDDMConfig
from deepprism_jax.training.sinddm.objective import (
    MODELS_AXIS,
    DenoisingGradients,
    DenoisingLoss,
    over_models,
    stack,
)
from deepprism_jax.training.sinddm.process import make_process
from deepprism_jax.training.state import TrainState
from deepprism_jax.training.trainer import Player, Trainer
from deepprism_jax.weights.pretrained import MODELS, describe

_BY_MODEL = PartitionSpec(MODELS_AXIS)


class SinDDMTrainer(Trainer):
    """Initial state and training step of one denoiser for each image.

    Every array of parameters, moving average and optimizer has one row a model, also
    where there is one. Models begin alike and see the same noise: each is trained as it
    would be alone.

    Args:
        config: the experiment.
        mesh: its devices: models over `data`, copies of an image over `fsdp`.
        pictures: images, uint8 [h, w, c] of one size, by name.

    Raises:
        ValueError: the configuration's network or pyramid cannot be made.
    """

    main = "denoiser"
    config: SinDDMConfig

    def __init__(
        self, config: SinDDMConfig, mesh: Mesh, pictures: Mapping[str, np.ndarray]
    ):
        self.config, self.mesh = config, mesh
        self.names = tuple(pictures)
        pairs = [make_process(config, image) for image in pictures.values()]
        self.process = pairs[0][1]
        """Sizes and schedule, which are the same for all; blur and T_s of the first."""
        self.model = nnx.eval_shape(lambda: make_denoiser(config, nnx.Rngs(0)))
        self.network = Functional(self.model)
        self.cuts = {}
        train, optimizer = config.train, config.optimizer
        self.schedule = make_schedule(
            optimizer, batch_size=train.batch_size, steps=train.steps
        )
        one = make_optimizer(optimizer, self.schedule, self.network.shapes)
        moving = _of_many(one, mesh, vectorize=optimizer.name != "soap")
        self.players = {self.main: Player((self.main,), moving)}
        options = config.diffusion
        self.loss = DenoisingLoss(
            self.network, self.process.schedule, options.target, options.loss
        )
        sizes = self.process.sizes
        self._gradients = DenoisingGradients(
            self.loss,
            mesh,
            sizes,
            config.data.channels,
            train.batch_size,
            vectorize=mesh.devices.flat[0].platform != "cpu",
        )
        self._pictures = stack(pairs)
        self._programs: dict[int, Any] = {}

    @cached_property
    def frozen(self) -> Any:
        """Pyramids and processes, those of its models on each device."""
        sharding = self._models_sharding

        def place(x: np.ndarray) -> jax.Array:
            return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])

        return jax.tree.map(place, self._pictures)

    def initial(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same parameters for every model."""
        values = values_of(make_denoiser(self.config, nnx.Rngs(key)))
        count = len(self.names)
        many = {name: jnp.stack([x] * count) for name, x in values.items()}
        return {self.main: many}, {}

    def gradients(self, state: TrainState, batch: Mapping[str, Any], frozen: Any):
        """Gradients of all models at the scale that is all there is in a batch."""
        with rematerializing(self.config.train.remat):
            grads, loss = self._gradients(
                state.params[self.main], state.key, state.step, frozen, batch["scale"]
            )
        return {self.main: grads}, state.extra, {}, {"loss": loss}

    def shard_pieces(self, batch: Any) -> Any:
        """The batch: a scale, which chooses a program."""
        return batch

    def program_of(self, batch: Any) -> str:
        """The step of each scale is a program of its own."""
        return f"the step of scale {batch['scale']}, step"

    def step(self, state: TrainState, batch: Any) -> Any:
        """Take a step of the scale that a batch names; see `Trainer.step`."""
        return self._program(batch["scale"])(state, self.frozen)

    def lower_step(self) -> jax.stages.Lowered:
        """The step of the finest scale, lowered and not run: for plans of memory."""
        described = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=self._models_sharding
            ),
            self._pictures,
        )
        finest = len(self.process.sizes) - 1
        return self._program(finest).lower(self.state_shapes, described)

    @cached_property
    def state_sharding(self) -> TrainState:
        """Each device has its models; what is of the run is on all."""

        def everywhere(tree: Any) -> Any:
            return jax.tree.map(lambda _: replicated(self.mesh), tree)

        def by_model(tree: Any) -> Any:
            return jax.tree.map(lambda _: self._models_sharding, tree)

        shapes = self.state_shapes
        return everywhere(shapes)._replace(
            params=by_model(shapes.params),
            ema=by_model(shapes.ema),
            opt_state=by_model(shapes.opt_state),
        )

    def inference_values(self, state: TrainState) -> Values:
        """What evaluation and export use; of one model without the row."""
        values = state.ema or state.params[self.main]
        return _only(values) if len(self.names) == 1 else values

    def describe(self) -> dict[str, Any]:
        """What makes the model again, and where they are many whose each row is."""
        if len(self.names) == 1:
            return describe(self.model)
        return {**describe(self.model), MODELS: list(self.names)}

    def models(self, values: Any) -> dict[str, nnx.Module]:
        """Return the models, by the names of their images where they are many."""
        if len(self.names) == 1:
            return {"": self.network.bind(values)}
        return {
            name: self.network.bind({key: x[row] for key, x in values.items()})
            for row, name in enumerate(self.names)
        }

    def _average(self, ema: Any, params: Any, step: jax.Array) -> Any:
        """Each device averages its own models, as one vector of them all."""
        specs = _BY_MODEL, _BY_MODEL, PartitionSpec()
        return _on_their_device(super()._average, self.mesh, specs)(ema, params, step)

    def _program(self, scale: int) -> Any:
        """The step of one scale, compiled when it is first taken."""
        if scale not in self._programs:
            self._programs[scale] = self._compiled(scale)
        return self._programs[scale]

    def _compiled(self, scale: int) -> Any:
        def step(state: TrainState, frozen: Any) -> Any:
            return self._step(state, {"scale": scale}, frozen)

        return jax.jit(
            step,
            donate_argnums=(0,),
            in_shardings=(self.state_sharding, None),
            out_shardings=(self.state_sharding, replicated(self.mesh)),
        )

    @property
    def _models_sharding(self) -> NamedSharding:
        return NamedSharding(self.mesh, _BY_MODEL)


@jax.jit
def _only(values: Values) -> Values:
    return {name: x[0] for name, x in values.items()}


def make_denoiser(config: SinDDMConfig, rngs: nnx.Rngs) -> SinDDM:
    """The denoiser of `config.model` for images of `config.data`.

    Raises:
        ValueError: the values contradict each other; names the options.
    """
    with naming_options(config, "model"):
        return SinDDM(
            **asdict(config.model),
            image_channels=config.data.channels,
            dtype=config.train.dtype,
            rngs=rngs,
        )


def _on_their_device(
    function: Callable[..., Any], mesh: Mesh, in_specs: Any
) -> Callable[..., Any]:
    """Let each device call a function of models with its own of them."""
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=_BY_MODEL, check_vma=False
    )


def _of_many(
    one: optax.GradientTransformation, mesh: Mesh, *, vectorize: bool
) -> optax.GradientTransformation:
    """Let an optimizer move each model by itself, its clipping too.

    Each device moves its own models: at once, or where what is done once in some steps
    would then be done in each, one after the other.
    """

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        move = over_models(one.update, vectorize=vectorize)
        return _on_their_device(move, mesh, _BY_MODEL)(updates, state, params)

    return optax.GradientTransformation(over_models(one.init, vectorize=True), update)

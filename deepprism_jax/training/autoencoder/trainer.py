"""An autoencoder with its losses, as a training step on a mesh."""

from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from deepprism_jax import losses
from deepprism_jax.layers.functional import Functional, Values, values_of
from deepprism_jax.losses import PerceptualDistance
from deepprism_jax.training import cuts
from deepprism_jax.training.autoencoder.networks import (
    make_autoencoder,
    make_discriminator,
    make_perceptual,
)
from deepprism_jax.training.autoencoder.objective import AdversarialPlan, Objective
from deepprism_jax.training.config import Config
from deepprism_jax.training.evaluation import reconstruct_pixels
from deepprism_jax.training.gradients import Gradients, cutting_channels
from deepprism_jax.training.optimizer import make_optimizer, make_schedule
from deepprism_jax.training.preflight import as_steps
from deepprism_jax.training.sharding import (
    BATCH_AXES,
    spread,
)
from deepprism_jax.training.state import TrainState
from deepprism_jax.training.trainer import Batch, Player, Trainer

MEMBERS = {
    "autoencoder": ("autoencoder", "perceptual"),
    "discriminator": ("discriminator",),
}
"""What each optimizer trains: the layer weights w_l go with the autoencoder."""


class AutoencoderTrainer(Trainer):
    """Initial state, training step and reconstruction of an autoencoder.

    Args:
        config: the experiment.
        mesh: its devices.
        perceptual: the perceptual distance, where it is not to be read from the files
            that the configuration names.

    Raises:
        ValueError, FileNotFoundError: the configuration's networks cannot be made.
    """

    main = "autoencoder"
    config: Config

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
        self.model = nnx.eval_shape(lambda: make_autoencoder(config, nnx.Rngs(0)))
        self.network = Functional(self.model)
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
        schedule = partial(make_schedule, config.optimizer, batch_size=train.batch_size)
        self.schedule = schedule(steps=train.steps)
        self.players = {}
        shapes = self._parameter_shapes()
        for name, ratio, begins in (
            ("autoencoder", 1.0, 0),
            ("discriminator", config.optimizer.discriminator_ratio, plan.first_step),
        ):
            if name in shapes:
                # Steps are counted from the first one that the player trains in.
                steps = max(train.steps - begins, 1)
                optimizer = make_optimizer(
                    config.optimizer, schedule(steps=steps, ratio=ratio), shapes[name]
                )
                self.players[name] = Player(MEMBERS[name], optimizer, begins)
        self.objective = Objective(
            autoencoder=self.network,
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
        self.frozen = None if self.perceptual is None else self.perceptual.frozen

    def gradients(self, state: TrainState, batch: Batch, frozen: Any):
        """Mean gradients over `{"image": uint8 [B, H, W, C]}`; see `Gradients`."""
        return self._gradients(state, batch["image"], frozen)

    def batch_shapes(self) -> Any:
        """Shapes and types of a batch."""
        data, batch_size = self.config.data, self.config.train.batch_size
        shape = (batch_size, *data.image_size, data.channels)
        return {"image": jax.ShapeDtypeStruct(shape, jnp.uint8)}

    @cached_property
    def reconstruct(self) -> Any:
        """`(values, uint8 images) -> uint8 images`: the most likely code, decoded."""
        cut = self._cut_each(self.network)

        def local(values: Values, images: jax.Array) -> jax.Array:
            with cutting_channels(self.mesh, self._fields):
                own = cuts.whole(cut, values)
                return reconstruct_pixels(self.network, own, images)

        on_all = spread(self.mesh, local, cuts.specs_of(cut))
        return jax.jit(
            lambda values, images: on_all(cuts.fold(cut, values), images),
            in_shardings=(self.values_sharding, self.batch_sharding),
            out_shardings=self.batch_sharding,
        )

    def initial(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters of all networks, the codebook's buffers, LeCam's averages."""
        config, rngs = self.config, nnx.Rngs(key)
        values = values_of(make_autoencoder(config, rngs))
        params: dict[str, Any] = {
            "autoencoder": {name: values[name] for name in self.network.parameters}
        }
        buffers = {name: values[name] for name in self.network.buffers}
        if self.discriminator is not None:
            params["discriminator"] = values_of(make_discriminator(config, rngs))
        if self.perceptual is not None and self.perceptual.learnable:
            params["perceptual"] = {"layer_weights": self.perceptual.init()}
        extra: dict[str, Any] = {"buffers": buffers}
        if self.discriminator is not None and config.loss.lecam_weight > 0:
            extra["lecam"] = losses.lecam_init()._asdict()
        return params, extra

    @property
    def _fields(self) -> int:
        """Fields of every feature map."""
        model = self.config.model
        return model.fields if model.conv == "deepprism" else 1

    def _cuts(self) -> dict[str, Any]:
        each = self._cut_each(self.network)
        found = {"autoencoder": {name: each[name] for name in self.network.parameters}}
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

    def _parameter_shapes(self) -> dict[str, Any]:
        shapes: dict[str, Any] = {"autoencoder": self.network.parameter_shapes}
        if self.discriminator is not None:
            shapes["discriminator"] = self.discriminator.shapes
        return shapes

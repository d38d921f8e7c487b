"""A denoiser of latents as a training step on a mesh."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from deepprism_jax.analysis.parameters import is_of_time
from deepprism_jax.diffusion.schedules import make_schedule as make_noise_schedule
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.training import cuts
from deepprism_jax.training.gradients import Gradients
from deepprism_jax.training.ldm.config import LDMConfig
from deepprism_jax.training.ldm.networks import latent_shape, make_unet
from deepprism_jax.training.ldm.objective import LatentDenoising
from deepprism_jax.training.optimizer import make_optimizer, make_schedule
from deepprism_jax.training.state import TrainState
from deepprism_jax.training.trainer import Batch, Player, Trainer

MEAN, STD = "latent_mean", "latent_std"
"""Buffers of the U-Net: what latents are normalised by."""


class LDMTrainer(Trainer):
    """Initial state and training step of a U-Net.

    Args:
        config: the experiment.
        mesh: its devices.
        autoencoder: whose latents are diffused; None where pixels are, or where nothing
            is to be computed.
        certain: latents have no standard deviation.

    Raises:
        ValueError: the U-Net cannot be made, or does not take the latents.
    """

    main = "denoiser"
    config: LDMConfig

    def __init__(
        self, config: LDMConfig, mesh: Mesh, autoencoder: Any = None, *, certain: bool
    ):
        self.config, self.mesh = config, mesh
        self.autoencoder, self._certain = autoencoder, certain
        self.moments: tuple[np.ndarray, np.ndarray] | None = None
        """Mean and standard deviation of the latents by channel, once they are known;
        not needed to go on from a checkpoint, which has them."""
        self.model = nnx.eval_shape(lambda: make_unet(config, nnx.Rngs(0)))
        self.model.check_latent(latent_shape(config))
        self.network = Functional(self.model)
        shapes = self.network.parameter_shapes
        self.cuts = {
            self.main: {
                name: cuts.make_cut(x.shape, mesh) for name, x in shapes.items()
            }
        }
        train = config.train
        self.schedule = make_schedule(
            config.optimizer, batch_size=train.batch_size, steps=train.steps
        )
        optimizer = optax.chain(
            make_optimizer(config.optimizer, self.schedule, shapes),
            slower(is_of_time, config.optimizer.time_ratio),
        )
        self.players = {self.main: Player((self.main,), optimizer)}
        noise = config.diffusion
        self.objective = LatentDenoising(
            self.network,
            make_noise_schedule(noise.schedule, noise.times),
            noise.target,
            min_snr=noise.min_snr,
            class_dropout=noise.class_dropout,
            classes=config.model.classes,
        )
        self._gradients = Gradients(
            self.objective,
            mesh,
            self.cuts,
            accumulation=train.accumulation,
            remat=train.remat,
        )

    def gradients(self, state: TrainState, batch: Batch, frozen: Any):
        """Mean gradients over a batch; see `LatentDenoising`."""
        return self._gradients(state, dict(batch), frozen)

    def initial(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters, and the moments of the latents as buffers."""
        values = values_of(make_unet(self.config, nnx.Rngs(key)))
        params = {name: values[name] for name in self.network.parameters}
        buffers = {name: values[name] for name in self.network.buffers}
        if self.moments is not None:
            for name, moment in zip((MEAN, STD), self.moments, strict=True):
                buffers[name] = jnp.asarray(moment)
        return {self.main: params}, {"buffers": buffers}

    def batch_shapes(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch, as the data have them."""
        config, count = self.config, self.config.train.batch_size
        found: dict[str, jax.ShapeDtypeStruct] = {}
        if not config.autoencoder.path:
            shape = (count, *config.data.image_size, config.data.channels)
            found["image"] = jax.ShapeDtypeStruct(shape, jnp.uint8)
        else:
            names = ("mean",) if self._certain else ("mean", "std")
            latents = jax.ShapeDtypeStruct((count, *latent_shape(config)), jnp.float16)
            found |= dict.fromkeys(names, latents)
        if config.model.classes:
            found["label"] = jax.ShapeDtypeStruct((count,), jnp.int32)
        return found


def slower(which: Callable[[str], bool], ratio: float) -> optax.GradientTransformation:
    """Scale the moves of some parameters, by name: a learning rate of their own."""

    def scale(moves: Any, params: Any) -> Any:
        del params
        return {name: x * ratio if which(name) else x for name, x in moves.items()}

    return optax.stateless(scale)

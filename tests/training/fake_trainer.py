"""A trainer of one number, which needs no time to compile, in place of a real one."""

import jax
import jax.numpy as jnp
from flax import nnx

from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.training.autoencoder.trainer import AutoencoderTrainer
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.training.state import TrainState
from deepprism_jax.weights.pretrained import PretrainedMixin


class Gain(PretrainedMixin, nnx.Module):
    """A stand-in autoencoder: pixels times one learned number."""

    def __init__(self, *, start=0.0, rngs):
        del rngs
        self.options = nnx.static({"start": start})
        self.gain = nnx.Param(jnp.full((), start))


class FakeTrainer(AutoencoderTrainer):
    """Learns the mean of the pixels, with noise; its loss can be made to break."""

    bad_loss_at = bad_state_at = -1

    def __init__(self, config):
        self.config, self.mesh = config, make_mesh()
        self.model = nnx.eval_shape(lambda: Gain(rngs=nnx.Rngs(0)))
        self.network = Functional(self.model)
        self.cuts = {}
        self.step = jax.jit(self._step, donate_argnums=0)
        self.reconstruct = jax.jit(lambda values, images: images // 2)

    def inference_values(self, state):
        return state.ema

    def _init(self):
        values = values_of(Gain(rngs=nnx.Rngs(0)))
        return TrainState(
            step=jnp.int32(0),
            params={"autoencoder": values},
            ema=jax.tree.map(jnp.copy, values),
            extra={"buffers": {}},
            opt_state={"autoencoder": ({}, jax.tree.map(jnp.zeros_like, values))},
            key=jax.random.key_data(jax.random.key(self.config.train.seed)),
        )

    def _step(self, state, batch):
        number = state.step + 1
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        target = jnp.mean(batch["image"] / 255.0) + 0.1 * jax.random.normal(key)
        gain = state.params["autoencoder"]["gain"]
        loss = jnp.where(number == self.bad_loss_at, jnp.nan, (gain - target) ** 2)
        gain = gain + 0.1 * (target - gain)
        gain = jnp.where(number == self.bad_state_at, jnp.inf, gain)
        params = {"autoencoder": {"gain": gain}}
        ema = {"gain": 0.5 * (state.ema["gain"] + gain)}
        return state._replace(step=number, params=params, ema=ema), {"kl": loss}

"""The loss of latent diffusion against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.analysis.parameters import is_of_time
from deepprism_jax.diffusion.prediction import target_of
from deepprism_jax.diffusion.schedules import cosine, linear
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.training.ldm.objective import LatentDenoising, min_snr_weight
from deepprism_jax.training.ldm.trainer import slower


class Constant(nnx.Module):
    """Predicts one number, and for each label another."""

    def __init__(self):
        self.number = nnx.Param(jnp.zeros(()))
        self.of_label = nnx.Param(jnp.zeros((4,)))
        self.latent_mean = nnx.Variable(jnp.float32(2.0))
        self.latent_std = nnx.Variable(jnp.float32(3.0))

    def normalize(self, z):
        return (z - self.latent_mean[...]) / self.latent_std[...]

    def __call__(self, x, t, labels, *, dropout_keys=None):
        del t, dropout_keys
        number = self.number[...]
        if labels is not None:
            number = number + self.of_label[...][labels][:, None, None, None]
        return jnp.broadcast_to(number, x.shape)


def objective(**options):
    network = Functional(Constant())
    return LatentDenoising(network, cosine(100), "eps", **options)


def gradients(loss, batch, keys=512):
    values = values_of(Constant())
    params = {"denoiser": {n: values[n] for n in ("number", "of_label")}}
    buffers = {n: values[n] for n in ("latent_mean", "latent_std")}
    keys = jax.random.split(jax.random.key(0), keys)
    grads, _, _, metrics = jax.jit(loss.gradients)(
        params, {"buffers": buffers}, None, batch, keys, keys[0], 0
    )
    return grads["denoiser"], metrics["loss"]


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_min_snr_is_one_weight_of_the_error_of_x0(target):
    schedule = linear(50)
    alpha, sigma = map(jnp.asarray, schedule)
    x0, eps, guess = jax.random.normal(jax.random.key(0), (3, 50))
    # A guess of x0 implies one of eps, and so of v, for the same x_t.
    x_t = alpha * x0 + sigma * eps
    implied = (x_t - alpha * guess) / sigma
    error = np.square(
        target_of(target, guess, implied, alpha, sigma)
        - target_of(target, x0, eps, alpha, sigma)
    )
    weight = min_snr_weight(alpha, sigma, target, 5.0)
    snr = (alpha / sigma) ** 2
    np.testing.assert_allclose(
        weight * error, np.minimum(snr, 5.0) * np.square(guess - x0), rtol=1e-3
    )


def test_latents_are_drawn_and_normalised():
    loss = LatentDenoising(Functional(Constant()), cosine(100), "x0")
    shape = (512, 4, 4, 3)
    batch = {
        "mean": jnp.full(shape, 5.0, jnp.float16),
        "std": jnp.full(shape, 1.5, jnp.float16),
    }
    # x0 is normal with mean (5 - 2) / 3 and deviation 1.5 / 3: E x0^2 = 1 + 1 / 4.
    _, found = gradients(loss, batch)
    np.testing.assert_allclose(found, 1.25, rtol=0.02)
    grads, found = gradients(loss, {"mean": batch["mean"]})
    np.testing.assert_allclose(found, 1.0, rtol=1e-6)
    np.testing.assert_allclose(grads["number"], -2.0, rtol=1e-6)


def test_labels_are_withheld_at_the_rate_that_was_asked_for():
    loss = LatentDenoising(
        Functional(Constant()), cosine(100), "x0", class_dropout=0.25, classes=3
    )
    batch = {
        "mean": jnp.full((4096, 1, 1, 1), 5.0, jnp.float16),
        "label": jnp.array([0, 1, -1, 1] * 1024, jnp.int32),
    }
    grads, _ = gradients(loss, batch, 4096)
    # The gradient of each label's number is -2 times its share.
    expected = [0.25 * 0.75, 0.5 * 0.75, 0.0, 0.25 + 0.75 * 0.25]
    np.testing.assert_allclose(grads["of_label"] / -2.0, expected, atol=0.02)


def test_layers_of_the_time_have_a_learning_rate_of_their_own():
    names = [
        "conv_in.kernel",
        "condition.dense1.bias",
        "up.0.units.1.res.condition.gain",
    ]
    move = slower(is_of_time, 0.1)
    moves = {name: jnp.ones(()) for name in names}
    found, _ = move.update(moves, move.init(moves))
    np.testing.assert_allclose([found[name] for name in names], [1.0, 0.1, 0.1])

"""Regularisers of the discriminator: R1 and LeCam."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepprism_jax.typing import Scalar


def r1_penalty(
    critic: Callable[[Array], Array], images: Float[Array, "b h w c"]
) -> Scalar:
    """Half the mean squared gradient of the critic on real images.

        1/2 mean_b || d/dx_b sum_p D_p(x_b) ||^2 / P

    Mescheder et al., Which Training Methods for GANs do actually Converge? (2018),
    eq. (9) without its gamma, where `critic` maps images to P = 1 logit each. For a map
    of P patch logits the division by P makes it, as far as patches do not overlap, the
    mean over patches of the same penalty, so gamma does not depend on the image's size.
    """
    logits, pullback = jax.vjp(critic, images)
    (gradient,) = pullback(jnp.ones_like(logits))
    patches = logits.size // images.shape[0]
    squares = jnp.sum(jnp.square(gradient.astype(jnp.float32)), axis=(1, 2, 3))
    return 0.5 * jnp.mean(squares) / patches


class LeCamAverages(NamedTuple):
    """Moving averages of the discriminator's mean logits; both start at 0."""

    real: jax.Array
    fake: jax.Array


def lecam_init() -> LeCamAverages:
    """Return the averages before the first step."""
    return LeCamAverages(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))


def lecam_update(
    averages: LeCamAverages,
    real_logits: Float[Array, "*n"],
    fake_logits: Float[Array, "*m"],
    decay: float = 0.99,
) -> LeCamAverages:
    """Move both averages towards this batch's mean logits; carries no gradient.

    On a batch split over devices, average the result over them.
    """

    def move(average: Array, logits: Array) -> Array:
        mean = jnp.mean(jax.lax.stop_gradient(logits).astype(jnp.float32))
        return decay * average + (1.0 - decay) * mean

    return LeCamAverages(
        move(averages.real, real_logits), move(averages.fake, fake_logits)
    )


def lecam_regularizer(
    averages: LeCamAverages,
    real_logits: Float[Array, "*n"],
    fake_logits: Float[Array, "*m"],
) -> Scalar:
    """Keep each kind of logit from running away from the other's moving average.

        mean(relu(D(u) - a_fake)^2) + mean(relu(a_real - D(y))^2)

    Tseng et al., Regularizing Generative Adversarial Networks under Limited Data
    (2021), one-sided as in the authors' program: only logits on their own
    side of the other average are pulled back.
    """
    real = real_logits.astype(jnp.float32)
    fake = fake_logits.astype(jnp.float32)
    above = jax.nn.relu(real - jax.lax.stop_gradient(averages.fake))
    below = jax.nn.relu(jax.lax.stop_gradient(averages.real) - fake)
    return jnp.mean(jnp.square(above)) + jnp.mean(jnp.square(below))

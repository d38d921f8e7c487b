"""Adversarial losses of both players, and how their weight is set: eq. (9).

`logits` are the discriminator's outputs, of any shape: one number an image or a map of
one number a patch. All terms are means over them, in float32. Equation (9) prints one
conventional sign and the slides another; here the discriminator raises real logits and
lowers those of reconstructions, and the autoencoder raises the latter.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from deepprism_jax.typing import Scalar

AdversarialKind = Literal["hinge", "nonsaturating"]


def discriminator_loss(
    real_logits: Float[Array, "*n"],
    fake_logits: Float[Array, "*m"],
    kind: AdversarialKind = "hinge",
) -> Scalar:
    """Loss of the discriminator D on images u and reconstructions y.

    - hinge, eq. (9): mean(relu(1 - D(u))) + mean(relu(1 + D(y)))
    - nonsaturating (Goodfellow et al., 2014): -log sigmoid(D(u)) - log sigmoid(-D(y))

    The caller stops the gradient at y, so that only the discriminator learns.
    """
    real = real_logits.astype(jnp.float32)
    fake = fake_logits.astype(jnp.float32)
    match kind:
        case "hinge":
            return jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake))
        case "nonsaturating":
            return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
    raise ValueError(_unknown(kind))


def generator_loss(
    fake_logits: Float[Array, "*m"], kind: AdversarialKind = "hinge"
) -> Scalar:
    """Loss of the autoencoder against the discriminator D on its reconstructions y.

    - hinge, eq. (9): mean(-D(y))
    - nonsaturating: mean(-log sigmoid(D(y)))
    """
    fake = fake_logits.astype(jnp.float32)
    match kind:
        case "hinge":
            return -jnp.mean(fake)
        case "nonsaturating":
            return jnp.mean(jax.nn.softplus(-fake))
    raise ValueError(_unknown(kind))


def adaptive_weight(
    reconstruction_grad: PyTree[Float[Array, "..."]],
    adversarial_grad: PyTree[Float[Array, "..."]],
    max_weight: float = 1e4,
) -> Scalar:
    """Weight at which the adversarial gradient is as long as the reconstruction's.

        min(|| grad of reconstruction || / || grad of adversarial ||, max_weight)

    Both gradients are taken at the decoder's last layer (Esser et al., Taming
    Transformers, 2021, eq. 7). No gradient flows through the weight. Where the
    adversarial gradient is zero the weight is `max_weight`, and 0 if both are.
    """
    # The usual + 1e-4 below the line supposes gradients of summed losses; next to those
    # of averaged ones it would bias the ratio, and the clamp is guard enough.
    ratio = _norm(reconstruction_grad) / (_norm(adversarial_grad) + 1e-12)
    return jax.lax.stop_gradient(jnp.minimum(ratio, max_weight))


def adversarial_schedule(step: ArrayLike, start: ArrayLike, ramp: ArrayLike) -> Scalar:
    """Factor in [0, 1] on the adversarial weight; `step` may be traced.

    0 before step `start`, then rising linearly over `ramp` steps: 1 / ramp at `start`,
    1 from `start + ramp - 1` on. A ramp of 0 or 1 switches the term on at `start`.
    """
    elapsed = jnp.asarray(step, jnp.float32) - start + 1.0
    return jnp.clip(elapsed / jnp.maximum(ramp, 1.0), 0.0, 1.0)


def _norm(tree: PyTree) -> Array:
    squares = [
        jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)
    ]
    return jnp.sqrt(sum(squares, start=jnp.float32(0.0)))


def _unknown(kind: str) -> str:
    return f"unknown adversarial kind={kind!r}; choose 'hinge' or 'nonsaturating'"

"""Mean and variance of the channels of an image, and how they pull on it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.ops.native import half_block as native
from deepprism_jax.ops.native import library


class Moments(NamedTuple):
    """Mean and (biased) variance over height and width, a channel of an image."""

    mean: Float[Array, "b c"]
    variance: Float[Array, "b c"]


def moments(x: Float[Array, "b h w c"]) -> Moments:
    """Return the moments of every channel of every image, in float32."""
    return Moments(*_moments(x))


def plain_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and variance [B, C] by the operators of JAX."""
    # Deviations from the first position keep E[d^2] - E[d]^2 from cancelling.
    corner = x[:, :1, :1].astype(jnp.float32)
    d = x.astype(jnp.float32) - lax.stop_gradient(corner)
    mean = d.mean((1, 2))
    variance = jnp.maximum((d * d).mean((1, 2)) - mean * mean, 0.0)
    return mean + lax.stop_gradient(corner)[:, 0, 0], variance


def pull_on(
    y: Float[Array, "b h w c"],
    alpha: Float[Array, "b c"],
    beta: Float[Array, "b c"],
    g: Float[Array, "b h w c"],
) -> Float[Array, "b h w c"]:
    """Return what pulls on y: g, and alpha + beta * y through its moments."""
    pulls = g.astype(jnp.float32) + spread(alpha)
    return (pulls + spread(beta) * y.astype(jnp.float32)).astype(y.dtype)


def spread(coefficients: Float[Array, "b c"]) -> Float[Array, "b 1 1 c"]:
    """Return them as they meet a feature map."""
    return coefficients[:, None, None]


@jax.custom_vjp
def _moments(x):
    if not (library.loaded() and library.takes(x.shape[-1], x.dtype)):
        return plain_moments(x)
    return lax.platform_dependent(x, cpu=native.moments, default=plain_moments)


def _moments_saving(x):
    mean, variance = _moments(x)
    return (mean, variance), (x, mean)


def _moments_pull(saved, gradients):
    x, mean = saved
    g_mean, g_variance = gradients
    count = x.shape[1] * x.shape[2]
    slope = spread(g_variance * (2.0 / count))
    dx = (x.astype(jnp.float32) - spread(mean)) * slope + spread(g_mean / count)
    return (dx.astype(x.dtype),)


_moments.defvjp(_moments_saving, _moments_pull)

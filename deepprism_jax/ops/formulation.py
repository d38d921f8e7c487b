"""What a formulation of the channel convolution is: three bilinear functions."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from deepprism_jax.ops.geometry import Geometry

BilinearMap = Callable[[Geometry, jax.Array, jax.Array], jax.Array]


class Formulation(NamedTuple):
    """The convolution and its two adjoints.

    With x [B, H, W, C], kernel [K_H, K_W, K_C, F_in, F_out] and y, g [B, H', W', C']:
    `conv(x, kernel) -> y`, `input_gradient(g, kernel) -> like x`,
    `kernel_gradient(x, g) -> like kernel`.
    """

    conv: BilinearMap
    input_gradient: BilinearMap
    kernel_gradient: BilinearMap


def widened(x: jax.Array) -> jax.Array:
    """Return x in float32 or wider: sums are not kept in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def with_transposes(conv: BilinearMap) -> Formulation:
    """Complete a convolution by the adjoints that JAX derives from it."""
    # Only the types of the zeros are used; made like an operand, they have its mesh
    # axes inside `jax.shard_map` too.

    def input_gradient(geometry: Geometry, g: jax.Array, kernel: jax.Array):
        channels = geometry.fields_in * geometry.depth
        shape = (g.shape[0], geometry.height, geometry.width, channels)
        x = jnp.zeros_like(g, shape=shape)
        return jax.linear_transpose(lambda x: conv(geometry, x, kernel), x)(g)[0]

    def kernel_gradient(geometry: Geometry, x: jax.Array, g: jax.Array):
        kernel = jnp.zeros_like(x, shape=geometry.kernel_shape)
        return jax.linear_transpose(lambda k: conv(geometry, x, k), kernel)(g)[0]

    return Formulation(conv, input_gradient, kernel_gradient)

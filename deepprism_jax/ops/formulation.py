"""What a formulation of the channel convolution is: three bilinear functions."""

from collections.abc import Callable
from typing import NamedTuple

import jax

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


def with_transposes(conv: BilinearMap) -> Formulation:
    """Complete a convolution by the adjoints that JAX derives from it."""

    def input_gradient(geometry: Geometry, g: jax.Array, kernel: jax.Array):
        x = jax.ShapeDtypeStruct(
            (
                g.shape[0],
                geometry.height,
                geometry.width,
                geometry.fields_in * geometry.depth,
            ),
            g.dtype,
        )
        return jax.linear_transpose(lambda x: conv(geometry, x, kernel), x)(g)[0]

    def kernel_gradient(geometry: Geometry, x: jax.Array, g: jax.Array):
        kernel = jax.ShapeDtypeStruct(geometry.kernel_shape, x.dtype)
        return jax.linear_transpose(lambda k: conv(geometry, x, k), kernel)(g)[0]

    return Formulation(conv, input_gradient, kernel_gradient)

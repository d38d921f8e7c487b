"""Half a residual block by the TPU kernels, in the form that all platforms share."""

from functools import partial

import jax

from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.ops.moments import plain_moments, pull_on
from deepprism_jax.ops.pallas.backward import activated_backward
from deepprism_jax.ops.pallas.forward import activated_forward
from deepprism_jax.ops.pallas.tiles import fits as fits

# Compiled functions are traced once a shape, however many blocks have it.


@partial(jax.jit, static_argnums=(0, 1))
def forward(geometry: Geometry, residual: bool, *operands: jax.Array):
    """Return y, and mean and variance of its channels; see `ops/half_block.py`."""
    y, mean, variance = activated_forward(geometry, *operands[:6])
    if not residual:
        return y, mean, variance
    # One more pass, which adds and sums: the moments are those of the sum.
    y = y + operands[6]
    return y, *plain_moments(y)


@partial(jax.jit, static_argnums=(0, 1))
def backward(geometry: Geometry, residual: bool, *operands: jax.Array):
    """Return the gradients of x, slope, offset, kernel, bias and of the residual."""
    *_, y, alpha, beta, g = operands[:9]
    dx, *others = activated_backward(geometry, *operands[:9])
    for g_x in operands[9:]:
        dx = dx + g_x
    if residual:
        others.append(pull_on(y, alpha, beta, g))
    return dx, *others

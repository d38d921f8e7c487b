"""Half a residual block by the TPU kernels, in the form that all platforms share."""

from functools import partial

import jax
import jax.numpy as jnp

from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.ops.pallas.backward import activated_backward
from deepprism_jax.ops.pallas.forward import activated_forward
from deepprism_jax.ops.pallas.tiles import fits as fits

# Compiled functions are traced once a shape, however many blocks have it: that matters
# where the program is lowered for another platform, and what was traced is dropped.


@partial(jax.jit, static_argnums=(0, 1))
def forward(geometry: Geometry, residual: bool, *operands: jax.Array):
    """Return y, and mean and variance of its channels; see `ops/half_block.py`."""
    y, mean, variance = activated_forward(geometry, *operands[:6])
    if not residual:
        return y, mean, variance
    # One more pass, which adds and sums: the moments are those of the sum.
    y = y + operands[6]
    corner = y[:, :1, :1].astype(jnp.float32)
    d = y.astype(jnp.float32) - corner
    mean = d.mean((1, 2))
    variance = jnp.maximum((d * d).mean((1, 2)) - mean * mean, 0.0)
    return y, mean + corner[:, 0, 0], variance


@partial(jax.jit, static_argnums=(0, 1))
def backward(geometry: Geometry, residual: bool, *operands: jax.Array):
    """Return the gradients of x, slope, offset, kernel, bias and of the residual."""
    *_, y, alpha, beta, g = operands[:9]
    dx, *others = activated_backward(geometry, *operands[:9])
    for g_x in operands[9:]:
        dx = dx + g_x
    if residual:
        pulls = beta[:, None, None] * y.astype(jnp.float32) + alpha[:, None, None]
        others.append((g.astype(jnp.float32) + pulls).astype(g.dtype))
    return dx, *others

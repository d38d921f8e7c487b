"""Half a residual block by the C++ kernels, where they take a shape."""

from typing import Any

import jax
import jax.numpy as jnp

from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.ops.native import prism


def fits(geometry: Geometry, dtype: Any) -> bool:
    """Return whether there is a kernel: 3x3x3, stride 1, D a multiple of 16."""
    return (
        geometry.kernel_shape[:2] == (3, 3)
        and geometry.strides == (1, 1)
        and prism.fits(geometry, dtype)
    )


def forward(
    geometry: Geometry, residual: bool, x: jax.Array, *others: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return y, and mean and variance of its channels [B, C_out].

    Takes x, mean, slope, offset, kernel, bias and, where there is one, the residual.
    """
    channels = geometry.fields_out * geometry.depth
    moment = _like(x, len(x), channels)
    results = (jnp.zeros_like(x, shape=(*x.shape[:3], channels)), moment, moment)
    call = jax.ffi.ffi_call("deepprism_half_block", results, vmap_method="sequential")
    none = () if residual else (_nothing(x),)
    y, y_mean, y_variance = call(
        x, *others, *none, **prism.attributes(geometry, len(x))
    )
    return y, y_mean, y_variance


def backward(
    geometry: Geometry, residual: bool, x: jax.Array, *others: jax.Array
) -> tuple[jax.Array, ...]:
    """Return the gradients of x, slope, offset, kernel, bias and of the residual.

    Takes x, mean, slope, offset, kernel, y, alpha, beta, g and, where something else
    pulls on x, that; g + alpha + beta * y pulls on y.
    """
    coefficient = _like(x, *x.shape[::3])
    kernel = _like(x, *geometry.kernel_shape)
    bias = _like(x, geometry.fields_out)
    results = (jnp.zeros_like(x), coefficient, coefficient, kernel, bias)
    y = others[4]
    results += (jnp.zeros_like(y) if residual else _nothing(x),)
    call = jax.ffi.ffi_call(
        "deepprism_half_block_gradient", results, vmap_method="sequential"
    )
    none = () if len(others) == 9 else (_nothing(x),)
    found = call(x, *others, *none, **prism.attributes(geometry, len(x)))
    return tuple(found if residual else found[:-1])


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and variance of every channel of an image: [B, C]."""
    moment = _like(x, *x.shape[::3])
    call = jax.ffi.ffi_call(
        "deepprism_moments", (moment, moment), vmap_method="sequential"
    )
    mean, variance = call(x)
    return mean, variance


def _nothing(x: jax.Array) -> jax.Array:
    """Stand for an array that is left out."""
    return jnp.zeros_like(x, shape=(0,))


def _like(x: jax.Array, *shape: int) -> jax.Array:
    """Made like an operand, a result has its mesh axes inside `jax.shard_map`."""
    return jnp.zeros_like(x, shape=shape, dtype=jnp.float32)

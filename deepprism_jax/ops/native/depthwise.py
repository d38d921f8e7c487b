"""The depthwise convolution by the C++ kernels, where they take a shape."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.ops.native import library


def fits(size: int, dtype: Any) -> bool:
    """Return whether there is a kernel: 3x3 or 5x5, for any number of channels."""
    known = size in (3, 5) and dtype in (jnp.float32, jnp.bfloat16)
    return known and library.loaded()


def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve [B, H, W, C] by [K, K, 1, C]; sums are taken in float32."""
    return _call(jnp.zeros_like(x), x, kernel, size=len(kernel), gradient=False)


def kernel_gradient(size: int, x: jax.Array, g: jax.Array) -> jax.Array:
    """Return what g, like y, pulls on the kernel: [K, K, 1, C]."""
    # Made like an operand, the result has its mesh axes inside `jax.shard_map`.
    kernel = jnp.zeros_like(x, shape=(size, size, 1, x.shape[-1]))
    return _call(kernel, x, g, size=size, gradient=True)


def _call(
    result: jax.Array, a: jax.Array, b: jax.Array, *, size: int, gradient: bool
) -> jax.Array:
    # Axes in front are models, each with a kernel of its own: one call for all of them.
    call = jax.ffi.ffi_call("deepprism_depthwise", result, vmap_method="broadcast_all")
    return call(a, b, size=np.int64(size), gradient=gradient)

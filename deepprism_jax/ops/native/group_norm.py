"""GroupNorm and SiLU by the C++ kernels, where they take a shape."""

import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.ops.native import library


def fits(x: jax.Array) -> bool:
    """Return whether there is a kernel for x [B, H, W, C]: C a multiple of 16."""
    return library.takes(x.shape[-1], x.dtype)


def forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    groups: int,
    eps: float,
    silu: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return y, and mean and 1 / standard deviation of each channel's group.

    Those are [B, 1, 1, C], as the affine map takes them.
    """
    # Made like an operand, results have its mesh axes inside `jax.shard_map`.
    statistic = jnp.zeros_like(x, shape=(len(x), 1, 1, x.shape[-1]), dtype=jnp.float32)
    call = jax.ffi.ffi_call(
        "deepprism_group_norm", (x, statistic, statistic), vmap_method="sequential"
    )
    scale, bias = (a.astype(jnp.float32) for a in (scale, bias))
    y, mean, gain = call(
        x, scale, bias, groups=np.int64(groups), eps=np.float32(eps), silu=silu
    )
    return y, mean, gain


def backward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    gain: jax.Array,
    g: jax.Array,
    *,
    groups: int,
    silu: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the gradients of x, scale and bias, given that of y."""
    vector = jnp.zeros_like(x, shape=scale.shape, dtype=jnp.float32)
    call = jax.ffi.ffi_call(
        "deepprism_group_norm_gradient", (x, vector, vector), vmap_method="sequential"
    )
    scale, bias = (a.astype(jnp.float32) for a in (scale, bias))
    dx, dscale, dbias = call(
        x, scale, bias, mean, gain, g, groups=np.int64(groups), silu=silu
    )
    return dx, dscale, dbias

"""Adding a bias a field, with a gradient that XLA takes long over on CPUs."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.ops.native import half_block as native
from deepprism_jax.ops.native import library
from deepprism_jax.ops.varying import vary_alike


def add_bias(
    y: Float[Array, "b h w c"], bias: Float[Array, " f"]
) -> Float[Array, "b h w c"]:
    """Return y + bias, each number for the D = C / F channels of its field.

    Its gradient is a sum over all positions. In bfloat16 XLA takes ten times as long
    for it on CPUs as the C++ kernel that sums moments, which is used where it is built.
    """
    y, bias = vary_alike(y, bias)
    spread: Any = _spread(y.shape, bias)
    return y + spread


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spread(shape: tuple[int, ...], bias: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.repeat(bias, shape[-1] // len(bias)), shape)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(fields: int, g: jax.Array) -> jax.Array:
    plain = partial(plain_field_sums, fields)
    if not (library.loaded() and library.takes(g.shape[-1], g.dtype)):
        return plain(g)
    return lax.platform_dependent(g, cpu=partial(_kernel_sums, fields), default=plain)


def plain_field_sums(fields: int, g: jax.Array) -> jax.Array:
    """Return the sum of each field of g [B, H, W, F * D]: [F]."""
    return g.reshape(*g.shape[:3], fields, -1).sum((0, 1, 2, 4))


def _kernel_sums(fields: int, g: jax.Array) -> jax.Array:
    mean, _ = native.moments(g)
    sums = mean.reshape(len(g), fields, -1).sum((0, 2)) * (g.shape[1] * g.shape[2])
    return sums.astype(g.dtype)


_spread.defvjp(
    lambda shape, bias: (_spread(shape, bias), len(bias)),
    lambda shape, fields, g: (_sums(fields, g),),
)
_sums.defvjp(
    lambda fields, g: (_sums(fields, g), g.shape),
    lambda fields, shape, bias: (_spread(shape, bias),),
)

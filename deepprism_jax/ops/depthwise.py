"""Depthwise convolution: one K x K kernel a channel, in the form that a platform needs.

XLA has no fast one on CPUs. There the C++ kernels take it where they are built; else
the output is a sum of shifted copies of the input, and so is the gradient of the input,
which JAX would make of twenty-five padded arrays.
"""

from functools import partial, reduce
from itertools import product
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.ops.formulation import widened
from deepprism_jax.ops.materialize import materialize_on_cpu
from deepprism_jax.ops.native import depthwise as native
from deepprism_jax.ops.plain_conv import plain_conv
from deepprism_jax.ops.varying import vary_alike

_TAPS_A_LOOP = 9
_RUN = 8  # positions whose products are added up before they are written


def depthwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], *, strides: int = 1
) -> Float[Array, "b h_out w_out c"]:
    """Convolve every channel by its own kernel, with symmetric zero padding.

    Args:
        x: feature map [B, H, W, C].
        kernel: [K, K, 1, C] of the type of x, K odd.
        strides: spatial stride; the first position is always kept.

    Returns:
        Feature map [B, ceil(H / strides), ceil(W / strides), C] of the type of x.
    """
    if strides == 1:
        y: Any = _convolve(*vary_alike(x, kernel))
        return y
    on_cpu = partial(_shifted, strides=strides)
    plain = partial(plain_conv, groups=x.shape[-1], strides=strides)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


# Without a stride there are two bilinear maps: what y pulls on x is a convolution by
# the kernel turned around. The derivative of each is made of both, to every order.


@jax.custom_vjp
def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    fits = native.fits(len(kernel), x.dtype)
    on_cpu = native.conv if fits else partial(_shifted, strides=1)
    plain = partial(plain_conv, groups=x.shape[-1], strides=1)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(size: int, x: jax.Array, g: jax.Array) -> jax.Array:
    fits = native.fits(size, x.dtype)
    on_cpu = native.kernel_gradient if fits else _shifted_kernel_gradient
    plain = partial(_plain_kernel_gradient, size)
    return lax.platform_dependent(x, g, cpu=partial(on_cpu, size), default=plain)


def _pull(operands, g):
    x, kernel = operands
    return _convolve(g, kernel[::-1, ::-1]), _kernel_gradient(len(kernel), x, g)


def _pull_of_kernel_gradient(size, operands, kernel):
    del size
    x, g = operands
    return _convolve(g, kernel[::-1, ::-1]), _convolve(x, kernel)


_convolve.defvjp(lambda *operands: (_convolve(*operands), operands), _pull)
_kernel_gradient.defvjp(
    lambda size, *operands: (_kernel_gradient(size, *operands), operands),
    _pull_of_kernel_gradient,
)


def _plain_kernel_gradient(size: int, x: jax.Array, g: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    conv = partial(plain_conv, x, groups=channels, strides=1)
    kernel = jnp.zeros_like(x, shape=(size, size, 1, channels))
    return jax.linear_transpose(conv, kernel)(g)[0]


def _shifted(x: jax.Array, kernel: jax.Array, *, strides: int) -> jax.Array:
    """Add up copies of x, shifted and weighted by a channel's taps, in float32."""
    size, kernel = len(kernel), widened(kernel)
    padded = _padded(x, size // 2)
    batch, height, width, channels = x.shape

    def term(i: int, j: int) -> jax.Array:
        limits = (batch, i + height, j + width, channels)
        steps = (1, strides, strides, 1)
        return lax.slice(padded, (0, i, j, 0), limits, steps) * kernel[i, j, 0]

    # A sum a row of taps: the processor runs them side by side.
    rows = [reduce(add, [term(i, j) for j in range(size)]) for i in range(size)]
    return materialize_on_cpu(reduce(add, rows).astype(x.dtype))


def _shifted_kernel_gradient(size: int, x: jax.Array, g: jax.Array) -> jax.Array:
    """Sum the products of g and shifted copies of x, in loops over the channels."""
    batch, height, width, channels = x.shape
    spare = -width % _RUN
    padded, g = _padded(x, size // 2, spare), _padded(g, 0, spare)
    width += spare
    runs = (batch, height, width // _RUN, _RUN, channels)
    zero, sums = jnp.zeros((), g.dtype), []
    taps = list(product(range(size), repeat=2))
    for start in range(0, len(taps), _TAPS_A_LOOP):
        products = [
            (padded[:, i : i + height, j : j + width] * g).reshape(runs)
            for i, j in taps[start : start + _TAPS_A_LOOP]
        ]
        some = lax.reduce(products, [zero] * len(products), _add, dimensions=(3,))
        sums += [total.sum((0, 1, 2)) for total in some]
    return jnp.stack(sums).reshape(size, size, 1, channels).astype(x.dtype)


def _add(left: list[jax.Array], right: list[jax.Array]) -> list[jax.Array]:
    return [a + b for a, b in zip(left, right, strict=True)]


def _padded(x: jax.Array, half: int, spare: int = 0) -> jax.Array:
    """Write x with zeros around it, in float32.

    The barrier keeps XLA from doing that anew in each loop that reads it.
    """
    edge = [(0, 0), (half, half), (half, half + spare), (0, 0)]
    return lax.optimization_barrier(jnp.pad(widened(x), edge))

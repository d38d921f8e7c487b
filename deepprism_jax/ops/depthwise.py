"""Depthwise convolution: one K x K kernel a channel, in the form that a platform needs.

XLA has no fast one on CPUs. There the C++ kernels take it where they are built; else
the output is a sum of shifted copies of the input, one fused loop.
"""

from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.ops.native import depthwise as native
from deepprism_jax.ops.plain_conv import plain_conv
from deepprism_jax.ops.varying import vary_alike


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
    if strides == 1 and native.fits(x, kernel):
        y: Any = _convolve(*vary_alike(x, kernel))
        return y
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_shifted, strides=strides),
        default=partial(plain_conv, groups=x.shape[-1], strides=strides),
    )


# With a kernel of the library: two bilinear maps. The derivative of each is made of
# both, so derivatives of every order are theirs; what y pulls on x is a convolution by
# the kernel turned around.


@jax.custom_vjp
def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    plain = partial(plain_conv, groups=x.shape[-1], strides=1)
    return lax.platform_dependent(x, kernel, cpu=native.conv, default=plain)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(size: int, x: jax.Array, g: jax.Array) -> jax.Array:
    return lax.platform_dependent(
        x,
        g,
        cpu=partial(native.kernel_gradient, size),
        default=partial(_plain_kernel_gradient, size),
    )


def _plain_kernel_gradient(size: int, x: jax.Array, g: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    conv = partial(plain_conv, x, groups=channels, strides=1)
    kernel = jnp.zeros_like(x, shape=(size, size, 1, channels))
    return jax.linear_transpose(conv, kernel)(g)[0]


def _turned(kernel: jax.Array) -> jax.Array:
    return kernel[::-1, ::-1]


def _pull(operands, g):
    x, kernel = operands
    return _convolve(g, _turned(kernel)), _kernel_gradient(len(kernel), x, g)


def _pull_of_kernel_gradient(size, operands, kernel):
    del size
    x, g = operands
    return _convolve(g, _turned(kernel)), _convolve(x, kernel)


_convolve.defvjp(lambda *operands: (_convolve(*operands), operands), _pull)
_kernel_gradient.defvjp(
    lambda size, *operands: (_kernel_gradient(size, *operands), operands),
    _pull_of_kernel_gradient,
)


def _shifted(x: jax.Array, kernel: jax.Array, *, strides: int) -> jax.Array:
    """Add up copies of x, shifted and weighted by a channel's taps, in float32."""
    size, half = kernel.shape[0], kernel.shape[0] // 2
    batch, height, width, channels = x.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(x.astype(wide), [(0, 0), (half, half), (half, half), (0, 0)])
    y = jnp.zeros((), wide)
    for i, j in product(range(size), repeat=2):
        window = lax.slice(
            padded,
            (0, i, j, 0),
            (batch, i + height, j + width, channels),
            (1, strides, strides, 1),
        )
        y = y + window * kernel[i, j, 0].astype(wide)
    return y.astype(x.dtype)

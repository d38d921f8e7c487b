"""2-D convolution in groups of channels, in the form that each platform is fast at.

XLA's CPU backend has no fast grouped convolution, and a very slow gradient of one: for
4 x 16 x 16 x 64 in 32 groups it takes 100 times as long as for one group. There the
groups are the diagonal blocks of a dense kernel whose other blocks are zero: many more
multiplications, but ones that it is made for. One channel a group is the depthwise
convolution (`ops/depthwise.py`). And the kernel gradient between an image and many
channels is one product of matrices, four to ten times faster than the convolution that
XLA makes of it.
"""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.ops.depthwise import depthwise_conv
from deepprism_jax.ops.plain_conv import plain_conv
from deepprism_jax.ops.varying import vary_alike

_FEW_CHANNELS = 8


def grouped_conv(
    x: Float[Array, "b h w c_in"],
    kernel: Float[Array, "k k c_group c_out"],
    *,
    groups: int,
    strides: int = 1,
) -> Float[Array, "b h_out w_out c_out"]:
    """Convolve every group of channels by itself, with symmetric zero padding.

    Args:
        x: feature map [B, H, W, C_in].
        kernel: [K, K, C_in / groups, C_out] of the type of x, K odd.
        groups: number of groups; it divides C_in and C_out. One is a dense
            convolution.
        strides: spatial stride; the first position is always kept.

    Returns:
        Feature map [B, ceil(H / strides), ceil(W / strides), C_out] of the type of x.
    """
    plain = partial(plain_conv, groups=groups, strides=strides)
    if groups == 1:
        if strides > 1 or min(kernel.shape[2:]) > _FEW_CHANNELS:
            return plain(x, kernel)
        x, kernel = vary_alike(x, kernel)
        return lax.platform_dependent(x, kernel, cpu=_few_channels, default=plain)
    if groups == x.shape[-1] == kernel.shape[-1]:
        return depthwise_conv(x, kernel, strides=strides)
    on_cpu = partial(_block_diagonal, groups=groups, strides=strides)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


@jax.custom_vjp
def _few_channels(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return plain_conv(x, kernel, groups=1, strides=1)


def _few_channels_saving(x, kernel):
    return _few_channels(x, kernel), (x, kernel)


def _few_channels_pull(operands, g):
    x, kernel = operands
    conv = partial(plain_conv, groups=1, strides=1)
    (dx,) = jax.linear_transpose(lambda x: conv(x, kernel), x)(g)
    size, _, c_in, c_out = kernel.shape
    if c_in <= c_out:
        windows = _windows(x, size).reshape(size * size * c_in, -1)
        dkernel = _product(windows, g.reshape(-1, c_out)).reshape(kernel.shape)
    else:  # what a tap of x meets is g at the opposite one
        windows = _windows(g, size)[::-1].reshape(size * size * c_out, -1)
        dkernel = _product(windows, x.reshape(-1, c_in))
        dkernel = dkernel.reshape(size, size, c_out, c_in).swapaxes(2, 3)
    return dx, dkernel.astype(kernel.dtype)


_few_channels.defvjp(_few_channels_saving, _few_channels_pull)


def _windows(x: jax.Array, size: int) -> jax.Array:
    """Return what each tap sees: [B, H, W, C] -> [K * K, C, B, H, W].

    Positions come last, as the product that sums over them wants them.
    """
    _, height, width, _ = x.shape
    half = size // 2
    padded = jnp.pad(
        jnp.moveaxis(x, -1, 0), [(0, 0), (0, 0), (half, half), (half, half)]
    )
    taps = product(range(size), repeat=2)
    return jnp.stack([padded[..., i : i + height, j : j + width] for i, j in taps])


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum("kn,nm->km", a, b, preferred_element_type=wide)


def _block_diagonal(
    x: jax.Array, kernel: jax.Array, *, groups: int, strides: int
) -> jax.Array:
    """Convolve by [K, K, C_in, C_out], zero where input and output group differ."""
    rows, columns, c_group, c_out = kernel.shape
    blocks = kernel.reshape(rows, columns, c_group, groups, c_out // groups)
    same = jnp.eye(groups, dtype=kernel.dtype)
    dense = jnp.einsum("hwigo,gf->hwfigo", blocks, same)
    dense = dense.reshape(rows, columns, groups * c_group, c_out)
    return plain_conv(x, dense, groups=1, strides=strides)

"""The channel convolution of a map whose channels are cut over devices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepprism_jax.ops.channel_shards import Shards, enter, neighbours
from deepprism_jax.ops.geometry import ChannelPadding
from deepprism_jax.ops.prism_conv import prism_conv


def prism_conv_on_shards(
    x: Float[Array, "*b h w c_in"],
    kernel: Float[Array, "kh kw kc f_in f_out"],
    bias: Float[Array, " f_out"] | None = None,
    *,
    shards: Shards,
    channel_padding: ChannelPadding = "circular",
    strides: int = 1,
) -> Float[Array, "*b h_out w_out c_out"]:
    """Return a device's part of `prism_conv` of the whole map, of its part of it.

    Of its own positions a device computes as if zeros lay beyond them, in whatever form
    is fast for that shape. What the halo of K_C // 2 positions either side adds, to as
    many positions at the edges, is a second and small convolution of
    [halo before, zeros, halo after]. Kernel and bias are whole on every device.

    Args:
        x: feature map [..., H, W, F_in * D / count].
        kernel, bias, channel_padding, strides: as of `prism_conv`.
        shards: how channels are cut; their fields are the fewer of the kernel's.

    Returns:
        Feature map [..., H', W', F_out * D / count].

    Raises:
        ValueError: maps are cut in other fields than the kernel's, or a device holds
            fewer positions than a neighbour reads.
    """
    if min(kernel.shape[3:]) != shards.fields:
        raise ValueError(
            f"maps are cut as fields={shards.fields}, and a kernel of shape "
            f"{kernel.shape} has {min(kernel.shape[3:])}: cut them as the kernel's"
        )
    kernel = enter(kernel, shards)
    bias = None if bias is None else enter(bias, shards)
    y = prism_conv(x, kernel, bias, channel_padding="zero", strides=strides)
    taps, fields, fields_out = kernel.shape[2] // 2, *kernel.shape[3:]
    if taps == 0:
        return y
    before, after = neighbours(
        x.reshape(*x.shape[:-1], fields, -1), taps, channel_padding, shards
    )
    nothing = jnp.zeros_like(before)
    strip = jnp.concatenate([before, nothing, nothing, after], axis=-1)
    added = prism_conv(
        strip.reshape(*strip.shape[:-2], -1),
        kernel,
        channel_padding="zero",
        strides=strides,
    )
    added = added.reshape(*added.shape[:-1], fields_out, 4 * taps)
    return y + _at_the_edges(
        added[..., taps : 2 * taps],
        added[..., 2 * taps : 3 * taps],
        y.shape[-1] // fields_out,
    )


def _at_the_edges(first: jax.Array, last: jax.Array, depth: int) -> jax.Array:
    """Put [..., F, t] at either edge of a map of zeros: [..., F * depth]."""
    rest = depth - first.shape[-1]
    sides = [(0, 0)] * (first.ndim - 1)
    y = jnp.pad(first, [*sides, (0, rest)]) + jnp.pad(last, [*sides, (rest, 0)])
    return y.reshape(*y.shape[:-2], -1)

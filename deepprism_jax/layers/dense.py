"""Convolutions whose weights grow with the channels: the baselines of the paper."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deepprism_jax.layers.initializers import (
    dense_kernel,
    expanding_kernel,
    group_kernel,
    reducing_kernel,
)
from deepprism_jax.layers.role import Role, cut_along, shards_for
from deepprism_jax.ops import channel_shards
from deepprism_jax.ops.bias import add_bias
from deepprism_jax.ops.grouped import grouped_conv

# Axes of kernel [K, K, C_in, C_out] and bias along which they are cut.
_CUT: dict[Role, tuple[int | None, int | None]] = {
    "hidden": (3, 0),
    "in": (3, 0),
    "out": (2, None),
    "whole": (None, None),
}


class Conv(nnx.Module):
    """2-D convolution, dense or in groups, with symmetric zero padding.

    Padding is K // 2 on either side, so that a stride keeps every other position
    starting at the first (Flax's SAME would start at the second on even sizes).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        strides: int = 1,
        groups: int = 1,
        use_bias: bool = True,
        kernel_init=None,
        dtype=None,
        role: Role = "hidden",
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
        if kernel_init is None:
            kernel_init = dense_kernel
            if groups > 1:
                kernel_init = partial(group_kernel, groups=groups)
        of_kernel, of_bias = (cut_along(axis) for axis in _CUT[role])
        bias = nnx.Param(jnp.zeros((out_channels,)), **of_bias)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape), **of_kernel)
        self.bias = bias if use_bias else None
        self.role: Role = role
        self.strides = strides
        self.groups = groups
        self.dtype = dtype

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b oh ow oc"]:
        """Apply to a feature map [..., H, W, C_in] -> [..., H', W', C_out].

        Where channels are cut over devices, each computes its own of the result: of an
        image, of its own channels in groups, or of all channels, which it gathers. What
        leaves feature maps is the sum of the parts.

        Raises:
            ValueError: the groups cannot be cut over the devices.
        """
        dtype = self.dtype or x.dtype
        x = x.astype(dtype)
        shards, groups = shards_for(self.role), self.groups
        if shards and groups > 1:
            groups = channel_shards.share(groups, shards.count, "groups")
        elif shards and self.role != "out":
            read = {"in": channel_shards.enter, "hidden": channel_shards.gather}
            x = read[self.role](x, shards)
        batch = x.shape[:-3]
        y = grouped_conv(
            x.reshape(-1, *x.shape[-3:]),
            self.kernel[...].astype(dtype),
            groups=groups,
            strides=self.strides,
        )
        if shards and self.role == "out":
            y = channel_shards.leave(y, shards)
        if self.bias is not None:
            y = add_bias(y, self.bias[...].astype(dtype))
        return y.reshape(*batch, *y.shape[1:])


class DepthwiseSeparableConv(nnx.Module):
    """One K x K kernel a channel, then a 1x1 convolution (Chollet, 2017)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        strides: int = 1,
        use_bias: bool = True,
        dtype=None,
        role: Role = "hidden",
        rngs: nnx.Rngs,
    ):
        self.depthwise = Conv(
            in_channels,
            in_channels,
            kernel_size=kernel_size,
            strides=strides,
            groups=in_channels,
            use_bias=False,
            dtype=dtype,
            role=role,
            rngs=rngs,
        )
        self.pointwise = Conv(
            in_channels,
            out_channels,
            kernel_size=1,
            use_bias=use_bias,
            kernel_init=partial(group_kernel, groups=1),
            dtype=dtype,
            role=role,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b oh ow oc"]:
        """Apply to a feature map [..., H, W, C_in] -> [..., H', W', C_out]."""
        return self.pointwise(self.depthwise(x))


class LowRankConv(nnx.Module):
    """K x K convolution to `rank` channels, then a 1x1 convolution from them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        rank: int,
        kernel_size: int = 3,
        strides: int = 1,
        use_bias: bool = True,
        dtype=None,
        role: Role = "hidden",
        rngs: nnx.Rngs,
    ):
        self.reduce = Conv(
            in_channels,
            rank,
            kernel_size=kernel_size,
            strides=strides,
            use_bias=False,
            kernel_init=reducing_kernel,
            dtype=dtype,
            role="out" if role == "hidden" else role,
            rngs=rngs,
        )
        self.expand = Conv(
            rank,
            out_channels,
            kernel_size=1,
            use_bias=use_bias,
            kernel_init=expanding_kernel,
            dtype=dtype,
            role="in" if role == "hidden" else role,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b oh ow oc"]:
        """Apply to a feature map [..., H, W, C_in] -> [..., H', W', C_out]."""
        return self.expand(self.reduce(x))

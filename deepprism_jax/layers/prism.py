"""Channel convolutions as modules: eq. (1) to (3) of the paper."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deepprism_jax.layers.initializers import prism_kernel
from deepprism_jax.layers.role import Role, shards_for
from deepprism_jax.ops import ChannelPadding, half_block, prism_conv
from deepprism_jax.ops.geometry import geometry_of
from deepprism_jax.ops.half_block import Affine
from deepprism_jax.ops.moments import Moments
from deepprism_jax.ops.prism_on_shards import prism_conv_on_shards


class PrismConv(nnx.Module):
    """Convolution over height, width and channel with one small kernel.

    `y = prism_conv(x, kernel) + bias`, the bias one number a field. A 3x3x3 kernel is
    DeepPrism (eq. 3: 27 + 1 parameters), a 1x1x3 kernel Prism (eq. 1: 3 + 1).

    Args:
        fields_in: fields F_in of the input; its channels are a multiple of them.
        fields_out: fields F_out of the output, of the same depth.
        kernel_size: odd sizes (K_H, K_W, K_C).
        depth: positions of the channel axis, where known; for the initial kernel alone.
        strides: spatial stride.
        channel_padding: topology of the channel axis.
        use_bias: add a bias.
        dtype: compute type; None takes the input's. Parameters are float32.
        rngs: source of the initial kernel.
    """

    def __init__(
        self,
        fields_in: int = 1,
        fields_out: int = 1,
        *,
        kernel_size: tuple[int, int, int] = (3, 3, 3),
        depth: int | None = None,
        strides: int = 1,
        channel_padding: ChannelPadding = "circular",
        use_bias: bool = True,
        dtype=None,
        role: Role = "hidden",
        rngs: nnx.Rngs,
    ):
        shape = (*kernel_size, fields_in, fields_out)
        kernel = prism_kernel(
            rngs.params(), shape, channel_padding=channel_padding, depth=depth
        )
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros((fields_out,))) if use_bias else None
        self.role: Role = role
        self.strides = strides
        self.channel_padding: ChannelPadding = channel_padding
        self.dtype = dtype

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b oh ow oc"]:
        """Apply to a feature map [..., H, W, F_in * D] -> [..., H', W', F_out * D]."""
        dtype = self.dtype or x.dtype
        convolve = prism_conv
        if shards := shards_for(self.role):
            convolve = partial(prism_conv_on_shards, shards=shards)
        return convolve(
            x.astype(dtype),
            self.kernel[...].astype(dtype),
            None if self.bias is None else self.bias[...].astype(dtype),
            channel_padding=self.channel_padding,
            strides=self.strides,
        )

    def fuses(self, x: Float[Array, "b h w c"]) -> bool:
        """Return whether `after_silu` has a kernel for x on this platform.

        It has none where channels are cut over devices: what the halo adds would have
        to come in before the moments of the result are summed.
        """
        if shards_for(self.role):
            return False
        kernel = self.kernel[...]
        geometry = geometry_of(x, kernel, self.channel_padding, self.strides)
        kept = self.dtype is None or x.dtype == self.dtype
        return kept and half_block.fits(geometry, x.dtype)

    def after_silu(
        self,
        x: Float[Array, "b h w c"],
        affine: Affine,
        residual: Float[Array, "b h w oc"] | None = None,
    ) -> tuple[Float[Array, "b h w oc"], Moments, Float[Array, "b h w c"]]:
        """Return `self(silu(affine(x))) + residual`, its moments, and x.

        All in one pass over x; what else is made of x should be made of the x that is
        returned, so that the gradients of both are added in one pass too.
        """
        kernel = self.kernel[...]
        bias = jnp.zeros(kernel.shape[-1]) if self.bias is None else self.bias[...]
        return half_block.half_block(
            x,
            affine,
            kernel,
            bias,
            residual=residual,
            channel_padding=self.channel_padding,
        )


class SeparablePrismConv(nnx.Module):
    """Pseudo-3-D channel convolution, eq. (2): 3x3x1, then 1x1x3; 12 + 1 parameters.

    The same as a DeepPrism whose kernel is the outer product of the two.
    """

    def __init__(
        self,
        *,
        kernel_size: int = 3,
        taps: int = 3,
        depth: int | None = None,
        strides: int = 1,
        channel_padding: ChannelPadding = "circular",
        use_bias: bool = True,
        dtype=None,
        role: Role = "hidden",
        rngs: nnx.Rngs,
    ):
        self.space = PrismConv(
            kernel_size=(kernel_size, kernel_size, 1),
            strides=strides,
            channel_padding=channel_padding,
            use_bias=False,
            dtype=dtype,
            role=role,
            rngs=rngs,
        )
        self.channel = PrismConv(
            kernel_size=(1, 1, taps),
            depth=depth,
            channel_padding=channel_padding,
            use_bias=use_bias,
            dtype=dtype,
            role=role,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b oh ow c"]:
        """Apply to a feature map [..., H, W, C] -> [..., H', W', C]."""
        return self.channel(self.space(x))

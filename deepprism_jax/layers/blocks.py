"""Blocks of the networks, of whatever kind of convolution the factory makes."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from deepprism_jax.layers.attention import Attention
from deepprism_jax.layers.conv import ConvFactory
from deepprism_jax.layers.norm import GroupNorm
from deepprism_jax.ops.half_block import Moments, moments
from deepprism_jax.ops.resample import upsample_nearest


def norm_silu_conv(
    norm: GroupNorm,
    conv: Any,
    x: Float[Array, "b h w c"],
    known: Moments | None = None,
) -> tuple[Float[Array, "b h w oc"], Moments | None]:
    """Return `conv(silu(norm(x)))`, and its moments where they come with it.

    A convolution that can take normalisation and SiLU into its own pass does; `known`
    are the moments of x, where a pass before this one has summed them.
    """
    if not (hasattr(conv, "fuses") and conv.fuses(x)):
        return conv(norm.silu(x)), None
    return conv.after_silu(x, norm.affine(known or moments(x)))


class ResBlock(nnx.Module):
    """`x + 2 * (norm, SiLU, conv)(x)`, the paper's Res."""

    def __init__(
        self, channels: int, *, conv: ConvFactory, norm_groups: int, rngs: nnx.Rngs
    ):
        self.norm1 = GroupNorm(channels, norm_groups, rngs=rngs)
        self.conv1 = conv(channels, channels, rngs=rngs)
        self.norm2 = GroupNorm(channels, norm_groups, rngs=rngs)
        self.conv2 = conv(channels, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Map [..., H, W, C] to the same shape."""
        flat = x.reshape(-1, *x.shape[-3:])
        h, known = norm_silu_conv(self.norm1, self.conv1, flat)
        h, _ = norm_silu_conv(self.norm2, self.conv2, h, known)
        return x + h.reshape(x.shape)


class AttentionBlock(nnx.Module):
    """`x + attention(norm(x))`, the paper's Attn."""

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        conv: ConvFactory,
        norm_groups: int,
        rngs: nnx.Rngs,
    ):
        self.norm = GroupNorm(channels, norm_groups, rngs=rngs)
        self.attention = Attention(channels, heads=heads, conv=conv, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Map [..., H, W, C] to the same shape."""
        return x + self.attention(self.norm(x))


class Downsample(nnx.Module):
    """Halve height and width by a convolution of stride 2."""

    def __init__(self, channels: int, *, conv: ConvFactory, rngs: nnx.Rngs):
        self.conv = conv(channels, channels, strides=2, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 c"]:
        """Map [..., H, W, C] to [..., ceil(H/2), ceil(W/2), C]."""
        return self.conv(x)  # pyright: ignore[reportCallIssue]


class Upsample(nnx.Module):
    """Double height and width by repetition, then convolve."""

    def __init__(self, channels: int, *, conv: ConvFactory, rngs: nnx.Rngs):
        self.conv = conv(channels, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 c"]:
        """Map [..., H, W, C] to [..., 2H, 2W, C]."""
        return self.conv(upsample_nearest(x))  # pyright: ignore[reportCallIssue]

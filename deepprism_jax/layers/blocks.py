"""Blocks of the networks, of whatever kind of convolution the factory makes."""

from flax import nnx
from jaxtyping import Array, Float

from deepprism_jax.layers.attention import Attention
from deepprism_jax.layers.conv import ConvFactory
from deepprism_jax.layers.norm import GroupNorm
from deepprism_jax.ops.resample import upsample_nearest


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
        h = self.conv1(self.norm1.silu(x))  # pyright: ignore[reportCallIssue]
        h = self.conv2(self.norm2.silu(h))  # pyright: ignore[reportCallIssue]
        return x + h


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

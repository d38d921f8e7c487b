"""Blocks of the networks, of whatever kind of convolution the factory makes."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deepprism_jax.layers import remat
from deepprism_jax.layers.attention import Attention
from deepprism_jax.layers.conv import ConvFactory
from deepprism_jax.layers.norm import GroupNorm
from deepprism_jax.ops.moments import Moments, moments
from deepprism_jax.ops.resample import upsample_nearest

DownsamplePadding = Literal["both", "after"]
"""Zeros on all sides alike, or below and to the right alone (latent-diffusion)."""


def run(blocks: Iterable[Any], x: Float[Array, "*b h w c"]) -> jax.Array:
    """Apply blocks one after another: [..., H, W, C] -> [..., H', W', C].

    Moments that a block knows of what it returns are handed to the next one, which is
    spared a pass over it. Under `remat.rematerializing("blocks")` only what goes from
    block to block is kept for the backward pass.
    """
    batch = x.shape[:-3]
    x, known = x.reshape(-1, *x.shape[-3:]), None
    for block in blocks:
        step = partial(_step, block)
        if remat.policy() == "blocks":
            step = jax.checkpoint(step)
        x, known = step(x, known)
    return x.reshape(*batch, *x.shape[1:])


def _step(
    block: Any, x: jax.Array, known: Moments | None
) -> tuple[jax.Array, Moments | None]:
    if isinstance(block, ResBlock):
        return block.with_moments(x, known)
    return block(x), None


def fuses(conv: Any, x: Float[Array, "b h w c"]) -> bool:
    """Say whether a convolution takes what precedes it into its own pass over x."""
    return hasattr(conv, "fuses") and conv.fuses(x)


class ResBlock(nnx.Module):
    """`x + 2 * (norm, SiLU, conv)(x)`, the paper's Res.

    Where `out_channels` is another number than `channels`, the first convolution maps
    one to the other, and `shortcut`, a 1x1 convolution, does so for the x that is
    added.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        *,
        conv: ConvFactory,
        norm_groups: int,
        rngs: nnx.Rngs,
    ):
        out = channels if out_channels is None else out_channels
        self.norm1 = GroupNorm(channels, norm_groups, rngs=rngs)
        self.conv1: Any = conv(channels, out, rngs=rngs)
        self.norm2 = GroupNorm(out, norm_groups, rngs=rngs)
        self.conv2: Any = conv(out, out, rngs=rngs)
        changes = out != channels
        self.shortcut: Any = (
            conv(channels, out, kernel_size=1, rngs=rngs) if changes else None
        )

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w oc"]:
        """Map [..., H, W, channels] to [..., H, W, out_channels]."""
        y, _ = self.with_moments(x.reshape(-1, *x.shape[-3:]))
        return y.reshape(*x.shape[:-1], -1)

    def with_moments(
        self, x: Float[Array, "b h w c"], known: Moments | None = None
    ) -> tuple[Float[Array, "b h w oc"], Moments | None]:
        """Map x, of known moments or not, and return those of the result if they are.

        A convolution that has a kernel for it takes normalisation and SiLU into its own
        pass over the map.
        """
        if self.shortcut is not None or not fuses(self.conv1, x):
            h = self.conv1(self.norm1.silu(x))
            x = x if self.shortcut is None else self.shortcut(x)
            return x + self.conv2(self.norm2.silu(h)), None
        first, second = self.norm1.affine, self.norm2.affine
        h, of_h, x = self.conv1.after_silu(x, first(known or moments(x)))
        y, of_y, _ = self.conv2.after_silu(h, second(of_h), residual=x)
        return y, of_y


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
    """Halve height and width by a convolution of stride 2.

    Raises:
        ValueError: `padding` is unknown.
    """

    def __init__(
        self,
        channels: int,
        *,
        conv: ConvFactory,
        padding: DownsamplePadding = "both",
        rngs: nnx.Rngs,
    ):
        if padding not in get_args(DownsamplePadding):
            raise ValueError(
                f"downsample_padding={padding!r} is unknown; choose one of "
                f"{list(get_args(DownsamplePadding))}"
            )
        self.padding: DownsamplePadding = padding
        self.conv: Any = conv(channels, channels, strides=2, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 c"]:
        """Map [..., H, W, C] to [..., H/2, W/2, C].

        Odd sizes are rounded up, or down where the padding is `after` alone.
        """
        if self.padding == "both":
            return self.conv(x)
        # One zero more before moves every window on by one; the first one is left out.
        around = [(0, 0)] * (x.ndim - 3) + [(1, 0), (1, 0), (0, 0)]
        return self.conv(jnp.pad(x, around))[..., 1:, 1:, :]


class Upsample(nnx.Module):
    """Double height and width by repetition, then convolve."""

    def __init__(self, channels: int, *, conv: ConvFactory, rngs: nnx.Rngs):
        self.conv = conv(channels, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 c"]:
        """Map [..., H, W, C] to [..., 2H, 2W, C]."""
        return self.conv(upsample_nearest(x))  # pyright: ignore[reportCallIssue]

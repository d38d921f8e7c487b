"""Residual blocks that are told the time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deepprism_jax.layers.blocks import fuses
from deepprism_jax.layers.conv import ConvFactory, zeroed
from deepprism_jax.layers.norm import GroupNorm
from deepprism_jax.ops.half_block import Affine
from deepprism_jax.ops.moments import Moments, moments, spread


class TimeResBlock(nnx.Module):
    """`skip(x) + conv(SiLU(norm(conv(SiLU(norm(x))) + time)))`, latent diffusion's Res.

    Args:
        in_channels: channels of x.
        out_channels: of the result; where they differ `skip` is a 1x1 convolution.
        conv: makes the convolutions. The second is zero at first.
        project: makes, of a number of channels, what maps the condition to them.
        norm_groups: groups of both GroupNorms.
        scale_shift: norm * (1 + scale) + shift of the time, in place of adding it
            before: adaptive group normalisation.
        dropout: share of the numbers before the second convolution that are dropped.
        rngs: source of the initial parameters.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        conv: ConvFactory,
        project: Callable[[int], Any],
        norm_groups: int,
        scale_shift: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.norm1 = GroupNorm(in_channels, norm_groups, rngs=rngs)
        self.conv1: Any = conv(in_channels, out_channels, rngs=rngs)
        self.condition = project(out_channels * (2 if scale_shift else 1))
        self.norm2 = GroupNorm(out_channels, norm_groups, rngs=rngs)
        self.conv2: Any = zeroed(conv(out_channels, out_channels, rngs=rngs))
        changes = in_channels != out_channels
        self.skip: Any = (
            conv(in_channels, out_channels, kernel_size=1, rngs=rngs)
            if changes
            else None
        )
        self.scale_shift = scale_shift
        self.dropout = dropout

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        condition: jax.Array,
        known: Moments | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> tuple[Float[Array, "b h w c_out"], Moments | None]:
        """Map x, of known moments or not, and return those of the result if they are.

        Where a convolution takes normalisation and SiLU into its own pass, the time
        costs no pass of its own: it moves the mean of every channel and nothing else.
        """
        time = self.condition(condition)
        drops = self.dropout > 0.0 and dropout_keys is not None
        if drops or not fuses(self.conv1, x):
            h = self.conv1(self.norm1.silu(x))
            h = self._after_time(h, time)
            if drops:
                h = _drop(h, self.dropout, dropout_keys)
            return self._residual(x) + self.conv2(h), None
        h, of_h, x = self.conv1.after_silu(x, self.norm1.affine(known or moments(x)))
        y, of_y, _ = self.conv2.after_silu(
            h, self._affine(of_h, time), residual=self._residual(x)
        )
        return y, of_y

    def _residual(self, x: jax.Array) -> jax.Array:
        return x if self.skip is None else self.skip(x)

    def _after_time(self, h: jax.Array, time: jax.Array) -> jax.Array:
        """SiLU of the normalised map that has met the time."""
        time = spread(time).astype(h.dtype)
        if not self.scale_shift:
            return self.norm2.silu(h + time)
        scale, shift = jnp.split(time, 2, axis=-1)
        return nnx.silu(self.norm2(h) * (1.0 + scale) + shift)

    def _affine(self, of_h: Moments, time: jax.Array) -> Affine:
        """The same as a map of h, of these moments, before SiLU."""
        if not self.scale_shift:
            mean, slope, offset = self.norm2.affine(
                of_h._replace(mean=of_h.mean + time)
            )
            return Affine(mean - time, slope, offset)
        scale, shift = jnp.split(time, 2, axis=-1)
        mean, slope, offset = self.norm2.affine(of_h)
        return Affine(mean, slope * (1.0 + scale), offset * (1.0 + scale) + shift)


def _drop(h: jax.Array, rate: float, keys: Any) -> jax.Array:
    draw = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, h.shape[1:]))
    kept = draw(keys)
    return jnp.where(kept, h / (1.0 - rate), 0.0).astype(h.dtype)

"""Group normalisation as one multiplication and one addition a channel."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.layers.role import Role, cut_along, shards_for
from deepprism_jax.ops.half_block import Affine
from deepprism_jax.ops.materialize import materialize_on_cpu
from deepprism_jax.ops.moments import Moments
from deepprism_jax.ops.native import group_norm as kernels
from deepprism_jax.ops.native import library as native
from deepprism_jax.ops.varying import vary_alike


def group_norm(
    x: Float[Array, "*b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    *,
    groups: int,
    eps: float = 1e-6,
    silu: bool = False,
) -> Float[Array, "*b h w c"]:
    """Normalise over space and groups of channels (Wu and He, 2018), then maybe SiLU.

    Sums are taken a channel first and a group second, which keeps the channel axis
    whole and vectorised; mean, variance, scale and bias then fold into one affine map a
    channel. The gradient is written out: it needs two sums a channel and x alone, where
    the one that JAX derives walks over the array several times more. Everything is
    float32 inside, whatever the type of x.
    """
    flat = x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
    operands = vary_alike(flat, scale, bias)
    y: Any = _group_norm(groups, eps, silu, *operands)
    return y.reshape(x.shape)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _group_norm(groups, eps, silu, x, scale, bias):
    return _forward(groups, eps, silu, x, scale, bias)[0]


def _forward(groups, eps, silu, x, scale, bias):
    options = {"groups": groups, "eps": eps, "silu": silu}
    run = _fastest(kernels.forward, _plain_forward, x, options)
    y, mean, gain = run(x, scale, bias)
    return y, (x, scale, bias, mean, gain)


def _backward(groups, eps, silu, saved, g):
    options = {"groups": groups, "silu": silu}
    run = _fastest(kernels.backward, _plain_backward, g, options)
    dx, dscale, dbias = run(*saved, g)
    _, scale, bias, *_ = saved
    return dx, dscale.astype(scale.dtype), dbias.astype(bias.dtype)


def _fastest(kernel, plain, x, options):
    """Return the kernel on CPUs where it takes x, with the derivatives of the plain."""
    kernel, plain = partial(kernel, **options), partial(plain, **options)
    if not (native.loaded() and kernels.fits(x)):
        return plain

    @jax.custom_vjp
    def run(*operands):
        return lax.platform_dependent(*operands, cpu=kernel, default=plain)

    def pull(operands, gradients):
        return jax.vjp(plain, *operands)[1](gradients)

    run.defvjp(lambda *operands: (run(*operands), operands), pull)
    return run


def _plain_forward(x, scale, bias, *, groups, eps, silu):
    mean, gain = _statistics(x, groups, eps)
    h = (x.astype(jnp.float32) - mean) * (gain * scale) + bias
    y = h * nnx.sigmoid(h) if silu else h
    return y.astype(x.dtype), mean, gain


def _statistics(x, groups: int, eps: float):
    """Mean and 1 / standard deviation of the group of every channel: [B, 1, 1, C]."""
    count = x.shape[1] * x.shape[2] * (x.shape[3] // groups)
    # A shift near the group's mean keeps E[x^2] - E[x]^2 from cancelling.
    corner = x[:, 0, 0].astype(jnp.float32)
    members = x.shape[3] // groups
    shift = (_over_groups(corner, groups) / members)[:, None, None]
    values = x.astype(jnp.float32) - shift
    mean = _over_groups(values.sum((1, 2)), groups) / count
    square = _over_groups((values * values).sum((1, 2)), groups) / count
    variance = jnp.maximum(square - mean * mean, 0.0)
    return mean[:, None, None] + shift, lax.rsqrt(variance + eps)[:, None, None]


def _over_groups(sums: jax.Array, groups: int) -> jax.Array:
    """Add the sums [B, C] of each group and give every channel its group's: [B, C]."""
    batch, channels = sums.shape
    members = channels // groups
    total = sums.reshape(batch, groups, members).sum(-1)
    return jnp.repeat(total, members, axis=-1)


def _plain_backward(x, scale, bias, mean, gain, g, *, groups, silu):
    count = x.shape[1] * x.shape[2] * (x.shape[3] // groups)
    normed = (x.astype(jnp.float32) - mean) * gain
    g = g.astype(jnp.float32)
    if silu:
        h = normed * scale + bias
        s = nnx.sigmoid(h)
        g = materialize_on_cpu(g * (s * (1.0 + h * (1.0 - s))))
    offset, slope = g.sum((1, 2)), (g * normed).sum((1, 2))
    offset_mean = _over_groups(offset * scale, groups)[:, None, None] / count
    slope_mean = _over_groups(slope * scale, groups)[:, None, None] / count
    dx = gain * (g * scale - offset_mean - normed * slope_mean)
    return dx.astype(x.dtype), slope.sum(0), offset.sum(0)


_group_norm.defvjp(_forward, _backward)


def group_affine(
    moments: Moments,
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    *,
    groups: int,
    eps: float = 1e-6,
) -> Affine:
    """Return group normalisation as an affine map, of the moments of each channel.

    A group's variance is the mean of its channels' and the variance of their means.
    """
    members = moments.mean.shape[1] // groups
    mean = _over_groups(moments.mean, groups) / members
    apart = moments.mean - mean
    variance = _over_groups(moments.variance + apart * apart, groups) / members
    gain = lax.rsqrt(variance + eps)
    offset = jnp.broadcast_to(bias, gain.shape)
    return Affine(mean, gain * scale, offset)


class GroupNorm(nnx.Module):
    """Group normalisation with a scale and a bias a channel.

    Raises:
        ValueError: `groups` does not divide `channels`.
    """

    def __init__(
        self,
        channels: int,
        groups: int = 32,
        *,
        role: Role = "hidden",
        rngs: nnx.Rngs,
    ):
        del rngs  # taken for symmetry with other layers; nothing here is random
        if groups < 1 or channels % groups:
            divisors = [g for g in range(1, channels + 1) if channels % g == 0]
            raise ValueError(
                f"norm groups={groups} must divide C={channels}; "
                f"choose one of {divisors}"
            )
        cut = cut_along(None if role == "whole" else 0)
        self.scale = nnx.Param(jnp.ones((channels,)), **cut)
        self.bias = nnx.Param(jnp.zeros((channels,)), **cut)
        self.role: Role = role
        self.groups = groups

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Normalise a feature map [..., H, W, C]."""
        return self._apply(x, silu=False)

    def silu(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Normalise, then SiLU, in one pass: what precedes every hidden convolution."""
        return self._apply(x, silu=True)

    def affine(self, moments: Moments) -> Affine:
        """Return the map of a feature map with these moments: x -> `self(x)`."""
        scale, bias = self.scale[...], self.bias[...]
        return group_affine(moments, scale, bias, groups=self._local_groups())

    def _apply(self, x: jax.Array, silu: bool) -> jax.Array:
        scale, bias = self.scale[...], self.bias[...]
        return group_norm(x, scale, bias, groups=self._local_groups(), silu=silu)

    def _local_groups(self) -> int:
        """Groups that a device normalises: whole ones, in every field as many."""
        shards = shards_for(self.role)
        if shards is None:
            return self.groups
        parts = shards.count * shards.fields
        if self.groups % parts:
            raise ValueError(
                f"norm groups={self.groups} cannot stay whole: with fields="
                f"{shards.fields} over {shards.count} devices of the channel axis they "
                f"must be a multiple of {parts}"
            )
        return self.groups // shards.count

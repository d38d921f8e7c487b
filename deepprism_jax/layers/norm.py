"""Group normalisation as one multiplication and one addition a channel."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


def group_norm(
    x: Float[Array, "*b h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    *,
    groups: int,
    eps: float = 1e-6,
) -> Float[Array, "*b h w c"]:
    """Normalise over space and groups of channels (Wu and He, 2018).

    Sums are taken a channel first and a group second, which keeps the channel axis whole
    and vectorised; mean, variance, scale and bias then fold into one affine map a
    channel. Statistics are float32 whatever the type of x.
    """
    *batch, height, width, channels = x.shape
    members = channels // groups
    values = x.astype(jnp.float32)
    # A shift near the mean keeps E[x^2] - E[x]^2 from cancelling.
    shift = lax.stop_gradient(values[..., :1, :1, :].mean(-1, keepdims=True))
    values = values - shift
    count = height * width * members
    total = values.sum((-3, -2)).reshape(*batch, groups, members).sum(-1)
    squares = (values * values).sum((-3, -2)).reshape(*batch, groups, members).sum(-1)
    mean = total / count
    variance = jnp.maximum(squares / count - mean * mean, 0.0)
    mean = jnp.repeat(mean, members, axis=-1)
    gain = jnp.repeat(lax.rsqrt(variance + eps), members, axis=-1) * scale
    offset = bias - mean * gain
    y = values * gain[..., None, None, :] + offset[..., None, None, :]
    return y.astype(x.dtype)


class GroupNorm(nnx.Module):
    """Group normalisation with a scale and a bias a channel.

    Raises:
        ValueError: `groups` does not divide `channels`.
    """

    def __init__(self, channels: int, groups: int = 32, *, rngs: nnx.Rngs):
        del rngs  # taken for symmetry with other layers; nothing here is random
        if groups < 1 or channels % groups:
            divisors = [g for g in range(1, channels + 1) if channels % g == 0]
            raise ValueError(
                f"norm groups={groups} must divide C={channels}; "
                f"choose one of {divisors}"
            )
        self.scale = nnx.Param(jnp.ones((channels,)))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.groups = groups

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Normalise a feature map [..., H, W, C]."""
        return group_norm(x, self.scale[...], self.bias[...], groups=self.groups)


def norm_silu(norm: GroupNorm, x: jax.Array) -> jax.Array:
    """Normalise, then SiLU: what precedes every hidden convolution."""
    return nnx.silu(norm(x))

"""Time and class of an image as a vector, and that vector as numbers a channel.

`dense` is latent diffusion's: two dense layers of four times the width, and one more a
residual block, which are most of what a network of channel convolutions weighs.
`prism` takes the vector for a signal along the channel axis. Sines and cosines of the
time at as many frequencies as the network has channels are two fields of that depth;
channel convolutions make everything else of them.
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from deepprism_jax.layers.conv import make_conv
from deepprism_jax.layers.embedding import sinusoidal
from deepprism_jax.ops import ChannelPadding

TimeConv = Literal["dense", "prism"]

_FIELDS = 8
"""Fields of the `prism` signal."""

_FASTEST = 0.1
"""Radians a step of time at its first channel: neighbouring steps are much alike."""


class DenseCondition(nnx.Module):
    """Sinusoids of the time, dense, SiLU, dense; plus a vector a class (LDM)."""

    def __init__(self, width: int, classes: int, *, rngs: nnx.Rngs):
        self.width = width
        self.dense1 = nnx.Linear(width, 4 * width, rngs=rngs)
        self.dense2 = nnx.Linear(4 * width, 4 * width, rngs=rngs)
        self.labels = _table(classes, 4 * width, rngs)

    def __call__(
        self, t: Int[Array, " b"] | Float[Array, " b"], labels: jax.Array | None
    ) -> Float[Array, "b e"]:
        """Return what the layers of the blocks read: [B, 4 width], float32."""
        h = self.dense2(nnx.silu(self.dense1(sinusoidal(t, self.width))))
        if self.labels is not None and labels is not None:
            h = h + _rows(self.labels, labels)
        return nnx.silu(h)


class PrismCondition(nnx.Module):
    """Sinusoids of the time as two fields, channel convolutions of them, and a class.

    A class is `width / 4` numbers, interpolated along the channels.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        channel_padding: ChannelPadding = "circular",
        rngs: nnx.Rngs,
    ):
        self.width = width
        shared: dict[str, Any] = {"channel_padding": channel_padding, "rngs": rngs}
        self.conv1: Any = _channel_conv(width, 2, _FIELDS, **shared)
        self.conv2: Any = _channel_conv(width, _FIELDS, _FIELDS, **shared)
        self.labels = _table(classes, max(width // 4, 1), rngs)
        # Without a bias no class stays zero.
        self.spread: Any = (
            _channel_conv(width, 1, _FIELDS, use_bias=False, **shared)
            if classes
            else None
        )

    def __call__(
        self, t: Int[Array, " b"] | Float[Array, " b"], labels: jax.Array | None
    ) -> Float[Array, "b 1 1 e"]:
        """Return a signal of 8 fields along the channels: [B, 1, 1, 8 width]."""
        waves = sinusoidal(jnp.asarray(t, jnp.float32) * _FASTEST, 2 * self.width, 1e3)
        h = self.conv2(nnx.silu(self.conv1(waves[:, None, None])))
        if self.labels is not None and labels is not None:
            rows = _rows(self.labels, labels)
            rows = jax.image.resize(rows, (len(rows), self.width), "linear")
            h = h + self.spread(rows[:, None, None])
        return nnx.silu(h)


class PrismProjection(nnx.Module):
    """A channel convolution of the signal, times a number a channel."""

    def __init__(
        self,
        width: int,
        channels: int,
        *,
        channel_padding: ChannelPadding = "circular",
        rngs: nnx.Rngs,
    ):
        fields = channels // width
        self.conv: Any = _channel_conv(
            width, _FIELDS, fields, channel_padding=channel_padding, rngs=rngs
        )
        self.gain = nnx.Param(jnp.ones((channels,)))

    def __call__(self, condition: Float[Array, "b 1 1 e"]) -> Float[Array, "b c"]:
        """Map [B, 1, 1, 8 width] to [B, channels]."""
        return self.conv(condition)[:, 0, 0] * self.gain[...]


def make_condition(
    kind: TimeConv,
    width: int,
    classes: int,
    *,
    channel_padding: ChannelPadding = "circular",
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Make what embeds times [B] and labels [B] of a network of this width.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in get_args(TimeConv):
        raise ValueError(
            f"time_conv={kind!r} is unknown; choose one of {list(get_args(TimeConv))}"
        )
    if kind == "dense":
        return DenseCondition(width, classes, rngs=rngs)
    return PrismCondition(width, classes, channel_padding=channel_padding, rngs=rngs)


def make_projection(
    kind: TimeConv,
    width: int,
    channels: int,
    *,
    channel_padding: ChannelPadding = "circular",
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Make what maps that to [B, channels], a multiple of the width, in a block."""
    if kind == "dense":
        return nnx.Linear(4 * width, channels, rngs=rngs)
    return PrismProjection(width, channels, channel_padding=channel_padding, rngs=rngs)


def _channel_conv(depth: int, fields_in: int, fields_out: int, **options: Any):
    """A 1x1 convolution between fields of one depth, whole on every device."""
    return make_conv(
        "deepprism",
        fields_in * depth,
        fields_out * depth,
        kernel_size=1,
        fields=min(fields_in, fields_out),
        role="whole",
        **options,
    )


def _table(classes: int, channels: int, rngs: nnx.Rngs) -> nnx.Param | None:
    """A vector a class, normal at first; None without classes."""
    if not classes:
        return None
    return nnx.Param(jax.random.normal(rngs.params(), (classes, channels)))


def _rows(table: nnx.Param, labels: Int[Array, " b"]) -> jax.Array:
    """Vectors of the labels; one below 0 or past the last is no class, and zero."""
    rows = table[...]
    labels = jnp.where(labels < 0, len(rows), labels)  # they would count from the end
    return jnp.take(rows, labels, axis=0, mode="fill", fill_value=0.0)

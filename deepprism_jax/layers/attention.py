"""Attention over the positions of a feature map, with dense or prism projections."""

from typing import Any

import jax
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from deepprism_jax.layers.conv import ConvFactory, conv_factory
from deepprism_jax.ops import ChannelPadding, channel_shards
from deepprism_jax.ops.attend import attend


class Attention(nnx.Module):
    """Multi-head self-attention over the positions of a feature map, eq. (4).

    Query, key, value and output projections are 1x1 convolutions of the kind that the
    factory makes: dense ones give the baseline, prism ones eq. (5).

    Raises:
        ValueError: `heads` does not divide `channels`.
    """

    def __init__(
        self, channels: int, *, heads: int = 1, conv: ConvFactory, rngs: nnx.Rngs
    ):
        if heads < 1 or channels % heads:
            divisors = [h for h in range(1, channels + 1) if channels % h == 0]
            raise ValueError(
                f"heads={heads} must divide C={channels}; choose one of {divisors}"
            )
        self.heads = heads
        projections: list[Any] = [
            conv(channels, channels, kernel_size=1, rngs=rngs) for _ in range(4)
        ]
        self.query, self.key, self.value, self.output = projections

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Attend among the positions of [..., H, W, C]; no residual is added."""
        flat = x.reshape(-1, *x.shape[-3:])
        q, k, v = (
            rearrange(project(flat), "b h w c -> b (h w) c")
            for project in (self.query, self.key, self.value)
        )
        y = self._attend(q, k, v)
        y = rearrange(y, "b (h w) c -> b h w c", h=x.shape[-3])
        return self.output(y).reshape(x.shape)

    def _attend(self, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        """Attend by heads: [B, N, C] -> [B, N, C].

        Where channels are cut over devices and every one holds whole heads, each
        attends by its own. Else it attends by all heads for a part of the tokens.
        """
        shards = channel_shards.current()
        if shards is None:
            return _by_heads(self.heads, q, k, v)
        if self.heads % (shards.count * shards.fields) == 0:
            return _by_heads(self.heads // shards.count, q, k, v)
        queries = channel_shards.to_tokens(q, shards)
        k, v = (channel_shards.gather(a, shards) for a in (k, v))
        y = _by_heads(self.heads, queries, k, v)
        return channel_shards.to_channels(y, shards)


def _by_heads(heads: int, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    q, k, v = (rearrange(a, "b m (n d) -> b m n d", n=heads) for a in (q, k, v))
    return rearrange(attend(q, k, v), "b m n d -> b m (n d)")


class PrismAttention(Attention):
    """Attention with channel convolutions as projections, eq. (5): 16 parameters."""

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 1,
        channel_padding: ChannelPadding = "circular",
        dtype=None,
        rngs: nnx.Rngs,
    ):
        conv = conv_factory("channel", channel_padding=channel_padding, dtype=dtype)
        super().__init__(channels, heads=heads, conv=conv, rngs=rngs)

"""Attention over the positions of a feature map, with dense or prism projections."""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.layers.conv import ConvFactory, conv_factory
from deepprism_jax.ops import ChannelPadding

MOST_TOKENS_AT_ONCE = 4096
"""Above this many positions the N x N matrix is never formed whole."""

_QUERIES_A_CHUNK = 1024


def attend(
    q: Float[Array, "b n heads d"],
    k: Float[Array, "b n heads d"],
    v: Float[Array, "b n heads d"],
    *,
    most_tokens: int = MOST_TOKENS_AT_ONCE,
) -> Float[Array, "b n heads d"]:
    """softmax(q k^T / sqrt(d)) v over n tokens: eq. (4), see docs/paper.md.

    With more than `most_tokens` tokens the queries are taken in chunks, recomputed in
    the backward pass: memory grows with n instead of n^2, the numbers are the same.
    """
    batch, tokens, heads, size = q.shape
    if tokens <= most_tokens:
        return jax.nn.dot_product_attention(q, k, v)
    chunk = min(_QUERIES_A_CHUNK, most_tokens)
    count = -(-tokens // chunk)
    padded = jnp.pad(q, [(0, 0), (0, count * chunk - tokens), (0, 0), (0, 0)])
    chunks = padded.reshape(batch, count, chunk, heads, size).swapaxes(0, 1)

    @jax.checkpoint
    def attend_chunk(queries):
        return jax.nn.dot_product_attention(queries, k, v)

    y = lax.map(attend_chunk, chunks).swapaxes(0, 1)
    return y.reshape(batch, count * chunk, heads, size)[:, :tokens]


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
            rearrange(project(flat), "b h w (n d) -> b (h w) n d", n=self.heads)
            for project in (self.query, self.key, self.value)
        )
        y = rearrange(attend(q, k, v), "b (h w) n d -> b h w (n d)", h=x.shape[-3])
        return self.output(y).reshape(x.shape)


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

"""Attention over the positions of a feature map, with dense or prism projections."""

from typing import Any

from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from deepprism_jax.layers.conv import ConvFactory, conv_factory
from deepprism_jax.ops import ChannelPadding
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

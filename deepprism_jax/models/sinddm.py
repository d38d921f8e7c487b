"""The denoiser of single-image diffusion (SinDDM, Kulikov et al., 2022), of any kind.

Four blocks at full resolution and no downsampling: what the network sees of an image is
33 pixels wide, so that it learns patches and not the image. The paper's DeepPrism
reading, G = 4 * (Conv-DeepPrism-GeLU-DeepPrism), keeps one width throughout; the
official network halves it at both ends (docs/paper.md).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from deepprism_jax.layers import ConvFactory, conv_factory, make_conv, remat
from deepprism_jax.layers.conv import ConvKind
from deepprism_jax.layers.dense import Conv
from deepprism_jax.layers.embedding import TimeEmbedding
from deepprism_jax.ops import ChannelPadding
from deepprism_jax.typing import Image
from deepprism_jax.weights.pretrained import PretrainedMixin

RECEPTIVE_FIELD = 33
"""Pixels along each side that one pixel of the result depends on; the official program
takes it for 35."""


class SinDDMBlock(nnx.Module):
    """Depthwise 5x5, plus the condition; then conv, GELU, conv; plus a skip."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding: int,
        conv: ConvFactory,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.condition1 = nnx.Linear(embedding, embedding, rngs=rngs)
        self.condition2 = nnx.Linear(embedding, in_channels, rngs=rngs)
        self.depthwise = Conv(
            in_channels,
            in_channels,
            kernel_size=5,
            groups=in_channels,
            dtype=dtype,
            rngs=rngs,
        )
        self.conv1: Any = conv(in_channels, out_channels, rngs=rngs)
        self.conv2: Any = conv(out_channels, out_channels, rngs=rngs)
        changes = in_channels != out_channels
        self.skip: Any = (
            conv(in_channels, out_channels, kernel_size=1, rngs=rngs)
            if changes
            else None
        )

    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """Map [B, H, W, C_in] and [B, E] to [B, H, W, C_out]."""
        c = self.condition1(nnx.gelu(condition, approximate=False))
        h = self.depthwise(x)
        h = h + self.condition2(c)[:, None, None].astype(h.dtype)
        h = self.conv2(nnx.gelu(self.conv1(h), approximate=False))
        return h + (x if self.skip is None else self.skip(x))


class SinDDM(PretrainedMixin, nnx.Module):
    """Predicts the noise, or v, of an image of one scale of a pyramid.

    Args:
        image_channels: channels of the images.
        width: channels C of the hidden layers.
        half_ends: halve the width after the first and after the last block, as the
            official network.
        conv: kind of every hidden convolution, see `layers.make_conv`.
        fields, groups, rank, channel_padding: options of the kinds that have them.
        embedding: channels of the embeddings of time and scale.
        dtype: compute type; parameters and condition stay float32.
        rngs: source of the initial parameters.

    With the official `SinDDM(width=160, half_ends=True, conv="dense")` it has 1,106,772
    parameters; with `conv="deepprism"` at one width of 160, without the dense layers of
    the condition, 18,357.
    """

    def __init__(
        self,
        *,
        image_channels: int = 3,
        width: int = 160,
        half_ends: bool = False,
        conv: ConvKind = "deepprism",
        fields: int = 1,
        groups: int = 32,
        rank: int = 16,
        channel_padding: ChannelPadding = "circular",
        embedding: int = 32,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        for name, value in (("image_channels", image_channels), ("width", width)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if half_ends and width % 2:
            raise ValueError(f"half_ends halves width={width}: choose an even one")
        self.options = nnx.static(
            {
                "image_channels": image_channels,
                "width": width,
                "half_ends": half_ends,
                "conv": conv,
                "fields": fields,
                "groups": groups,
                "rank": rank,
                "channel_padding": channel_padding,
                "embedding": embedding,
                "dtype": jnp.dtype(dtype).name,
            }
        )
        dtype = jnp.dtype(dtype)
        hidden = conv_factory(
            conv,
            fields=fields,
            groups=groups,
            rank=rank,
            channel_padding=channel_padding,
            dtype=dtype,
        )
        self.embedding = TimeEmbedding(2, embedding, 4 * embedding, rngs=rngs)
        ends = width // 2 if half_ends else width
        widths = [image_channels, ends, width, width, ends]
        self.blocks = nnx.List(
            SinDDMBlock(
                widths[n],
                widths[n + 1],
                embedding=embedding,
                conv=hidden if n else _first_conv(hidden, dtype),
                dtype=dtype,
                rngs=rngs,
            )
            for n in range(4)
        )
        self.conv_out = Conv(
            ends,
            image_channels,
            kernel_size=1,
            # Zero at first: the error starts at that of no prediction.
            kernel_init=jax.nn.initializers.zeros,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(
        self, x: Image, t: Int[Array, " b"], scale: Int[Array, " b"]
    ) -> Float[Array, "b h w c"]:
        """Return the prediction, float32 [B, H, W, C], for images of any size.

        Args:
            x: noised images [B, H, W, C].
            t: time of each, 0 ... T - 1.
            scale: scale of each, from 0, the coarsest.
        """
        condition = self.embedding(t, scale)
        h = x
        for block in self.blocks:
            step = jax.checkpoint(block) if remat.policy() == "blocks" else block
            h = step(h, condition)
        return self.conv_out(h).astype(jnp.float32)


def _first_conv(hidden: ConvFactory, dtype: Any) -> ConvFactory:
    """Read the image by dense layers, which has no channel geometry yet."""

    def make(in_channels: int, out_channels: int, **options: Any) -> nnx.Module:
        if in_channels == out_channels:
            return hidden(in_channels, out_channels, **options)
        return make_conv("dense", in_channels, out_channels, dtype=dtype, **options)

    return make

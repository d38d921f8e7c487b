"""Encoder and decoder of the paper's autoencoder, of any kind of convolution.

The structure is latent-diffusion's KL autoencoder with one width at every level: the
one reading of the paper that gives the parameter counts of its Table 3 (docs/paper.md).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from deepprism_jax.layers import (
    AttentionBlock,
    ConvFactory,
    Downsample,
    GroupNorm,
    ResBlock,
    Upsample,
    conv_factory,
    make_conv,
)
from deepprism_jax.layers.blocks import run
from deepprism_jax.layers.conv import ConvKind
from deepprism_jax.ops import ChannelPadding
from deepprism_jax.typing import Image, Latent
from deepprism_jax.weights.pretrained import PretrainedMixin

Block = Callable[[jax.Array], jax.Array]


def _middle(width: int, attention: bool, heads: int, shared: dict[str, Any]):
    """Res Attn Res."""
    yield ResBlock(width, **shared)
    if attention:
        yield AttentionBlock(width, heads=heads, **shared)
    yield ResBlock(width, **shared)


class Encoder(nnx.Module):
    """conv_in, `blocks` Res a level, Down between levels, Res Attn Res, conv_out."""

    def __init__(
        self,
        *,
        image_channels: int,
        out_channels: int,
        width: int,
        conv: ConvFactory,
        downsamples: int,
        blocks: int,
        attention: bool,
        heads: int,
        norm_groups: int,
        dtype,
        rngs: nnx.Rngs,
    ):
        shared: dict[str, Any] = {
            "conv": conv,
            "norm_groups": norm_groups,
            "rngs": rngs,
        }
        # Layers between images and features have no channel geometry: always dense.
        outer: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv_in = make_conv("dense", image_channels, width, role="in", **outer)
        body: list[nnx.Module] = []
        for level in range(downsamples + 1):
            body += [ResBlock(width, **shared) for _ in range(blocks)]
            if level < downsamples:
                body.append(Downsample(width, conv=conv, rngs=rngs))
        body += _middle(width, attention, heads, shared)
        self.body = nnx.List(body)
        self.norm_out = GroupNorm(width, norm_groups, rngs=rngs)
        self.conv_out = make_conv("dense", width, out_channels, role="out", **outer)

    def __call__(self, x: Image) -> Latent:
        """Map images [..., H, W, channels] to [..., H/f, W/f, out_channels]."""
        h = run(self.body, _apply(self.conv_in, x))
        return _apply(self.conv_out, self.norm_out.silu(h))


class Decoder(nnx.Module):
    """conv_in, Res Attn Res, then `blocks` Res a level with Up between levels, out."""

    def __init__(
        self,
        *,
        image_channels: int,
        z_channels: int,
        width: int,
        conv: ConvFactory,
        downsamples: int,
        blocks: int,
        attention: bool,
        heads: int,
        norm_groups: int,
        dtype,
        rngs: nnx.Rngs,
    ):
        shared: dict[str, Any] = {
            "conv": conv,
            "norm_groups": norm_groups,
            "rngs": rngs,
        }
        outer: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv_in = make_conv("dense", z_channels, width, role="in", **outer)
        body: list[nnx.Module] = list(_middle(width, attention, heads, shared))
        for level in range(downsamples + 1):
            body += [ResBlock(width, **shared) for _ in range(blocks)]
            if level < downsamples:
                body.append(Upsample(width, conv=conv, rngs=rngs))
        self.body = nnx.List(body)
        self.norm_out = GroupNorm(width, norm_groups, rngs=rngs)
        self.conv_out = make_conv("dense", width, image_channels, role="out", **outer)

    def features(self, z: Latent) -> jax.Array:
        """Everything but the last layer: [..., H, W, width]."""
        h = run(self.body, _apply(self.conv_in, z))
        return self.norm_out.silu(h)

    def __call__(self, z: Latent) -> Image:
        """Map codes [..., H/f, W/f, z] to images [..., H, W, channels]."""
        return _apply(self.conv_out, self.features(z))


class Autoencoder(PretrainedMixin, nnx.Module):
    """What the KL and the VQ autoencoder share: two networks and two latent layers.

    Args:
        image_channels: channels of the images.
        width: channels C of every hidden layer.
        conv: kind of every hidden convolution, see `layers.make_conv`.
        fields, groups, rank, channel_padding: options of the kinds that have them.
        downsamples: number of 2x resamplings; `factor` = 2**downsamples.
        blocks: Res a level in the encoder; the decoder has one more.
        z_channels: numbers at a position of the latent.
        attention: attention between the middle blocks.
        heads: its heads.
        norm_groups: groups of every GroupNorm.
        dtype: compute type; parameters, norms and softmax stay float32.
        rngs: source of the initial parameters.

    Raises:
        ValueError: options that contradict each other; the message says which.
    """

    moments = 1
    """Numbers that the encoder gives for each number of the latent."""

    def __init__(
        self,
        *,
        image_channels: int = 3,
        width: int = 256,
        conv: ConvKind = "deepprism",
        fields: int = 1,
        groups: int = 32,
        rank: int = 16,
        channel_padding: ChannelPadding = "circular",
        downsamples: int = 2,
        blocks: int = 2,
        z_channels: int = 3,
        attention: bool = True,
        heads: int = 1,
        norm_groups: int = 32,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        for name, value, least in (
            ("image_channels", image_channels, 1),
            ("width", width, 1),
            ("downsamples", downsamples, 0),
            ("blocks", blocks, 0),
            ("z_channels", z_channels, 1),
        ):
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        self.options = nnx.static(
            {
                "image_channels": image_channels,
                "width": width,
                "conv": conv,
                "fields": fields,
                "groups": groups,
                "rank": rank,
                "channel_padding": channel_padding,
                "downsamples": downsamples,
                "blocks": blocks,
                "z_channels": z_channels,
                "attention": attention,
                "heads": heads,
                "norm_groups": norm_groups,
                "dtype": jnp.dtype(dtype).name,
            }
        )
        dtype = jnp.dtype(dtype)
        shared: dict[str, Any] = {
            "image_channels": image_channels,
            "width": width,
            "conv": conv_factory(
                conv,
                fields=fields,
                groups=groups,
                rank=rank,
                channel_padding=channel_padding,
                dtype=dtype,
            ),
            "downsamples": downsamples,
            "attention": attention,
            "heads": heads,
            "norm_groups": norm_groups,
            "dtype": dtype,
            "rngs": rngs,
        }
        latent = self.moments * z_channels
        pointwise: dict[str, Any] = {
            "kernel_size": 1,
            "dtype": dtype,
            "role": "whole",
            "rngs": rngs,
        }
        self.encoder = Encoder(out_channels=latent, blocks=blocks, **shared)
        self.quant_conv = make_conv("dense", latent, latent, **pointwise)
        self.post_quant_conv = make_conv("dense", z_channels, z_channels, **pointwise)
        self.decoder = Decoder(z_channels=z_channels, blocks=blocks + 1, **shared)

    @property
    def factor(self) -> int:
        """Pixels of an image a position of the latent, along height and along width."""
        return 2 ** self.options["downsamples"]

    def check_image(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError where images [..., H, W, C] do not fit the network."""
        height, width, channels = shape[-3:]
        if channels != self.options["image_channels"]:
            raise ValueError(
                f"images have {channels} channels, the autoencoder was made for "
                f"{self.options['image_channels']}: set image_channels={channels}"
            )
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"image size {height}x{width} is not divisible by the factor "
                f"{self.factor}; crop or resize to "
                f"{max(height // self.factor, 1) * self.factor}x"
                f"{max(width // self.factor, 1) * self.factor}"
            )

    def check_code(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError where codes [..., H/f, W/f, z] do not fit the network."""
        if shape[-1] != self.options["z_channels"]:
            raise ValueError(
                f"codes have {shape[-1]} channels, the autoencoder was made for "
                f"{self.options['z_channels']}: set z_channels={shape[-1]}"
            )

    def moments_of(self, x: Image) -> jax.Array:
        """Output of the encoder, float32: [..., H/f, W/f, moments * z]."""
        self.check_image(x.shape)
        return _apply(self.quant_conv, self.encoder(x)).astype(jnp.float32)

    def decode_features(self, z: Latent) -> jax.Array:
        """Features [..., H, W, width] from which `decode` makes the image."""
        self.check_code(z.shape)
        return self.decoder.features(_apply(self.post_quant_conv, z))

    def decode(self, z: Latent) -> Image:
        """Images [..., H, W, channels], about [-1, 1], of codes [..., H/f, W/f, z]."""
        features = self.decode_features(z)
        return _apply(self.decoder.conv_out, features).astype(jnp.float32)


def _apply(layer: Any, x: jax.Array) -> jax.Array:
    """Call a layer; modules of different kinds share no static type with `__call__`."""
    return layer(x)

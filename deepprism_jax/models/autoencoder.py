"""Encoder, decoder and latent layers: what the KL and the VQ autoencoder share.

With one width at every level the structure is the one reading of the paper that gives
the parameter counts of its Table 3 (docs/paper.md). `multipliers` and
`downsample_padding` make it latent-diffusion's own.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from deepprism_jax.layers import conv_factory, make_conv
from deepprism_jax.layers.blocks import DownsamplePadding
from deepprism_jax.layers.conv import ConvKind
from deepprism_jax.models.coders import Decoder, Encoder, apply, level_widths
from deepprism_jax.ops import ChannelPadding
from deepprism_jax.typing import Image, Latent
from deepprism_jax.weights.pretrained import PretrainedMixin


class Autoencoder(PretrainedMixin, nnx.Module):
    """What the KL and the VQ autoencoder share: two networks and two latent layers.

    Args:
        image_channels: channels of the images.
        width: channels C of every hidden layer, times the multiplier of its level.
        multipliers: one a level, `downsamples` + 1 of them from the images on; empty
            is 1 at every level.
        conv: kind of every hidden convolution, see `layers.make_conv`.
        fields, groups, rank, channel_padding: options of the kinds that have them.
        downsamples: number of 2x resamplings; `factor` = 2**downsamples.
        downsample_padding: zeros around the maps that are shrunk: on all sides
            (`both`), or below and to the right alone (`after`, latent-diffusion's).
        blocks: Res a level in the encoder; the decoder has one more.
        z_channels: numbers at a position of the latent.
        quant_conv: a 1x1 convolution behind the encoder.
        post_quant_conv: one before the decoder.
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
        multipliers: Sequence[int] = (),
        conv: ConvKind = "deepprism",
        fields: int = 1,
        groups: int = 32,
        rank: int = 16,
        channel_padding: ChannelPadding = "circular",
        downsamples: int = 2,
        downsample_padding: DownsamplePadding = "both",
        blocks: int = 2,
        z_channels: int = 3,
        quant_conv: bool = True,
        post_quant_conv: bool = True,
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
        widths = level_widths(width, multipliers, downsamples, blocks)
        self.options = nnx.static(
            {
                "image_channels": image_channels,
                "width": width,
                "multipliers": tuple(multipliers),
                "conv": conv,
                "fields": fields,
                "groups": groups,
                "rank": rank,
                "channel_padding": channel_padding,
                "downsamples": downsamples,
                "downsample_padding": downsample_padding,
                "blocks": blocks,
                "z_channels": z_channels,
                "quant_conv": quant_conv,
                "post_quant_conv": post_quant_conv,
                "attention": attention,
                "heads": heads,
                "norm_groups": norm_groups,
                "dtype": jnp.dtype(dtype).name,
            }
        )
        dtype = jnp.dtype(dtype)
        shared: dict[str, Any] = {
            "image_channels": image_channels,
            "conv": conv_factory(
                conv,
                fields=fields,
                groups=groups,
                rank=rank,
                channel_padding=channel_padding,
                dtype=dtype,
            ),
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
        self.encoder = Encoder(
            out_channels=latent,
            widths=widths,
            downsample_padding=downsample_padding,
            blocks=blocks,
            **shared,
        )
        self.quant_conv = (
            make_conv("dense", latent, latent, **pointwise) if quant_conv else None
        )
        self.post_quant_conv = (
            make_conv("dense", z_channels, z_channels, **pointwise)
            if post_quant_conv
            else None
        )
        self.decoder = Decoder(
            z_channels=z_channels, widths=widths[::-1], blocks=blocks + 1, **shared
        )

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
        return apply(self.quant_conv, self.encoder(x)).astype(jnp.float32)

    def decode_features(self, z: Latent) -> jax.Array:
        """Features [..., H, W, C] from which `decode` makes the image."""
        self.check_code(z.shape)
        return self.decoder.features(apply(self.post_quant_conv, z))

    def decode(self, z: Latent) -> Image:
        """Images [..., H, W, channels], about [-1, 1], of codes [..., H/f, W/f, z]."""
        features = self.decode_features(z)
        return apply(self.decoder.conv_out, features).astype(jnp.float32)

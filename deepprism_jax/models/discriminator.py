"""PatchGAN discriminator of eq. (9), dense or prism by the autoencoder's own dial."""

import math

import jax
from flax import nnx
from jaxtyping import Array, Float

from deepprism_jax.layers import ConvFactory, ConvKind, GroupNorm, conv_factory
from deepprism_jax.ops import ChannelPadding


def default_layers(image_size: int | tuple[int, int]) -> int:
    """Strided layers for an image's size: 2 up to 32 pixels, 3 above."""
    sides = (image_size,) if isinstance(image_size, int) else image_size
    return 2 if min(sides) <= 32 else 3


class PatchDiscriminator(nnx.Module):
    """Discriminator of overlapping patches (Isola et al., 2017), as latent diffusion's.

    A 4x4 convolution of stride 2 with LeakyReLU; `layers - 1` hidden convolutions of
    stride 2 and one of stride 1, each with GroupNorm and LeakyReLU; one 3x3 convolution
    to the logits. Where the weights of a kind grow with its width, the width doubles a
    layer, up to 8 times the first; the kinds that keep their channels keep it.
    GroupNorm in the place of BatchNorm: real and reconstructed images do not see each
    other's statistics, nor do devices. Hidden convolutions are 3x3 where the original's
    are 4x4, because channel convolutions are odd.

    Args:
        image_channels: channels of the images.
        width: channels after the first layer.
        layers: strided layers; a logit judges a patch of 6 * 2**layers pixels a side.
        conv: kind of the hidden convolutions.
        fields, groups, rank, channel_padding: options of the kind, see `make_conv`.
        norm_groups: groups of the GroupNorms at most; fewer where they do not divide
            the channels or would leave a group with one channel.
        dtype: compute type of the convolutions; logits and parameters are float32.
        rngs: source of the initial parameters.

    Raises:
        ValueError: `layers` is below 1, or the kind cannot take the width.
    """

    def __init__(
        self,
        *,
        image_channels: int = 3,
        width: int = 64,
        layers: int = 3,
        conv: ConvKind = "dense",
        fields: int = 1,
        groups: int = 32,
        rank: int = 16,
        channel_padding: ChannelPadding = "circular",
        norm_groups: int = 32,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if layers < 1:
            raise ValueError(f"discriminator layers={layers} must be at least 1")
        make = conv_factory(
            conv,
            fields=fields,
            groups=groups,
            rank=rank,
            channel_padding=channel_padding,
            use_bias=False,  # the norm that follows has one
            dtype=dtype,
            role="whole",
        )
        doublings = range(layers + 1) if _grows(make, width) else [0] * (layers + 1)
        widths = [width * min(2**n, 8) for n in doublings]
        self.layers = layers
        self.conv_in = nnx.Conv(
            image_channels, width, (4, 4), strides=2, padding=1, dtype=dtype, rngs=rngs
        )
        self.hidden = nnx.List(
            HiddenLayer(
                make(
                    widths[n],
                    widths[n + 1],
                    strides=2 if n + 1 < layers else 1,
                    rngs=rngs,
                ),
                GroupNorm(
                    widths[n + 1],
                    _fit_groups(norm_groups, widths[n + 1]),
                    role="whole",
                    rngs=rngs,
                ),
            )
            for n in range(layers)
        )
        self.conv_out = nnx.Conv(
            widths[-1], 1, (3, 3), padding=1, dtype=dtype, rngs=rngs
        )

    def __call__(self, images: Float[Array, "*b h w c"]) -> Float[Array, "*b oh ow 1"]:
        """Map images in [-1, 1] to float32 logits, one a patch; high means real.

        Raises:
            ValueError: the images are below 2**(layers + 1) pixels, which leaves less
                than 2x2 logits.
        """
        height, width = images.shape[-3:-1]
        least = 2 ** (self.layers + 1)
        if min(height, width) < least:
            fitting = int(math.log2(max(min(height, width), 1))) - 1
            remedy = f"use layers={fitting} or larger" if fitting >= 1 else "use larger"
            raise ValueError(
                f"a discriminator of layers={self.layers} needs images of at least "
                f"{least}x{least}, got {height}x{width}; {remedy} images"
            )
        x = nnx.leaky_relu(self.conv_in(images), 0.2)
        for layer in self.hidden:
            x = layer(x)
        return self.conv_out(x).astype("float32")


class HiddenLayer(nnx.Module):
    """Convolution, GroupNorm, LeakyReLU."""

    def __init__(self, conv: nnx.Module, norm: GroupNorm):
        self.conv = conv
        self.norm = norm

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b oh ow oc"]:
        """Apply to a feature map [..., H, W, C]."""
        return nnx.leaky_relu(self.norm(self.conv(x)), 0.2)  # pyright: ignore[reportCallIssue]


def _grows(make: ConvFactory, width: int) -> bool:
    """Whether the weights of a kind grow with its width, as a dense kernel's do."""

    def weights(channels: int) -> int:
        shapes = jax.eval_shape(
            lambda: nnx.to_pure_dict(
                nnx.state(make(channels, channels, rngs=nnx.Rngs(0)), nnx.Param)
            )
        )
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    return weights(width) < weights(2 * width)


def _fit_groups(most: int, channels: int) -> int:
    """Return the largest divisor of `channels` that leaves two or more in a group."""
    most = max(min(most, channels // 2), 1)
    return next(g for g in range(most, 0, -1) if channels % g == 0)

"""Encoder and decoder of the autoencoders, of any kind of convolution.

The structure is latent-diffusion's KL autoencoder; `widths` of one number are the
paper's reading of it (docs/paper.md).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
from flax import nnx

from deepprism_jax.layers import (
    AttentionBlock,
    ConvFactory,
    Downsample,
    GroupNorm,
    ResBlock,
    Upsample,
    make_conv,
)
from deepprism_jax.layers.blocks import DownsamplePadding, run
from deepprism_jax.typing import Image, Latent


def _middle(width: int, attention: bool, heads: int, shared: dict[str, Any]):
    """Res Attn Res."""
    yield ResBlock(width, **shared)
    if attention:
        yield AttentionBlock(width, heads=heads, **shared)
    yield ResBlock(width, **shared)


def _level(before: int, width: int, blocks: int, shared: dict[str, Any]):
    """Res of one level, the first of which leads to its width."""
    for block in range(blocks):
        yield ResBlock(width if block else before, width, **shared)


def _steps(widths: tuple[int, ...]) -> Iterator[tuple[int, int, bool]]:
    """Width before each level, its own, and whether it is the last."""
    for level, width in enumerate(widths):
        yield widths[max(level - 1, 0)], width, level == len(widths) - 1


class Encoder(nnx.Module):
    """conv_in, `blocks` Res a level, Down between levels, Res Attn Res, conv_out.

    Level i has `widths[i]` channels, from the images on.
    """

    def __init__(
        self,
        *,
        image_channels: int,
        out_channels: int,
        widths: tuple[int, ...],
        conv: ConvFactory,
        downsample_padding: DownsamplePadding,
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
        width = widths[0]
        self.conv_in = make_conv("dense", image_channels, width, role="in", **outer)
        body: list[nnx.Module] = []
        for before, width, last in _steps(widths):
            body += _level(before, width, blocks, shared)
            if not last:
                down = Downsample(
                    width, conv=conv, padding=downsample_padding, rngs=rngs
                )
                body.append(down)
        body += _middle(width, attention, heads, shared)
        self.body = nnx.List(body)
        self.norm_out = GroupNorm(width, norm_groups, rngs=rngs)
        self.conv_out = make_conv("dense", width, out_channels, role="out", **outer)

    def __call__(self, x: Image) -> Latent:
        """Map images [..., H, W, channels] to [..., H/f, W/f, out_channels]."""
        h = run(self.body, apply(self.conv_in, x))
        return apply(self.conv_out, self.norm_out.silu(h))


class Decoder(nnx.Module):
    """conv_in, Res Attn Res, then `blocks` Res a level with Up between levels, out.

    Level i has `widths[i]` channels, from the codes on.
    """

    def __init__(
        self,
        *,
        image_channels: int,
        z_channels: int,
        widths: tuple[int, ...],
        conv: ConvFactory,
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
        width = widths[0]
        self.conv_in = make_conv("dense", z_channels, width, role="in", **outer)
        body: list[nnx.Module] = list(_middle(width, attention, heads, shared))
        for before, width, last in _steps(widths):
            body += _level(before, width, blocks, shared)
            if not last:
                body.append(Upsample(width, conv=conv, rngs=rngs))
        self.body = nnx.List(body)
        self.norm_out = GroupNorm(width, norm_groups, rngs=rngs)
        self.conv_out = make_conv("dense", width, image_channels, role="out", **outer)

    def features(self, z: Latent) -> jax.Array:
        """Everything but the last layer: [..., H, W, widths[-1]]."""
        h = run(self.body, apply(self.conv_in, z))
        return self.norm_out.silu(h)

    def __call__(self, z: Latent) -> Image:
        """Map codes [..., H/f, W/f, z] to images [..., H, W, channels]."""
        return apply(self.conv_out, self.features(z))


def level_widths(
    width: int, multipliers: Sequence[int], downsamples: int, blocks: int
) -> tuple[int, ...]:
    """Return the channels of every level, from the images on.

    Raises:
        ValueError: the multipliers are not one a level, or there is no block in which
            the width could change.
    """
    multipliers = tuple(multipliers) or (1,) * (downsamples + 1)
    if len(multipliers) != downsamples + 1 or min(multipliers) < 1:
        raise ValueError(
            f"multipliers={multipliers} must be one positive integer a level, "
            f"{downsamples + 1} of them (downsamples={downsamples}), or none"
        )
    if blocks < 1 and len(set(multipliers)) > 1:
        raise ValueError(
            f"blocks={blocks} leaves no block to change the width in: with "
            f"multipliers={multipliers} it must be at least 1"
        )
    return tuple(width * multiplier for multiplier in multipliers)


def apply(layer: Any, x: jax.Array) -> jax.Array:
    """Call a layer; modules of different kinds share no static type with `__call__`.

    Where there is none, x is the result.
    """
    return x if layer is None else layer(x)

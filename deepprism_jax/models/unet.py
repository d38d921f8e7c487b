"""The U-Net of latent diffusion (Rombach et al., 2022), of any kind of convolution.

Latent diffusion's structure; in the paper's reading (section 4.3) with one width at
every level. A skip connection puts two maps of C channels side by side. To a channel
convolution these are two fields of one depth, which it maps to one by 54 + 1 weights,
and by 6 + 1 beside the block: there is no dense layer between feature maps anywhere.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from deepprism_jax.layers import (
    AttentionBlock,
    Downsample,
    GroupNorm,
    Upsample,
    make_conv,
    remat,
)
from deepprism_jax.layers.condition import TimeConv, make_condition, make_projection
from deepprism_jax.layers.conv import ConvKind, zeroed
from deepprism_jax.layers.time_blocks import TimeResBlock
from deepprism_jax.models.unet_levels import (
    Features,
    Level,
    Unit,
    channels_of,
    side_by_side,
)
from deepprism_jax.ops import ChannelPadding
from deepprism_jax.weights.pretrained import PretrainedMixin


class UNet(PretrainedMixin, nnx.Module):
    """Predicts the noise, v or the clean latent of noised latents.

    conv_in; `blocks` Res a level, each with attention at the levels that have it, Down
    between levels; Res Attn Res; `blocks + 1` Res a level that read the maps of the way
    down in reverse, Up between levels; norm, SiLU, conv_out.

    Args:
        channels: channels of the latent.
        width: channels C of the first level.
        multipliers: channels of each level, as multiples of the width. A channel
            convolution keeps its depth, and a level of m C channels has m fields.
        blocks: Res a level on the way down.
        attention: downsampling factors, 1, 2, 4, ..., that have attention.
        heads: heads of the attention.
        norm_groups: groups of every GroupNorm.
        conv: kind of every hidden convolution, see `layers.make_conv`.
        fields: fields of a map of `width` channels, for the kinds that have them.
        groups, rank, channel_padding: options of the kinds that have them.
        time_conv: `dense` layers for time and class, as in the paper, or `prism`,
            channel convolutions; see `layers.condition`.
        scale_shift: the time scales and shifts the second norm of a Res, in place of
            being added before it: adaptive group normalisation.
        dropout: share dropped in every Res, where a key is given.
        classes: number of classes; 0 is an unconditional model.
        dtype: compute type; parameters, norms, softmax and time stay float32.
        rngs: source of the initial parameters.

    `latent_mean` and `latent_std`, a number a channel, belong to the latents that it
    was trained on; see `normalize`.

    At width 256 it has 37,624,067 parameters with `conv="dense"`, and 48,822 with
    `conv="deepprism", time_conv="prism"`; without the layers of the time, 31,850,499
    and 43,789.

    Raises:
        ValueError: options that contradict each other; the message says which.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 256,
        multipliers: Sequence[int] = (1, 1, 1),
        blocks: int = 2,
        attention: Sequence[int] = (2, 4),
        heads: int = 1,
        norm_groups: int = 32,
        conv: ConvKind = "deepprism",
        fields: int = 1,
        groups: int = 32,
        rank: int = 16,
        channel_padding: ChannelPadding = "circular",
        time_conv: TimeConv = "dense",
        scale_shift: bool = False,
        dropout: float = 0.0,
        classes: int = 0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        multipliers, attention = tuple(multipliers), tuple(attention)
        _check(
            channels, width, multipliers, blocks, attention, fields, dropout, classes
        )
        self.options = nnx.static(
            {
                "channels": channels,
                "width": width,
                "multipliers": multipliers,
                "blocks": blocks,
                "attention": attention,
                "heads": heads,
                "norm_groups": norm_groups,
                "conv": conv,
                "fields": fields,
                "groups": groups,
                "rank": rank,
                "channel_padding": channel_padding,
                "time_conv": time_conv,
                "scale_shift": scale_shift,
                "dropout": dropout,
                "classes": classes,
                "dtype": jnp.dtype(dtype).name,
            }
        )
        dtype = jnp.dtype(dtype)
        depth = width // fields

        def hidden(in_channels: int, out_channels: int, **options: Any) -> nnx.Module:
            return make_conv(
                conv,
                in_channels,
                out_channels,
                fields=min(in_channels, out_channels) // depth,
                groups=groups,
                rank=rank,
                channel_padding=channel_padding,
                dtype=dtype,
                **options,
            )

        of_time: dict[str, Any] = {"channel_padding": channel_padding, "rngs": rngs}
        project = partial(make_projection, time_conv, width, **of_time)
        normed: dict[str, Any] = {"norm_groups": norm_groups, "rngs": rngs}

        def unit(sizes: tuple[int, int], attends: bool) -> Unit:
            res = TimeResBlock(
                *sizes,
                conv=hidden,
                project=project,
                scale_shift=scale_shift,
                dropout=dropout,
                **normed,
            )
            if not attends:
                return Unit(res, None)
            block = AttentionBlock(sizes[1], heads=heads, conv=hidden, **normed)
            zeroed(block.attention.output)
            return Unit(res, block)

        self.condition: Any = make_condition(time_conv, width, classes, **of_time)
        outer: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv_in: Any = make_conv("dense", channels, width, role="in", **outer)
        down, up = channels_of(width, multipliers, blocks)
        last = len(multipliers) - 1
        self.down, self.up = nnx.List(), nnx.List()
        for n, sizes in enumerate(down):
            units = [unit(pair, 2**n in attention) for pair in sizes]
            now = multipliers[n] * width
            resample = Downsample(now, conv=hidden, rngs=rngs) if n < last else None
            self.down.append(Level(units, resample))
        bottom = multipliers[-1] * width
        units = [unit((bottom, bottom), attends) for attends in (True, False)]
        self.middle = Level(units)
        for n, sizes in zip(range(last, -1, -1), up, strict=True):
            units = [unit(pair, 2**n in attention) for pair in sizes]
            now = multipliers[n] * width
            resample = Upsample(now, conv=hidden, rngs=rngs) if n else None
            self.up.append(Level(units, resample))
        now = multipliers[0] * width
        self.norm_out = GroupNorm(now, norm_groups, rngs=rngs)
        out = make_conv("dense", now, channels, role="out", **outer)
        self.conv_out: Any = zeroed(out)
        self.latent_mean = nnx.Variable(jnp.zeros((channels,)))
        self.latent_std = nnx.Variable(jnp.ones((channels,)))

    @property
    def factor(self) -> int:
        """Height and width of a latent must be multiples of it."""
        return 2 ** (len(self.options["multipliers"]) - 1)

    def normalize(self, z: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Map latents of the autoencoder to what the network works on."""
        return (z - self.latent_mean[...]) / self.latent_std[...]

    def denormalize(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Map what the network works on to latents of the autoencoder."""
        return x * self.latent_std[...] + self.latent_mean[...]

    def check_latent(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError where latents [..., h, w, C] do not fit the network."""
        height, width, channels = shape[-3:]
        if channels != self.options["channels"]:
            raise ValueError(
                f"latents have {channels} channels, the U-Net was made for "
                f"{self.options['channels']}: set channels={channels}"
            )
        factor = self.factor
        if height % factor or width % factor:
            near = [max(round(n / factor), 1) * factor for n in (height, width)]
            raise ValueError(
                f"latent size {height}x{width} is not divisible by the factor "
                f"{factor} of the U-Net; the nearest that is: {near[0]}x{near[1]}"
            )

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Int[Array, " b"] | Float[Array, " b"],
        labels: Int[Array, " b"] | None = None,
        *,
        dropout_keys: jax.Array | None = None,
    ) -> Float[Array, "b h w c"]:
        """Return the prediction, float32 [B, h, w, C], for latents of any size.

        Args:
            x: noised latents [B, h, w, C], normalised; h and w multiples of `factor`.
            t: time of each, 0 ... T - 1.
            labels: class of each; `classes`, the one past the last, is no class, which
                is what None gives to all.
            dropout_keys: a key an image of what is dropped; None drops nothing.
        """
        self.check_latent(x.shape)
        if labels is not None and not self.options["classes"]:
            raise ValueError(
                "labels were given to an unconditional U-Net: make it with classes="
            )
        condition = self.condition(t, labels)
        numbers = itertools.count()

        def apply(unit: Unit, features: Features) -> Features:
            keys, number = dropout_keys, next(numbers)
            if keys is not None:
                keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
            step = jax.checkpoint(unit) if remat.policy() == "blocks" else unit
            return step(features, condition, keys)

        h = Features(self.conv_in(x))
        skips = [h]
        for level in self.down:
            for unit in level.units:
                h = apply(unit, h)
                skips.append(h)
            if level.resample is not None:
                h = Features(level.resample(h.map))
                skips.append(h)
        for unit in self.middle.units:
            h = apply(unit, h)
        for level in self.up:
            for unit in level.units:
                h = apply(unit, side_by_side(h, skips.pop()))
            if level.resample is not None:
                h = Features(level.resample(h.map))
        return self.conv_out(self.norm_out.silu(h.map)).astype(jnp.float32)


def _check(
    channels: int,
    width: int,
    multipliers: tuple[int, ...],
    blocks: int,
    attention: tuple[int, ...],
    fields: int,
    dropout: float,
    classes: int,
) -> None:
    for name, value, least in (
        ("channels", channels, 1),
        ("width", width, 4),
        ("number of multipliers", len(multipliers), 1),
        ("smallest of multipliers", min(multipliers, default=1), 1),
        ("blocks", blocks, 1),
        ("fields", fields, 1),
        ("classes", classes, 0),
    ):
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}")
    if width % fields:
        raise ValueError(f"fields={fields} must divide width={width}")
    if width % 2:
        raise ValueError(f"width={width} must be even: sines and cosines of the time")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout={dropout} must lie in [0, 1)")
    factors = [2**n for n in range(len(multipliers))]
    if unknown := sorted(set(attention) - set(factors)):
        raise ValueError(
            f"attention={unknown[0]} is no downsampling factor of {len(multipliers)} "
            f"levels; choose from {factors}"
        )

"""Shapes of the channel convolution: what every formulation agrees on.

A feature map with C channels is read as F fields of depth D, C = F * D, field-major:
channel `f * D + d` is field f at position d of the channel axis. So concatenating two
one-field maps along the channels makes a two-field map.
"""

import operator
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp

from deepprism_jax.choices import ChannelPadding as ChannelPadding

PAD_MODE = {"zero": "constant", "replicate": "edge", "circular": "wrap"}


class Geometry(NamedTuple):
    """Static shape of one channel convolution; hashable."""

    height: int
    width: int
    depth: int
    kernel_shape: tuple[int, int, int, int, int]
    padding: ChannelPadding
    strides: tuple[int, int]

    @property
    def fields_in(self) -> int:
        """Fields of the input."""
        return self.kernel_shape[3]

    @property
    def fields_out(self) -> int:
        """Fields of the output."""
        return self.kernel_shape[4]

    @property
    def halo(self) -> tuple[int, int, int]:
        """Padding on either side of height, width and depth."""
        height, width, depth = self.kernel_shape[:3]
        return height // 2, width // 2, depth // 2

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the output: the input's over the stride, rounded up."""
        return -(-self.height // self.strides[0]), -(-self.width // self.strides[1])


def geometry_of(
    x: jax.Array,
    kernel: jax.Array,
    channel_padding: ChannelPadding,
    strides: int | tuple[int, int],
) -> Geometry:
    """Check the arguments of a channel convolution and describe them.

    Raises:
        ValueError: an argument that no formulation can take; the message names it.
    """
    if channel_padding not in get_args(ChannelPadding):
        raise ValueError(
            f"channel_padding={channel_padding!r} is unknown; "
            f"choose one of {list(get_args(ChannelPadding))}"
        )
    if kernel.ndim != 5:
        raise ValueError(
            f"kernel has shape {kernel.shape}; it must have five axes "
            "[K_H, K_W, K_C, F_in, F_out]"
        )
    if x.ndim < 3:
        raise ValueError(f"x has shape {x.shape}; it must be [..., H, W, C]")
    if 0 in x.shape:
        raise ValueError(f"x has shape {x.shape}; no axis may be empty")
    if any(size % 2 == 0 for size in kernel.shape[:3]):
        raise ValueError(
            f"kernel sizes {kernel.shape[:3]} must be odd, so that the output stays "
            "centred on the input"
        )
    if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in (x, kernel)):
        raise ValueError(
            f"x and kernel have types {x.dtype} and {kernel.dtype}; both must be "
            "floating: convert pixels with deepprism_jax.ops.to_float"
        )
    rows, columns, taps, fields, fields_out = kernel.shape
    channels = x.shape[-1]
    if channels % fields:
        raise ValueError(
            f"C={channels} channels are not a multiple of F_in={fields} fields; "
            f"choose fields that divide {channels}"
        )
    return Geometry(
        height=x.shape[-3],
        width=x.shape[-2],
        depth=channels // fields,
        kernel_shape=(rows, columns, taps, fields, fields_out),
        padding=channel_padding,
        strides=_pair(strides),
    )


def _pair(strides: Any) -> tuple[int, int]:
    both = strides if isinstance(strides, tuple | list) else (strides, strides)
    try:
        rows, columns = map(operator.index, both)
    except (TypeError, ValueError):
        rows = columns = 0
    if min(rows, columns) < 1:
        raise ValueError(f"strides={strides} must be one or two positive integers")
    return rows, columns

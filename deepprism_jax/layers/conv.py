"""The one place where a kind of convolution is chosen."""

import operator
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, get_args

import jax.numpy as jnp
from flax import nnx

from deepprism_jax.choices import ConvKind as ConvKind
from deepprism_jax.layers.dense import Conv, DepthwiseSeparableConv, LowRankConv
from deepprism_jax.layers.prism import PrismConv, SeparablePrismConv
from deepprism_jax.layers.role import Role
from deepprism_jax.ops import ChannelPadding

ConvFactory = Callable[..., nnx.Module]
"""`make_conv` with its kind filled in: `conv(in_channels, out_channels, rngs=rngs)`."""


def make_conv(
    kind: ConvKind,
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int = 3,
    strides: int = 1,
    fields: int = 1,
    groups: int = 32,
    rank: int = 16,
    channel_padding: ChannelPadding = "circular",
    use_bias: bool = True,
    dtype=None,
    role: Role = "hidden",
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Make a convolution [..., H, W, C_in] -> [..., ceil(H/s), ceil(W/s), C_out].

    | kind | weights, K = kernel_size | source |
    |---|---|---|
    | `dense` | K K C_in C_out | the baseline |
    | `group` | K K C_in C_out / groups | Krizhevsky et al., 2012 |
    | `depthwise_separable` | K K C_in + C_in C_out | Chollet, 2017 |
    | `low_rank` | K K C_in rank + rank C_out | Yu et al., 2017 |
    | `channel` | K (no mixing in space) | eq. (1) |
    | `prism_separable` | K K + K | eq. (2) |
    | `deepprism` | K K K fields^2 | eq. (3) at fields = 1 |

    With `kernel_size=1` the last three are the channel convolution of eq. (1) with
    three taps, the counterpart of a dense 1x1. A kind of one field keeps the channels;
    where their numbers differ `deepprism` reads the larger one as more fields of one
    depth: 2C -> C is two fields to one. With as many fields as channels its channel
    axis has one position, and needs one tap: it is the dense kind.

    `role` counts where channels are cut over devices, see `layers.role`.

    Raises:
        ValueError: the kind cannot take this shape; the message says what would do.
    """
    if kind not in get_args(ConvKind):
        raise ValueError(
            f"conv={kind!r} is unknown; choose one of {list(get_args(ConvKind))}"
        )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size={kernel_size} must be odd and positive")
    in_channels = _positive("in_channels", in_channels)
    out_channels = _positive("out_channels", out_channels)
    shape = (in_channels, out_channels)
    common: dict[str, Any] = {
        "strides": _positive("strides", strides),
        "use_bias": use_bias,
        "dtype": dtype,
        "role": role,
        "rngs": rngs,
    }
    if kind == "dense":
        return Conv(*shape, kernel_size=kernel_size, **common)
    if kind == "group":
        _require_groups(groups, *shape)
        return Conv(*shape, kernel_size=kernel_size, groups=groups, **common)
    if kind == "depthwise_separable":
        if kernel_size == 1:  # the pointwise half alone
            return Conv(*shape, kernel_size=1, **common)
        return DepthwiseSeparableConv(*shape, kernel_size=kernel_size, **common)
    if kind == "low_rank":
        _require_rank(rank, *shape)
        return LowRankConv(*shape, rank=rank, kernel_size=kernel_size, **common)
    common["channel_padding"] = channel_padding
    taps = 3 if kernel_size == 1 else kernel_size
    if kind == "channel":
        _require_same_channels(kind, *shape)
        return PrismConv(kernel_size=(1, 1, taps), depth=in_channels, **common)
    if kind == "prism_separable":
        _require_same_channels(kind, *shape)
        common["depth"] = in_channels
        if kernel_size == 1:
            return PrismConv(kernel_size=(1, 1, taps), **common)
        return SeparablePrismConv(kernel_size=kernel_size, taps=taps, **common)
    depth = _depth_of_fields(fields, *shape)
    return PrismConv(
        in_channels // depth,
        out_channels // depth,
        kernel_size=(kernel_size, kernel_size, 1 if depth == 1 else taps),
        depth=depth,
        **common,
    )


def conv_factory(kind: ConvKind, **options) -> ConvFactory:
    """`make_conv` with the kind and its options filled in, for models to call."""
    return partial(make_conv, kind, **options)


def zeroed(conv: Any) -> Any:
    """Return a convolution that gives zero at first.

    Of one made of two layers the second alone is zero: were both, none would ever move.
    """
    last = conv
    for name in ("pointwise", "expand", "channel"):
        last = getattr(conv, name, last)
    last.kernel[...] = jnp.zeros_like(last.kernel[...])
    return conv


def _positive(name: str, value: Any) -> int:
    with suppress(TypeError):
        if (number := operator.index(value)) >= 1:
            return number
    raise ValueError(f"{name}={value} must be one positive integer")


def _require_groups(groups: int, in_channels: int, out_channels: int) -> None:
    if groups >= 1 and in_channels % groups == 0 and out_channels % groups == 0:
        return
    smaller = min(in_channels, out_channels)
    divisors = [
        g
        for g in range(1, smaller + 1)
        if in_channels % g == 0 and out_channels % g == 0
    ]
    raise ValueError(
        f"groups={groups} must divide C_in={in_channels} and C_out={out_channels}; "
        f"choose one of {divisors}"
    )


def _require_rank(rank: int, in_channels: int, out_channels: int) -> None:
    if not 1 <= rank <= min(in_channels, out_channels):
        raise ValueError(
            f"rank={rank} must lie between 1 and {min(in_channels, out_channels)}, the "
            f"smaller of C_in={in_channels} and C_out={out_channels}"
        )


def _require_same_channels(kind: str, in_channels: int, out_channels: int) -> None:
    if in_channels != out_channels:
        raise ValueError(
            f"conv={kind!r} keeps the number of channels and cannot map "
            f"{in_channels} to {out_channels}; use 'deepprism', which maps multiples "
            "of a depth as fields, or 'dense'"
        )


def _depth_of_fields(fields: int, in_channels: int, out_channels: int) -> int:
    """Depth D of the shared channel axis: the smaller number of channels / fields."""
    smaller = min(in_channels, out_channels)
    if fields < 1 or smaller % fields:
        divisors = [f for f in range(1, smaller + 1) if smaller % f == 0]
        raise ValueError(
            f"fields={fields} must divide C={smaller}; choose one of {divisors}"
        )
    depth = smaller // fields
    if max(in_channels, out_channels) % depth:
        raise ValueError(
            f"conv='deepprism' with fields={fields} cannot map {in_channels} channels "
            f"to {out_channels}: both must be multiples of the depth {depth}; choose "
            "widths that divide each other, more fields, or 'dense'"
        )
    return depth

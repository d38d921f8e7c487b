"""Feature maps whose channels are cut over devices, and what the devices exchange.

Of C = F * D channels a device of `count` holds [F, D / count], field-major: a run of
the channel axis of every field. What is local along that axis needs a halo of its
neighbours (`neighbours`); what is dense needs the whole (`gather`). Values that all
devices hold alike enter and leave such a map by Megatron's two functions (Shoeybi et
al., 2019), `enter` and `leave`: they say how gradients of a loss add up that every
device computes whole. All of it is meant for the body of a `jax.shard_map` with
`check_vma=False`, and is differentiable to every order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.ops.geometry import ChannelPadding


class Shards(NamedTuple):
    """How channels are cut."""

    axis: str
    """Mesh axis of the devices that share a feature map."""
    count: int
    """Number of them."""
    fields: int = 1
    """Fields F of every feature map."""


_SHARDS: ContextVar[Shards | None] = ContextVar("channel_shards", default=None)


@contextmanager
def over_channels(axis: str, count: int, fields: int = 1) -> Iterator[None]:
    """Trace layers for feature maps that hold C / count of their channels.

    Enter it while the body of a `jax.shard_map` over `axis` is traced. One device needs
    no exchange: with `count=1` nothing changes.

    Raises:
        ValueError: a number below 1.
    """
    for name, value in (("count", count), ("fields", fields)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    token = _SHARDS.set(Shards(axis, count, fields) if count > 1 else None)
    try:
        yield
    finally:
        _SHARDS.reset(token)


def current() -> Shards | None:
    """Return how channels are cut here, or None where feature maps are whole."""
    return _SHARDS.get()


def share(total: int, count: int, name: str) -> int:
    """Return a device's part of a number that `count` devices share.

    Raises:
        ValueError: `count` does not divide it; `name` is what the message calls it.
    """
    if total % count:
        raise ValueError(
            f"{name}={total} cannot be cut over {count} devices of the channel axis; "
            f"choose a multiple of {count}"
        )
    return total // count


def neighbours(
    x: Float[Array, "*b f d"], taps: int, padding: ChannelPadding, shards: Shards
) -> tuple[Float[Array, "*b f t"], Float[Array, "*b f t"]]:
    """Return the `taps` positions before and after a device's part of the depth axis.

    Those at the ends of the axis follow its topology: a ring for `circular`, zeros for
    `zero`, the edge repeated for `replicate`.

    Raises:
        ValueError: a device holds fewer positions than a neighbour asks for.
    """
    depth = x.shape[-1]
    if depth < taps:
        raise ValueError(
            f"{depth} positions of the channel axis a device are fewer than the {taps} "
            f"that a neighbour reads; use at most {depth * shards.count // taps} "
            "devices on the channel axis"
        )
    count, ring = shards.count, padding == "circular"
    ahead = [(i, (i + 1) % count) for i in range(count if ring else count - 1)]
    back = [(j, i) for i, j in ahead]
    before = lax.ppermute(x[..., depth - taps :], shards.axis, ahead)
    after = lax.ppermute(x[..., :taps], shards.axis, back)
    if padding == "replicate":
        place = lax.axis_index(shards.axis)
        before = jnp.where(place == 0, x[..., :1], before)
        after = jnp.where(place == count - 1, x[..., -1:], after)
    return before, after


def gather(x: Float[Array, "*b c"], shards: Shards) -> Float[Array, "*b all_c"]:
    """Return all channels, of which each device computes something else."""
    fields = x.reshape(*x.shape[:-1], shards.fields, -1)
    whole = lax.all_gather(fields, shards.axis, axis=fields.ndim - 1, tiled=True)
    return whole.reshape(*x.shape[:-1], -1)


def to_tokens(x: Float[Array, "b n c"], shards: Shards) -> Float[Array, "b m all_c"]:
    """Exchange a part of the channels of all tokens for all channels of a part.

    Raises:
        ValueError: the tokens cannot be shared evenly.
    """
    share(x.shape[1], shards.count, "attention tokens (height * width)")
    fields = x.reshape(*x.shape[:2], shards.fields, -1)
    y = lax.all_to_all(fields, shards.axis, 1, 3, tiled=True)
    return y.reshape(*y.shape[:2], -1)


def to_channels(x: Float[Array, "b m all_c"], shards: Shards) -> Float[Array, "b n c"]:
    """Undo `to_tokens`."""
    fields = x.reshape(*x.shape[:2], shards.fields, -1)
    y = lax.all_to_all(fields, shards.axis, 3, 1, tiled=True)
    return y.reshape(*y.shape[:2], -1)


def enter(x: jax.Array, shards: Shards) -> jax.Array:
    """Return x, which all devices hold alike and read for a part of the channels.

    Backward, the devices' parts of its gradient are summed.
    """
    y: Any = _enter(shards.axis, x)
    return y


def leave(y: jax.Array, shards: Shards) -> jax.Array:
    """Return the sum of the devices' y, to go on with alike on all of them.

    Backward, the gradient of the sum is that of every part.
    """
    total: Any = _leave(shards.axis, y)
    return total


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _enter(axis: str, x: jax.Array) -> jax.Array:
    del axis
    return x


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _leave(axis: str, y: jax.Array) -> jax.Array:
    # Parts are not rounded anew as they are added up.
    wide = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    return lax.psum(wide, axis).astype(y.dtype)


_enter.defvjp(
    lambda axis, x: (_enter(axis, x), None), lambda axis, _, g: (_leave(axis, g),)
)
_leave.defvjp(
    lambda axis, y: (_leave(axis, y), None), lambda axis, _, g: (_enter(axis, g),)
)

"""What a U-Net is made of: levels of residual blocks, and maps put side by side."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deepprism_jax.layers import AttentionBlock
from deepprism_jax.layers.time_blocks import TimeResBlock
from deepprism_jax.ops.moments import Moments


class Features(NamedTuple):
    """A feature map and, where what made it knows them, its moments."""

    map: Float[Array, "b h w c"]
    moments: Moments | None = None


def side_by_side(a: Features, b: Features) -> Features:
    """Return maps of C_a and C_b channels as one of C_a + C_b: fields of one depth."""
    joined = jnp.concatenate([a.map, b.map], axis=-1)
    if a.moments is None or b.moments is None:
        return Features(joined)
    pairs = zip(a.moments, b.moments, strict=True)
    return Features(joined, Moments(*(jnp.concatenate(pair, -1) for pair in pairs)))


class Unit(nnx.Module):
    """A residual block and, where the level has it, attention."""

    def __init__(self, res: TimeResBlock, attention: AttentionBlock | None):
        self.res = res
        self.attention = attention

    def __call__(
        self, x: Features, condition: jax.Array, dropout_keys: jax.Array | None
    ) -> Features:
        """Map features [B, h, w, C] to [B, h, w, C']."""
        y = Features(*self.res(x.map, condition, x.moments, dropout_keys))
        return y if self.attention is None else Features(self.attention(y.map))


class Level(nnx.Module):
    """Units of one size, and what leads to the size of the next level, if any does."""

    def __init__(self, units: Iterable[Unit], resample: nnx.Module | None = None):
        self.units = nnx.List(units)
        self.resample: Any = resample


def channels_of(
    width: int, multipliers: Sequence[int], blocks: int
) -> tuple[list[list[tuple[int, int]]], list[list[tuple[int, int]]]]:
    """Return channels that each Res reads and makes, by levels: down, and up.

    Both lists begin at the level where their way begins. On the way up a Res reads what
    comes from below beside the newest map of the way down that is not yet used.
    """
    now, skips = width, [width]
    down: list[list[tuple[int, int]]] = []
    for n, multiple in enumerate(multipliers):
        down.append([])
        for _ in range(blocks):
            down[-1].append((now, multiple * width))
            now = multiple * width
            skips.append(now)
        if n < len(multipliers) - 1:
            skips.append(now)
    up: list[list[tuple[int, int]]] = []
    for multiple in reversed(multipliers):
        up.append([])
        for _ in range(blocks + 1):
            up[-1].append((now + skips.pop(), multiple * width))
            now = multiple * width
    return down, up

"""The channel convolution for GPUs: every number computed where it is used, no buffers.

Each output is one sum over taps that reads x itself, at positions computed on the spot:
indices are clamped into the array, and what lies outside of it is masked afterwards.
For an H100 XLA makes one kernel of it, without temporaries, and for other GPUs or large
maps at times a few small ones before it, that write the masks (5 KB or less). The
kernel gradient is one pass over x and g with an accumulator a tap, then small ones over
masks and partial sums. All that is read off compiled programs
(`benchmarks/gpu_compile.py`); no GPU ran them.
"""

from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deepprism_jax.ops.formulation import Formulation, widened
from deepprism_jax.ops.geometry import Geometry

_SUMS_A_PASS = 27  # accumulators that fit into the registers of a thread

# Channels a tap of the channel axis at which the band takes as long: see `pays`.
_EVEN_CHANNELS_A_TAP = {2: 62.0, 4: 26.0}
_MOST_PAIRS_OF_FIELDS = 16  # every pair is code of its own


def pays(geometry: Geometry, dtype: Any) -> bool:
    """Return whether this form should beat `banded` on a GPU; estimated, not timed.

    Per product of a weight and a number this form issues 5.0 instructions in bfloat16
    and 4.1 in float32 (counted in the code compiled for an H100), and the band
    multiplies and adds D / K_C times, all but one of them zeros. An H100 issues 3.0e13
    instructions a second (132 multiprocessors, 128 lanes, 1.755 GHz), and its matrix
    units do 9.9e14 operations in bfloat16, 4.9e14 in float32 rounded to TF32. With
    4/5 of the first and 3/5 of the second reached, a product takes

        bfloat16: 0.21 ps here, 0.0034 ps * D / K_C there: even at D / K_C = 62
        float32:  0.17 ps here, 0.0067 ps * D / K_C there: even at D / K_C = 26

    So for three taps the band is for depths up to 185 in bfloat16 and 77 in float32
    (where it is also the less exact one). At D = 64, 128, 256, 512 the band takes
    0.3, 0.7, 1.4, 2.7 times as long in bfloat16 and 0.8, 1.6, 3.3, 6.5 times in
    float32. To read x and write y once takes both 1.2 ps a number in bfloat16, at
    3.35e12 bytes a second: with a single tap in space that is the limit, and this form
    makes no band. An A100 has half of the matrix operations an instruction, so there
    this form pays earlier. Many pairs of fields are too much code to unroll.
    """
    rows, columns, taps, fields, fields_out = geometry.kernel_shape
    if fields * fields_out > _MOST_PAIRS_OF_FIELDS:
        return False
    even = _EVEN_CHANNELS_A_TAP.get(jnp.dtype(dtype).itemsize, 0.0)
    return rows * columns == 1 or geometry.depth > even * taps


class _Reading(NamedTuple):
    """What the positions of one axis read: places in the array, or else zero."""

    index: jax.Array
    conditions: list[jax.Array]

    def take(self, x: jax.Array, axis: int) -> jax.Array:
        return jnp.take(x, self.index, axis=axis, mode="clip")

    def mask(self, x: jax.Array, axis: int) -> jax.Array:
        """Put zeros where there is nothing to read."""
        for condition in self.conditions:
            keep = condition.reshape(-1, *(1,) * (x.ndim - 1 - axis))
            # A selection and not a product: zero times infinity is no number.
            x = jnp.where(keep, x, jnp.zeros((), x.dtype))
        return x


def _at(offset: int, size: int, source: int, stride: int) -> _Reading:
    """Let `size` positions at a stride read `source` ones; there is zero outside."""
    position = lax.iota(jnp.int32, size) * stride + offset
    conditions = []
    if offset < 0:
        conditions.append(position >= 0)
    if (size - 1) * stride + offset >= source:
        conditions.append(position < source)
    return _Reading(position, conditions)


def _along_channels(geometry: Geometry, x: jax.Array, offset: int) -> jax.Array:
    """Return what a tap at an offset reads on the last axis of x, by its topology."""
    position = lax.iota(jnp.int32, geometry.depth) + offset
    if geometry.padding == "zero":
        return _shifted(x, offset)
    if geometry.padding == "circular":
        position %= geometry.depth
    return _Reading(position, []).take(x, x.ndim - 1)


def _to_channels(geometry: Geometry, g: jax.Array, offset: int) -> jax.Array:
    """Adjoint of `_along_channels`: what positions get from those that read them."""
    if geometry.padding != "replicate":
        return _along_channels(geometry, g, -offset)
    read = _shifted(g, -offset)
    # The end position was also read by all whose tap pointed beyond it.
    last = geometry.depth - 1
    end = 0 if offset < 0 else last
    for steps in range(min(abs(offset), geometry.depth)):
        source = abs(end - steps)
        beyond = lax.slice_in_dim(g, source, source + 1, axis=g.ndim - 1)
        read += _padded(beyond, end, last - end)
    return read


def _shifted(x: jax.Array, offset: int) -> jax.Array:
    """Read the last axis at an offset, zero outside."""
    return _padded(x, -offset, offset)


def _padded(x: jax.Array, before: int, after: int) -> jax.Array:
    edges = [(0, 0, 0)] * (x.ndim - 1) + [(before, after, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _correlate(geometry, x, kernel, size, strides, *, adjoint: bool) -> jax.Array:
    """Sum over taps and fields into a map of a size; the adjoint turns offsets."""
    rows, columns, taps, fields, fields_out = kernel.shape
    x = x.reshape(*x.shape[:3], fields, geometry.depth)
    sign = -1 if adjoint else 1
    along_channels = _to_channels if adjoint else _along_channels
    across, along = zip(size, x.shape[1:3], strides, strict=True)
    kernel = widened(kernel)
    # The masks of rows and columns are taken out of the sums that they are common to.
    y = jnp.zeros((), kernel.dtype)
    for i in range(rows):
        row = _at(sign * (i - geometry.halo[0]), *across)
        of_row = jnp.zeros((), kernel.dtype)
        for j in range(columns):
            column = _at(sign * (j - geometry.halo[1]), *along)
            seen = widened(column.take(row.take(x, 1), 2))
            of_column = jnp.zeros((), kernel.dtype)
            for k, field in product(range(taps), range(fields)):
                offset = k - geometry.halo[2]
                read = along_channels(geometry, seen[:, :, :, field], offset)
                weights = kernel[i, j, k, field, :, None]
                of_column += read[..., None, :] * weights
            of_row += column.mask(of_column, 2)
        y += row.mask(of_row, 1)
    return y.reshape(*y.shape[:3], fields_out * geometry.depth).astype(x.dtype)


def conv(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlate x [B, H, W, C] -> [B, H', W', C']."""
    size, strides = geometry.out_size, geometry.strides
    return _correlate(geometry, x, kernel, size, strides, adjoint=False)


def input_gradient(geometry: Geometry, g: jax.Array, kernel: jax.Array) -> jax.Array:
    """Adjoint of `conv` in x: every position gathers from the outputs that read it."""
    size = (geometry.height, geometry.width)
    if geometry.strides != (1, 1):
        spread = [
            (0, n - ((m - 1) * step + 1), step - 1)
            for n, m, step in zip(size, g.shape[1:3], geometry.strides, strict=True)
        ]
        g = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    return _correlate(geometry, g, kernel.swapaxes(3, 4), size, (1, 1), adjoint=True)


def kernel_gradient(geometry: Geometry, x: jax.Array, g: jax.Array) -> jax.Array:
    """Adjoint of `conv` in the kernel: sums of products, 27 in one reduction."""
    fields, fields_out = geometry.kernel_shape[3:]
    x = x.reshape(*x.shape[:3], fields, geometry.depth)
    g = g.reshape(*g.shape[:3], fields_out, geometry.depth)
    across, along = zip(g.shape[1:3], x.shape[1:3], geometry.strides, strict=True)
    weights = list(product(*map(range, geometry.kernel_shape)))
    sums = []
    for start in range(0, len(weights), _SUMS_A_PASS):
        some = weights[start : start + _SUMS_A_PASS]
        if len(weights) > _SUMS_A_PASS:
            # Else XLA writes down what two passes have in common.
            x, g = lax.optimization_barrier((x, g))
        products = []
        for i, j, k, field, out in some:
            row = _at(i - geometry.halo[0], *across)
            column = _at(j - geometry.halo[1], *along)
            read = widened(column.take(row.take(x[:, :, :, field], 1), 2))
            read = _along_channels(geometry, read, k - geometry.halo[2])
            read = column.mask(row.mask(read, 1), 2)
            products.append(read * widened(g[:, :, :, out]))
        zeros = (jnp.zeros((), products[0].dtype),) * len(products)
        sums += lax.reduce(tuple(products), zeros, _add, dimensions=(0, 1, 2, 3))
    return jnp.stack(sums).reshape(geometry.kernel_shape).astype(x.dtype)


def _add(left: tuple[jax.Array, ...], right: tuple[jax.Array, ...]):
    return tuple(a + b for a, b in zip(left, right, strict=True))


FORMULATION = Formulation(conv, input_gradient, kernel_gradient)

"""The channel convolution for CPUs: shifted copies of one padded buffer, added up.

XLA's 3-D convolution of one feature is hundreds of times slower than a CPU allows. One
pass writes x into a buffer with a halo; then the output is ONE fused loop over static
slices of it, each times a scalar weight. The optimisation barriers keep XLA from fusing
the writing of the buffer into that loop, where it would not vectorise.
"""

from itertools import product

import jax
import jax.numpy as jnp
from jax import lax

from deepprism_jax.ops.formulation import Formulation, widened
from deepprism_jax.ops.geometry import ChannelPadding, Geometry
from deepprism_jax.ops.materialize import materialize_on_cpu

_LANES = 16  # keeps the rows of the buffer aligned to 64 bytes of float32
_TAPS_A_LOOP = (
    9  # more accumulators than this spill, and the loop is no longer unrolled
)


def _padded(
    x: jax.Array, halo: tuple[int, int, int], padding: ChannelPadding
) -> jax.Array:
    """Write one field [B, H, W, D] into a wide buffer with a halo on three axes."""
    batch, height, width, depth = x.shape
    rows, columns, taps = halo
    pitch = -(-(depth + 2 * taps) // _LANES) * _LANES
    x = widened(x)
    buffer = lax.optimization_barrier(
        jnp.zeros((batch, height + 2 * rows, width + 2 * columns, pitch), x.dtype)
    )
    buffer = lax.dynamic_update_slice(buffer, x, (0, rows, columns, taps))
    if padding != "zero":
        for offset in range(-taps, 0):
            for position in (offset, depth - 1 - offset):
                read = (
                    position % depth
                    if padding == "circular"
                    else min(max(position, 0), depth - 1)
                )
                buffer = lax.dynamic_update_slice(
                    buffer,
                    lax.slice_in_dim(x, read, read + 1, axis=3),
                    (0, rows, columns, position + taps),
                )
    return lax.optimization_barrier(buffer)


def _window(
    buffer: jax.Array,
    tap: tuple[int, int, int],
    size: tuple[int, int, int],
    strides: tuple[int, int],
) -> jax.Array:
    """Read the buffer as one tap sees it: [B, *size]."""
    starts = (0, *tap)
    limits = (
        buffer.shape[0],
        *(
            begin + (n - 1) * step + 1
            for begin, n, step in zip(tap, size, (*strides, 1), strict=True)
        ),
    )
    return lax.slice(buffer, starts, limits, (1, *strides, 1))


def _correlate(
    buffers: list[jax.Array],
    kernel: jax.Array,
    size: tuple[int, int, int],
    strides: tuple[int, int],
) -> jax.Array:
    """Sum the windows of all input fields into each output field: [B, H', W', C']."""
    rows, columns, taps, _, fields_out = kernel.shape
    outputs = []
    for field_out in range(fields_out):
        # One chain of additions a channel tap: they are independent, so the processor
        # runs them side by side.
        chains: list[jax.Array | None] = [None] * taps
        for field_in, buffer in enumerate(buffers):
            for i, j, k in product(range(rows), range(columns), range(taps)):
                term = (
                    _window(buffer, (i, j, k), size, strides)
                    * kernel[i, j, k, field_in, field_out]
                )
                chain = chains[k]
                chains[k] = term if chain is None else chain + term
        outputs.append(sum(chain for chain in chains if chain is not None))
    return jnp.concatenate(outputs, axis=-1)


def _fields(x: jax.Array, count: int) -> list[jax.Array]:
    return jnp.split(x, count, axis=-1) if count > 1 else [x]


def conv(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlate x [B, H, W, C] -> [B, H', W', C']."""
    buffers = [
        _padded(field, geometry.halo, geometry.padding)
        for field in _fields(x, geometry.fields_in)
    ]
    size = (*geometry.out_size, geometry.depth)
    y = _correlate(buffers, widened(kernel), size, geometry.strides)
    return materialize_on_cpu(y.astype(x.dtype))


def input_gradient(geometry: Geometry, g: jax.Array, kernel: jax.Array) -> jax.Array:
    """Adjoint of `conv` in x: correlate g with the flipped kernel."""
    dtype, taps = g.dtype, geometry.halo[2]
    g = materialize_on_cpu(g)
    if geometry.strides != (1, 1):
        spread = [
            (0, n - ((m - 1) * step + 1), step - 1)
            for n, m, step in zip(
                (geometry.height, geometry.width),
                geometry.out_size,
                geometry.strides,
                strict=True,
            )
        ]
        g = lax.pad(g, jnp.zeros((), dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    flipped = widened(kernel)[::-1, ::-1, ::-1].swapaxes(3, 4)
    fields = _fields(g, geometry.fields_out)
    space = (geometry.height, geometry.width)
    if geometry.padding != "replicate":
        buffers = [_padded(f, geometry.halo, geometry.padding) for f in fields]
        dx = _correlate(buffers, flipped, (*space, geometry.depth), (1, 1))
        return materialize_on_cpu(dx.astype(dtype))
    # A replicated edge read its end position: what reached the halo is added there.
    wide_halo = (*geometry.halo[:2], 2 * taps)
    wide = materialize_on_cpu(
        _correlate(
            [_padded(f, wide_halo, "zero") for f in fields],
            flipped,
            (*space, geometry.depth + 2 * taps),
            (1, 1),
        )
    )
    folded = []
    for field in _fields(wide, geometry.fields_in):
        left, middle, right = jnp.split(field, [taps, taps + geometry.depth], axis=-1)
        middle = middle.at[..., 0].add(left.sum(-1))
        folded.append(middle.at[..., -1].add(right.sum(-1)))
    return jnp.concatenate(folded, axis=-1).astype(dtype)


def _add(left: tuple[jax.Array, ...], right: tuple[jax.Array, ...]):
    return tuple(a + b for a, b in zip(left, right, strict=True))


def kernel_gradient(geometry: Geometry, x: jax.Array, g: jax.Array) -> jax.Array:
    """Adjoint of `conv` in the kernel: one correlation sum a tap.

    A few positions of the width are reduced first: the reduction is unrolled, so the
    loop runs over channels and vectorises without reassociating float additions.
    """
    g = materialize_on_cpu(g)
    size = (*geometry.out_size, geometry.depth)
    height, width, depth = size
    run = next(n for n in (8, 4, 2, 1) if width % n == 0)
    shape = geometry.kernel_shape
    cotangents = _fields(widened(g), geometry.fields_out)
    sums = {}
    for field_in, field in enumerate(_fields(x, geometry.fields_in)):
        buffer = _padded(field, geometry.halo, geometry.padding)
        for field_out, cotangent in enumerate(cotangents):
            taps = list(product(range(shape[0]), range(shape[1]), range(shape[2])))
            for start in range(0, len(taps), _TAPS_A_LOOP):
                some = taps[start : start + _TAPS_A_LOOP]
                products = tuple(
                    (_window(buffer, tap, size, geometry.strides) * cotangent).reshape(
                        -1, height, width // run, run, depth
                    )
                    for tap in some
                )
                zeros = (jnp.zeros((), cotangent.dtype),) * len(some)
                partial = lax.reduce(products, zeros, _add, dimensions=(3,))
                for tap, total in zip(some, partial, strict=True):
                    sums[(*tap, field_in, field_out)] = jnp.sum(total)
    ordered = [sums[index] for index in product(*map(range, shape))]
    return jnp.stack(ordered).reshape(shape).astype(x.dtype)


FORMULATION = Formulation(conv, input_gradient, kernel_gradient)

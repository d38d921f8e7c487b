"""The gradients of `forward`, all in one pass over its operands."""

from functools import partial

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.ops.pallas import lanes, rows, tiles
from deepprism_jax.ops.pallas.rows import Ref, Rows, f32
from deepprism_jax.ops.pallas.silu import silu_and_slope
from deepprism_jax.ops.pallas.tiles import Tiling


def backward(
    geometry: Geometry,
    x: Float[Array, "b h w c_in"],
    kernel: Float[Array, "3 3 3 f_in f_out"],
    g: Float[Array, "b h w c_out"],
    *,
    interpret: bool = False,
) -> tuple[
    Float[Array, "b h w c_in"],
    Float[Array, "3 3 3 f_in f_out"],
    Float[Array, " f_out"],
]:
    """Return the gradients of x, kernel and bias, given that of y: one pass over both.

    The bias's is float32; the others have the types of x and kernel.
    """
    return _run(geometry, x, kernel, g, None, [], interpret)


def activated_backward(
    geometry: Geometry,
    x: Float[Array, "b h w c_in"],
    mean: Float[Array, "b c_in"],
    slope: Float[Array, "b c_in"],
    offset: Float[Array, "b c_in"],
    kernel: Float[Array, "3 3 3 f_in f_out"],
    y: Float[Array, "b h w c_out"],
    alpha: Float[Array, "b c_out"],
    beta: Float[Array, "b c_out"],
    g: Float[Array, "b h w c_out"],
    *,
    interpret: bool = False,
) -> tuple[
    Float[Array, "b h w c_in"],
    Float[Array, "b c_in"],
    Float[Array, "b c_in"],
    Float[Array, "3 3 3 f_in f_out"],
    Float[Array, " f_out"],
]:
    """Return the gradients of x, slope, offset, kernel and bias of the half-block.

    The gradient of y is g + alpha + beta * y, a channel of an image: what reaches y
    through its statistics is linear in y. It is summed in float32 and rounded to the
    type of x, as h is, which is computed again from x. The mean is held: its own
    gradient is that of the offset times -slope.
    """
    numbers = [a.astype(f32) for a in (mean, slope, offset, alpha, beta)]
    dx, dkernel, dbias, *sums = _run(geometry, x, kernel, g, y, numbers, interpret)
    return dx, *sums, dkernel, dbias


def _run(geometry: Geometry, x, kernel, g, y, numbers, interpret: bool):
    activated = y is not None
    batch, *_, channels = x.shape
    fields = geometry.fields_in, geometry.fields_out
    out = fields[1] * geometry.depth
    cut = tiles.tiling(geometry, batch, x.dtype)
    taps, taps_spec = rows.taps_operand(cut, adjoint=True)
    maps = rows.rows_spec(cut, batch, channels)
    halo = rows.halo_specs(cut, batch, out)
    operands = [kernel.astype(f32).ravel(), taps, x, *[g] * len(halo)]
    in_specs = [pl.BlockSpec(memory_space=pltpu.SMEM), taps_spec, maps, *halo]
    matrix = rows.matrix_scratch(cut, fields, x.dtype)
    out_specs = [
        maps,
        pl.BlockSpec((1, *matrix.shape), lambda core, *_: (core, 0, 0, 0, 0)),
        pl.BlockSpec((1, 8, out), lambda core, *_: (core, 0, 0)),
    ]
    shapes = [
        rows.result(x, x.shape, x.dtype),
        rows.result(x, (cut.cores, *matrix.shape), f32),
        rows.result(x, (cut.cores, 8, out), f32),
    ]
    scratch = [matrix, rows.window_scratch(cut, out, x.dtype)]
    if activated:
        of_x, of_y = (rows.channels_spec(cut, batch, n) for n in (channels, out))
        operands += [*[y] * len(halo), *numbers]
        in_specs += [*halo, of_x, of_x, of_x, of_y, of_y]
        out_specs += [of_x, of_x]
        shapes += [rows.result(x, (batch, channels), f32)] * 2
        scratch.append(pltpu.VMEM((2, 8, channels), f32))
    if cut.pitch != cut.width:
        scratch.append(pltpu.VMEM((cut.rows, cut.pitch, channels), x.dtype))
    call = rows.call(
        partial(_kernel, geometry, cut, activated),
        cut,
        batch,
        name="prism_activated_backward" if activated else "prism_backward",
        operations=108 * fields[0] * fields[1],
        interpret=interpret,
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=shapes,
        scratch_shapes=scratch,
    )
    dx, products, dbias, *sums = call(*operands)
    dkernel = tiles.gather(cut, products).astype(kernel.dtype)
    dbias = dbias.reshape(cut.cores, 8, fields[1], geometry.depth).sum((0, 1, 3))
    return dx, dkernel, dbias, *sums


def _kernel(geometry: Geometry, cut: Tiling, activated: bool, *refs: Ref) -> None:
    """One grid step: some images, or a block of rows of one."""
    taken = 1 if cut.blocks == 1 else 3
    (kernel, taps, x), rest = refs[:3], refs[3:]
    g, rest = Rows(*rest[:taken]), rest[taken:]
    if activated:
        y, rest = Rows(*rest[:taken]), rest[taken:]
        numbers, rest = rest[:5], rest[5:]
        dx, products, dbias, dslope, doffset, matrix, window, sums, *rest = rest
    else:
        dx, products, dbias, matrix, window, *rest = rest
    depth, padding = geometry.depth, geometry.padding
    widest = cut.pitch * depth * max(geometry.kernel_shape[3:]) * window.dtype.itemsize
    block = pl.program_id(2)

    @pl.when((pl.program_id(1) == 0) & (block == 0))
    def _():
        rows.spread(matrix, taps, kernel, adjoint=True)
        products[...] = jnp.zeros(products.shape, f32)
        dbias[...] = jnp.zeros(dbias.shape, f32)

    place = rows.first_place(cut)

    @pl.loop(0, cut.images)
    def _(image):
        if activated:
            own = pl.ds(place + image, 1)
            mean, slope, offset, alpha, beta = (ref[own] for ref in numbers)
            rows.fill(
                window,
                cut,
                image,
                block,
                [g, y],
                lambda g, y: (g.astype(f32) + alpha) + beta * y.astype(f32),
            )

            @pl.when(block == 0)
            def _():
                sums[...] = jnp.zeros(sums.shape, f32)

        else:
            rows.fill(window, cut, image, block, [g], lambda g: g)
        source = x.at[image]
        if rest:  # rows as wide as the tiles
            source = rest[0]
            rows.copy_rows(source, cut, x.at[image])

        def tile(row, column):
            total = rows.read_window(window, cut, row, column)
            middle = rows.read_middle(window, cut, row, column)
            dbias[0] += rows.by_eights(middle.astype(f32))
            v = rows.read_tile(source, cut, row, column)
            if activated:
                centred = v.astype(f32) - mean
                h, steepness = silu_and_slope(centred * slope + offset)
                v = rows.inside(cut, column, h).astype(x.dtype)
            parts = []
            for a in range(geometry.fields_in):
                own = v[:, a * depth : (a + 1) * depth]
                seen = [lanes.shifted(own, tap, padding) for tap in range(3)]
                seen = jnp.concatenate(seen)
                part = 0.0
                for b in range(geometry.fields_out):
                    theirs = total[:, b * depth : (b + 1) * depth]
                    part = part + rows.matmul(matrix[a, b], theirs)
                    products[0, a, b] += rows.matmul(seen, theirs, transposed=True)
                dv = 0.0
                for tap, of_tap in enumerate(jnp.split(part, 3)):
                    dv = dv + lanes.unshifted(of_tap, tap, padding)
                parts.append(dv)
            dv = jnp.concatenate(parts, 1)
            if activated:
                dv = rows.inside(cut, column, dv * steepness)
                sums[0] += rows.by_eights(dv * centred)
                sums[1] += rows.by_eights(dv)
                dv = dv * slope
            rows.write_tile(dx.at[image], cut, row, column, dv)

        rows.each_tile(cut, widest, tile)
        if activated:

            @pl.when(block == cut.blocks - 1)
            def _():
                dslope[own] = sums[0].sum(0, keepdims=True)
                doffset[own] = sums[1].sum(0, keepdims=True)

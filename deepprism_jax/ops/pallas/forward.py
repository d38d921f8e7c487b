"""The convolution with bias, alone or after SiLU of an affine map: one kernel."""

from functools import partial

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.ops.pallas import lanes, rows, tiles
from deepprism_jax.ops.pallas.rows import Ref, Rows, f32
from deepprism_jax.ops.pallas.silu import silu
from deepprism_jax.ops.pallas.tiles import Tiling


def forward(
    geometry: Geometry,
    x: Float[Array, "b h w c_in"],
    kernel: Float[Array, "3 3 3 f_in f_out"],
    bias: Float[Array, " f_out"],
    *,
    interpret: bool = False,
) -> Float[Array, "b h w c_out"]:
    """Convolve and add each output field's bias, in one pass; sums in float32.

    Shapes as `tiles.fits` takes them. The kernel is rounded to the type of x. Inside
    `jax.shard_map`, operands must vary over the same mesh axes. `interpret` runs it
    anywhere, slowly.
    """
    return _run(geometry, x, None, kernel, bias, interpret)[0]


def activated_forward(
    geometry: Geometry,
    x: Float[Array, "b h w c_in"],
    mean: Float[Array, "b c_in"],
    slope: Float[Array, "b c_in"],
    offset: Float[Array, "b c_in"],
    kernel: Float[Array, "3 3 3 f_in f_out"],
    bias: Float[Array, " f_out"],
    *,
    interpret: bool = False,
) -> tuple[
    Float[Array, "b h w c_out"], Float[Array, "b c_out"], Float[Array, "b c_out"]
]:
    """Convolve h = silu((x - mean) * slope + offset), which is never stored.

    h is computed in float32 and rounded to the type of x, as storing it would round it.
    Returns y, and the mean and the variance over its positions of each channel of an
    image, taken of y before it is rounded, from sums shifted by its first position.
    """
    affine = [a.astype(f32) for a in (mean, slope, offset)]
    y, y_mean, y_var = _run(geometry, x, affine, kernel, bias, interpret)
    return y, y_mean, y_var


def _run(geometry: Geometry, x, affine, kernel, bias, interpret: bool):
    batch, *_, channels = x.shape
    fields = geometry.fields_out, geometry.fields_in
    out = fields[0] * geometry.depth
    cut = tiles.tiling(geometry, batch, x.dtype)
    numbers, numbers_spec = rows.taps_operand(cut)
    scalars = jnp.concatenate([kernel.astype(f32).ravel(), bias.astype(f32)])
    halo = rows.halo_specs(cut, batch, channels)
    operands = [scalars, numbers, *[x] * len(halo)]
    in_specs = [pl.BlockSpec(memory_space=pltpu.SMEM), numbers_spec, *halo]
    out_specs = [rows.rows_spec(cut, batch, out)]
    shapes = [rows.result(x, (*x.shape[:3], out), x.dtype)]
    scratch = [
        rows.matrix_scratch(cut, fields, x.dtype),
        rows.window_scratch(cut, channels, x.dtype),
    ]
    if affine is not None:
        operands += affine
        in_specs += [rows.channels_spec(cut, batch, channels)] * 3
        out_specs += [rows.channels_spec(cut, batch, out)] * 2
        shapes += [rows.result(x, (batch, out), f32)] * 2
        scratch.append(pltpu.VMEM((3, 8, out), f32))
    call = rows.call(
        partial(_kernel, geometry, cut, affine is not None),
        cut,
        batch,
        name="prism_forward" if affine is None else "prism_activated_forward",
        operations=54 * fields[0] * fields[1],
        interpret=interpret,
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=shapes,
        scratch_shapes=scratch,
    )
    return call(*operands)


def _kernel(geometry: Geometry, cut: Tiling, activated: bool, *refs: Ref) -> None:
    """One grid step: some images, or a block of rows of one."""
    taken = 1 if cut.blocks == 1 else 3
    (scalars, numbers), x, rest = (
        refs[:2],
        Rows(*refs[2 : 2 + taken]),
        refs[2 + taken :],
    )
    if activated:
        mean, slope, offset, y, y_mean, y_var, matrix, window, sums = rest
    else:
        y, matrix, window = rest
    depth, padding = geometry.depth, geometry.padding
    widest = cut.pitch * depth * max(geometry.kernel_shape[3:]) * window.dtype.itemsize
    block = pl.program_id(2)

    @pl.when((pl.program_id(1) == 0) & (block == 0))
    def _():
        rows.spread(matrix, numbers, scalars)

    first_bias = 27 * geometry.fields_in * geometry.fields_out
    bias = [scalars[first_bias + b] for b in range(geometry.fields_out)]
    place = rows.first_place(cut)

    @pl.loop(0, cut.images)
    def _(image):
        if activated:
            own = pl.ds(place + image, 1)
            centre, gain, start = (ref[own] for ref in (mean, slope, offset))
            rows.fill(
                window,
                cut,
                image,
                block,
                [x],
                lambda v: silu((v.astype(f32) - centre) * gain + start),
            )

            @pl.when(block == 0)
            def _():
                sums[...] = jnp.zeros(sums.shape, f32)

        else:
            rows.fill(window, cut, image, block, [x], lambda v: v)

        def tile(row, column):
            values = rows.read_window(window, cut, row, column)
            fields = []
            for b in range(geometry.fields_out):
                total = bias[b]
                parts = 0.0
                for a in range(geometry.fields_in):
                    source = values[:, a * depth : (a + 1) * depth]
                    parts = parts + rows.matmul(matrix[b, a], source)
                for tap, part in enumerate(jnp.split(parts, 3)):
                    total = total + lanes.shifted(part, tap, padding)
                fields.append(total)
            v = jnp.concatenate(fields, 1)
            rows.write_tile(y.at[image], cut, row, column, v)
            if activated:
                first = (block == 0) & (row == 0) & (column == 0)
                _add_moments(sums, cut, column, v, first)

        rows.each_tile(cut, widest, tile)
        if activated:

            @pl.when(block == cut.blocks - 1)
            def _():
                y_mean[own], y_var[own] = _moments(sums, cut.height * cut.width)


def _add_moments(sums: Ref, cut: Tiling, column: int, v, first) -> None:
    """Add a tile's values and squares, shifted by a value near their mean."""
    shift = jnp.where(first, v[:1], sums[0, :1])
    sums[0, :1] = shift
    v = rows.inside(cut, column, v - shift)
    sums[1] += rows.by_eights(v)
    sums[2] += rows.by_eights(v * v)


def _moments(sums: Ref, count: int):
    mean = sums[1].sum(0, keepdims=True) / count
    square = sums[2].sum(0, keepdims=True) / count
    return mean + sums[0, :1], jnp.maximum(square - mean * mean, 0.0)

"""Rows of maps inside a kernel: blocks with a halo, windows, tiles, and their calls."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from deepprism_jax.ops.pallas.tiles import GROUP, Tiling, taps

Ref = Any  # a block of memory inside a kernel: indexed to be read and written
f32 = jnp.float32
_STRAIGHT = 1 << 19  # bytes of maps that straight code walks over


class Rows(NamedTuple):
    """A block [images, rows, W, C], and the row above and below it where cut."""

    block: Ref
    above: Ref = None
    below: Ref = None


def channels_spec(tiles: Tiling, batch: int, channels: int) -> pl.BlockSpec:
    """The group of [B, C] that holds the images of a grid step: see `first_place`."""
    steps = batch // (tiles.cores * tiles.images)

    def group(core, step, _):
        return lax.div((core * steps + step) * tiles.images, GROUP), 0

    return pl.BlockSpec((min(batch, GROUP), channels), group)


def first_place(tiles: Tiling) -> Any:
    """The row of this grid step's first image in its group."""
    # A core begins with a whole group: its own steps say where an image lies.
    return lax.rem(pl.program_id(1) * tiles.images, GROUP)


def rows_spec(tiles: Tiling, batch: int, channels: int) -> pl.BlockSpec:
    """What a grid step takes of maps [B, H, W, C]."""
    steps = batch // (tiles.cores * tiles.images)
    return pl.BlockSpec(
        (tiles.images, tiles.rows, tiles.width, channels),
        lambda core, step, block: (core * steps + step, block, 0, 0),
    )


def halo_specs(tiles: Tiling, batch: int, channels: int) -> list[pl.BlockSpec]:
    """The specs of `Rows`, one an operand: the same maps are passed so many times."""
    block = rows_spec(tiles, batch, channels)
    if tiles.blocks == 1:
        return [block]
    steps = batch // tiles.cores

    def row(number: Callable[[jax.Array], jax.Array]) -> pl.BlockSpec:
        return pl.BlockSpec(
            (1, 1, tiles.width, channels),
            lambda core, step, block: (core * steps + step, number(block), 0, 0),
        )

    return [
        block,
        row(lambda block: jnp.maximum(block * tiles.rows - 1, 0)),
        row(lambda block: jnp.minimum((block + 1) * tiles.rows, tiles.height - 1)),
    ]


def call(
    kernel: Callable[..., None],
    tiles: Tiling,
    batch: int,
    *,
    name: str,
    operations: int,
    **options: Any,
) -> Callable[..., Any]:
    """A kernel over cores, groups of images and blocks of rows.

    `operations` an element of the map, and what is read and written, tell XLA how long
    it takes.
    """

    def run(*operands):
        # A map is named once more for each halo, and read once.
        arrays = {id(a): a for a in (*operands, *options["out_shape"])}
        maps = [a for a in arrays.values() if len(a.shape) == 4]
        cost = pl.CostEstimate(
            flops=operations * maps[0].size,
            bytes_accessed=sum(a.size * a.dtype.itemsize for a in maps),
            transcendentals=0,
        )
        return pl.pallas_call(
            kernel,
            grid=(tiles.cores, batch // (tiles.cores * tiles.images), tiles.blocks),
            name=name,
            cost_estimate=cost,
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "arbitrary", "arbitrary")
            ),
            **options,
        )(*operands)

    return run


def result(like: jax.Array, shape: Sequence[int], dtype: Any) -> jax.ShapeDtypeStruct:
    """A result that varies over the mesh axes of an operand."""
    return jax.eval_shape(
        lambda a: jnp.zeros_like(a, shape=tuple(shape), dtype=dtype), like
    )


def matrix_scratch(tiles: Tiling, fields: tuple[int, int], dtype: Any) -> Any:
    """Memory for the kernel as a matrix: see `spread`."""
    return pltpu.VMEM((*fields, 3 * tiles.positions, tiles.window), dtype)


def taps_operand(tiles: Tiling, *, adjoint: bool = False) -> tuple[Any, pl.BlockSpec]:
    """What `spread` reads: the tap that joins two positions."""
    numbers = jnp.asarray(taps(tiles, adjoint=adjoint))
    return numbers, pl.BlockSpec(numbers.shape, lambda *_: (0, 0))


def spread(matrix: Ref, taps: Ref, kernel: Ref, *, adjoint: bool = False) -> None:
    """Write the kernel as matrices over positions: [F_out, F_in, 3 * tile, window].

    Three blocks of rows, one a channel tap. `kernel` is flat, in memory for scalars.
    The adjoint has the fields exchanged.
    """
    fields, positions = matrix.shape[:2], taps.shape[0]
    number = taps[...]
    for row, column, tap in product(*map(range, (*fields, 3))):
        out, source = (column, row) if adjoint else (row, column)
        fields_in, fields_out = fields if adjoint else fields[::-1]
        weights = jnp.zeros(number.shape, f32)
        for n in range(9):
            index = ((n * 3 + tap) * fields_in + source) * fields_out + out
            weights = jnp.where(number == n, kernel[index], weights)
        block = slice(tap * positions, (tap + 1) * positions)
        matrix[row, column, block] = weights.astype(matrix.dtype)


def window_scratch(tiles: Tiling, channels: int, dtype: Any) -> Any:
    """Memory for a block with its halo, padded."""
    columns = tiles.pitch + 2 * tiles.margin
    return pltpu.VMEM((tiles.rows + 2, columns, channels), dtype)


def fill(
    scratch: Ref,
    tiles: Tiling,
    image: Any,
    block: Any,
    sources: Sequence[Rows],
    value: Callable[..., jax.Array],
) -> None:
    """Write `value` of the sources' rows [W, C] of a block, and zeros off the map."""
    dtype = scratch.dtype
    columns = slice(tiles.margin, tiles.margin + tiles.width)
    row_size = tiles.width * scratch.shape[2] * dtype.itemsize
    if scratch.shape[1] != tiles.width:
        scratch[...] = jnp.zeros(scratch.shape, dtype)

    def put(row, v):
        scratch[row, columns] = v.astype(dtype)

    @pl.loop(0, tiles.rows, unroll=_unroll(tiles.rows, row_size))
    def _(row):
        put(row + 1, value(*(source.block[image, row] for source in sources)))

    if tiles.blocks == 1:
        blank = jnp.zeros((tiles.width, scratch.shape[2]), dtype)
        put(0, blank)
        put(tiles.rows + 1, blank)
        return
    above = value(*(source.above[0, 0] for source in sources)).astype(f32)
    below = value(*(source.below[0, 0] for source in sources)).astype(f32)
    put(0, jnp.where(block > 0, above, 0.0))
    put(tiles.rows + 1, jnp.where(block < tiles.blocks - 1, below, 0.0))


def copy_rows(scratch: Ref, tiles: Tiling, block: Ref) -> None:
    """Write rows [rows, W, C] into wider ones, with zeros beside."""
    scratch[...] = jnp.zeros(scratch.shape, scratch.dtype)

    @pl.loop(0, tiles.rows)
    def _(row):
        scratch[row, : tiles.width] = block[row]


def each_tile(tiles: Tiling, row_size: int, body: Callable[[Any, int], None]) -> None:
    """Run `body(row, column)` for the first row and column of every tile.

    `row_size`: bytes of a row of the wider map.
    """
    count = tiles.rows // tiles.tile_rows

    @pl.loop(0, count, unroll=_unroll(count, tiles.tile_rows * row_size))
    def _(tile):
        for column in range(0, tiles.pitch, tiles.tile_columns):
            body(tile * tiles.tile_rows, column)


def read_window(scratch: Ref, tiles: Tiling, row: Any, column: int) -> jax.Array:
    """The window of a tile: [window, C]."""
    across = tiles.tile_columns + 2 * tiles.margin
    window = scratch[pl.ds(row, tiles.tile_rows + 2), column : column + across]
    return window.reshape(tiles.window, scratch.shape[2])


def read_middle(scratch: Ref, tiles: Tiling, row: Any, column: int) -> jax.Array:
    """The positions of a tile within its window: [tile, C]."""
    start = column + tiles.margin
    middle = scratch[
        pl.ds(row + 1, tiles.tile_rows), start : start + tiles.tile_columns
    ]
    return middle.reshape(tiles.positions, scratch.shape[2])


def read_tile(block: Ref, tiles: Tiling, row: Any, column: int) -> jax.Array:
    """The positions of a tile, of rows that are `pitch` wide: [tile, C]."""
    end = column + tiles.tile_columns
    tile = block[pl.ds(row, tiles.tile_rows), column:end]
    return tile.reshape(tiles.positions, block.shape[-1])


def write_tile(block: Ref, tiles: Tiling, row: Any, column: int, v: jax.Array) -> None:
    """Write the positions of a tile [tile, C] that are within the map."""
    v = v.reshape(tiles.tile_rows, tiles.tile_columns, v.shape[-1])
    count = min(tiles.tile_columns, tiles.width - column)
    for n in range(tiles.tile_rows):
        block[row + n, column : column + count] = v[n, :count].astype(block.dtype)


def inside(tiles: Tiling, column: int, v: jax.Array) -> jax.Array:
    """A tile [tile, C] with zeros where it lies beyond the map."""
    if tiles.pitch == tiles.width:
        return v
    v = v.reshape(tiles.tile_rows, tiles.tile_columns, v.shape[-1])
    place = column + lax.broadcasted_iota(jnp.int32, v.shape, 1)
    return jnp.where(place < tiles.width, v, 0.0).reshape(tiles.positions, -1)


def by_eights(v: jax.Array) -> jax.Array:
    """Sum over the registers of [tile, C]: [8, C], to be summed at the end."""
    return v.reshape(v.shape[0] // 8, 8, v.shape[1]).sum(0)


def matmul(a: jax.Array, b: jax.Array, *, transposed: bool = False) -> jax.Array:
    """a @ b, or a @ b^T, summed in float32; float32 operands are taken in full."""
    dimensions = ((1,), (1,) if transposed else (0,)), ((), ())
    precision = lax.Precision.HIGHEST if a.dtype == f32 else None
    return lax.dot_general(
        a, b, dimensions, precision=precision, preferred_element_type=f32
    )


def _unroll(trips: int, size: int) -> int:
    """How many trips over so many bytes to write out: a divisor of the trips.

    Units work side by side only within straight code, so much of it is good; how much,
    was tried by the compiler's estimates.
    """
    most = max(1, _STRAIGHT // size)
    return next(n for n in range(min(most, trips), 0, -1) if trips % n == 0)

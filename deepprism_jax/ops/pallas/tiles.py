"""How a feature map is cut for the kernels, and which tap joins which positions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.ops.geometry import Geometry

LANES = 128
GROUP = 8  # images whose numbers a channel lie in one register
# Bytes of one block of one operand. Up to four operands with their halos, each twice
# (one block is computed while the next is fetched), stay within the 16 MiB of a core.
_BLOCK = 1 << 19
_POSITION = 1 << 11  # bytes of its channels: a tile's products lie in the core too
_WIDE = 64  # columns from which on a row is cut
_PAIRS = 4  # of fields: each is a matrix product a tile


class Tiling(NamedTuple):
    """Static cut of maps [B, H, W, C]; columns are padded to `pitch` in the kernel.

    A grid step takes `images` times `rows` rows. Its tiles are `tile_rows` x
    `tile_columns` positions of the output, made of a window with one more row on either
    side and `margin` more columns. Where a tile is as wide as the map there is no
    margin, and the matrix leaves out what lies beyond.
    """

    height: int
    width: int
    cores: int
    images: int
    rows: int
    tile_rows: int
    tile_columns: int
    margin: int

    @property
    def pitch(self) -> int:
        """Columns of all tiles side by side."""
        return -(-self.width // self.tile_columns) * self.tile_columns

    @property
    def blocks(self) -> int:
        """Blocks of rows in an image."""
        return self.height // self.rows

    @property
    def positions(self) -> int:
        """Positions of a tile."""
        return self.tile_rows * self.tile_columns

    @property
    def window(self) -> int:
        """Positions of a window."""
        return (self.tile_rows + 2) * (self.tile_columns + 2 * self.margin)


def fits(geometry: Geometry, dtype: Any) -> bool:
    """Return whether the kernels take it: 3x3x3, stride 1, D a multiple of 128.

    Up to four pairs of fields; float32 or bfloat16. Of the wider map a position must
    fit in two KiB (1,024 channels in bfloat16), and a row in half a MiB; a quarter of
    one with several pairs of fields.
    """
    dtype = jnp.dtype(dtype)
    fields = geometry.fields_in, geometry.fields_out
    pairs = fields[0] * fields[1]
    position = max(fields) * geometry.depth * dtype.itemsize
    return (
        geometry.kernel_shape[:3] == (3, 3, 3)
        and geometry.strides == (1, 1)
        and geometry.depth % LANES == 0
        and pairs <= _PAIRS
        and dtype in (jnp.float32, jnp.bfloat16)
        and min(geometry.height, geometry.width) > 0
        and position <= _POSITION
        and _round_up(geometry.width, 32) * position * min(pairs, 2) <= _BLOCK
    )


def tiling(geometry: Geometry, batch: int, dtype: Any) -> Tiling:
    """Cut a batch of maps."""
    size = jnp.dtype(dtype).itemsize
    sublanes = 32 // size  # rows of a register
    columns, margin = _round_up(geometry.width, sublanes), 0
    if columns > _WIDE:
        columns, margin = 32, sublanes
    pitch = _round_up(geometry.width, columns)
    channels = geometry.depth * max(geometry.fields_in, geometry.fields_out)
    row = pitch * channels * size  # bytes
    rows = _largest_divisor(geometry.height, _BLOCK // row)
    images = 1
    if rows == geometry.height:
        # A grid step has a price, and transfers need several steps to hide behind.
        most = min(_BLOCK // (row * rows), batch // 8, GROUP)
        images = next(n for n in (8, 4, 2, 1) if batch % n == 0 and n <= max(most, 1))

    def price(tile_rows: int) -> float:
        """Rows that pass through the matrix unit, for each position of the output."""
        positions = tile_rows * columns
        window = (tile_rows + 2) * (columns + 2 * margin)
        parts = -(-window // LANES)
        return parts * (3 * positions + LANES) / positions

    divisors = [n for n in range(1, min(rows, 8) + 1) if rows % n == 0]
    return Tiling(
        height=geometry.height,
        width=geometry.width,
        # Chips with two cores give each a half of the batch, of whole groups.
        cores=2 if batch % (2 * GROUP) == 0 else 1,
        images=images,
        rows=rows,
        tile_rows=min(divisors, key=price),
        tile_columns=columns,
        margin=margin,
    )


def taps(tiles: Tiling, *, adjoint: bool = False) -> np.ndarray:
    """Which spatial tap joins two positions: [tile, window], 3 * i + j, or -1.

    Output position q of a tile reads position p of the window by that tap; or,
    `adjoint`, the input at q is read by the output at p.
    """
    row, window_row = np.ogrid[: tiles.tile_rows, : tiles.tile_rows + 2]
    across = tiles.tile_columns + 2 * tiles.margin
    column, window_column = np.ogrid[: tiles.tile_columns, :across]
    i, j = window_row - row, window_column - column - tiles.margin + 1
    if adjoint:
        i, j = 2 - i, 2 - j
    columns = (j >= 0) & (j < 3)
    if not tiles.margin:
        columns &= (column < tiles.width) & (window_column < tiles.width)
    i, j, columns = i[:, None, :, None], j[None, :, None], columns[None, :, None]
    tap = np.where((i >= 0) & (i < 3) & columns, 3 * i + j, -1)
    return tap.reshape(tiles.positions, tiles.window).astype(np.int32)


def gather(tiles: Tiling, products: jax.Array) -> jax.Array:
    """The kernel's gradient [3, 3, 3, F_in, F_out] from products of positions.

    `products` [cores, F_in, F_out, 3 * tile, window]: for each channel tap, h at a
    position of the tile times the gradient of y at one of the window, summed.
    """
    shape = (*products.shape[:3], 3, tiles.positions, tiles.window)
    here = taps(tiles, adjoint=True) == np.arange(9)[:, None, None]
    chosen = jnp.where(
        here[:, None, None, None, None], products.reshape(shape), jnp.zeros(())
    )
    sums = chosen.sum((1, -2, -1))
    return sums.transpose(0, 3, 1, 2).reshape(3, 3, 3, *products.shape[1:3])


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def _largest_divisor(number: int, most: int) -> int:
    return next(n for n in range(max(1, min(number, most)), 0, -1) if number % n == 0)

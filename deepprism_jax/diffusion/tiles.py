"""Denoising of large images tile by tile, exactly, in bounded memory.

A denoiser without downsampling sees a window around each pixel. A tile that is cut out
with the window's margin on each side, or up to where the image itself ends, gives in
its inside what the whole image gives. Noise is not drawn here: it knows of no tiles.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deepprism_jax.diffusion.reverse import DenoiseAtScale, as_partial


def tiled(
    denoise: DenoiseAtScale, side: int, *, margin: int = 16
) -> jax.tree_util.Partial:
    """Return a denoiser that looks at no more than a square of each image at a time.

    Args:
        denoise: of whole images.
        side: of the largest square that `denoise` is given, margins included. An image
            that is no larger is taken whole.
        margin: pixels on each side that a result depends on; 16 for SinDDM's 33.

    Raises:
        ValueError: nothing is left of a tile between its margins.
    """
    if margin < 0 or side <= 2 * margin:
        raise ValueError(
            f"side={side} must be above {2 * margin}, two margins of {margin} px"
        )
    return jax.tree_util.Partial(_Tiles(side, margin), as_partial(denoise))


def side_within(pixels: int, count: int = 1, *, margin: int = 16) -> int:
    """Return the side of squares of which a batch of `count` has so many pixels.

    Not less than four margins, where already three quarters of the work are repeated.
    """
    return max(4 * margin, math.isqrt(max(0, pixels) // max(1, count)))


@dataclass(frozen=True)
class _Tiles:
    """Compared by its values, so that equal ones are compiled once."""

    side: int
    margin: int

    def __call__(
        self,
        denoise: DenoiseAtScale,
        x: jax.Array,
        t: jax.Array,
        scale: jax.Array,
    ) -> jax.Array:
        """Return what `denoise` gives of x [B, H, W, C]."""
        tall, tops = _windows(x.shape[1], self.side, self.margin)
        wide, lefts = _windows(x.shape[2], self.side, self.margin)
        if len(tops) * len(lefts) == 1:
            return denoise(x, t, scale)
        size = (x.shape[0], tall, wide, x.shape[3])
        corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)

        def add(done, corner):
            at = (0, corner[0], corner[1], 0)
            found = denoise(lax.dynamic_slice(x, at, size), t, scale)
            holds = self._holds(corner[0], tall)[:, None, None]
            holds &= self._holds(corner[1], wide)[:, None]
            before = lax.dynamic_slice(done, at, size)
            merged = jnp.where(holds, found.astype(done.dtype), before)
            return lax.dynamic_update_slice(done, merged, at), None

        return lax.scan(add, jnp.zeros_like(x), corners)[0]

    def _holds(self, begin: jax.Array, window: int) -> jax.Array:
        """Tell from where on a window's pixels do not depend on what is before it.

        What depends on the pixels behind it is written again by the next window.
        """
        return (begin == 0) | (jnp.arange(window) >= self.margin)


def _windows(length: int, side: int, margin: int) -> tuple[int, np.ndarray]:
    """Return the length of windows of at most `side`, about equal, and their starts."""
    if length <= side:
        return length, np.zeros(1, np.int32)
    inner = length - 2 * margin
    count = math.ceil(inner / (side - 2 * margin))
    core = math.ceil(inner / count)
    window = core + 2 * margin
    starts = np.minimum(np.arange(count) * core, length - window)
    return window, starts.astype(np.int32)

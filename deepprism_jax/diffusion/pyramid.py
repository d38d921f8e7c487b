"""The pyramid of one image that single-image diffusion goes through (SinDDM).

Scales count from 0, the coarsest, to the image itself. The rule for how many there are,
and how large, is that of Kulikov et al., 2022, as their program has it: the coarsest is
so small that the 33 pixels which the denoiser sees cover about 40 % of it, and from
there each is 1.411 times the one before.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8
from PIL import Image as Pillow

Size = tuple[int, int]
"""Height and width."""

Arrays = Array | np.ndarray
"""On a device, or not yet."""

_COARSEST_AREA = 3110
_COARSEST_SIDES = (42, 55)


class Pyramid(NamedTuple):
    """An image at all scales, coarsest first, float32 [h, w, c] in [-1, 1]."""

    images: tuple[Float[np.ndarray, "_ _ c"], ...]
    enlarged: tuple[Float[np.ndarray, "_ _ c"], ...]
    """The scale before, enlarged to this one: blurred. Of the coarsest, itself."""

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Height and width of each scale."""
        return tuple((x.shape[0], x.shape[1]) for x in self.images)


def pyramid_sizes(
    height: int, width: int, *, factor: float = 1.411, coarsest: int = 0
) -> tuple[Size, ...]:
    """Return height and width of each scale, coarsest first; the last is the image's.

    Args:
        height, width: of the image.
        factor: about how much larger each scale is than the one before; changed so that
            a whole number of scales fits.
        coarsest: shorter side of the coarsest scale; 0 takes the root of
            3110 short / long, held to 42 ... 55.

    Raises:
        ValueError: the factor is not above 1, or the image is smaller than the coarsest
            scale.
    """
    if not factor > 1:
        raise ValueError(f"factor={factor} must be above 1")
    if coarsest < 0:
        raise ValueError(f"coarsest={coarsest} must be 0, the rule, or a side in px")
    short, long = sorted((height, width))
    side = coarsest
    if not coarsest:
        root = round(math.sqrt(_COARSEST_AREA * short / max(long, 1)))
        side = min(max(root, _COARSEST_SIDES[0]), _COARSEST_SIDES[1])
    if short < side:
        raise ValueError(
            f"image of {height} x {width} px is too small: its shorter side must be at "
            f"least {side}, the coarsest scale's; enlarge it, or set a coarsest scale"
        )
    scales = round(math.log(short / side) / math.log(factor)) + 1
    step = math.exp(math.log(short / side) / max(scales - 1, 1))
    shrunk = [step ** (scales - 1 - scale) for scale in range(scales)]
    return tuple((round(height / by), round(width / by)) for by in shrunk)


def size_within(height: int, width: int, most_pixels: int) -> Size:
    """Return the size of the same shape that has at most so many pixels.

    Sides are cut, not rounded, as the official program does with 50,000.
    """
    by = max(1.0, math.sqrt(height * width / most_pixels))
    return max(1, int(height / by)), max(1, int(width / by))


def make_pyramid(image: UInt8[np.ndarray, "h w c"], sizes: Sequence[Size]) -> Pyramid:
    """Return the image at the given sizes, coarsest first.

    Images are shrunk from the original by Pillow's LANCZOS in 8 bits, as the official
    program does; what is enlarged of them is not rounded to 8 bits.

    Raises:
        ValueError: no size is given, or the sizes do not grow.
    """
    if not sizes:
        raise ValueError("sizes is empty: a pyramid has at least one scale")
    if any(a[0] > b[0] or a[1] > b[1] for a, b in pairwise(sizes)):
        raise ValueError(f"sizes={tuple(sizes)} must grow from the coarsest on")
    images = tuple(_to_float(_shrunk(image, size)) for size in sizes)
    enlarged = (
        resized(before, size) for before, size in zip(images, sizes[1:], strict=False)
    )
    return Pyramid(images, (images[0], *enlarged))


def enlarge(x: Float[Arrays, "*b h w c"], size: Size) -> Float[Array, "*b h2 w2 c"]:
    """Resize images to height and width, as one scale becomes the start of the next.

    Bilinear, pixels being squares, with the triangle widened where a side shrinks: what
    Pillow calls BILINEAR, in float32. The numbers are those of `Pyramid.enlarged`.
    """
    rows, columns = _triangles(x.shape[-3], size[0]), _triangles(x.shape[-2], size[1])
    return _resample(x, rows, columns)


@jax.jit
def _resample(x, rows, columns):
    precision = lax.Precision.HIGHEST
    x = jnp.einsum("ij,...jwc->...iwc", rows, x, precision=precision)
    return jnp.einsum("ij,...hjc->...hic", columns, x, precision=precision)


def resized(x: Float[np.ndarray, "h w c"], size: Size) -> Float[np.ndarray, "h2 w2 c"]:
    """Do as `enlarge` with one image, without a compiler."""
    rows, columns = _triangles(x.shape[0], size[0]), _triangles(x.shape[1], size[1])
    x = np.einsum("ij,jwc->iwc", rows, x, optimize=True)
    return np.einsum("ij,hjc->hic", columns, x, optimize=True)


def _triangles(length: int, new: int) -> Float[np.ndarray, "new length"]:
    """Return the weights of bilinear resampling; each row sums to one."""
    step = length / new
    reach = max(1.0, step)
    centres = (np.arange(new)[:, None] + 0.5) * step - 0.5
    weights = np.maximum(1 - np.abs(np.arange(length) - centres) / reach, 0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _shrunk(image: np.ndarray, size: Size) -> np.ndarray:
    if image.shape[:2] == tuple(size):
        return image
    planes = [Pillow.fromarray(plane) for plane in np.moveaxis(image, -1, 0)]
    wide = (size[1], size[0])
    resized = [plane.resize(wide, Pillow.Resampling.LANCZOS) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=-1)


def _to_float(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / np.float32(127.5) - np.float32(1)

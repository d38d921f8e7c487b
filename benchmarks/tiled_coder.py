"""An autoencoder for images of any size: it sees tiles of the size that it knows."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from deepprism_jax.models import AutoencoderKL
from deepprism_jax.ops import to_float, to_uint8

_PIXELS_AT_ONCE = 2**14


class Coder(NamedTuple):
    """An autoencoder of one image at a time, tile by tile."""

    encode: Callable[[jax.Array], jax.Array]
    decode: Callable[[jax.Array], jax.Array]
    tile: int
    factor: int

    @classmethod
    def of(cls, model: AutoencoderKL, tile: int) -> "Coder":
        """Compile both halves of a model, which sees 8-bit images.

        Raises:
            ValueError: tiles are no multiple of the model's factor.
        """
        encode = jax.jit(lambda x: model.encode(to_float(x)).mode())
        decode = jax.jit(lambda z: to_uint8(model.decode(z)))
        factor = model.factor
        if tile % factor:
            raise ValueError(f"tiles of {tile} are no multiple of {factor}; take 64")
        return cls(encode, decode, tile, factor)

    def latent(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "m n 3"]:
        """Return the latent of an image, whose edges are repeated to whole tiles."""
        sides = self._tile(image.shape[0], image.shape[1])
        rest = [
            (0, -size % side) for size, side in zip(image.shape, sides, strict=False)
        ]
        whole = np.pad(image, [*rest, (0, 0)], "edge")
        return _by_tiles(whole, sides, self.encode)

    def image(
        self, latent: Float[np.ndarray, "m n 3"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image of a latent, cut to its size."""
        height, width = (side // self.factor for side in self._tile(*size))
        return _by_tiles(latent, (height, width), self.decode)[: size[0], : size[1]]

    def _tile(self, height: int, width: int) -> tuple[int, int]:
        if self.tile:
            return self.tile, self.tile
        height, width = (-(-size // self.factor) for size in (height, width))
        return height * self.factor, width * self.factor


def _by_tiles(
    array: np.ndarray, sides: tuple[int, int], run: Callable[[jax.Array], jax.Array]
) -> np.ndarray:
    """Run a network over the tiles of an array, some at once, and join its outputs."""
    (height, width), (rows, columns) = array.shape[:2], sides
    tiles = array.reshape(height // rows, rows, width // columns, columns, -1)
    tiles = tiles.swapaxes(1, 2).reshape(-1, rows, columns, array.shape[-1])
    scale = 1 if array.dtype == np.uint8 else 16
    at_once = max(_PIXELS_AT_ONCE // (rows * columns * scale), 1)
    parts = [jnp.asarray(tiles[n : n + at_once]) for n in range(0, len(tiles), at_once)]
    out = np.concatenate([np.asarray(run(part)) for part in parts])
    out = out.reshape(height // rows, width // columns, *out.shape[1:]).swapaxes(1, 2)
    return out.reshape(out.shape[0] * out.shape[1], -1, out.shape[-1])

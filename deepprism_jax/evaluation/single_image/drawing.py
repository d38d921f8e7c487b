"""Samples of a single-image model, batch by batch over a mesh of devices."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Bool, UInt8

from deepprism_jax.diffusion.multiscale import MultiScale, sample
from deepprism_jax.diffusion.prediction import Target
from deepprism_jax.diffusion.reverse import noise_of
from deepprism_jax.diffusion.tiles import side_within, tiled
from deepprism_jax.evaluation.single_image.folder import PIXELS_AT_ONCE
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.ops import to_uint8
from deepprism_jax.training.sharding import replicated, spread


class Drawn(NamedTuple):
    """A batch of samples."""

    pixels: UInt8[np.ndarray, "b h w c"]
    mask: Bool[np.ndarray, " b"]
    """False where a sample only fills up the batch, or is no numbers."""


def make_denoise(
    network: nnx.Module, target: Target, process: MultiScale, mesh: Mesh
) -> Any:
    """Return the noise in x of (values, x, t, scale), the batch shared by a mesh.

    Args:
        network: whose structure it is; the values may be another's.
        target: what it predicts.
        process: whose schedule it is.
        mesh: devices that share every batch, each of which takes tiles of its images.
    """
    structure = Functional(network)

    def predict(values: Any, noised: tuple[jax.Array, ...]) -> jax.Array:
        side = side_within(PIXELS_AT_ONCE, len(noised[0]))
        predicted = tiled(structure.bind(values), side)
        return noise_of(predicted, target, process.schedule)(*noised)

    shared = spread(mesh, predict)
    return lambda values, x, t, scale: shared(values, (x, t, scale))


class Drawer:
    """Draws of networks of one structure, which are compiled once for all of them.

    Args:
        network: one of them.
        target: what they predict.
        process: of one of their images; all have its schedule.
        mesh: devices that share every batch.
    """

    def __init__(
        self, network: nnx.Module, target: Target, process: MultiScale, mesh: Mesh
    ):
        self._mesh = mesh
        self._denoise = make_denoise(network, target, process, mesh)

    def draw(
        self,
        network: nnx.Module,
        process: MultiScale,
        channels: int,
        *,
        first: int,
        count: int,
        batch: int,
    ) -> Iterator[Drawn]:
        """Draw the samples of the seeds `first` ... `first + count - 1`, in order.

        A sample depends on its seed and not on those that are drawn with it: they are
        those that `sample.py` draws.

        Args:
            network: what draws.
            process: of its image.
            channels: of its image.
            first, count: which samples.
            batch: samples at once, rounded up to a multiple of the devices.
        """
        values = jax.device_put(values_of(network), replicated(self._mesh))
        denoise = jax.tree_util.Partial(self._denoise, values)
        together = -(-batch // self._mesh.size) * self._mesh.size
        for place in range(0, count, together):
            key = jax.random.key(0)  # a seed is a sample's number
            x = sample(denoise, process, together, channels, key, first=first + place)
            pixels, finite = jax.device_get(_pixels(x))
            yield Drawn(pixels, finite & (np.arange(together) < count - place))


@jax.jit
def _pixels(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return 8-bit pixels, and which images are numbers throughout."""
    return to_uint8(images), jax.numpy.isfinite(images).all(axis=(1, 2, 3))

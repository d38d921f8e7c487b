"""A model to draw from that compiles at once: a filter instead of a network."""

import jax
import numpy as np
from flax import nnx
from scipy.ndimage import gaussian_filter

from deepprism_jax.diffusion import schedules
from deepprism_jax.diffusion.multiscale import multi_scale
from deepprism_jax.diffusion.pyramid import make_pyramid
from deepprism_jax.sampling.single_image import Model


class Smooth(nnx.Module):
    """Takes for noise what differs from the neighbours; compiles at once."""

    def __init__(self):
        self.share = nnx.Param(jax.numpy.full((3,), 0.25))

    def __call__(self, x, t, scale):
        beside = sum(jax.numpy.roll(x, by, axis) for axis in (1, 2) for by in (-1, 1))
        return x - self.share[...] * beside


def make_model(network, sizes, times=8):
    """Of an image of large blobs."""
    values = np.random.default_rng(0).normal(size=(*sizes[-1], 3))
    smooth = gaussian_filter(values, (4, 4, 0), mode="wrap")
    image = np.uint8(127.5 + 127 * np.tanh(smooth / smooth.std()))
    pyramid = make_pyramid(image, sizes)
    process = multi_scale(pyramid, schedules.cosine(times), reading="rms")
    return Model("blobs", 7, network, image, pyramid, process)

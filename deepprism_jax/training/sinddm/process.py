"""From a config and an image to the pyramid and the process on it."""

import numpy as np

from deepprism_jax.diffusion.multiscale import MultiScale, multi_scale
from deepprism_jax.diffusion.pyramid import Pyramid, make_pyramid, pyramid_sizes
from deepprism_jax.diffusion.schedules import make_schedule
from deepprism_jax.training.sinddm.config import SinDDMConfig

MOST_SCALES = 20
"""Each is a program of its own."""


def make_process(config: SinDDMConfig, image: np.ndarray) -> tuple[Pyramid, MultiScale]:
    """Return the pyramid of an image, uint8 [h, w, c], and its diffusion.

    The same for the same pixels: a run keeps its image, and nothing else of this.

    Raises:
        ValueError: the image is smaller than the coarsest scale, or an option lies
            outside its range.
    """
    options = config.diffusion
    height, width, _ = image.shape
    try:
        sizes = pyramid_sizes(
            height, width, factor=options.factor, coarsest=options.coarsest
        )
    except ValueError as error:
        raise ValueError(
            f"{error} by --diffusion.coarsest; large images are shrunk to "
            f"data.longest={config.data.longest}"
        ) from None
    if len(sizes) > MOST_SCALES:
        raise ValueError(
            f"diffusion.factor={options.factor} makes {len(sizes)} scales, and at most "
            f"{MOST_SCALES} will do: choose a larger one"
        )
    pyramid = make_pyramid(image, sizes)
    schedule = make_schedule(options.schedule, options.times)
    return pyramid, multi_scale(pyramid, schedule)

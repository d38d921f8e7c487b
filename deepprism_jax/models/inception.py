"""Inception-v3 as the inception score and FID use it: the graph of December 2015.

Szegedy et al., Rethinking the Inception Architecture (2015), in the form that Salimans
et al. (2016) and Heusel et al. (2017) measured with, and that torch-fidelity and
pytorch-fid repeat. It differs from the network of the libraries: average pooling does
not count the padding, the last block pools by maximum, there are 1008 classes, and
images are enlarged by TensorFlow 1's bilinear rule, which has pixels at their corners.

Like the networks of `feature_networks`, it is a pure function of a plain pytree.
Batch normalisation is part of the kernels: `weights.inception` folds it in.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from deepprism_jax.image_features import ImageFeatures, to_rgb
from deepprism_jax.models.inception_stages import (
    STAGES,
    AverageThenConv,
    Conv,
    Fork,
    Max,
    Mixed,
    Step,
)

SIZE = 299
CLASSES = 1008
FEATURES = 2048

Params = dict[str, Any]


@dataclass(frozen=True)
class Inception:
    """The network; holds no parameters.

    They are `{name: {"kernel": HWIO, "bias": O}}`, one level deeper within the mixed
    stages, and `{"fc": {"kernel": [2048, 1008]}}`.
    """

    name: str = "Inception-v3 (TensorFlow, 2015)"
    resize: str = "bilinear to 299x299 as in TensorFlow 1"

    def shapes(self) -> Params:
        """Return the pytree of `jax.ShapeDtypeStruct` that `apply` takes as params."""
        shapes, channels = {}, 3
        for stage in STAGES:
            if isinstance(stage, Conv):
                shapes[stage.name] = _conv_shapes(stage, channels)
                channels = stage.out_channels
            elif isinstance(stage, Mixed):
                shapes[stage.name], channels = _mixed_shapes(stage, channels)
        fc = jax.ShapeDtypeStruct((FEATURES, CLASSES), jnp.float32)
        return {**shapes, "fc": {"kernel": fc}}

    def apply(
        self, params: Params, images: UInt8[Array | np.ndarray, "b h w c"]
    ) -> ImageFeatures:
        """Return pool3 [b, 2048] and the logits [b, 1008] of gray or RGB images.

        Logits are without the last layer's bias, as the inception score takes them. A
        gray image counts as an RGB image of three equal channels. Everything is
        computed in full float32, on accelerators too.

        Raises:
            TypeError: images are not 8-bit.
            ValueError: for another number of channels.
        """
        x = prepare(images)
        for stage in STAGES:
            if isinstance(stage, Conv):
                x = _conv(params[stage.name], x, stage)
            elif isinstance(stage, Max):
                x = _maximum(x, stage.strides, same=False)
            else:
                x = _mixed(params[stage.name], x, stage)
        pool = jnp.mean(x, axis=(1, 2))
        logits = jnp.dot(pool, params["fc"]["kernel"], precision=_EXACT)
        return ImageFeatures(pool, logits)

    def before_poolings(
        self, params: Params, x: Float[Array, "b h w 3"]
    ) -> list[Float[Array, "b _ _ _"]]:
        """Return the maps that the two poolings of the stem read: 64 and 192 channels.

        They are of the images as they are given, in [-1, 1] and of any size from 19x19
        on: nothing is resized.
        """
        maps = []
        for stage in STAGES:
            if isinstance(stage, Mixed):
                break
            if isinstance(stage, Max):
                maps.append(x)
                x = _maximum(x, stage.strides, same=False)
            else:
                x = _conv(params[stage.name], x, stage)
        return maps


INCEPTION = Inception()

_EXACT = jax.lax.Precision.HIGHEST


def prepare(
    images: UInt8[Array | np.ndarray, "b h w c"],
) -> Float[Array, "b 299 299 3"]:
    """Enlarge 8-bit images to 299x299 and map [0, 255] to [-1, 1).

    Raises:
        TypeError: images are not 8-bit.
        ValueError: for a number of channels other than one and three.
    """
    x = to_rgb(images, "Inception-v3")
    for axis in (2, 1):
        x = resize_corners(x, axis, SIZE)
    return (x - 128.0) / 128.0


def resize_corners(x: Array, axis: int, size: int) -> Array:
    """Interpolate linearly along an axis between the corners of pixels.

    Place i of the result lies at i * n / size of the n pixels, and beyond the last one
    nothing changes: TensorFlow 1's `resize_bilinear(align_corners=False)`.
    """
    n = x.shape[axis]
    # In float32, as the reference: the fractions are off by up to 2e-5 otherwise.
    places = np.arange(size, dtype=np.float32) * np.float32(n / size)
    low = places.astype(np.int64)
    high = np.minimum(low + 1, n - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    fraction = (places - low.astype(np.float32)).reshape(shape)
    first = jnp.take(x, low, axis)
    return first + (jnp.take(x, high, axis) - first) * fraction


def _walk(branch: tuple[Step, ...]) -> Iterator[tuple[Conv, ...]]:
    """Yield the convolutions of every step that has some."""
    for step in branch:
        match step:
            case Conv():
                yield (step,)
            case AverageThenConv(conv):
                yield (conv,)
            case Fork(convs):
                yield convs


def _mixed_shapes(stage: Mixed, channels: int) -> tuple[Params, int]:
    shapes, total = {}, 0
    for branch in stage.branches:
        width = channels
        for convs in _walk(branch):
            shapes |= {conv.name: _conv_shapes(conv, width) for conv in convs}
            width = sum(conv.out_channels for conv in convs)
        total += width
    return shapes, total


def _conv_shapes(conv: Conv, in_channels: int) -> Params:
    kernel = (*conv.kernel_size, in_channels, conv.out_channels)
    return {
        "kernel": jax.ShapeDtypeStruct(kernel, jnp.float32),
        "bias": jax.ShapeDtypeStruct((conv.out_channels,), jnp.float32),
    }


def _mixed(params: Params, x: Array, stage: Mixed) -> Array:
    results = []
    for branch in stage.branches:
        y = x
        for step in branch:
            y = _step(params, y, step)
        results.append(y)
    return jnp.concatenate(results, axis=-1)


def _step(params: Params, x: Array, step: Step) -> Array:
    match step:
        case Conv():
            return _conv(params[step.name], x, step)
        case Max(strides):
            return _maximum(x, strides, same=strides == 1)
        case Fork(convs):
            parts = [_conv(params[conv.name], x, conv) for conv in convs]
            return jnp.concatenate(parts, axis=-1)
        case AverageThenConv(conv):
            # The mean and a 1x1 kernel commute, and the result has fewer channels.
            y = _mean(_linear(params[conv.name]["kernel"], x, conv))
            return jax.nn.relu(y + params[conv.name]["bias"])


def _conv(params: Params, x: Array, conv: Conv) -> Array:
    return jax.nn.relu(_linear(params["kernel"], x, conv) + params["bias"])


def _linear(kernel: Array, x: Array, conv: Conv) -> Array:
    if conv.kernel_size == (1, 1):
        # On CPUs a matrix product is faster than XLA's convolution of one place.
        return jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0], precision=_EXACT)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(conv.strides, conv.strides),
        padding="SAME" if conv.same else "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=_EXACT,
    )


def _maximum(x: Array, strides: int, *, same: bool) -> Array:
    if same:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
        x = jax.lax.optimization_barrier(x)
    return functools.reduce(jnp.maximum, _windows(x, strides))


def _mean(x: Array) -> Array:
    """Mean over the 3x3 places around each that lie inside."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Fused, padding would be decided anew at each of the nine places.
    total = functools.reduce(jnp.add, _windows(jax.lax.optimization_barrier(padded), 1))
    inside = [np.convolve(np.ones(n), np.ones(3), "same") for n in (height, width)]
    counts = np.outer(*inside).astype(np.float32)
    return total / counts[None, :, :, None]


def _windows(x: Array, strides: int) -> list[Array]:
    """Return the nine places of every 3x3 window.

    Shifted slices are several times as fast as XLA's `reduce_window` on CPUs.
    """
    batch, height, width, channels = x.shape
    down, across = ((n - 3) // strides * strides + 1 for n in (height, width))
    return [
        jax.lax.slice(
            x,
            (0, i, j, 0),
            (batch, i + down, j + across, channels),
            (1, strides, strides, 1),
        )
        for i, j in itertools.product(range(3), repeat=2)
    ]

"""What a code of the same size reaches without a network: bicubic resampling and PCA.

Both read and write 8-bit images, as a model does, and are scored by the same metrics.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import UInt8

from deepprism_jax.metrics.state import Pixels
from deepprism_jax.typing import ImageU8

MAX_SIDE = 4096
"""Largest matrix whose eigenvectors `fit_pca` computes."""

MAX_VALUES = 2**28
"""Most pixel values that `fit_pca` keeps in memory."""

OFFSET = np.float32(128)
"""Subtracted from 8-bit values, whose products are then at most 2^14."""

EXACT_SUM = 1024
"""Products of that size whose sum float32 holds exactly, in any order."""


def bicubic_down_up(images: Pixels, factor: int) -> ImageU8:
    """Shrink by `factor` and enlarge again, both bicubic: the reference of Figure 4.

    Shrinking is antialiased (the kernel is stretched by the factor, as in Pillow); the
    small image stays in floats, only the result is rounded to 8 bits.

    Raises:
        ValueError: a side is not divisible by `factor`.
    """
    height, width = images.shape[-3], images.shape[-2]
    if height % factor or width % factor:
        raise ValueError(
            f"images of {height}x{width} are not divisible by the factor {factor}: "
            f"give sides that are multiples of {factor}"
        )
    return _bicubic_down_up(images, factor)


@partial(jax.jit, static_argnames="factor")
def _bicubic_down_up(images: Pixels, factor: int) -> ImageU8:
    *batch, height, width, channels = images.shape
    x = jnp.asarray(images, jnp.float32)
    small = (*batch, height // factor, width // factor, channels)
    x = jax.image.resize(x, small, "bicubic", antialias=True)
    return _round(jax.image.resize(x, images.shape, "bicubic"))


def _round(x: jax.Array) -> jax.Array:
    return jnp.round(jnp.clip(x, 0.0, 255.0)).astype(jnp.uint8)


@dataclass(frozen=True)
class PCA:
    """The best linear code of its length for the images it was fitted on."""

    mean: jax.Array = field(repr=False)
    """Mean image [h, w, c], 0..255."""
    components: jax.Array = field(repr=False)
    """Orthonormal principal components [k, h * w * c], the strongest first."""
    images: int
    """How many images it was fitted on."""

    @property
    def parameters(self) -> int:
        """Numbers that decoding needs: mean and components."""
        return self.mean.size + self.components.size

    def reconstruct(self, images: Pixels) -> ImageU8:
        """Project images on the components and round back to 8 bits."""
        return _project(images, self.mean, self.components)


@jax.jit
def _project(images: Pixels, mean: jax.Array, components: jax.Array) -> ImageU8:
    x = jnp.asarray(images, jnp.float32) - mean
    x = x.reshape(*images.shape[:-3], -1)
    # An accelerator's default precision would cost some hundredths of a dB.
    code = jnp.einsum("...n,kn->...k", x, components, precision="highest")
    x = jnp.einsum("...k,kn->...n", code, components, precision="highest")
    return _round(x.reshape(images.shape) + mean)


def fit_pca(batches: Iterable[UInt8[np.ndarray, "_ h w c"]], components: int) -> PCA:
    """Fit principal components to all images of `batches`, in bounded memory.

    Up to 4,096 values an image (36x36x3) the covariance is summed over the stream and
    no image is kept. Larger images are kept, the first 4,096 of them or 2^28 values,
    and their inner products are used instead. Either sum is exact, so the size of the
    batches does not move the result.

    There are at most as many components as the images have independent directions:
    one fewer than there are images. Compare `len(pca.components)` with what was asked.

    Raises:
        ValueError: there is no image, or `components` is below 1.
    """
    if components < 1:
        raise ValueError(f"components={components} must be at least 1")
    stream = iter(batches)
    first = next((batch for batch in stream if len(batch)), None)
    if first is None:
        raise ValueError("no image to fit PCA on: the training split is empty")
    batches = itertools.chain([first], stream)
    size = first[0].size
    if size <= MAX_SIDE:
        count, total, vectors = _fit_by_covariance(batches, size, components)
    else:
        count, total, vectors = _fit_by_inner_products(batches, size, components)
    mean = (total / count + OFFSET).astype(np.float32).reshape(first.shape[1:])
    # On the device once, not once a batch.
    return PCA(jnp.asarray(mean), jnp.asarray(vectors), count)


def _fit_by_covariance(
    batches: Iterable[np.ndarray], size: int, components: int
) -> tuple[int, np.ndarray, np.ndarray]:
    count, total = 0, np.zeros(size)
    products = np.zeros((size, size))
    for batch in batches:
        for start in range(0, len(batch), EXACT_SUM):
            x = _rows(batch[start : start + EXACT_SUM]).astype(np.float32) - OFFSET
            count += len(x)
            total += x.sum(axis=0)
            products += x.T @ x
    products -= np.outer(total, total / count)
    _, vectors = _leading(products, min(components, count - 1))
    return count, total, np.ascontiguousarray(vectors.T, np.float32)


def _fit_by_inner_products(
    batches: Iterable[np.ndarray], size: int, components: int
) -> tuple[int, np.ndarray, np.ndarray]:
    limit = max(1, min(MAX_SIDE, MAX_VALUES // size))
    kept: list[np.ndarray] = []
    count = 0
    for batch in batches:
        kept.append(_rows(batch[: limit - count]))
        count += len(kept[-1])
        if count == limit:
            break
    images = np.concatenate(kept)
    total, products = np.zeros(size), np.zeros((count, count))
    chunks = [slice(i, i + EXACT_SUM) for i in range(0, size, EXACT_SUM)]
    for columns in chunks:
        x = images[:, columns].astype(np.float32) - OFFSET
        total[columns] = x.sum(axis=0, dtype=np.float64)
        products += x @ x.T
    # Centring the images afterwards is centring the products along both sides.
    products -= products.mean(axis=0)
    products -= products.mean(axis=1, keepdims=True)
    values, vectors = _leading(products, min(components, count - 1))
    weights = (vectors / np.sqrt(values)).T.astype(np.float32)
    components_ = np.empty((len(weights), size), np.float32)
    for columns in chunks:
        x = images[:, columns].astype(np.float32) - OFFSET
        x -= (total[columns] / count).astype(np.float32)
        components_[:, columns] = weights @ x
    return count, total, components_


def _rows(batch: np.ndarray) -> np.ndarray:
    return batch.reshape(len(batch), -1)


def _leading(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` largest eigenvalues and -vectors, without those that are 0."""
    size = len(matrix)
    count = min(count, size)
    if count == 0:
        return np.zeros(0), np.zeros((size, 0))
    values, vectors = scipy.linalg.eigh(
        matrix, subset_by_index=(size - count, size - 1), check_finite=False
    )
    values, vectors = values[::-1], vectors[:, ::-1]
    independent = values > values[0] * size * np.finfo(np.float64).eps
    return values[independent], vectors[:, independent]

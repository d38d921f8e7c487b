"""Kernel distance between sets of features: KID where features are Inception's.

Binkowski et al., "Demystifying MMD GANs", 2018.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deepprism_jax.metrics.feature_rows import (
    FeatureRows,
    Indices,
    Rows,
    check_same_features,
)
from deepprism_jax.metrics.state import Mask, Score

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020
"""Subsets, their size, and the seed that draws them, all as in torch-fidelity."""


def kernel_distances(
    real: Float[np.ndarray, "n d"],
    generated: Float[np.ndarray, "m d"],
    *,
    subsets: int = SUBSETS,
    size: int = SUBSET_SIZE,
) -> Float[np.ndarray, " subsets"]:
    """Return the kernel distance of every pair of random subsets, slightly below 0 too.

    The subsets are those that torch-fidelity draws from sets in the same order. All is
    computed in float64: a distance is what is left of means that are thousands of times
    larger, and their sums in float32 move it by some 1e-4 of itself.

    Raises:
        ValueError: a set has fewer images than a subset, the numbers of features
            differ, or `subsets` or `size` is too small.
    """
    if subsets < 1 or size < 2:
        raise ValueError(
            f"a kernel distance over {subsets} subsets of {size} images is not "
            "defined: give at least 1 subset of 2 images"
        )
    check_same_features(real.shape[1], generated.shape[1])
    if min(len(real), len(generated)) < size:
        raise ValueError(
            f"kernel distance over subsets of {size:,} images, but there are "
            f"{len(real):,} real and {len(generated):,} generated ones: evaluate more "
            f"images, or choose a subset size of at most "
            f"{min(len(real), len(generated)):,}"
        )
    draws = np.random.RandomState(SEED)
    distances = np.empty(subsets)
    for i in range(subsets):
        x = generated[draws.choice(len(generated), size, replace=False)]
        y = real[draws.choice(len(real), size, replace=False)]
        distances[i] = kernel_distance(x, y)
    return distances


def kernel_distance(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "m d"]) -> float:
    """Return the unbiased squared maximum mean discrepancy of two sets of one size.

    The kernel is k(a, b) = (a . b / d + 1)^3. Within a set the mean runs over pairs of
    different rows, between the sets over all pairs.
    """
    count, size = x.shape
    x = x.astype(np.float64) / np.sqrt(size)
    y = y.astype(np.float64) / np.sqrt(size)
    within = sum(_kernel_sum(z, z) - _diagonal_sum(z) for z in (x, y))
    return within / (count * (count - 1)) - 2 * _kernel_sum(x, y) / count**2


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    kernel = x @ y.T
    kernel += 1.0
    return float(np.vdot(kernel * kernel, kernel))


def _diagonal_sum(x: np.ndarray) -> float:
    return float(np.sum((np.einsum("nd,nd->n", x, x) + 1.0) ** 3))


class KID(NamedTuple):
    """Mean and spread over random subsets of the kernel distance of two sets.

    For several generated sets gather the real rows once and pair them with each:
    `KID(real, generated)`. Rows may come in any order, their indices settle it.
    """

    real: FeatureRows
    generated: FeatureRows
    subsets: int = SUBSETS
    size: int = SUBSET_SIZE

    @classmethod
    def from_batch(
        cls,
        real: Rows,
        generated: Rows,
        indices: Indices,
        mask: Mask | None = None,
        *,
        subsets: int = SUBSETS,
        size: int = SUBSET_SIZE,
    ) -> "KID":
        """Take in features [b, d] of images and of their reconstructions.

        Raises:
            ValueError: a number is not finite.
        """
        return cls(
            FeatureRows.from_batch(real, indices, mask),
            FeatureRows.from_batch(generated, indices, mask),
            subsets,
            size,
        )

    def merge(self, other: "KID") -> "KID":
        """Return the state of both parts together."""
        return self._replace(
            real=self.real.merge(other.real),
            generated=self.generated.merge(other.generated),
        )

    def compute(self) -> Score:
        """Return mean and standard deviation over subsets.

        Raises:
            ValueError: as `kernel_distances` and `FeatureRows.compact`.
        """
        generated = self.generated.array()
        distances = kernel_distances(
            self.real.array(), generated, subsets=self.subsets, size=self.size
        )
        mean, std = float(np.mean(distances)), float(np.std(distances))
        return Score(mean, std, self.subsets, "subsets", len(generated))

    def notes(self) -> list[str]:
        """Return what a reader must know to make use of the figure."""
        count = min(self.real.count, self.generated.count)
        if count >= 2 * self.size:
            return []
        return [
            f"kernel distance over subsets of {self.size:,} of {count:,} images: they "
            "share most images, so the standard deviation over subsets is too small"
        ]

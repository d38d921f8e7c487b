"""Mean and covariance of features, summed over batches in float64."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deepprism_jax.metrics.feature_rows import Rows, in_blocks, valid_rows
from deepprism_jax.metrics.state import Mask

BLOCK_VALUES = 2**22
"""Features that are widened to float64 at a time: 32 MiB."""


class Gaussian(NamedTuple):
    """Count, mean and scatter (the sum of products of deviations) of feature vectors.

    Parts are merged by the formula of Chan, Golub and LeVeque (1979), which loses
    nothing where means are large beside deviations.
    """

    count: int
    mean: np.ndarray
    """Float64 [d]."""
    scatter: np.ndarray
    """Float64 [d, d]."""

    @classmethod
    def empty(cls, size: int) -> "Gaussian":
        """Return the state of no image with `size` features."""
        return cls(0, np.zeros(size), np.zeros((size, size)))

    @classmethod
    def from_batch(cls, features: Rows, mask: Mask | None = None) -> "Gaussian":
        """Take in a batch of any size, or a whole set; masked rows do not count.

        Raises:
            ValueError: a number is not finite.
        """
        rows = valid_rows(features, mask)
        count, size = rows.shape
        if count == 0:
            return cls.empty(size)
        mean = rows.mean(axis=0, dtype=np.float64)
        first, *others = in_blocks(count, size, BLOCK_VALUES)
        scatter = _products(rows[first] - mean)
        for block in others:
            scatter += _products(rows[block] - mean)
        return cls(count, mean, scatter)

    def merge(self, other: "Gaussian") -> "Gaussian":
        """Return the state of both parts together; an empty part changes nothing.

        Raises:
            ValueError: the parts have different numbers of features.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"parts of a set have {self.mean.size:,} and {other.mean.size:,} "
                "features an image: take all from one layer of one feature network"
            )
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        share = other.count / count
        step = other.mean - self.mean
        scatter = np.outer(step, step * (self.count * share))
        scatter += self.scatter
        scatter += other.scatter
        return Gaussian(count, self.mean + step * share, scatter)

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """Unbiased covariance, as numpy.cov computes it.

        Raises:
            ValueError: there are fewer than two images.
        """
        if self.count < 2:
            raise ValueError(
                f"a covariance needs at least 2 images, got {self.count}: evaluate "
                "more images"
            )
        return self.scatter / (self.count - 1)

    @property
    def statistics(self) -> "Statistics":
        """What the Fréchet distance needs; errors are those of `covariance`."""
        return Statistics(self.mean, self.covariance, self.count)


def _products(deviations: np.ndarray) -> np.ndarray:
    return deviations.T @ deviations


class Statistics(NamedTuple):
    """Mean and covariance of a finished set, from features or from a file."""

    mean: np.ndarray
    """Float64 [d]."""
    covariance: np.ndarray
    """Float64 [d, d]."""
    count: int | None
    """Images behind them, None where a file does not say."""

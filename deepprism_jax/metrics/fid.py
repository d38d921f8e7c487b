"""Fréchet distance between Gaussians: FID where features are Inception's.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", 2017.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from deepprism_jax.metrics.feature_rows import Rows, check_same_features
from deepprism_jax.metrics.gaussian import Gaussian, Statistics
from deepprism_jax.metrics.state import Mask, Score


def frechet_distance(real: Statistics, generated: Statistics) -> float:
    """Return |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), at least 0.

    With any factors S1 = A A^T and S2 = B B^T the trace of the root is the sum of the
    singular values of A^T B. That needs no root of a non-symmetric matrix, and, unlike
    the roots of the eigenvalues of S1 S2, it is exact to rounding where covariances
    are singular.

    Raises:
        ValueError: the numbers of features differ.
    """
    check_same_features(real.mean.size, generated.mean.size)
    difference = real.mean - generated.mean
    factors = _factor(real.covariance), _factor(generated.covariance)
    root = np.sum(np.linalg.svdvals(factors[0].T @ factors[1]))
    spread = np.trace(real.covariance) + np.trace(generated.covariance)
    return max(0.0, float(difference @ difference + spread - 2 * root))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Return A [d, r] with A A^T = the covariance, whose rank is r."""
    # Cholesky with pivots; LAPACK stops at pivots below d * eps * the largest.
    (pstrf,) = scipy.linalg.get_lapack_funcs(["pstrf"], [covariance])
    lower, pivots, rank, _ = pstrf(covariance, lower=1)
    factor = np.empty((len(covariance), rank))
    factor[pivots - 1] = np.tril(lower)[:, :rank]
    return factor


class FID(NamedTuple):
    """Fréchet distance of generated images, or reconstructions, from real ones.

    The real side may be `Statistics` of a file. For several generated sets sum up the
    real `Gaussian` once and pair it with each: `FID(real, generated)`.
    """

    real: Gaussian | Statistics
    generated: Gaussian

    @classmethod
    def from_batch(cls, real: Rows, generated: Rows, mask: Mask | None = None) -> "FID":
        """Take in features [b, d] of images and of their reconstructions.

        Raises:
            ValueError: a number is not finite.
        """
        return cls(
            Gaussian.from_batch(real, mask), Gaussian.from_batch(generated, mask)
        )

    def merge(self, other: "FID") -> "FID":
        """Return the state of both parts together.

        Raises:
            ValueError: the real sides are statistics that differ, or parts have
                different numbers of features.
        """
        return FID(_merge(self.real, other.real), self.generated.merge(other.generated))

    def compute(self) -> Score:
        """Return the distance, over the generated images.

        Raises:
            ValueError: a side has fewer than two images, or the numbers of features
                differ.
        """
        check_same_features(self.real.mean.size, self.generated.mean.size)
        real = self.real.statistics if isinstance(self.real, Gaussian) else self.real
        value = frechet_distance(real, self.generated.statistics)
        return Score(value, None, self.generated.count, "images")

    def notes(self) -> list[str]:
        """Return what a reader must know to make use of the figure."""
        size = self.generated.mean.size
        counts = {
            "real": self.real.count,
            "generated": self.generated.count,
        }
        few = [
            f"{count:,} {side}"
            for side, count in counts.items()
            if count is not None and count <= size
        ]
        if not few:
            return []
        return [
            f"Fréchet distance from {' and '.join(few)} images with {size:,} features: "
            "covariances are singular and the distance is too large; compare it only "
            f"at equal counts, or evaluate more than {size:,} images"
        ]


def _merge(one: Gaussian | Statistics, other: Gaussian | Statistics):
    if isinstance(one, Gaussian) and isinstance(other, Gaussian):
        return one.merge(other)
    if one is not other:
        raise ValueError(
            "parts were compared with different real statistics: give all of them "
            "the same object"
        )
    return one

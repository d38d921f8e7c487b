"""Precision and recall of generated images, by balls around features.

Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative
Models", 2019.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deepprism_jax.metrics.feature_rows import (
    FeatureRows,
    Indices,
    Rows,
    check_same_features,
    in_blocks,
)
from deepprism_jax.metrics.state import Mask, Score

NEIGHBOURS = 3

BLOCK_DISTANCES = 2**25
"""Distances held at a time: 128 MiB."""

SAME = 2e-6
"""A squared distance below this part of a squared norm is 0 but for rounding."""


class PrecisionRecallScores(NamedTuple):
    """Two figures of one computation."""

    precision: Score
    """Part of the generated images that lie among the real ones: are they good?"""
    recall: Score
    """Part of the real images that lie among the generated ones: are they all there?"""


def precision_recall(
    real: Float[np.ndarray, "n d"],
    generated: Float[np.ndarray, "m d"],
    neighbours: int = NEIGHBOURS,
) -> tuple[float, float]:
    """Return precision and recall of generated images.

    A row lies among a set if it lies in the ball of one of the set's rows, which
    reaches to that row's third nearest other row. Rows that are equal to rounding of
    float32 count as equal.

    Time grows with the square of the numbers of rows, memory does not.

    Raises:
        ValueError: a set has too few images, or the numbers of features differ.
    """
    check_same_features(real.shape[1], generated.shape[1])
    if neighbours < 1 or min(len(real), len(generated)) <= neighbours:
        raise ValueError(
            f"precision and recall by {neighbours} neighbours need at least "
            f"{max(2, neighbours + 1)} images a side, got {len(real):,} real and "
            f"{len(generated):,} generated ones: evaluate more images"
        )
    # Distances do not feel a shift, but a difference of squares in float32 does.
    centre = real.mean(axis=0, dtype=np.float64).astype(np.float32)
    real = (real - centre).astype(np.float32, copy=False)
    generated = (generated - centre).astype(np.float32, copy=False)
    real_radii = _squared_radii(real, neighbours)
    generated_radii = _squared_radii(generated, neighbours)
    good = np.zeros(len(generated), bool)
    found = np.zeros(len(real), bool)
    for block, distances in _squared_distances(generated, real):
        good[block] = (distances <= real_radii).any(axis=1)
        found |= (distances <= generated_radii[block, None]).any(axis=0)
    return float(good.mean()), float(found.mean())


def _squared_radii(rows: np.ndarray, neighbours: int) -> np.ndarray:
    radii = np.empty(len(rows), np.float32)
    for block, distances in _squared_distances(rows, rows):
        # A row is its own nearest, so the one after its neighbours counts from 0.
        distances.partition(neighbours, axis=1)
        radii[block] = distances[:, neighbours]
    return radii


def _squared_distances(
    x: np.ndarray, y: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of rows of x and their squared distances to all rows of y."""
    x_squares, y_squares = (np.einsum("nd,nd->n", z, z)[:, None] for z in (x, y))
    for block in in_blocks(len(x), len(y), BLOCK_DISTANCES):
        distances = x[block] @ y.T
        distances *= -2.0
        distances += x_squares[block]
        distances += y_squares.T
        distances[distances < SAME * x_squares[block]] = 0.0
        yield block, distances


class PrecisionRecall(NamedTuple):
    """Precision and recall of two sets of images.

    For several generated sets gather the real rows once and pair them with each:
    `PrecisionRecall(real, generated)`.
    """

    real: FeatureRows
    generated: FeatureRows
    neighbours: int = NEIGHBOURS

    @classmethod
    def from_batch(
        cls,
        real: Rows,
        generated: Rows,
        indices: Indices,
        mask: Mask | None = None,
        *,
        neighbours: int = NEIGHBOURS,
    ) -> "PrecisionRecall":
        """Take in features [b, d] of images and of their reconstructions.

        Raises:
            ValueError: a number is not finite.
        """
        return cls(
            FeatureRows.from_batch(real, indices, mask),
            FeatureRows.from_batch(generated, indices, mask),
            neighbours,
        )

    def merge(self, other: "PrecisionRecall") -> "PrecisionRecall":
        """Return the state of both parts together."""
        return self._replace(
            real=self.real.merge(other.real),
            generated=self.generated.merge(other.generated),
        )

    def compute(self) -> PrecisionRecallScores:
        """Return both figures, each over the images it is a part of.

        Raises:
            ValueError: as `precision_recall` and `FeatureRows.compact`.
        """
        real, generated = self.real.array(), self.generated.array()
        precision, recall = precision_recall(real, generated, self.neighbours)
        return PrecisionRecallScores(
            Score(precision, None, len(generated), "images"),
            Score(recall, None, len(real), "images"),
        )

    def notes(self) -> list[str]:
        """Return what a reader must know to make use of the figures."""
        if self.real.count == self.generated.count:
            return []
        return [
            f"precision and recall of {self.generated.count:,} generated and "
            f"{self.real.count:,} real images: both depend on the counts; compare them "
            "only at the same ones"
        ]

"""Inception score: how sure of single images and how varied over all a classifier is.

Salimans et al., "Improved Techniques for Training GANs", 2016.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import log_softmax, xlogy

from deepprism_jax.metrics.feature_rows import Indices, valid_rows
from deepprism_jax.metrics.state import Mask, Score

SPLITS = 10
SEED = 2020
"""Splits, and the seed that deals the images out to them, as in torch-fidelity."""


def split_of_images(images: int, splits: int = SPLITS) -> Int[np.ndarray, " images"]:
    """Return the split of every image: equal parts of the images in random order.

    Raises:
        ValueError: there are fewer images than splits.
    """
    if not 1 <= splits <= images:
        raise ValueError(
            f"{images:,} images do not make {splits} splits: evaluate more images, or "
            "choose fewer splits"
        )
    order = np.random.RandomState(SEED).permutation(images)
    bounds = np.arange(splits + 1) * images // splits
    result = np.empty(images, np.int64)
    result[order] = np.repeat(np.arange(splits), np.diff(bounds))
    return result


class InceptionScore(NamedTuple):
    """Sums over the images of every split, in float64.

    A split's score is exp(mean of KL(p || q)), with the class probabilities p of an
    image and their mean q over the split. The mean is that of sum p log p, less the sum
    of q log q; so images need not be kept, and may come in any order.
    """

    splits: np.ndarray
    """Which split an image of this index belongs to [images]."""
    count: np.ndarray
    """Images seen [splits]."""
    probabilities: np.ndarray
    """Sum of p [splits, k], of no classes before the first batch."""
    negentropy: np.ndarray
    """Sum of sum p log p [splits]."""

    @classmethod
    def empty(cls, images: int, splits: int = SPLITS) -> "InceptionScore":
        """Return the state before the first of so many images.

        Raises:
            ValueError: there are fewer images than splits.
        """
        return cls(
            split_of_images(images, splits),
            np.zeros(splits, np.int64),
            np.zeros((splits, 0)),
            np.zeros(splits),
        )

    def from_batch(
        self,
        logits: Float[Array | np.ndarray, "b k"],
        indices: Indices,
        mask: Mask | None = None,
    ) -> "InceptionScore":
        """Return the state of one batch alone, of a set split as this state's is.

        `total = total.merge(empty.from_batch(logits, indices, mask))` sums up.

        Args:
            logits: unnormalised log-probabilities of the classes.
            indices: which images of the set these are.
            mask: False where a row does not count.

        Raises:
            ValueError: a number is not finite, or an index is out of range.
        """
        rows = valid_rows(logits, mask, indices)
        where = np.asarray(indices)
        where = where if mask is None else where[np.asarray(mask)]
        images = len(self.splits)
        if len(where) and not 0 <= where.min() <= where.max() < images:
            raise ValueError(
                f"index {where.max() if where.max() >= images else where.min()} is not "
                f"of a set of {images:,} images: tell InceptionScore.empty how many "
                "there are"
            )
        splits, classes = len(self.count), rows.shape[1]
        log_p = log_softmax(rows.astype(np.float64), axis=1)
        p = np.exp(log_p)
        # One column a split; a product of matrices sums by split and stays exact.
        member = self.splits[where][None] == np.arange(splits)[:, None]
        return InceptionScore(
            self.splits,
            member.sum(axis=1),
            (member @ p).reshape(splits, classes),
            member @ np.sum(p * log_p, axis=1),
        )

    def merge(self, other: "InceptionScore") -> "InceptionScore":
        """Return the state of both parts together; an empty part changes nothing.

        Raises:
            ValueError: parts are of sets of different sizes or classifiers.
        """
        if self.splits.shape != other.splits.shape or len(self.count) != len(
            other.count
        ):
            raise ValueError(
                f"parts belong to {len(self.splits):,} images in {len(self.count)} "
                f"splits and {len(other.splits):,} in {len(other.count)}: make both "
                "from one InceptionScore.empty"
            )
        if not (self.count.any() and other.count.any()):
            return self if self.count.any() else other
        classes = self.probabilities.shape[1], other.probabilities.shape[1]
        if classes[0] != classes[1]:
            raise ValueError(
                f"parts have {classes[0]:,} and {classes[1]:,} classes: take all "
                "logits from one network"
            )
        return InceptionScore(
            self.splits,
            self.count + other.count,
            self.probabilities + other.probabilities,
            self.negentropy + other.negentropy,
        )

    def compute(self) -> Score:
        """Return mean and population standard deviation over splits.

        Raises:
            ValueError: not every image was taken in, or one came twice.
        """
        images = len(self.splits)
        expected = np.bincount(self.splits, minlength=len(self.count))
        if (self.count != expected).any():
            raise ValueError(
                f"score of the classes of {images:,} images, but {self.count.sum():,} "
                "were taken in: give every index from 0 on exactly once"
            )
        q = self.probabilities / self.count[:, None]
        divergence = self.negentropy / self.count - xlogy(q, q).sum(axis=1)
        scores = np.exp(divergence)
        return Score(
            float(np.mean(scores)),
            float(np.std(scores)),
            len(scores),
            "splits",
            images,
        )

    def notes(self) -> list[str]:
        """Return what a reader must know to make use of the figure."""
        fewest = len(self.splits) // len(self.count)
        classes = self.probabilities.shape[1]
        if fewest >= classes // 2:  # as where 10 splits of 10,000 images are customary
            return []
        return [
            f"score of {classes:,} classes over splits of {fewest:,} images: it is too "
            "small where images are few; compare it only at equal counts"
        ]

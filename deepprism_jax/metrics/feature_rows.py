"""Features of images, a row each: checked, counted, and put in the order of the images.

Feature networks run on devices; their features are few numbers an image, and what is
made of them needs float64, so everything from here on runs on the host, in NumPy.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from deepprism_jax.metrics.state import Mask

Rows = Float[Array | np.ndarray, "b d"]
"""Features of a batch, on the host or on a device."""

Indices = Int[Array | np.ndarray, " b"]
"""Which image of the set a row belongs to, from 0 on."""


def valid_rows(
    features: Rows, mask: Mask | None = None, indices: Indices | None = None
) -> Float[np.ndarray, "n d"]:
    """Return the rows of real images; those where `mask` is False are dropped.

    `indices` serve to name images in the error.

    Raises:
        ValueError: a row has a number that is not finite.
    """
    rows = np.asarray(features)
    where = np.arange(len(rows)) if indices is None else np.asarray(indices)
    if mask is not None:
        rows, where = rows[np.asarray(mask)], where[np.asarray(mask)]
    # The sum of a row is not finite where a number is not, and quicker to look at.
    suspects = np.flatnonzero(~np.isfinite(rows.sum(axis=1, dtype=np.float64)))
    bad = suspects[~np.isfinite(rows[suspects]).all(axis=1)]
    if len(bad):
        of = "row" if indices is None else "image"
        raise ValueError(
            f"{len(bad)} of {len(rows)} images of a batch have features that are NaN "
            f"or infinite, the first is {of} {where[bad[0]]}: look at that image, and "
            "at the weights of the model that made it"
        )
    return rows


class FeatureRows(NamedTuple):
    """Features of a set of images: batches are kept by reference, not copied.

    For what needs all rows together: KID, precision and recall. The indices put rows
    in the order of the images, however batches were dealt out and merged.
    """

    blocks: tuple[np.ndarray, ...] = ()
    """Float32 [n, d], of any numbers of rows."""
    indices: tuple[np.ndarray, ...] = ()
    """The image of every row of every block."""

    @classmethod
    def from_batch(
        cls, features: Rows, indices: Indices, mask: Mask | None = None
    ) -> "FeatureRows":
        """Take in one batch; rows where `mask` is False do not count.

        Raises:
            ValueError: a number is not finite.
        """
        rows = valid_rows(features, mask, indices).astype(np.float32, copy=False)
        where = np.asarray(indices, np.int64)
        return cls((rows,), (where if mask is None else where[np.asarray(mask)],))

    @classmethod
    def from_array(cls, features: Float[np.ndarray, "n d"]) -> "FeatureRows":
        """Take in a whole set that is in order."""
        return cls.from_batch(features, np.arange(len(features)))

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(map(len, self.blocks))

    def merge(self, other: "FeatureRows") -> "FeatureRows":
        """Return the rows of both parts together."""
        return FeatureRows(self.blocks + other.blocks, self.indices + other.indices)

    def compact(self) -> "FeatureRows":
        """Return the same in one block, in order; at once where it is so already.

        Raises:
            ValueError: there is no image, an image came twice, or parts have
                different numbers of features.
        """
        blocks = [block for block in self.blocks if len(block)]
        if not blocks:
            raise ValueError("no features of images: the split or the folder is empty")
        sizes = sorted({block.shape[1] for block in blocks})
        if len(sizes) > 1:
            raise ValueError(
                f"parts of a set have {sizes[0]:,} and {sizes[1]:,} features an image: "
                "take all from one layer of one feature network"
            )
        indices = np.concatenate(self.indices)
        order = np.argsort(indices, kind="stable")
        indices = indices[order]
        twice = indices[1:][np.diff(indices) == 0]
        if len(twice):
            raise ValueError(
                f"the features of image {twice[0]} came twice: give every image an "
                "index of its own"
            )
        if len(blocks) == 1 and (np.diff(order) == 1).all():
            return FeatureRows((blocks[0],), (indices,))
        rows = np.empty((len(order), sizes[0]), np.float32)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        start = 0
        for block in blocks:
            rows[place[start : start + len(block)]] = block
            start += len(block)
        return FeatureRows((rows,), (indices,))

    def array(self) -> Float[np.ndarray, "n d"]:
        """Return all rows in the order of the images; errors are those of `compact`."""
        return self.compact().blocks[0]


def check_same_features(real: int, generated: int) -> None:
    """Refuse to compare features of different kinds.

    Raises:
        ValueError: the numbers of features differ.
    """
    if real != generated:
        raise ValueError(
            f"real images have {real:,} features and generated ones {generated:,}: "
            "take both from one layer of one feature network"
        )


def in_blocks(rows: int, columns: int, values: int) -> Iterator[slice]:
    """Yield slices that cover the rows, each of at most `values` numbers or one row."""
    step = max(1, values // max(1, columns))
    return (slice(i, min(i + step, rows)) for i in range(0, rows, step))

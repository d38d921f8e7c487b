"""Everything random in the data: functions of the seed and a position alone.

Images are drawn from an endless order, one permutation of the source after another.
Philox is counter-based: any block of its stream can be computed at once, so neither
the order nor a crop depends on what was drawn before or on who draws it. Only raw bits
are used, which NumPy keeps from version to version. Grain's own shuffle is not used: it
needs a millisecond an image for a source of a dozen images.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


def image_order(
    seed: int, images: int, start: int, count: int
) -> Int[np.ndarray, " count"]:
    """Return the images at positions `start ... start + count` of the endless order."""
    epochs, places = np.divmod(np.arange(start, start + count), images)
    order = np.empty(count, np.int64)
    for epoch in range(epochs[0], epochs[-1] + 1):
        here = epochs == epoch
        order[here] = _permutation(seed, epoch, images)[places[here]]
    return order


def uniforms(seed: int, start: int, count: int) -> Float[np.ndarray, "count 4"]:
    """Draw four numbers in [0, 1) for each position `start ... start + count`."""
    blocks = np.random.Philox(key=seed, counter=start).random_raw(4 * count)
    return (blocks >> np.uint64(11)).reshape(count, 4) * 2.0**-53


class Share(NamedTuple):
    """The rows of every batch that one of several processes has.

    Args:
        rows: of each piece.
        pieces: of a batch, computed one after the other.
        process_index: which process.
        process_count: how many there are.
    """

    rows: int
    pieces: int = 1
    process_index: int = 0
    process_count: int = 1

    def of_batch(
        self, step: int, *, seed: int, images: int
    ) -> tuple[Int[np.ndarray, " b"], Float[np.ndarray, "b 4"]]:
        """Return the images of these rows of batch `step`, and four numbers for each.

        Rows of all processes together are the same whatever their number.
        """
        firsts = [
            ((step * self.pieces + piece) * self.process_count + self.process_index)
            * self.rows
            for piece in range(self.pieces)
        ]
        order = [image_order(seed, images, first, self.rows) for first in firsts]
        random = [uniforms(seed, first, self.rows) for first in firsts]
        return np.concatenate(order), np.concatenate(random)


@lru_cache(
    maxsize=4
)  # A batch rarely spans more; threads may read two batches at once.
def _permutation(seed: int, epoch: int, images: int) -> Int[np.ndarray, " images"]:
    # The upper half of the key is above 0, so that no stream is shared with `uniforms`.
    key = seed + (epoch + 1 << 64)
    return np.argsort(np.random.Philox(key=key).random_raw(images), kind="stable")
